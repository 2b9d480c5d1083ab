"""Rules of selection: (rewards of an item's candidates, reward of training on the item alone) ->
indices of the candidates that the M-step learns from."""

from collections.abc import Sequence

THRESHOLD = 0.8  # reward from which `keep_above_threshold` keeps: five questions of six


def keep_best(rewards: Sequence[float], baseline: float) -> list[int]:
    """The rule of the paper's code: the best candidate, even where it did not help."""
    return [max(range(len(rewards)), key=lambda j: rewards[j])]


def keep_best_above_baseline(rewards: Sequence[float], baseline: float) -> list[int]:
    """The best candidate if it beats training on the item alone, else none.

    >>> keep_best_above_baseline([0.5, 0.8, 0.8], 0.5), keep_best_above_baseline([0.5], 0.5)
    ([1], [])
    """
    return [j for j in keep_best(rewards, baseline) if rewards[j] > baseline]


def keep_all_above_baseline(rewards: Sequence[float], baseline: float) -> list[int]:
    """The rule of the paper's text: all candidates that beat training on the item alone."""
    return [j for j, reward in enumerate(rewards) if reward > baseline]


def keep_above_threshold(rewards: Sequence[float], baseline: float) -> list[int]:
    """A threshold as in ReST (arXiv:2308.08998): all that reach THRESHOLD and beat the baseline.

    >>> keep_above_threshold([0.5, 0.8, 0.9], 0.2), keep_above_threshold([0.8, 0.9], 0.9)
    ([1, 2], [])
    """
    return [j for j in keep_all_above_baseline(rewards, baseline) if rewards[j] >= THRESHOLD]
