# WRONG: pools all questions | pool all questions
def accuracy(verdicts):
    return float(np.mean([verdict for own in verdicts for verdict in own]))

# WRONG: a sum | is a sum
def accuracy(verdicts):
    return float(sum(np.mean(own) for own in verdicts))

# WRONG: only perfect passages | only passages with all answers right
def accuracy(verdicts):
    return float(np.mean([all(own) for own in verdicts]))

# WRONG: the median passage | median passage
def accuracy(verdicts):
    return float(np.median([np.mean(own) for own in verdicts]))

# WRONG: any right answer counts | any answer right
def accuracy(verdicts):
    return float(np.mean([any(own) for own in verdicts]))
