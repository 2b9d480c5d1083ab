# WRONG: keeps failures | a failure is kept
def select(rewards, passage_only):
    return [(i, own.index(max(own))) for i, own in enumerate(rewards)]

# WRONG: keeps ties | a tie is kept
def select(rewards, passage_only):
    return [(i, own.index(max(own))) for i, own in enumerate(rewards) if max(own) >= passage_only[i]]

# WRONG: keeps all that improve | only the best of each passage
def select(rewards, passage_only):
    return [(i, j) for i, own in enumerate(rewards) for j, reward in enumerate(own) if reward > passage_only[i]]

# WRONG: the last of equals | take the first
def select(rewards, passage_only):
    best = [max(range(len(own)), key=lambda j: (own[j], j)) for own in rewards]
    return [(i, j) for i, j in enumerate(best) if rewards[i][j] > passage_only[i]]

# WRONG: one best for all passages | its own best
def select(rewards, passage_only):
    top = max(max(own) for own in rewards)
    return [(i, own.index(top)) for i, own in enumerate(rewards) if top in own and top > passage_only[i]]

# WRONG: the mean passage-only reward as bar | its own bar
def select(rewards, passage_only):
    bar = sum(passage_only) / len(passage_only)
    return [(i, own.index(max(own))) for i, own in enumerate(rewards) if max(own) > bar]

# WRONG: any reward above 0 | a failure is kept
def select(rewards, passage_only):
    return [(i, own.index(max(own))) for i, own in enumerate(rewards) if max(own) > 0]
