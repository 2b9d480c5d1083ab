# WRONG: not normalised | divide by the sum
def restem_exact(p, q, iterations=1):
    return p * q**iterations

# WRONG: forgets the policy | where you came from
def restem_exact(p, q, iterations=1):
    for _ in range(iterations):
        p = q / q.sum()
    return p

# WRONG: adds | don't add
def restem_exact(p, q, iterations=1):
    for _ in range(iterations):
        p = (p + q) / (p + q).sum()
    return p

# WRONG: always from the first policy | samples from the policy of the first
def restem_exact(p, q, iterations=1):
    for _ in range(iterations):
        new = p * q / (p * q).sum()
    return new

# WRONG: changes its argument | make a new array
def restem_exact(p, q, iterations=1):
    for _ in range(iterations):
        p *= q
        p /= p.sum()
    return p

# WRONG: jumps to the best style | instead of
def restem_exact(p, q, iterations=1):
    return np.eye(len(p))[(p * q).argmax()]
