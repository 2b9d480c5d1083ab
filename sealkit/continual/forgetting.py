"""What is forgotten over a stream: the matrix of accuracies, its summary, table and figure."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np

from ..evaluation import bootstrap_interval


@dataclass(frozen=True)
class Forgetting:
    """What the learners of each remedy know, and what it cost: {remedy: a dict for each stream}.

    A dict has "accuracy", rows of shares in [0, 1]: row i, column j is the accuracy on item j after
    i items are learned (row 0: never adapted), None where it was not examined. "routed": share of
    questions that their item's own adapter answers at the end (None without a bank). "steps",
    "tokens", "seconds" of the processor, "bytes" of adapters kept. Methods with (mean, low, high):
    95% bootstrap over streams.

    >>> row = {"accuracy": [[0.0, 0.0], [0.8, 0.1], [0.4, 0.6]], "routed": None}
    >>> row |= {"steps": 10, "tokens": 900, "seconds": 1.0, "bytes": 2048}
    >>> one = Forgetting({"none": [row]})
    >>> one.end("none"), round(one.kept("none"), 2)
    ((0.5, 0.5, 0.5), 0.71)
    >>> one.backward_transfer("none")
    (-0.4, -0.4, -0.4)
    """

    rows: dict[str, list[dict]]

    def matrix(self, remedy):
        """Accuracy (streams, items + 1, items)."""
        return np.array([row["accuracy"] for row in self.rows[remedy]], dtype=float)

    def control(self):
        """Mean over all items without any adaptation: (mean, low, high)."""
        return bootstrap_interval(self.matrix(next(iter(self.rows)))[:, 0].mean(1))

    def end(self, remedy, minus=None):
        """Mean over all items at the end, or that minus another remedy's: (mean, low, high)."""
        return bootstrap_interval(self.ends(remedy) - (self.ends(minus) if minus else 0))

    def ends(self, remedy):
        """Mean over all items at the end, of each stream: (streams,)."""
        return self.matrix(remedy)[:, -1].mean(1)

    def learned(self, remedy):
        """Accuracy on each item when it was just learned: (streams, items)."""
        return np.diagonal(self.matrix(remedy)[:, 1:], axis1=1, axis2=2)

    def kept(self, remedy):
        """Mean at the end as a share of the mean just learned."""
        return float(self.matrix(remedy)[:, -1].mean() / self.learned(remedy).mean())

    def backward_transfer(self, remedy):
        """Mean of R(N, i) − R(i, i) over the items but the last (arXiv:1706.08840)."""
        return bootstrap_interval(self.transfers(remedy))

    def transfers(self, remedy):
        """Backward transfer of each stream: (streams,)."""
        return (self.matrix(remedy)[:, -1] - self.learned(remedy))[:, :-1].mean(1)

    def best(self):
        """The remedy with one adapter that knows most at the end."""
        single = [remedy for remedy in self.rows if self.cost(remedy, "bytes") == 1]
        return max(single, key=lambda remedy: self.ends(remedy).mean())

    def cost(self, remedy, what):
        """Mean of "steps", "tokens", "seconds" or "bytes", as a ratio to the first remedy's."""
        first = next(iter(self.rows))
        ours, theirs = (np.mean([row[what] for row in self.rows[one]]) for one in (remedy, first))
        return float(ours / theirs)

    def __str__(self):
        width = max(13, *map(len, self.rows))
        lines = [f"{'':<{width}} {'at the end, %':19} just kept backward transfer"]
        lines.append(f"{'never adapted':<{width}} {format_interval(self.control())}")
        for remedy in self.rows:
            shares = f"{self.learned(remedy).mean():4.0%} {self.kept(remedy):4.0%}"
            ends = (
                format_interval(self.end(remedy)),
                shares,
                format_interval(self.backward_transfer(remedy), "+"),
            )
            lines.append(" ".join([f"{remedy:<{width}}", *ends]))
        lines.append(f"{'':<{width}}" + "".join(f"{what:>8}" for what in (*COSTS, "routed")))
        for remedy, rows in self.rows.items():
            line = f"{remedy:<{width}}"
            line += "".join(f"{self.cost(remedy, what):8.2f}" for what in COSTS)
            routed = [row["routed"] for row in rows if row["routed"] is not None]
            lines.append(line + (f"{np.mean(routed):8.0%}" if routed else ""))
        first, best = next(iter(self.rows)), self.best()
        gain, low, high = (100 * value for value in self.end(best, minus=first))
        said = f"{best} − {first}: {gain:+.1f} points, 95% interval [{low:+.1f}, {high:+.1f}]"
        return "\n".join([*lines, NOTE, *([said] if best != first else [])])


COSTS = "steps", "tokens", "seconds", "bytes"
NOTE = "(95% bootstrap intervals over streams. Costs are ratios to the first row.)"


def format_interval(values, sign=""):
    """Mean, low and high of shares as points: "17.4 [14.1, 20.5]"."""
    mean, low, high = (100 * value for value in values)
    return f"{mean:{sign}5.1f} [{low:{sign}5.1f}, {high:{sign}5.1f}]"


def plot_forgetting(forgetting, remedies=None):
    """A heat map of each remedy's matrix, mean over streams, in percent: a matplotlib Figure.

    What it shows in words, for those who cannot see it, is `alt_text`.
    """
    remedies = list(remedies or forgetting.rows)
    width = 0.36 * forgetting.matrix(remedies[0]).shape[2] + 0.3
    size = (width * len(remedies) + 0.9, width + 0.5)
    figure, axes = plt.subplots(1, len(remedies), figsize=size, layout="constrained", squeeze=False)
    for ax, remedy in zip(axes[0], remedies):
        image = heat_map(100 * forgetting.matrix(remedy).mean(0), ax)
        ax.set_title(remedy, fontsize="medium")
    axes[0, 0].set_ylabel("passages learned so far")
    figure.colorbar(image, ax=axes[0].tolist(), label="accuracy, % of questions", shrink=0.8)
    return figure


def heat_map(percent, ax):
    """One matrix (items + 1, items): framed what was just learned, gray what was not examined.

    In cividis, which reads alike with any colour vision.
    """
    image = ax.imshow(percent, cmap="cividis", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        if np.isfinite(value):
            color = "white" if value < 50 else "#1c1c1c"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
            if row == column + 1:  # just learned
                ax.add_patch(plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec="white"))
    ticks = range(percent.shape[1])
    ax.set(xticks=ticks, xticklabels=[n + 1 for n in ticks], yticks=range(len(percent)))
    ax.set(xlabel="examined on passage", facecolor="#cccccc")
    return image


def alt_text(forgetting, remedies=None):
    """The text that stands for `plot_forgetting`'s figure: str, a sentence for each remedy.

    >>> row = {"accuracy": [[0.0, 0.0], [0.8, 0.1], [0.4, 0.6]], "routed": None}
    >>> alt_text(Forgetting({"none": [row]}))
    'Accuracy never adapted: 0%. none: 70% just learned, 50% at the end, 40% on the first passage.'
    """
    parts = [f"Accuracy never adapted: {forgetting.control()[0]:.0%}."]
    for remedy in remedies or forgetting.rows:
        just, end = forgetting.learned(remedy).mean(), forgetting.matrix(remedy)[:, -1]
        said = f"{just:.0%} just learned, {end.mean():.0%} at the end"
        parts.append(f"{remedy}: {said}, {end[:, 0].mean():.0%} on the first passage.")
    return " ".join(parts)
