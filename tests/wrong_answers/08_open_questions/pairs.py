# WRONG: ties too | no pair
def preference_pairs(rewards):
    return [(i, r.argmax().item(), r.argmin().item()) for i, r in enumerate(rewards)]

# WRONG: worst first | best comes first
def preference_pairs(rewards):
    rows = [(i, row.tolist()) for i, row in enumerate(rewards) if row.max() > row.min()]
    return [(i, row.index(min(row)), row.index(max(row))) for i, row in rows]

# WRONG: of all items at once | one pair for each item
def preference_pairs(rewards):
    flat = rewards.flatten()
    k = rewards.shape[1]
    return [(0, int(flat.argmax()) % k, int(flat.argmin()) % k)]

# WRONG: the last of equals | of equals the first
def preference_pairs(rewards):
    pairs = []
    for i, row in enumerate(rewards.tolist()):
        if max(row) > min(row):
            best = max(j for j, reward in enumerate(row) if reward == max(row))
            pairs.append((i, best, row.index(min(row))))
    return pairs
