# WRONG: draws each arm by itself | \(paired\)
def interval(a, b, random, draws=5000, level=0.95):
    one, two = (random.integers(0, len(a), (draws, len(a))) for _ in range(2))
    return tuple(np.quantile(a[one].mean(1) - b[two].mean(1), [(1 - level) / 2, (1 + level) / 2]))

# WRONG: spread of single passages | single passages
def interval(a, b, random, draws=5000, level=0.95):
    return tuple(np.quantile((a - b)[random.integers(0, len(a), draws)], [(1 - level) / 2, (1 + level) / 2]))

# WRONG: without replacement | draw with replacement
def interval(a, b, random, draws=5000, level=0.95):
    means = [(a - b)[random.permutation(len(a))].mean() for _ in range(draws)]
    return tuple(np.quantile(np.round(means, 9), [(1 - level) / 2, (1 + level) / 2]))

# WRONG: arm a alone | arm a alone
def interval(a, b, random, draws=5000, level=0.95):
    drawn = random.integers(0, len(a), (draws, len(a)))
    return tuple(np.quantile(a[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2]))

# WRONG: b minus a | b − a
def interval(a, b, random, draws=5000, level=0.95):
    drawn = random.integers(0, len(a), (draws, len(a)))
    return tuple(np.quantile((b - a)[drawn].mean(1), [(1 - level) / 2, (1 + level) / 2]))

# WRONG: quantiles 5% and 95% | 90% interval
def interval(a, b, random, draws=5000, level=0.95):
    drawn = random.integers(0, len(a), (draws, len(a)))
    return tuple(np.quantile((a - b)[drawn].mean(1), [1 - level, level]))

# WRONG: one standard error | too narrow
def interval(a, b, random, draws=5000, level=0.95):
    means = (a - b)[random.integers(0, len(a), (draws, len(a)))].mean(1)
    return means.mean() - means.std(), means.mean() + means.std()

# WRONG: 95% in the code | level=0.8
def interval(a, b, random, draws=5000, level=0.95):
    drawn = random.integers(0, len(a), (draws, len(a)))
    return tuple(np.quantile((a - b)[drawn].mean(1), [0.025, 0.975]))
