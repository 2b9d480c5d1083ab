# WRONG: divides by n for the standard deviation | ddof=1
def over_seeds(gains):
    mean, half = np.mean(gains), 2.776 * np.std(gains) / len(gains) ** 0.5
    return mean, mean - half, mean + half
