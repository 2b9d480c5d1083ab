# WRONG: changes the list | changed the list `new`
def replay(new, earlier, count, random):
    for j in random.permutation(len(earlier))[:count]:
        new += earlier[j]
    return new

# WRONG: lists in the list | not of lists
def replay(new, earlier, count, random):
    return new + [earlier[j] for j in random.permutation(len(earlier))[:count]]

# WRONG: the old ones first | come first
def replay(new, earlier, count, random):
    return [text for j in random.permutation(len(earlier))[:count] for text in earlier[j]] + new

# WRONG: single texts | whole lessons
def replay(new, earlier, count, random):
    texts = [text for lesson in earlier for text in lesson]
    return new + [texts[j] for j in random.permutation(len(texts))[:count]]

# WRONG: all of them | all lessons are there
def replay(new, earlier, count, random):
    return new + [text for lesson in earlier for text in lesson]

# WRONG: with replacement | without replacement
def replay(new, earlier, count, random):
    drawn = random.integers(0, len(earlier), count) if earlier else []
    return new + [text for j in drawn for text in earlier[j]]

# WRONG: always the last ones | always the same
def replay(new, earlier, count, random):
    return new + [text for lesson in earlier[-count:] for text in lesson]
