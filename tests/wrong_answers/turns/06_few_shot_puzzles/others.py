# WRONG: leaves out all pairs that equal the test | leave out one pair by its place
def each_as_test(pairs):
    return [([other for other in pairs if other != pair], pair) for pair in pairs]
