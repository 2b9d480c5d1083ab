# WRONG: the log ratio | never negative
def kl_estimate(log_probs, reference, mask):
    return (log_probs - reference) * mask

# WRONG: the other way round | the other way round
def kl_estimate(log_probs, reference, mask):
    x = log_probs - reference
    return (x.exp() - x - 1) * mask

# WRONG: one number | an estimate for each token
def kl_estimate(log_probs, reference, mask):
    x = reference - log_probs
    return ((x.exp() - x - 1) * mask).mean()

# WRONG: padding too | padding counts 0
def kl_estimate(log_probs, reference, mask):
    x = reference - log_probs
    return x.exp() - x - 1
