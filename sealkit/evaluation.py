"""Arms side by side on the same passages, with paired bootstrap intervals over passages."""

from dataclasses import asdict, dataclass

import numpy as np
from peft import set_peft_model_state_dict

from .exam import accuracy, answer_questions
from .inner_loop import attach_policy, run_trials, settings_for
from .outer_loop import digest, policy_tensors
from .prompts import prompts_for
from .runs import fingerprint, read_results, write
from .self_edits import generate_self_edits

RESAMPLES = 10_000


def bootstrap_interval(values, level=0.95, seed=0):
    """(mean, low, high) of `values` (one for each passage): percentile bootstrap over passages, Efron & Tibshirani 1993."""
    values = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(values.mean()), float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Accuracy of every arm on every passage: {arm: one share in [0, 1] for each passage, in the same order}."""

    scores: dict[str, tuple[float, ...]]

    def accuracy(self, arm):
        """(mean, low, high) of one arm: the mean over passages of each passage's share of right answers."""
        return bootstrap_interval(self.scores[arm])

    def difference(self, arm, other):
        """(mean, low, high) of arm − other, paired by passage."""
        return bootstrap_interval(np.subtract(self.scores[arm], self.scores[other]))

    def __str__(self):
        width = max(map(len, self.scores))
        lines = [f"{'arm':<{width}}  accuracy     95% interval   ({len(next(iter(self.scores.values())))} passages)"]
        for arm in self.scores:
            mean, low, high = self.accuracy(arm)
            lines.append(f"{arm:<{width}}  {mean:7.1%}   [{low:6.1%}, {high:6.1%}]")
        return "\n".join(lines)


def compare(model, tokenizer, passages, policies=None, settings=None, seed=0, styles=(), progress=None, save_to=None):
    """Closed-book accuracy of each way to adapt, on the same passages.

    policies: {name: LoRA tensors}, for example {"self-edits before RL": history.start, "after iteration 1": ...}; each
        writes one self-edit a passage and is adapted on it. None: the model's own policy, as "self-edits before RL".
    styles: also the first policy asked for self-edits of these single styles (`prompts_for(tokenizer).styles`).
    settings: of the inner loop; None for `settings_for(tokenizer)`.
    save_to: a JSON file that receives each arm's scores as it ends; with it the same call goes on where it stopped.
    The arms without self-edits start from the first policy; the oracle's self-edits are the passages' own
    (`Passage.oracle`), where all have one. Every arm has the same inner loop. Returns a Comparison.
    Raises ValueError for an unknown style, `runs.RunError` if save_to holds another comparison or cannot be written.
    """
    known = prompts_for(tokenizer).styles
    if unknown := set(styles) - set(known):
        raise ValueError(f"No self-edit style {sorted(unknown)[0]!r}: use {', '.join(known)}.")
    settings = settings or settings_for(tokenizer)
    policy = attach_policy(model, settings, seed)
    own = policy_tensors(policy)
    policies = policies or {"self-edits before RL": own}
    passages, first = list(passages), next(iter(policies.values()))

    def adapted(name, edits):
        trials = run_trials(policy, tokenizer, list(zip(passages, edits)), settings, progress and f"{progress}: {name}")
        return tuple(trial.reward for trial in trials)

    def written(style=None):
        return [edits[0] for edits in generate_self_edits(policy, tokenizer, passages, 1, (seed, "compare"), style)]

    def answered(in_context):
        return tuple(map(accuracy, answer_questions(policy, tokenizer, passages, in_context), passages))

    arms = {"no adaptation": (first, lambda name: answered(False)), "passage in context": (first, lambda name: answered(True)),
            "passage only": (first, lambda name: adapted(name, [""] * len(passages)))}
    arms |= {f"prompt for {style}, no RL": (first, lambda name, style=style: adapted(name, written(style))) for style in styles}
    arms |= {name: (tensors, lambda name: adapted(name, written())) for name, tensors in policies.items()}
    if all(passage.oracle for passage in passages):
        arms["oracle"] = first, lambda name: adapted(name, [passage.oracle for passage in passages])
    identity = {"seed": seed, "passages": digest(passages), "inner_loop": asdict(settings),
                "policies": {name: fingerprint(tensors.values()) for name, tensors in policies.items()}}
    scores = read_results(save_to, identity) if save_to else {}
    try:
        for name, (tensors, arm) in arms.items():
            if name not in scores:
                set_peft_model_state_dict(policy, tensors)
                scores[name] = arm(name)
                if save_to:
                    write(save_to, {"settings": identity, "accuracy": scores})
    finally:
        set_peft_model_state_dict(policy, own)
    return Comparison({name: tuple(scores[name]) for name in arms})
