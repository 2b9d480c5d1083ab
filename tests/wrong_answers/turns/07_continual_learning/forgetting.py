# WRONG: counts row 0 as learned | row 0 is from before learning
def forgetting(R):
    return np.mean(np.nanmax(R[:-1, :-1], axis=0) - R[-1, :-1])
