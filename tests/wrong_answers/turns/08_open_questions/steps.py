# WRONG: rounded down | round up
def gradient_steps(passages, size, epochs, batch):
    full, rest = divmod(passages, size)
    return epochs * (full * (size // batch) + rest // batch)
