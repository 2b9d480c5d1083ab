"""The figures of a run: functions that draw on a matplotlib Axes (or a new one) and return it."""

import json
from collections import defaultdict

import matplotlib.pyplot as plt

from .loading import BUNDLED_MODEL

BLUE, GRAY = "#2b6cb0", "#a0aec0"


def plot_comparison(comparison, ax=None):
    """Accuracy of each arm of a Comparison in percent, with its 95% interval; arms with self-edits of the policy in blue."""
    ax = ax or plt.subplots(figsize=(7, 0.45 * len(comparison.scores) + 1.2), layout="constrained")[1]
    for row, arm in enumerate(comparison.scores):
        mean, low, high = (100 * value for value in comparison.accuracy(arm))
        color = BLUE if "before RL" in arm or "iteration" in arm else GRAY
        ax.barh(row, mean, color=color, xerr=[[mean - low], [high - mean]], capsize=3)
        ax.text(min(high, 100) + 1.5, row, f"{mean:.0f}%", va="center")
    ax.set(yticks=range(len(comparison.scores)), yticklabels=comparison.scores, xlim=(0, 112), xlabel="accuracy, % of questions (95% interval over passages)")
    ax.invert_yaxis()
    ax.set_title(f"{len(next(iter(comparison.scores.values())))} passages the policy was not trained on", fontsize="medium")
    return ax


def plot_rewards(history, ax=None):
    """Rewards of all self-edits in each iteration of a History: a dot for each, kept ones in blue, and their mean."""
    ax = ax or plt.subplots(figsize=(5, 3.5), layout="constrained")[1]
    for iteration in history.iterations:
        shades = defaultdict(list)
        for i, group in enumerate(iteration.trials):
            for j, trial in enumerate(group):
                shades[(i, j) in iteration.kept].append(100 * trial.reward)
        for kept, rewards in sorted(shades.items()):
            spread = [iteration.number + (0.12 if kept else -0.12) + 0.16 * ((n * 0.618) % 1 - 0.5) for n in range(len(rewards))]
            ax.plot(spread, rewards, "o", ms=4, alpha=0.6, color=BLUE if kept else GRAY,
                    label=("kept for SFT" if kept else "not kept") if iteration.number == 1 else None)
        mean = 100 * iteration.mean_reward
        ax.hlines(mean, iteration.number - 0.3, iteration.number + 0.3, color="black", label="mean of all" if iteration.number == 1 else None)
        ax.text(iteration.number + 0.32, mean, f"{mean:.0f}%", va="center")
    numbers = [iteration.number for iteration in history.iterations]
    ax.set(xticks=numbers, xlim=(0.5, len(numbers) + 0.6), ylim=(-4, 104), xlabel="iteration", ylabel="reward of a self-edit, % of questions")
    ax.legend(fontsize="small", loc="lower right")
    return ax


def plot_pretraining(path=BUNDLED_MODEL / "pretraining.jsonl", ax=None):
    """How the bundled model learned, from its log: share of tokens guessed right by kind of document, against tokens seen."""
    ax = ax or plt.subplots(figsize=(7, 4), layout="constrained")[1]
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    for kind in ("pairs", "topics", "notes", "reading", "reading alike", "known question", "implications", "questions", "rewrite", "gist"):
        points = [(row["tokens"] / 1e6, 100 * row[kind]["accuracy"]) for row in rows if kind in row]
        if points:
            ax.plot(*zip(*points), label=kind)
    ax.set(xlabel="tokens seen, millions", ylabel="next token right, %", ylim=(0, 102))
    ax.legend(fontsize="small", ncols=2)
    return ax
