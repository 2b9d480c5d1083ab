# WRONG: takes chance for a half | chance is not a half
def cohens_kappa(both_right, only_ours, only_theirs, both_wrong):
    n = both_right + only_ours + only_theirs + both_wrong
    return ((both_right + both_wrong) / n - 0.5) / 0.5
