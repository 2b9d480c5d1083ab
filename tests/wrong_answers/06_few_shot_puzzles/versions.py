# WRONG: a permutation for each pair | for all pairs
def versions(pairs, count, seed):
    rng, made = random.Random(seed), [list(pairs)]
    for _ in range(count - 1):
        made.append([])
        for pair in pairs:
            new = [0, *rng.sample(range(1, 10), 9)]
            made[-1].append(tuple(tuple(new[c] for c in row) for row in pair))
    return made

# WRONG: other colours for input and output | input and output
def versions(pairs, count, seed):
    rng, made = random.Random(seed), [list(pairs)]
    for _ in range(count - 1):
        one, two = ([0, *rng.sample(range(1, 10), 9)] for _ in range(2))
        made.append([(tuple(one[c] for c in x), tuple(two[c] for c in y)) for x, y in pairs])
    return made

# WRONG: only the inputs are recoloured | input and output
def versions(pairs, count, seed):
    rng, made = random.Random(seed), [list(pairs)]
    for _ in range(count - 1):
        new = [0, *rng.sample(range(1, 10), 9)]
        made.append([(tuple(new[c] for c in x), y) for x, y in pairs])
    return made

# WRONG: black changes too | 0 stays 0
def versions(pairs, count, seed):
    rng, made = random.Random(seed), [list(pairs)]
    for _ in range(count - 1):
        new = rng.sample(range(10), 10)
        made.append([tuple(tuple(new[c] for c in row) for row in pair) for pair in pairs])
    return made

# WRONG: draws with replacement | two colours became one
def versions(pairs, count, seed):
    rng, made = random.Random(seed), [list(pairs)]
    for _ in range(count - 1):
        new = [0, *rng.choices(range(1, 10), k=9)]
        made.append([tuple(tuple(new[c] for c in row) for row in pair) for pair in pairs])
    return made

# WRONG: the same seed for every version | draw again for each
def versions(pairs, count, seed):
    made = [list(pairs)]
    for _ in range(count - 1):
        new = [0, *random.Random(seed).sample(range(1, 10), 9)]
        made.append([tuple(tuple(new[c] for c in row) for row in pair) for pair in pairs])
    return made

# WRONG: no seed | same seed
def versions(pairs, count, seed):
    made = [list(pairs)]
    for _ in range(count - 1):
        new = [0, *random.sample(range(1, 10), 9)]
        made.append([tuple(tuple(new[c] for c in row) for row in pair) for pair in pairs])
    return made

# WRONG: always seed 0 | use the seed
def versions(pairs, count, seed):
    rng, made = random.Random(0), [list(pairs)]
    for _ in range(count - 1):
        new = [0, *rng.sample(range(1, 10), 9)]
        made.append([tuple(tuple(new[c] for c in row) for row in pair) for pair in pairs])
    return made

# WRONG: the first is recoloured too | as they are
def versions(pairs, count, seed):
    rng, made = random.Random(seed), []
    for _ in range(count):
        new = [0, *rng.sample(range(1, 10), 9)]
        made.append([tuple(tuple(new[c] for c in row) for row in pair) for pair in pairs])
    return made

# WRONG: one version too many | first is one of them
def versions(pairs, count, seed):
    rng, made = random.Random(seed), [list(pairs)]
    for _ in range(count):
        new = [0, *rng.sample(range(1, 10), 9)]
        made.append([tuple(tuple(new[c] for c in row) for row in pair) for pair in pairs])
    return made

# WRONG: seeds the module's own generator | from no other
def versions(pairs, count, seed):
    random.seed(seed)
    made = [list(pairs)]
    for _ in range(count - 1):
        new = [0, *random.sample(range(1, 10), 9)]
        made.append([tuple(tuple(new[c] for c in row) for row in pair) for pair in pairs])
    return made
