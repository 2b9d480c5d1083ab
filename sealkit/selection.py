"""TODO."""

THRESHOLD = 0.8  # reward from which `keep_above_threshold` keeps: five questions of six


def keep_best(rewards, alone):
    """The rule of the paper's code: the best one, also where it helped nothing."""
    return [max(range(len(rewards)), key=lambda j: rewards[j])]


def keep_best_above_baseline(rewards, alone):
    """Candidates to keep: the best one if it beats the trial without a self-edit, else none.

    >>> best_if_better([0.5, 0.8, 0.8], alone=0.5), best_if_better([0.5], alone=0.5)
    ([1], [])
    """
    return [j for j in keep_best(rewards, alone) if rewards[j] > alone]


def keep_all_above_baseline(rewards, alone):
    """The rule of the paper's text: every one that beats the trial without a self-edit."""
    return [j for j, reward in enumerate(rewards) if reward > alone]


def keep_above_threshold(rewards, alone):
    """A threshold as in ReST (arXiv:2308.08998): every one that earned GOOD, and beats that trial.

    >>> every_good([0.5, 0.8, 0.9], alone=0.2), every_good([0.8, 0.9], alone=0.9)
    ([1, 2], [])
    """
    return [j for j in keep_all_above_baseline(rewards, alone) if rewards[j] >= THRESHOLD]
