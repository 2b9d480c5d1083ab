"""Arms side by side on the same items, with paired bootstrap intervals over items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from .inner_loop import run_trials
from .outer_loop import answer_exams, write_self_edits
from .policy import Policy, Weights
from .runs.cache import Cache, Key, compute_missing
from .runs.identity import digest, fingerprint

if TYPE_CHECKING:
    from .tasks import Task

Item = TypeVar("Item")
Interval = tuple[float, float, float]  # mean, low, high
RESAMPLES = 10_000
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


@dataclass(frozen=True)
class Comparison:
    """Rewards of every arm on every item: {arm: one share in [0, 1] for each item, in the same
    order}. notes: lines below the table.

    >>> print(Comparison({"no adaptation": (0.0, 0.0), "oracle": (1.0, 1.0)}))
    arm            accuracy     95% interval   (2 items)
    no adaptation     0.0%   [  0.0%,   0.0%]
    oracle          100.0%   [100.0%, 100.0%]
    """

    scores: dict[str, tuple[float, ...]]
    notes: tuple[str, ...] = ()

    def accuracy(self, arm: str) -> Interval:
        """(mean, low, high) of one arm: the mean over items of each item's share of right
        answers."""
        return bootstrap_interval(self.scores[arm])

    def difference(self, arm: str, other: str) -> Interval:
        """(mean, low, high) of arm − other, paired by item."""
        return bootstrap_interval(np.subtract(self.scores[arm], self.scores[other]))

    def __str__(self) -> str:
        width, count = max(map(len, self.scores)), len(next(iter(self.scores.values())))
        lines = [f"{'arm':<{width}}  accuracy     95% interval   ({count} items)"]
        for arm in self.scores:
            mean, low, high = self.accuracy(arm)
            lines.append(f"{arm:<{width}}  {mean:7.1%}   [{low:6.1%}, {high:6.1%}]")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class Arms(Generic[Item]):
    """Evaluates adaptation methods (arms) on the same items and caches each reward.

    Each method returns a reward in [0, 1] for each item, and is cached by the arm's name.
    """

    policy: Policy
    task: Task[Item]
    items: Sequence[Item]
    seed: int
    cache: Cache

    def keys(self, arm: str) -> list[Key]:
        """The key of each item: it changes with the arm, the items, the config and all weights."""
        model = self.policy.model
        config = replace(self.policy.config, keep=None)  # type: ignore[arg-type]
        base = [tensor for name, tensor in model.named_parameters() if "lora_" not in name]
        weights = fingerprint([*base, *self.policy.weights().values()])
        inputs = f"{digest([*self.items, config])}, {weights}, {self.seed}"
        return [("arm", arm, inputs, i) for i in range(len(self.items))]

    def evaluate_without_training(self, arm: str, in_context: bool) -> list[float]:
        """The policy's own answers, without training."""

        def compute(keys: list[Key]) -> list[float]:
            batch = [self.items[i] for *_, i in keys]
            answers = answer_exams(self.policy, self.task, batch, in_context)
            return [self.task.reward(*pair, self.policy.config) for pair in zip(batch, answers)]

        width = self.policy.config.texts_per_pass
        return compute_missing(self.cache, self.keys(arm), compute, width, f"held out: {arm}")

    def evaluate_sampled(self, arm: str, style: str | None = None) -> list[float]:
        """Training on a self-edit that the policy samples."""

        def compute(keys: list[Key]) -> list[str]:
            requests, seed = [(self.items[i], 0) for *_, i in keys], (self.seed, "compare")
            return write_self_edits(self.policy, self.task, requests, seed, style)

        keys: list[Key] = [("text", *key[1:]) for key in self.keys(arm)]
        width = self.policy.config.texts_per_pass
        edits = compute_missing(self.cache, keys, compute, width, f"held out: {arm}, self-edits")
        return self.evaluate_given(arm, edits)

    def evaluate_given(self, arm: str, edits: Sequence[str]) -> list[float]:
        """Training on given self-edits."""
        pairs, title = list(zip(self.items, edits, strict=True)), f"held out: {arm}"
        trials = run_trials(self.policy, self.task, pairs, self.cache, self.keys(arm), title)
        return [trial.reward for trial in trials]


def compare_arms(
    policy: Policy,
    task: Task[Item],
    items: Sequence[Item],
    policies: Mapping[str, Weights],
    styles: Sequence[str] = (),
    seed: int = 0,
    cache: Cache | None = None,
) -> Comparison:
    """The Comparison that `sealkit.compare` describes, in any domain.

    Leaves the last arm's weights in the policy.
    """
    arms = Arms(policy, task, items, seed, {} if cache is None else cache)
    first = next(iter(policies.values()))
    policy.load(first)
    scores = {arm: arms.evaluate_without_training(arm, arm != "no adaptation") for arm in UNTRAINED}
    scores["passage only"] = arms.evaluate_given("passage only", [""] * len(items))
    for style in styles:
        arm = f"prompt for {style}, no RL"
        scores[arm] = arms.evaluate_sampled(arm, style)
    for arm, weights in policies.items():
        policy.load(weights)
        scores[arm] = arms.evaluate_sampled(arm)
    oracles = [getattr(item, "oracle", "") for item in items]
    if all(oracles):
        policy.load(first)
        scores["oracle"] = arms.evaluate_given("oracle", oracles)
    return Comparison({arm: tuple(values) for arm, values in scores.items()})
