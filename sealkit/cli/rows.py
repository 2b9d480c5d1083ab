"""TODO."""

from collections import Counter
from statistics import mean

from ..tasks import knowledge

COLUMNS = 80  # of a terminal


def format_header(styles=(), item="passage"):
    """The line above `row`s: with a column for the share of each style."""
    names = "".join(f" {style[:4]:>4}" for style in styles)
    return f"iter  reward{f'{item} only':>14}     kept          loss  seconds{names}"


def format_row(iteration, seconds=None, styles=None):
    """An Iteration in one line of at most COLUMNS: its rewards, M-step and styles.

    seconds: that it took. styles: {style: number of self-edits}.
    """
    tried = sum(map(len, iteration.trials))
    alone, kept = mean(iteration.item_only_rewards), f"{len(iteration.kept)}/{tried}"
    losses = [f"{loss:.2f}" for loss in (iteration.losses[:1] + iteration.losses[-1:])]
    shares = "".join(f" {count / tried:4.0%}" for count in (styles or {}).values())
    spent = "" if seconds is None else f"{seconds:.0f}"
    said = f"{iteration.number:4} {iteration.mean_reward:7.1%} {alone:13.1%} {kept:>8}"
    return f"{said} {' → '.join(losses) or 'unchanged':>13} {spent:>8}{shares}"


def count_styles(iteration, items, task=knowledge):
    """{kind: number of an iteration's self-edits}, of the task's KINDS."""
    found = Counter(
        "invalid" if trial.reason else task.style(item, trial.self_edit)
        for item, own in zip(items, iteration.trials)
        for trial in own
    )
    return {kind: found[kind] for kind in task.KINDS}
