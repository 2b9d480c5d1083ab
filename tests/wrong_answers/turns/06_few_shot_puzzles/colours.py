# WRONG: looks at each row alone | look across rows
def is_of_colours(pairs):
    return all(len(set(zip(x, y))) == len(set(x)) for x, y in pairs)
