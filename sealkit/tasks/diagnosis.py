"""What a model must be able to do before SEAL can help it: read, learn, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from ..evaluation import UNTRAINED, Comparison, Interval
from ..inner_loop import run_trials
from ..outer_loop import answer_exams, write_self_edits
from ..policy import Policy
from . import knowledge
from .passages import Passage

CLOSED, OPEN = UNTRAINED
ALONE, LINES, BEST, MEAN = "passage only", "exam lines", "best of {}", "mean of {}"  # arms


@dataclass(frozen=True)
class Diagnosis:
    """What was measured, before any RL, on some passages.

    comparison: of the arms no adaptation, passage in context, passage only, exam lines (the exam's
    own questions and answers as a self-edit), the best of k self-edits, which is chosen after the
    fact, and their mean, which luck does not raise. supported: of the statements of these
    self-edits, the share that the passage supports, see `knowledge.is_supported`; statements: how
    many there are.

    >>> scores = {CLOSED: (0.0, 0.2), OPEN: (0.8, 1.0), ALONE: (0.2, 0.2), LINES: (1.0, 0.8)}
    >>> scores |= {"best of 5": (0.4, 0.2), "mean of 5": (0.2, 0.1)}
    >>> round(Diagnosis(Comparison(scores), 5, 0.9, 40).learns[0], 2)
    0.7
    """

    comparison: Comparison
    k: int
    supported: float
    statements: int

    @property
    def reads(self) -> Interval:
        """How much the passage in view adds to accuracy: (mean, low, high)."""
        return self.comparison.difference(OPEN, CLOSED)

    @property
    def learns(self) -> Interval:
        """How much the exam's own lines add to training on the passage alone."""
        return self.comparison.difference(LINES, ALONE)

    @property
    def writes(self) -> Interval:
        """How much the best of k self-edits adds to training on the passage alone."""
        return self.comparison.difference(BEST.format(self.k), ALONE)

    @property
    def writes_on_average(self) -> Interval:
        """How much self-edits add that nothing has selected."""
        return self.comparison.difference(MEAN.format(self.k), ALONE)

    def __str__(self) -> str:
        scores = self.comparison.scores
        accuracy = {arm: f"{arm} {self.comparison.accuracy(arm)[0]:.0%}" for arm in scores}
        rows = [("reads?", self.reads, OPEN, CLOSED), ("learns?", self.learns, LINES, ALONE)]
        rows += [("writes?", self.writes, BEST.format(self.k), ALONE)]
        rows += [("", self.writes_on_average, MEAN.format(self.k), ALONE)]
        lines = [f"Before RL, on {len(scores[CLOSED])} passages (differences in points):"]
        for what, (middle, low, high), arm, other in rows:
            points = f"{100 * middle:+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"
            figures = f"{accuracy[arm]}, {accuracy[other]}"
            verdict = "yes" if low > 0 else "no" if high < 0 else "unclear"
            lines.append(f"  {what:<8}{figures:<43} {points:<18}{verdict}")
        lines.append(
            f"Of its {self.statements} statements the passage supports {self.supported:.0%}."
        )
        if not all(line.endswith("yes") for line in lines[1:4]):
            lines.append("Where one of the three is not clear, RL has little to select from.")
        return "\n".join(lines)


def diagnose(policy: Policy, passages: Sequence[Passage], k: int = 5, seed: int = 0) -> Diagnosis:
    """The Diagnosis of a policy on some passages, with k self-edits sampled for each.

    >>> import sealkit
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> config = sealkit.config_for(tokenizer)
    >>> policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    >>> diagnose(policy, sealkit.load_passages("bundled", limit=4)).reads[0] > 0.5
    True
    """
    scores, n = {}, len(passages)

    # 1. reading: without training, with and without the passage in view
    for arm in UNTRAINED:
        answers = answer_exams(policy, knowledge, passages, in_context=arm == OPEN)
        rewards = [knowledge.reward(*pair, policy.config) for pair in zip(passages, answers)]
        scores[arm] = tuple(rewards)

    # 2. learning: the passage alone, and with the exam's own lines; and k self-edits of each
    requests = [(passage, j) for passage in passages for j in range(k)]
    edits = write_self_edits(policy, knowledge, requests, (seed, "d"))
    own = [(passage, edit) for (passage, _), edit in zip(requests, edits)]
    pairs = [(passage, "") for passage in passages]
    pairs += [(passage, exam_lines(passage)) for passage in passages]
    rewards = [t.reward for t in run_trials(policy, knowledge, pairs + own, title="before RL")]
    scores |= {ALONE: tuple(rewards[:n]), LINES: tuple(rewards[n : 2 * n])}

    # 3. writing: the best of k self-edits, their mean, and what of them the passage supports
    own_rewards = [rewards[i : i + k] for i in range(2 * n, len(rewards), k)]
    scores |= {BEST.format(k): tuple(map(max, own_rewards))}
    scores |= {MEAN.format(k): tuple(map(mean, own_rewards))}
    verdicts = [
        knowledge.is_supported(line, passage)
        for passage, edit in own
        for line in knowledge.training_sequences(edit, passage)[1:]
    ]
    supported = sum(verdicts) / max(len(verdicts), 1)
    return Diagnosis(Comparison(scores), k, supported, len(verdicts))


def exam_lines(passage: Passage) -> str:
    """A self-edit of the exam's own questions, each with its first answer."""
    return "\n".join(f"Question: {q.question} Answer: {q.answers[0]}" for q in passage.questions)
