"""Figures of a run, each drawn on a matplotlib Axes (or a new one)."""

from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from io import BytesIO, StringIO
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .evaluation import Comparison
from .outer_loop import History, Iteration

# Okabe and Ito's colours, safe for the colour-blind, and grays that differ from them in lightness.
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#E69F00", "#009E73", "#56B4E9"
RED, PURPLE, GRAY, LIGHT = "#D55E00", "#CC79A7", "#A0A0A0", "#D0D0D0"
PALETTE = BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GRAY
QUESTIONS = {"passages": "questions", "puzzles": "test grids"}
LEVELS = 12  # of reward, at most, that have a bar each


def plot_comparison(
    comparison: Comparison, ax: Axes | None = None, items: str = "passages"
) -> Axes:
    """Accuracy of each arm of a Comparison in percent, with its 95% interval; arms with self-edits
    of the policy in blue."""
    height = 0.45 * len(comparison.scores) + 1.2
    ax = ax or plt.subplots(figsize=(7, height), layout="constrained")[1]
    for row, arm in enumerate(comparison.scores):
        middle, low, high = (100 * value for value in comparison.accuracy(arm))
        by_policy = arm.endswith("before RL") or "iteration" in arm or "self-edit" in arm
        color = BLUE if by_policy else GRAY
        ax.barh(row, middle, color=color, xerr=[[middle - low], [high - middle]], capsize=3)
        ax.text(min(high, 100) + 1.5, row, f"{middle:.0f}%", va="center")
    count = len(next(iter(comparison.scores.values())))
    ax.set(yticks=range(len(comparison.scores)), yticklabels=comparison.scores, xlim=(0, 116))
    ax.set(xlabel=f"accuracy, % of {QUESTIONS.get(items, 'questions')} (95% interval over {items})")
    ax.invert_yaxis()
    noun = items.removesuffix("s" * (count == 1))
    ax.set_title(f"{count} {noun} the policy was not trained on", fontsize="medium")
    return ax


def plot_rewards(history: History, ax: Axes | None = None, items: str = "passages") -> Axes:
    """How many self-edits earned which reward in each iteration of a History, and their mean.

    A bar is as long as there are self-edits of its reward; those kept for SFT are its blue part.
    """
    ax = ax or plt.subplots(figsize=(5, 3.8), layout="constrained")[1]
    counts = [count_rewards(iteration) for iteration in history.iterations]
    levels = sorted({level for count in counts for level, _ in count})
    most = max(count[level, True] + count[level, False] for count in counts for level in levels)
    height = 0.7 * min([b - a for a, b in zip(levels, levels[1:])] + [17])
    for iteration, count in zip(history.iterations, counts):
        left, t = iteration.number - 0.42, iteration.number
        kept, others = ([0.64 * count[level, k] / most for level in levels] for k in (True, False))
        ax.barh(levels, kept, height, left, color=BLUE, label="kept for SFT")
        ax.barh(levels, others, height, [left + w for w in kept], color=LIGHT, label="not kept")
        middle, half = mean_interval(iteration)
        ends = [[min(half, middle)], [min(half, 100 - middle)]]
        line = ax.errorbar(t + 0.41, middle, ends, fmt="D", ms=4, color="black", capsize=3)
        ax.text(t + 0.41, middle + half + 2, f"{middle:.0f}%", ha="center", va="bottom")
    scale = f"iteration (the longest bar: {most} self-edit{'s' * (most != 1)})"
    ax.set(xticks=[i.number for i in history.iterations], xlabel=scale)
    edge = max(6, 0.6 * height)
    ax.set(xlim=(0.5, len(counts) + 0.7), ylim=(-edge, 100 + edge))
    ax.set(ylabel=f"reward of a self-edit, % of {QUESTIONS.get(items, 'questions')}")
    handles = [*ax.containers[:2], line]
    names = "kept for SFT", "not kept", f"mean, 95% interval over {items}"
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "frameon": False}
    ax.legend(handles, names, **below)
    return ax


def count_rewards(iteration: Iteration) -> Counter[tuple[float, bool]]:
    """Counter of (reward in %, whether kept) of an iteration's self-edits; many values in tens."""
    pairs = [
        (100 * trial.reward, (i, j) in iteration.kept)
        for i, trials in enumerate(iteration.trials)
        for j, trial in enumerate(trials)
    ]
    if len({reward for reward, _ in pairs}) > LEVELS:
        pairs = [(10 * round(reward / 10), kept) for reward, kept in pairs]
    return Counter(pairs)


def mean_interval(iteration: Iteration) -> tuple[float, float]:
    """(mean, half-width of its 95% interval over passages) of the rewards, in %."""
    means = [100 * mean(trial.reward for trial in trials) for trials in iteration.trials]
    return mean(means), 1.96 * stdev(means) / sqrt(len(means)) if len(means) > 1 else 0.0


@dataclass(frozen=True)
class FigureWithAltText:
    """A figure as PNG, with a text for those who do not see it; a notebook shows both."""

    png: bytes
    text: str

    def _repr_mimebundle_(
        self, include: object = None, exclude: object = None
    ) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        data = {"image/png": b64encode(self.png).decode("ascii"), "text/plain": self.text}
        return data, {"image/png": {"alt": self.text}}


def describe(figure: Figure | Axes, text: str) -> FigureWithAltText:
    """Close a matplotlib Figure (or that of an Axes) and show it with an alternative text.

    To stand last in a notebook's cell. Raises ValueError for a text too short to say anything.
    """
    if len(text) < 30:
        raise ValueError(f"{text!r} does not tell what the figure shows: say it in a sentence.")
    whole, file = figure.get_figure(root=True), BytesIO()
    assert whole is not None
    whole.savefig(file, format="png", dpi=100, bbox_inches="tight")
    plt.close(whole)
    return FigureWithAltText(file.getvalue(), text)


def draw_run(
    history: History, comparison: Comparison | None, path: Path | StringIO, items: str = "passages"
) -> None:
    """The figure of a run in a file: rewards in training, arms on held-out items if there are.

    path: or an open file. items: what they are called. Lines and letters are black on a transparent
    ground: a page may turn them white.
    """
    widths = [2, 3] if comparison is not None else [2]
    height = max(4.2, 0.25 * len(comparison.scores if comparison else ()))
    figure = plt.figure(figsize=(6 * len(widths) - 2, height), layout="constrained")
    axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
    plot_rewards(history, axes[0], items).set_title(f"training {items}", fontsize="medium")
    if comparison is not None:
        plot_comparison(comparison, axes[1], items)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path | StringIO) -> None:
    """Close a figure and write it to a file: PNG on white; else, also to an open file, SVG."""
    svg = getattr(path, "suffix", ".svg") == ".svg"
    options = {"transparent": True, "metadata": {"Date": None}} if svg else {"dpi": 120}
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sealkit"}):
        kind = "svg" if svg else "png"
        figure.savefig(path, format=kind, bbox_inches="tight", **options)  # nothing is clipped
    plt.close(figure)
