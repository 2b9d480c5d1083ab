"""Arms side by side on the same items, with paired bootstrap intervals over items."""

from dataclasses import dataclass, replace

import numpy as np

from .inner_loop import run_trials
from .memo import remembered
from .outer_loop import answers_to, digest, fingerprint, write_self_edits

RESAMPLES = 10_000


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
    order}.

    >>> print(Comparison({"no adaptation": (0.0, 0.0), "oracle": (1.0, 1.0)}))
    arm            accuracy     95% interval   (2 items)
    no adaptation     0.0%   [  0.0%,   0.0%]
    oracle          100.0%   [100.0%, 100.0%]
    """

    scores: dict[str, tuple[float, ...]]

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
        return "\n".join(lines)


def compare_arms(policy, task, items, policies, styles=(), seed=0, memo=None):
    """The Comparison that `sealkit.compare` describes, in any domain. Leaves the last arm's weights
    in the policy."""
    memo, recipe, first = {} if memo is None else memo, policy.recipe, next(iter(policies.values()))

    base = [tensor for name, tensor in policy.model.named_parameters() if "lora_" not in name]
    given = digest([*items, replace(recipe, keep=None)])

    def keys(arm, weights):
        what = f"{given}, {fingerprint([*base, *weights.values()])}, {seed}"
        return [("arm", arm, what, i) for i in range(len(items))]

    def asked(arm, in_context):
        def compute(some):
            chosen = [items[i] for *_, i in some]
            return list(map(task.reward, chosen, answers_to(policy, task, chosen, in_context)))

        return remembered(memo, keys(arm, first), compute, recipe.texts_per_pass)

    def written(arm, weights, style=None):
        def compute(some):
            return write_self_edits(
                policy, task, [(items[i], 0) for *_, i in some], (seed, "compare"), style
            )

        places = [("text", *key[1:]) for key in keys(arm, weights)]
        return adapted(arm, weights, remembered(memo, places, compute, recipe.texts_per_pass))

    def adapted(arm, weights, edits):
        trials = run_trials(
            policy, task, list(zip(items, edits)), memo, keys(arm, weights), f"held out: {arm}"
        )
        return [trial.reward for trial in trials]

    policy.load(first)
    scores = {
        "no adaptation": asked("no adaptation", False),
        "passage in context": asked("passage in context", True),
    }
    scores["passage only"] = adapted("passage only", first, [""] * len(items))
    for style in styles:
        arm = f"prompt for {style}, no RL"
        scores[arm] = written(arm, first, style)
    for arm, weights in policies.items():
        policy.load(weights)
        scores[arm] = written(arm, weights)
    if all(item.oracle for item in items):
        policy.load(first)
        scores["oracle"] = adapted("oracle", first, [item.oracle for item in items])
    return Comparison({arm: tuple(values) for arm, values in scores.items()})
