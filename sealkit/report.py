"""What a run looks like: its log, and its figures, which are drawn on a matplotlib Axes (or a new
one)."""

from collections import defaultdict

import matplotlib.pyplot as plt

BLUE, GRAY = "#2b6cb0", "#a0aec0"


def plot_comparison(comparison, ax=None):
    """Accuracy of each arm of a Comparison in percent, with its 95% interval; arms with self-edits
    of the policy in blue."""
    ax = (
        ax
        or plt.subplots(figsize=(7, 0.45 * len(comparison.scores) + 1.2), layout="constrained")[1]
    )
    for row, arm in enumerate(comparison.scores):
        mean, low, high = (100 * value for value in comparison.accuracy(arm))
        color = BLUE if "before RL" in arm or "iteration" in arm else GRAY
        ax.barh(row, mean, color=color, xerr=[[mean - low], [high - mean]], capsize=3)
        ax.text(min(high, 100) + 1.5, row, f"{mean:.0f}%", va="center")
    ax.set(
        yticks=range(len(comparison.scores)),
        yticklabels=comparison.scores,
        xlim=(0, 112),
        xlabel="accuracy, % of questions (95% interval over passages)",
    )
    ax.invert_yaxis()
    ax.set_title(
        f"{len(next(iter(comparison.scores.values())))} passages the policy was not trained on",
        fontsize="medium",
    )
    return ax


def plot_rewards(history, ax=None):
    """Rewards of all self-edits in each iteration of a History: a dot for each, and their mean."""
    ax = ax or plt.subplots(figsize=(5, 3.5), layout="constrained")[1]
    styles = {False: (-0.12, GRAY, "not kept"), True: (0.12, BLUE, "kept for SFT")}
    for iteration in history.iterations:
        t, mean, shades = iteration.number, 100 * iteration.mean_reward, defaultdict(list)
        for i, group in enumerate(iteration.trials):
            for j, trial in enumerate(group):
                shades[(i, j) in iteration.kept].append(100 * trial.reward)
        for kept, rewards in sorted(shades.items()):
            aside, color, label = styles[kept]
            x = [t + aside + 0.16 * ((n * 0.618) % 1 - 0.5) for n in range(len(rewards))]
            ax.plot(x, rewards, "o", ms=4, alpha=0.6, color=color, label=label if t == 1 else None)
        label = "mean of all" if t == 1 else None
        ax.hlines(mean, t - 0.3, t + 0.3, color="black", label=label)
        ax.text(t + 0.32, mean, f"{mean:.0f}%", va="center")
    numbers = [iteration.number for iteration in history.iterations]
    ax.set(
        xticks=numbers,
        xlim=(0.5, len(numbers) + 0.6),
        ylim=(-4, 104),
        xlabel="iteration",
        ylabel="reward of a self-edit, % of questions",
    )
    ax.legend(fontsize="small", loc="lower right")
    return ax


def story(iteration):
    """The log of an Iteration: rewards of each item, loss and reward of each self-edit, update."""
    count, k = len(iteration.trials), len(iteration.trials[0])
    title = f"--- SEAL iteration {iteration.number} (ReSTEM): {count} passages"
    lines = [f"{title}, {k} self-edits each ---"]
    for i, (name, trials) in enumerate(zip(iteration.names, iteration.trials)):
        before, alone = f"closed book {iteration.before[i]:.0%}", f"{iteration.alone[i]:.0%}"
        lines.append(f"Passage {i + 1}/{count} {excerpt(name)}: {before}, passage only {alone}")
        for j, trial in enumerate(trials):
            said = f"    QLoRA SFT on self-edit {j + 1} {excerpt(trial.self_edit)}: "
            said += trial.reason or f"loss {trial.losses[0]:.2f} → {trial.losses[-1]:.2f}"
            kept = " (kept)" if (i, j) in iteration.kept else ""
            lines.append(f"{said}, reward {trial.reward:.0%}{kept}")
    alone = sum(iteration.alone) / count
    lines.append(f"Mean reward {iteration.mean_reward:.1%}, passage only {alone:.1%}.")
    if iteration.kept:
        kept, losses = len(iteration.kept), iteration.losses
        lines[-1] += f" Policy updated: SFT of its LoRA on {kept} self-edits,"
        lines[-1] += f" loss {losses[0]:.2f} → {losses[-1]:.2f}."
    else:
        lines[-1] += " No self-edit beat the passage alone: policy unchanged."
    return "\n".join([*lines, ""])


def excerpt(text, width=48):
    """The start of a text, quoted, on one line, with control characters escaped: safe to print."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")
