"""A run in rows: one line for each iteration."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from ..outer_loop import Iteration
from ..tasks import Domain, knowledge

COLUMNS = 80  # of a terminal


def plural(count: int, noun: str) -> str:
    """A number of things.

    >>> plural(1, "passage"), plural(2, "passage")
    ('1 passage', '2 passages')
    """
    return f"{count} {noun}{'s' * (count != 1)}"


def format_header(styles: Sequence[str] = (), item: str = "passage") -> str:
    """The line above the rows, with a column for the share of each style."""
    names = "".join(f" {style[:4]:>4}" for style in styles)
    return f"iter  reward{f'{item} only':>14}     kept          loss  seconds{names}"


def format_row(
    iteration: Iteration, seconds: float | None = None, styles: Mapping[str, int] | None = None
) -> str:
    """An Iteration in one line of at most COLUMNS: its rewards, M-step and styles.

    seconds: how long it took. styles: {style: number of self-edits}. A second line counts the
    trials whose texts were cut, if any were.
    """
    count = sum(map(len, iteration.trials))
    item_only, kept = mean(iteration.item_only_rewards), f"{len(iteration.kept)}/{count}"
    losses = [f"{loss:.2f}" for loss in (iteration.losses[:1] + iteration.losses[-1:])]
    shares = "".join(f" {n / count:4.0%}" for n in (styles or {}).values())
    time = "" if seconds is None else f"{seconds:.0f}"
    rewards = f"{iteration.number:4} {iteration.mean_reward:7.1%} {item_only:13.1%} {kept:>8}"
    row = f"{rewards} {' → '.join(losses) or 'unchanged':>13} {time:>8}{shares}"
    if cut := [trial.cut for trials in iteration.trials for trial in trials if trial.cut]:
        row += (
            f"\n     ({len(cut)} of {count} trials cut at max_tokens, {sum(cut)} tokens left out)"
        )
    return row


def count_styles(
    iteration: Iteration, items: Sequence[Any], task: Domain[Any] = knowledge
) -> dict[str, int]:
    """{kind: number of an iteration's self-edits}, for each of the task's KINDS."""
    counts = Counter(
        "invalid" if trial.reason else task.style(item, trial.self_edit)
        for item, trials in zip(items, iteration.trials)
        for trial in trials
    )
    return {kind: counts[kind] for kind in task.KINDS}
