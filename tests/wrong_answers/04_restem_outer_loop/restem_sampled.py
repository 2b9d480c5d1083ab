# WRONG: divides by all samples | among the kept
def restem_sampled(p, q, n, iterations, random):
    for _ in range(iterations):
        styles = random.choice(len(p), size=n, p=p / p.sum())
        kept = styles[random.random(n) < q[styles]]
        p = np.bincount(kept, minlength=len(p)) / n
    return p

# WRONG: keeps failures | failures are kept too
def restem_sampled(p, q, n, iterations, random):
    for _ in range(iterations):
        styles = random.choice(len(p), size=n, p=p)
        p = np.bincount(styles, minlength=len(p)) / n
    return p

# WRONG: keeps the failures instead | successes thrown away
def restem_sampled(p, q, n, iterations, random):
    for _ in range(iterations):
        styles = random.choice(len(p), size=n, p=p)
        kept = styles[random.random(n) > q[styles]]
        p = np.bincount(kept, minlength=len(p)) / len(kept)
    return p

# WRONG: draws styles evenly | probabilities p
def restem_sampled(p, q, n, iterations, random):
    for _ in range(iterations):
        styles = random.integers(len(p), size=n)
        kept = styles[random.random(n) < q[styles]]
        p = np.bincount(kept, minlength=len(p)) / len(kept)
    return p

# WRONG: samples from the first policy each time | sample from the newest
def restem_sampled(p, q, n, iterations, random):
    new = p
    for _ in range(iterations):
        styles = random.choice(len(p), size=n, p=p)
        kept = styles[random.random(n) < q[styles]]
        if len(kept):
            new = np.bincount(kept, minlength=len(p)) / len(kept)
    return new

# WRONG: divides by zero when nothing is kept | nothing was kept
def restem_sampled(p, q, n, iterations, random):
    first = p
    for _ in range(iterations):
        styles = random.choice(len(p), size=n, p=np.nan_to_num(p) if p[0] == p[0] else first)
        kept = styles[random.random(n) < q[styles]]
        p = np.bincount(kept, minlength=len(p)) / np.float64(len(kept))
    return p

# WRONG: loses a style that was never kept | three styles stay three
def restem_sampled(p, q, n, iterations, random):
    for _ in range(iterations):
        styles = random.choice(len(p), size=n, p=p)
        kept = styles[random.random(n) < q[styles]]
        if len(kept):
            p = np.bincount(kept) / len(kept)
    return p
