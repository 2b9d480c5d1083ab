# WRONG: a mean of ratios | ratio of means
def worth(R):
    return float((R[-1] / np.diagonal(R[1:])).mean()), float(R[-1].mean() - R[0].mean())

# WRONG: without the last passage | includes the last
def worth(R):
    learned = np.diagonal(R[1:])
    return float(R[-1][:-1].mean() / learned[:-1].mean()), float(R[-1].mean() - R[0].mean())

# WRONG: the gain when just learned | not when just learned
def worth(R):
    learned = np.diagonal(R[1:]).mean()
    return float(R[-1].mean() / learned), float(learned - R[0].mean())

# WRONG: the first passage as the control | on all passages
def worth(R):
    return float(R[-1].mean() / np.diagonal(R[1:]).mean()), float(R[-1].mean() - R[0, 0])

# WRONG: control minus end | the sign
def worth(R):
    return float(R[-1].mean() / np.diagonal(R[1:]).mean()), float(R[0].mean() - R[-1].mean())
