# WRONG: row j instead of j + 1 | row j \+ 1
def backward_transfer(R):
    return float((R[-1] - np.diagonal(R))[:-1].mean())

# WRONG: just learned minus end | the sign
def backward_transfer(R):
    return float((np.diagonal(R[1:]) - R[-1])[:-1].mean())

# WRONG: with the last passage | leave it out
def backward_transfer(R):
    return float((R[-1] - np.diagonal(R[1:])).mean())

# WRONG: against row 0 | gain over row 0
def backward_transfer(R):
    return float((R[-1] - R[0])[:-1].mean())

# WRONG: the sum | the mean is wanted
def backward_transfer(R):
    return float((R[-1] - np.diagonal(R[1:]))[:-1].sum())
