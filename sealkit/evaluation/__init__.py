"""Arms side by side on the same items, with paired bootstrap intervals over items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ..inner_loop import Trial, run_trials
from ..outer_loop import answer_exams, write_self_edits
from ..policy import Policy, Weights
from ..runs.cache import Cache, Key, compute_missing
from ..runs.identity import digest, fingerprint
from .together import Together, run_together

if TYPE_CHECKING:
    from ..tasks import Task

Item = TypeVar("Item")
Interval = tuple[float, float, float]  # mean, low, high
RESAMPLES = 10_000
FEW = 10  # items, below which a percentile bootstrap's intervals are too narrow
UNTRAINED = "no adaptation", "passage in context"  # arms


def bootstrap_interval(values: ArrayLike, level: float = 0.95, seed: int = 0) -> Interval:
    """(mean, low, high) of `values`, one for each item, by percentile bootstrap.

    Efron & Tibshirani, An Introduction to the Bootstrap, 1993.

    >>> bootstrap_interval([0.5, 0.5, 0.5])
    (0.5, 0.5, 0.5)
    """
    sample = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
    low, high = np.quantile(sample[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(sample.mean()), float(low), float(high)


def few(count: int, noun: str) -> str:
    """A warning to stand below intervals over fewer than FEW items, else nothing.

    >>> few(2, "stream"), few(16, "stream")
    ('\\nFrom only 2 streams, intervals are too narrow to build on.', '')
    """
    many = f"{count} {noun}{'s' * (count != 1)}"
    warning = f"\nFrom only {many}, intervals are too narrow to build on."
    return warning if count < FEW else ""


@dataclass(frozen=True)
class Comparison:
    """Rewards of every arm on every item: {arm: one share in [0, 1] for each item, in the same
    order}. notes: lines below the table. costs: {arm: (self-edits written, tokens trained on) for
    an item, on average}, of the arms that train.

    >>> scores = {"no adaptation": (0.0, 0.0), "oracle": (1.0, 1.0)}
    >>> print(Comparison(scores, costs={"oracle": (0, 9)}))
    arm            accuracy     95% interval  texts  tokens   (2 items)
    no adaptation     0.0%   [  0.0%,   0.0%]      -       -
    oracle          100.0%   [100.0%, 100.0%]      0       9
    """

    scores: dict[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()
    costs: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def accuracy(self, arm: str) -> Interval:
        """(mean, low, high) of one arm: the mean over items of each item's share of right
        answers."""
        return bootstrap_interval(self.scores[arm])

    def difference(self, arm: str, other: str) -> Interval:
        """(mean, low, high) of arm − other, paired by item."""
        return bootstrap_interval(np.subtract(self.scores[arm], self.scores[other]))

    def __str__(self) -> str:
        width, count = max(map(len, self.scores)), len(next(iter(self.scores.values())))
        head = f"{'arm':<{width}}  accuracy     95% interval"
        head += "  texts  tokens" if self.costs else ""
        items, fits = f"({count} items)", len(head) < 65  # a terminal has 80 columns
        lines = [f"{head}   {items}" if fits else head]
        for arm in self.scores:
            mean, low, high = self.accuracy(arm)
            costs = [f"{cost:.0f}" for cost in self.costs.get(arm, ())] or ["-", "-"]
            row = f"{arm:<{width}}  {mean:7.1%}   [{low:6.1%}, {high:6.1%}]"
            lines.append(row + "{:>7}{:>8}".format(*costs) * bool(self.costs))
        return "\n".join([*lines, *[items] * (not fits), *self.notes])


@dataclass
class Arms(Generic[Item]):
    """Evaluates ways to adapt (arms) on the same items, and collects a row of each.

    All that is written or tried out is cached by the arm's name.
    """

    policy: Policy
    task: Task[Item]
    items: Sequence[Item]
    seed: int
    cache: Cache
    together: Together | None = None  # how many items share an adapter; None: each has its own
    scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    costs: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def comparison(self) -> Comparison:
        """The rows so far."""
        notes = (str(self.together),) if self.together else ()
        return Comparison(dict(self.scores), notes, dict(self.costs))

    def keys(self, arm: str) -> list[Key]:
        """The key of each item: it changes with the arm, the items, the config and all weights."""
        model = self.policy.model
        config = replace(self.policy.config, keep=None)  # type: ignore[arg-type]
        base = [tensor for name, tensor in model.named_parameters() if "lora_" not in name]
        weights = fingerprint([*base, *self.policy.weights().values()])
        inputs = f"{digest([*self.items, config])}, {weights}, {self.seed}"
        return [("arm", arm, inputs, i) for i in range(len(self.items))]

    def write(
        self, arm: str, style: str | None = None, k: int = 1, greedy: bool = False
    ) -> list[list[str]]:
        """k self-edits of the policy for each item: samples, or its greedy text."""

        def compute(keys: list[Key]) -> list[str]:
            requests = [(self.items[i], j) for *_, i, j in keys]
            seed = None if greedy else (self.seed, "compare")
            return write_self_edits(self.policy, self.task, requests, seed, style)

        keys: list[Key] = [("text", *key[1:], j) for key in self.keys(arm) for j in range(k)]
        width = self.policy.config.texts_per_pass
        edits = compute_missing(self.cache, keys, compute, width, f"held out: {arm}, self-edits")
        return [edits[n : n + k] for n in range(0, len(edits), k)]

    def evaluate(self, arm: str, edits: Sequence[str], title: str | None = None) -> list[Trial]:
        """Training on given self-edits. title: of the progress bar, instead of the arm's."""
        pairs, title = list(zip(self.items, edits, strict=True)), title or f"held out: {arm}"
        if not self.together:
            return run_trials(self.policy, self.task, pairs, self.cache, self.keys(arm), title)
        keys = [(*key[:2], f"{key[2]}, {self.together!r}", key[3]) for key in self.keys(arm)]
        return run_together(self.policy, self.task, pairs, self.together, self.cache, keys, title)

    def add_untrained(self, arm: str, in_context: bool) -> None:
        """A row: the policy's own answers, without training."""

        def compute(keys: list[Key]) -> list[float]:
            batch = [self.items[i] for *_, i in keys]
            answers = answer_exams(self.policy, self.task, batch, in_context)
            return [self.task.reward(*pair, self.policy.config) for pair in zip(batch, answers)]

        width = self.policy.config.texts_per_pass
        rewards = compute_missing(self.cache, self.keys(arm), compute, width, f"held out: {arm}")
        self.scores[arm] = tuple(rewards)

    def add_sampled(self, arm: str, style: str | None = None, greedy: bool = False) -> None:
        """A row: training on one self-edit that the policy writes."""
        self.add(arm, [edit for (edit,) in self.write(arm, style, greedy=greedy)])

    def add(self, arm: str, edits: Sequence[str], written: int = 1) -> None:
        """A row: training on these self-edits, for each of which so many were written."""
        trials = self.evaluate(arm, edits)
        self.scores[arm] = tuple(trial.reward for trial in trials)
        self.costs[arm] = written, sum(trial.tokens for trial in trials) / len(trials)


def compare_arms(
    policy: Policy,
    task: Task[Item],
    items: Sequence[Item],
    policies: Mapping[str, Weights],
    styles: Sequence[str] = (),
    seed: int = 0,
    cache: Cache | None = None,
) -> Arms[Item]:
    """The arms that `sealkit.compare` describes, in any domain.

    Leaves the first policy's weights in the policy.
    """
    arms = Arms(policy, task, items, seed, {} if cache is None else cache)
    add_arms(arms, policies, styles)
    return arms


def add_arms(arms: Arms[Item], policies: Mapping[str, Weights], styles: Sequence[str] = ()) -> None:
    """Add the rows of `compare_arms` to arms on some items. Leaves the first policy's weights."""
    policy, items, first = arms.policy, arms.items, next(iter(policies.values()))
    policy.load(first)
    for arm in UNTRAINED:
        arms.add_untrained(arm, in_context=arm != "no adaptation")
    arms.add("passage only", [""] * len(items), written=0)
    for style in styles:
        arms.add_sampled(f"prompt for {style}, no RL", style)
    for arm, weights in policies.items():
        policy.load(weights)
        arms.add_sampled(arm)
    policy.load(first)
    if all(oracles := [getattr(item, "oracle", "") for item in items]):
        arms.add("oracle", oracles, written=0)
