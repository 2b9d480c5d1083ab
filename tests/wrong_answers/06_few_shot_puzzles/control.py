# WRONG: the best fixed recipe in hindsight | in hindsight
def control(train, test, seal):
    fixed = test[:, test.mean(axis=0).argmax()]
    return fixed.mean(), test.max(axis=1).mean(), bootstrap_interval(seal - fixed)

# WRONG: the recipe that wins most often | wins most often
def control(train, test, seal):
    fixed = test[:, np.bincount(train.argmax(axis=1)).argmax()]
    return fixed.mean(), test.max(axis=1).mean(), bootstrap_interval(seal - fixed)

# WRONG: its mean on training puzzles | report on test
def control(train, test, seal):
    fixed = test[:, train.mean(axis=0).argmax()]
    return train.mean(axis=0).max(), test.max(axis=1).mean(), bootstrap_interval(seal - fixed)

# WRONG: the oracle takes one recipe for all | best for each puzzle
def control(train, test, seal):
    fixed = test[:, train.mean(axis=0).argmax()]
    return fixed.mean(), test.mean(axis=0).max(), bootstrap_interval(seal - fixed)

# WRONG: the oracle of the training puzzles | oracle of the training puzzles
def control(train, test, seal):
    fixed = test[:, train.mean(axis=0).argmax()]
    return fixed.mean(), train.max(axis=1).mean(), bootstrap_interval(seal - fixed)

# WRONG: SEAL against the oracle | SEAL − oracle
def control(train, test, seal):
    fixed, best = test[:, train.mean(axis=0).argmax()], test.max(axis=1)
    return fixed.mean(), best.mean(), bootstrap_interval(seal - best)

# WRONG: fixed minus SEAL | the sign
def control(train, test, seal):
    fixed = test[:, train.mean(axis=0).argmax()]
    return fixed.mean(), test.max(axis=1).mean(), bootstrap_interval(fixed - seal)

# WRONG: not paired | too wide
def control(train, test, seal):
    fixed = test[:, train.mean(axis=0).argmax()]
    (a, low, high), (b, least, most) = bootstrap_interval(seal), bootstrap_interval(fixed)
    return fixed.mean(), test.max(axis=1).mean(), (a - b, low - most, high - least)

# WRONG: the interval of SEAL alone, moved | too wide
def control(train, test, seal):
    fixed = test[:, train.mean(axis=0).argmax()]
    gap = tuple(x - fixed.mean() for x in bootstrap_interval(seal))
    return fixed.mean(), test.max(axis=1).mean(), gap

# WRONG: one standard error | too narrow
def control(train, test, seal):
    fixed = test[:, train.mean(axis=0).argmax()]
    gap = seal - fixed
    error = gap.std() / len(gap) ** 0.5
    return fixed.mean(), test.max(axis=1).mean(), (gap.mean(), gap.mean() - error, gap.mean() + error)

# WRONG: the last of equals | the first, not
def control(train, test, seal):
    means = train.mean(axis=0)
    fixed = test[:, np.flatnonzero(means == means.max())[-1]]
    return fixed.mean(), test.max(axis=1).mean(), bootstrap_interval(seal - fixed)
