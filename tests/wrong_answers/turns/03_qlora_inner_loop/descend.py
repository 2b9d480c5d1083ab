# WRONG: never forgets a gradient | zero_grad before each backward
def descend(optimizer, backward, steps):
    losses = []
    for _ in range(steps):
        losses.append(backward())
        optimizer.step()
    return losses
