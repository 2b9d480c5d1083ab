# WRONG: forgets to square | square the ratio
def passages_needed(spread, half_width):
    return int(np.ceil(1.96 * spread / half_width))

# WRONG: rounds down | round up
def passages_needed(spread, half_width):
    return int((1.96 * spread / half_width) ** 2)

# WRONG: rounds to the nearest | round up
def passages_needed(spread, half_width):
    return round((1.96 * spread / half_width) ** 2)

# WRONG: no 1.96 | 1.96 is missing
def passages_needed(spread, half_width):
    return int(np.ceil((spread / half_width) ** 2))

# WRONG: takes half of the half-width | no factor of 2
def passages_needed(spread, half_width):
    return int(np.ceil((1.96 * spread / (half_width / 2)) ** 2))

# WRONG: takes it for the full width | no factor of 2
def passages_needed(spread, half_width):
    return int(np.ceil((1.96 * spread / (2 * half_width)) ** 2))

# WRONG: one too many | the smallest is wanted|instead of
def passages_needed(spread, half_width):
    return int((1.96 * spread / half_width) ** 2) + 2
