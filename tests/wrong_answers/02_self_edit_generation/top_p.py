# WRONG: drops the token that crosses p | it is kept
def top_p(logits, p, temperature=1.0):
    probabilities = (logits / temperature).softmax(0)
    ordered, order = probabilities.sort(descending=True)
    kept = ordered.where(ordered.cumsum(0) <= p, 0)
    probabilities = torch.zeros_like(probabilities).scatter(0, order, kept)
    return probabilities / probabilities.sum()

# WRONG: does not renormalise | divide by its sum
def top_p(logits, p, temperature=1.0):
    ordered, order = (logits / temperature).softmax(0).sort(descending=True)
    return torch.zeros_like(ordered).scatter(0, order, ordered.where(ordered.cumsum(0) - ordered < p, 0))

# WRONG: leaves them sorted | still sorted
def top_p(logits, p, temperature=1.0):
    ordered, order = (logits / temperature).softmax(0).sort(descending=True)
    kept = ordered.where(ordered.cumsum(0) - ordered < p, 0)
    return kept / kept.sum()

# WRONG: ascending order | descending
def top_p(logits, p, temperature=1.0):
    ordered, order = (logits / temperature).softmax(0).sort()
    kept = ordered.where(ordered.cumsum(0) - ordered < p, 0)
    kept = torch.zeros_like(kept).scatter(0, order, kept)
    return kept / kept.sum()

# WRONG: multiplies by the temperature | don't multiply
def top_p(logits, p, temperature=1.0):
    probabilities = (logits * temperature).softmax(0)
    ordered, order = probabilities.sort(descending=True)
    kept = torch.zeros_like(probabilities).scatter(0, order, ordered.where(ordered.cumsum(0) - ordered < p, 0))
    return kept / kept.sum()

# WRONG: ignores the temperature | temperature is ignored
def top_p(logits, p, temperature=1.0):
    ordered, order = logits.softmax(0).sort(descending=True)
    kept = torch.zeros_like(ordered).scatter(0, order, ordered.where(ordered.cumsum(0) - ordered < p, 0))
    return kept / kept.sum()

# WRONG: temperature after the choice | temperature comes first
def top_p(logits, p, temperature=1.0):
    ordered, order = logits.softmax(0).sort(descending=True)
    chosen = torch.full_like(logits, -torch.inf)
    chosen[order[ordered.cumsum(0) - ordered < p]] = logits[order[ordered.cumsum(0) - ordered < p]]
    return (chosen / temperature).softmax(0)
