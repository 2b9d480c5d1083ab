# WRONG: not negated | the negative
def clipped_loss(log_probs, old, mask, advantage, epsilon=0.2):
    ratio, gain = (log_probs - old).exp(), advantage[:, None]
    least = torch.minimum(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    return (least * mask).sum(1) / mask.sum(1)

# WRONG: padding in the mean | padding counts
def clipped_loss(log_probs, old, mask, advantage, epsilon=0.2):
    ratio, gain = (log_probs - old).exp(), advantage[:, None]
    least = torch.minimum(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    return -least.mean(1)

# WRONG: no minimum | the minimum is missing
def clipped_loss(log_probs, old, mask, advantage, epsilon=0.2):
    ratio = (log_probs - old).exp().clamp(1 - epsilon, 1 + epsilon)
    return -(ratio * advantage[:, None] * mask).sum(1) / mask.sum(1)

# WRONG: no clipping | nothing is clipped
def clipped_loss(log_probs, old, mask, advantage, epsilon=0.2):
    ratio = (log_probs - old).exp()
    return -(ratio * advantage[:, None] * mask).sum(1) / mask.sum(1)

# WRONG: the maximum | the larger of the two
def clipped_loss(log_probs, old, mask, advantage, epsilon=0.2):
    ratio, gain = (log_probs - old).exp(), advantage[:, None]
    most = torch.maximum(ratio * gain, ratio.clamp(1 - epsilon, 1 + epsilon) * gain)
    return -(most * mask).sum(1) / mask.sum(1)
