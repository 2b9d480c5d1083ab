# WRONG: the sign | sign of the margin
def dpo_loss(better, worse, ref_better, ref_worse, beta=0.1):
    return -logsigmoid(beta * ((worse - ref_worse) - (better - ref_better)))

# WRONG: no reference | a ratio to it is missing
def dpo_loss(better, worse, ref_better, ref_worse, beta=0.1):
    return -logsigmoid(beta * (better - worse))

# WRONG: no beta | beta is missing
def dpo_loss(better, worse, ref_better, ref_worse, beta=0.1):
    return -logsigmoid((better - ref_better) - (worse - ref_worse))

# WRONG: the mean | not their mean
def dpo_loss(better, worse, ref_better, ref_worse, beta=0.1):
    return -logsigmoid(beta * ((better - ref_better) - (worse - ref_worse))).mean()

# WRONG: overflows | logsigmoid, not log
def dpo_loss(better, worse, ref_better, ref_worse, beta=0.1):
    margin = beta * ((better - ref_better) - (worse - ref_worse))
    return -torch.log(torch.sigmoid(margin))
