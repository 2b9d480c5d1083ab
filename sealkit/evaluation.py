"""Arms side by side on the same items, with paired bootstrap intervals over items."""

from dataclasses import dataclass, replace

import numpy as np

from .inner_loop import run_trials
from .outer_loop import answer_exams, write_self_edits
from .policy import Policy
from .runs.cache import compute_missing
from .runs.identity import digest, fingerprint

RESAMPLES = 10_000


ASKED = "no adaptation", "passage in context"


def bootstrap_interval(values, level=0.95, seed=0):
    """(mean, low, high) of `values`, one for each item: percentile bootstrap (Efron & Tibshirani
    1993).

    >>> bootstrap_interval([0.5, 0.5, 0.5])
    (0.5, 0.5, 0.5)
    """
    values = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


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

    def accuracy(self, arm):
        """(mean, low, high) of one arm: the mean over items of each item's share of right
        answers."""
        return bootstrap_interval(self.scores[arm])

    def difference(self, arm, other):
        """(mean, low, high) of arm − other, paired by item."""
        return bootstrap_interval(np.subtract(self.scores[arm], self.scores[other]))

    def __str__(self):
        width, count = max(map(len, self.scores)), len(next(iter(self.scores.values())))
        lines = [f"{'arm':<{width}}  accuracy     95% interval   ({count} items)"]
        for arm in self.scores:
            mean, low, high = self.accuracy(arm)
            lines.append(f"{arm:<{width}}  {mean:7.1%}   [{low:6.1%}, {high:6.1%}]")
        return "\n".join([*lines, *self.notes])


@dataclass(frozen=True)
class Arms:
    """Ways to adapt a policy to the same items: a reward for every item each, noted."""

    policy: Policy
    task: object
    items: list
    seed: int
    cache: dict

    def keys(self, arm):
        """The key of each item: it changes with the arm, the items, the config and all weights."""
        model, config = self.policy.model, replace(self.policy.config, keep=None)
        base = [tensor for name, tensor in model.named_parameters() if "lora_" not in name]
        weights = fingerprint([*base, *self.policy.weights().values()])
        what = f"{digest([*self.items, config])}, {weights}, {self.seed}"
        return [("arm", arm, what, i) for i in range(len(self.items))]

    def evaluate_without_training(self, arm, in_context):
        """The policy's own answers, without training."""

        def compute(keys):
            some = [self.items[i] for *_, i in keys]
            answers = answer_exams(self.policy, self.task, some, in_context)
            return list(map(self.task.reward, some, answers))

        width = self.policy.config.texts_per_pass
        return compute_missing(self.cache, self.keys(arm), compute, width, f"held out: {arm}")

    def evaluate_sampled(self, arm, style=None):
        """Training on a self-edit that the policy writes."""

        def compute(keys):
            wanted, seed = [(self.items[i], 0) for *_, i in keys], (self.seed, "compare")
            return write_self_edits(self.policy, self.task, wanted, seed, style)

        places = [("text", *key[1:]) for key in self.keys(arm)]
        width = self.policy.config.texts_per_pass
        edits = compute_missing(self.cache, places, compute, width, f"held out: {arm}, self-edits")
        return self.evaluate_given(arm, edits)

    def evaluate_given(self, arm, edits):
        """Training on given self-edits."""
        pairs, title = list(zip(self.items, edits, strict=True)), f"held out: {arm}"
        trials = run_trials(self.policy, self.task, pairs, self.cache, self.keys(arm), title)
        return [trial.reward for trial in trials]


def compare_arms(policy, task, items, policies, styles=(), seed=0, cache=None):
    """The Comparison that `sealkit.compare` describes, in any domain.

    Leaves the last arm's weights in the policy.
    """
    arms = Arms(policy, task, items, seed, {} if cache is None else cache)
    first = next(iter(policies.values()))
    policy.load(first)
    scores = {arm: arms.evaluate_without_training(arm, arm != "no adaptation") for arm in ASKED}
    scores["passage only"] = arms.evaluate_given("passage only", [""] * len(items))
    for style in styles:
        arm = f"prompt for {style}, no RL"
        scores[arm] = arms.evaluate_sampled(arm, style)
    for arm, weights in policies.items():
        policy.load(weights)
        scores[arm] = arms.evaluate_sampled(arm)
    if all(item.oracle for item in items):
        policy.load(first)
        scores["oracle"] = arms.evaluate_given("oracle", [item.oracle for item in items])
    return Comparison({arm: tuple(values) for arm, values in scores.items()})
