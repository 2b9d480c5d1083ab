# WRONG: forgets the scales of the scales | scales of the scales are missing
def bits_per_weight(block, double=True):
    return 4 + (8 if double else 32) / block
