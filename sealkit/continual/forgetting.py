"""What is forgotten over a stream: the matrix of accuracies, its summary, table and figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np

from ..evaluation import Interval, bootstrap_interval, few

if TYPE_CHECKING:  # matplotlib is imported by the functions that draw: the loops do without it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Cost = Literal["steps", "tokens", "seconds", "bytes"]
COSTS: tuple[Cost, ...] = ("steps", "tokens", "seconds", "bytes")
NOTE = "(95% bootstrap intervals over streams. Costs are ratios to the first row.)"


class Spent(TypedDict):
    """What training one stream has cost: gradient steps, tokens trained on, processor seconds."""

    steps: int
    tokens: int
    seconds: float


class Row(Spent):
    """The result of one remedy on one stream.

    accuracy: (items + 1, items), shares in [0, 1]. Row i, column j is the accuracy on item j after
    i items are learned (row 0: never adapted), None where it was not examined. routed: share of
    questions that the adapter of their own item answers at the end; None without a bank. bytes: of
    the adapters kept.
    """

    accuracy: list[list[float | None]]
    routed: float | None
    bytes: int


@dataclass(frozen=True)
class Forgetting:
    """What the learners of each remedy know, and what it cost: {remedy: a Row for each stream}.

    An Interval is (mean, low, high): 95% bootstrap over streams.

    >>> row = {"accuracy": [[0.0, 0.0], [0.8, 0.1], [0.4, 0.6]], "routed": None}
    >>> row |= {"steps": 10, "tokens": 900, "seconds": 1.0, "bytes": 2048}
    >>> one = Forgetting({"none": [row]})
    >>> one.end("none"), round(one.kept("none"), 2)
    ((0.5, 0.5, 0.5), 0.71)
    >>> one.backward_transfer("none")
    (-0.4, -0.4, -0.4)
    """

    rows: dict[str, list[Row]]

    def matrix(self, remedy: str) -> np.ndarray:
        """Accuracy (streams, items + 1, items)."""
        return np.array([row["accuracy"] for row in self.rows[remedy]], dtype=float)

    def learned(self, remedy: str) -> np.ndarray:
        """Accuracy on each item when it was just learned: (streams, items)."""
        return np.diagonal(self.matrix(remedy)[:, 1:], axis1=1, axis2=2)

    def control(self) -> Interval:
        """Mean over all items without any adaptation."""
        return bootstrap_interval(self.matrix(next(iter(self.rows)))[:, 0].mean(1))

    def end(self, remedy: str, minus: str | None = None) -> Interval:
        """Mean over all items at the end, or that minus another remedy's, paired by stream."""

        def mean(remedy: str) -> np.ndarray:  # (streams,)
            return self.matrix(remedy)[:, -1].mean(1)

        return bootstrap_interval(list(mean(remedy) - (mean(minus) if minus else 0)))

    def kept(self, remedy: str) -> float:
        """Mean at the end as a share of the mean just learned."""
        return float(self.matrix(remedy)[:, -1].mean() / self.learned(remedy).mean())

    def backward_transfer(self, remedy: str, minus: str | None = None) -> Interval:
        """Mean of R(N, i) − R(i, i) over the items but the last (arXiv:1706.08840), or that minus
        another remedy's, paired by stream."""

        def transfer(remedy: str) -> np.ndarray:  # (streams,)
            return (self.matrix(remedy)[:, -1] - self.learned(remedy))[:, :-1].mean(1)

        return bootstrap_interval(list(transfer(remedy) - (transfer(minus) if minus else 0)))

    def best(self) -> str:
        """The remedy with one adapter that has the highest mean at the end."""
        single = [remedy for remedy in self.rows if self.cost(remedy, "bytes") == 1]
        return max(single, key=lambda remedy: self.end(remedy)[0])

    def cost(self, remedy: str, kind: Cost) -> float:
        """Mean cost over streams, as a ratio to the first remedy's."""
        first = next(iter(self.rows))
        cost, reference = (
            np.mean([row[kind] for row in self.rows[name]]) for name in (remedy, first)
        )
        return float(cost / reference)

    def __str__(self) -> str:
        # 1. accuracies
        width = max(13, *map(len, self.rows))
        lines = [*self.head(width), *(self.format_row(remedy, width) for remedy in self.rows)]

        # 2. costs
        lines.append(f"{'':<{width}}" + "".join(f"{kind:>8}" for kind in (*COSTS, "routed")))
        for remedy, rows in self.rows.items():
            costs = "".join(f"{self.cost(remedy, kind):8.2f}" for kind in COSTS)
            routed = [row["routed"] for row in rows if row["routed"] is not None]
            share = f"{np.mean(routed):8.0%}" if routed else ""
            lines.append(f"{remedy:<{width}}{costs}{share}")
        lines.append(NOTE)

        # 3. the gain of the best remedy
        first, best = next(iter(self.rows)), self.best()
        if best != first:
            gain, low, high = (100 * value for value in self.end(best, minus=first))
            interval = f"95% interval [{low:+.1f}, {high:+.1f}]"
            lines.append(f"{best} − {first}: {gain:+.1f} points, {interval}")
        return "\n".join(lines) + few(len(self.rows[first]), "stream")

    def head(self, width: int) -> list[str]:
        """Two lines: the head of the table of accuracies, and the row of the control."""
        head = f"{'':<{width}} {'at the end, %':19} just kept backward transfer"
        return [head, f"{'never adapted':<{width}} {format_interval(self.control())}"]

    def format_row(self, remedy: str, width: int) -> str:
        """The accuracies of a remedy in a line; its name takes `width` columns."""
        end = format_interval(self.end(remedy))
        shares = f"{self.learned(remedy).mean():4.0%} {self.kept(remedy):4.0%}"
        transfer = format_interval(self.backward_transfer(remedy), "+")
        return f"{remedy:<{width}} {end} {shares} {transfer}"


def format_interval(interval: Interval, sign: str = "") -> str:
    """Mean, low and high of shares as points: "17.4 [14.1, 20.5]"."""
    mean, low, high = (100 * value for value in interval)
    return f"{mean:{sign}5.1f} [{low:{sign}5.1f}, {high:{sign}5.1f}]"


def plot_forgetting(forgetting: Forgetting, remedies: Sequence[str] | None = None) -> Figure:
    """A heat map of each remedy's matrix, mean over streams, in percent.

    `alt_text` describes it in words for readers who cannot see it.
    """
    import matplotlib.pyplot as plt

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


def heat_map(percent: np.ndarray, ax: Axes) -> AxesImage:
    """Draw one matrix (items + 1, items): cells just learned are framed, those not examined gray.

    The colour map is cividis, which looks the same with any colour vision.
    """
    from matplotlib.patches import Rectangle

    image = ax.imshow(percent, cmap="cividis", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(percent):
        if np.isfinite(value):
            color = "white" if value < 50 else "#1c1c1c"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
            if row == column + 1:  # just learned
                ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec="white"))
    ticks = range(percent.shape[1])
    ax.set(xticks=ticks, xticklabels=[n + 1 for n in ticks], yticks=range(len(percent)))
    ax.set(xlabel="examined on passage", facecolor="#cccccc")
    return image


def alt_text(forgetting: Forgetting, remedies: Sequence[str] | None = None) -> str:
    """The alternative text of `plot_forgetting`'s figure, a sentence for each remedy.

    >>> row = {"accuracy": [[0.0, 0.0], [0.8, 0.1], [0.4, 0.6]], "routed": None}
    >>> alt_text(Forgetting({"none": [row]}))
    'Accuracy never adapted: 0%. none: 70% just learned, 50% at the end, 40% on the first passage.'
    """
    sentences = [f"Accuracy never adapted: {forgetting.control()[0]:.0%}."]
    for remedy in remedies or forgetting.rows:
        learned, end = forgetting.learned(remedy).mean(), forgetting.matrix(remedy)[:, -1]
        shares = f"{learned:.0%} just learned, {end.mean():.0%} at the end"
        sentences.append(f"{remedy}: {shares}, {end[:, 0].mean():.0%} on the first passage.")
    return " ".join(sentences)
