"""What a run looks like: its log, its rows, and its figures, which are drawn on a matplotlib Axes
(or a new one)."""

from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from math import sqrt
from statistics import mean, stdev

import matplotlib.pyplot as plt

# Okabe and Ito's colours, which the colour-blind can tell apart, also on a dark ground; and grays
# that differ from them in lightness.
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#E69F00", "#009E73", "#56B4E9"


RED, PURPLE, GRAY, LIGHT = "#D55E00", "#CC79A7", "#A0A0A0", "#D0D0D0"


PALETTE = BLUE, ORANGE, GREEN, RED, SKY, PURPLE, GRAY


QUESTIONS = {"passages": "questions", "puzzles": "test grids"}


LEVELS = 12  # of reward that are drawn each by itself


def plot_comparison(comparison, ax=None, items="passages"):
    """Accuracy of each arm of a Comparison in percent, with its 95% interval; arms with self-edits
    of the policy in blue."""
    height = 0.45 * len(comparison.scores) + 1.2
    ax = ax or plt.subplots(figsize=(7, height), layout="constrained")[1]
    for row, arm in enumerate(comparison.scores):
        middle, low, high = (100 * value for value in comparison.accuracy(arm))
        own = any(word in arm for word in ("before RL", "iteration", "self-edit"))
        color = BLUE if own else GRAY
        ax.barh(row, middle, color=color, xerr=[[middle - low], [high - middle]], capsize=3)
        ax.text(min(high, 100) + 1.5, row, f"{middle:.0f}%", va="center")
    count = len(next(iter(comparison.scores.values())))
    ax.set(yticks=range(len(comparison.scores)), yticklabels=comparison.scores, xlim=(0, 116))
    ax.set(xlabel=f"accuracy, % of {QUESTIONS.get(items, 'questions')} (95% interval over {items})")
    ax.invert_yaxis()
    ax.set_title(f"{count} {items} the policy was not trained on", fontsize="medium")
    return ax


def plot_rewards(history, ax=None, items="passages"):
    """How many self-edits earned which reward in each iteration of a History, and their mean.

    A bar is as long as there are self-edits of its reward; those kept for SFT are its blue part.
    """
    ax = ax or plt.subplots(figsize=(5, 3.8), layout="constrained")[1]
    counts = [count_rewards(iteration) for iteration in history.iterations]
    levels = sorted({level for one in counts for level, _ in one})
    most = max(sum(one[level, kept] for kept in (0, 1)) for one in counts for level in levels)
    height = 0.7 * min([b - a for a, b in zip(levels, levels[1:])] + [17])
    for iteration, one in zip(history.iterations, counts):
        left, t = iteration.number - 0.42, iteration.number
        kept, others = ([0.72 * one[level, k] / most for level in levels] for k in (1, 0))
        ax.barh(levels, kept, height, left, color=BLUE, label="kept for SFT")
        ax.barh(levels, others, height, [left + w for w in kept], color=LIGHT, label="not kept")
        middle, half = mean_interval(iteration)
        ends = [[min(half, middle)], [min(half, 100 - middle)]]
        line = ax.errorbar(t + 0.41, middle, ends, fmt="D", ms=4, color="black", capsize=3)
        ax.text(t + 0.41, middle + half + 2, f"{middle:.0f}%", ha="center", va="bottom")
    ax.set(xticks=[i.number for i in history.iterations], xlabel="iteration")
    edge = max(6, 0.6 * height)
    ax.set(xlim=(0.5, len(counts) + 0.7), ylim=(-edge, 100 + edge))
    ax.set(ylabel=f"reward of a self-edit, % of {QUESTIONS.get(items, 'questions')}")
    handles = [*ax.containers[:2], line]
    names = "kept for SFT", "not kept", f"mean, 95% interval over {items}"
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "frameon": False}
    ax.legend(handles, names, **below)
    return ax


def count_rewards(iteration):
    """Counter of (reward in %, whether kept) of an iteration's self-edits; many values in tens."""
    pairs = [
        (100 * trial.reward, (i, j) in iteration.kept)
        for i, own in enumerate(iteration.trials)
        for j, trial in enumerate(own)
    ]
    if len({reward for reward, _ in pairs}) > LEVELS:
        pairs = [(10 * round(reward / 10), kept) for reward, kept in pairs]
    return Counter(pairs)


def mean_interval(iteration):
    """(mean, half-width of its 95% interval over passages) of the rewards, in %."""
    means = [100 * mean(trial.reward for trial in own) for own in iteration.trials]
    return mean(means), 1.96 * stdev(means) / sqrt(len(means)) if len(means) > 1 else 0.0


@dataclass(frozen=True)
class FigureWithAltText:
    """A figure as PNG, with a text for those who do not see it; a notebook shows both."""

    png: bytes
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None):
        data = {"image/png": b64encode(self.png).decode("ascii"), "text/plain": self.text}
        return data, {"image/png": {"alt": self.text}}


def describe(figure, text):
    """Close a matplotlib Figure (or that of an Axes) and show it with an alternative text.

    To stand last in a notebook's cell. Raises ValueError for a text too short to tell anything.
    """
    if len(text) < 30:
        raise ValueError(f"{text!r} does not tell what the figure shows: say it in a sentence.")
    figure, file = getattr(figure, "figure", figure), BytesIO()
    figure.savefig(file, format="png", dpi=100, bbox_inches="tight")
    plt.close(figure)
    return FigureWithAltText(file.getvalue(), text)


def draw_run(history, comparison, path, items="passages"):
    """The figure of a run in a file: rewards in training, arms on held-out items if there are.

    path: or an open file. items: what they are called. Black lines and letters, on no ground: a
    page may turn them white.
    """
    width = (2, 3)[: 1 + (comparison is not None)]
    figure = plt.figure(figsize=(4 + 6 * (len(width) - 1), 4.2), layout="constrained")
    axes = figure.subplots(1, len(width), width_ratios=width, squeeze=False)[0]
    plot_rewards(history, axes[0], items).set_title(f"training {items}", fontsize="medium")
    if comparison is not None:
        plot_comparison(comparison, axes[1], items)
    save_figure(figure, path)


def save_figure(figure, path):
    """Close a figure and write it to a file: PNG on white; else, also to an open file, SVG."""
    svg = getattr(path, "suffix", ".svg") == ".svg"
    how = {"transparent": True, "metadata": {"Date": None}} if svg else {"dpi": 120}
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sealkit"}):
        figure.savefig(path, format="svg" if svg else "png", **how)
    plt.close(figure)
