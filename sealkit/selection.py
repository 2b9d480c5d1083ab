"""Rules of selection: (rewards of an item's candidates, reward of training on the item alone) ->
indices of the candidates that the M-step learns from."""

from collections.abc import Sequence

THRESHOLD = 0.75  # reward from which `keep_best_above_threshold` keeps: three questions of four


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


def keep_best_above_threshold(rewards: Sequence[float], baseline: float) -> list[int]:
    """The best candidate and all that equal it, if they earn THRESHOLD and beat the baseline.

    A threshold as in ReST (arXiv:2308.08998).

    >>> keep_best_above_threshold([0.5, 1.0, 0.75, 1.0], 0.25)
    [1, 3]
    >>> keep_best_above_threshold([0.5, 0.5], 0.25), keep_best_above_threshold([1.0], 1.0)
    ([], [])
    """
    best = max(rewards)
    helped = best >= THRESHOLD and best > baseline
    return [j for j, reward in enumerate(rewards) if helped and reward == best]
