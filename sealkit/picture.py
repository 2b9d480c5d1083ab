"""The loop in one picture, with a passage, self-edits, answers and rewards of a run: an SVG."""

import textwrap
from pathlib import Path
from string import Template

from .memo import RunError, failing, write_whole
from .page import escaped
from .record import BEFORE
from .tasks.grading import grade

LOOP = Path(__file__).with_name("loop.svg")


def write_picture(record, path):
    """Fill the drawing of the loop from a Record. Raises RunError if no policy has been compared.

    Its passage is the first one held out on which the last policy earned more than the first.
    """
    if record.table:
        raise RunError("--picture draws runs on passages: see this one's figure.png.")
    if not record.last or BEFORE not in record.tried:
        raise RunError(f"{str(record.folder)!r} has compared no policies yet: let the run end.")
    trials = list(zip(record.test, record.tried[BEFORE], record.tried[record.last]))
    better = [one for one in trials if one[2].reward > one[1].reward]
    passage, before, after = (better or trials)[0]
    texts = {
        "heading": lines(30, passage.title, 24, 2),
        "passage": lines(30, passage.text, 28, 17),
        "before": lines(286, before.self_edit or "(nothing)", 38, 7),
        "after": lines(286, after.self_edit or "(nothing)", 38, 7),
        "answers_before": lines(780, answers(passage, before), 24, 7),
        "answers_after": lines(780, answers(passage, after), 24, 7),
        "result": lines(20, result(record), 30, 6),
    }
    rewards = {"reward_before": f"{before.reward:.0%}", "reward_after": f"{after.reward:.0%}"}
    told = (
        f"From the passage “{passage.title}” the policy writes a self-edit, a LoRA is trained on "
        f"it, and answers closed book: {before.reward:.0%} right before RL, {after.reward:.0%} "
        f"{record.last}. Self-edits that taught well train the policy. The "
        "4-bit base stays as it is."
    )
    about = {"described": escaped(told), "when": escaped(record.last)}
    drawn = Template(LOOP.read_text("utf-8")).substitute(texts | rewards | about)
    with failing(path):
        write_whole(path, drawn.encode("utf-8", "replace"))


def lines(x, text, width, most):
    """A text as lines of SVG at x, broken at `width` characters; "…" for all beyond `most`."""
    broken = [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]
    broken[most:] = [] if len(broken) <= most else ["…"]
    spans = (
        f'<tspan x="{x}" dy="{0 if number == 0 else 20}">{escaped(line) or " "}</tspan>'
        for number, line in enumerate(broken)
    )
    return "".join(spans)


def answers(passage, trial):
    """The answers of a trial, each with a mark, and the right one where it is another."""
    return "\n".join(
        f"✓ {said}" if grade(said, question.answers) else f"✗ {said}, not {question.answers[0]}"
        for said, question in zip(trial.answers, passage.questions)
    )


def result(record):
    """What the whole run came to, in a few words."""
    (before, *_), (after, *_) = map(record.comparison.accuracy, (BEFORE, record.last))
    return (
        f"On all {len(record.test)} passages that no policy has seen: {before:.0%} right before "
        f"RL, {after:.0%} {record.last}."
    )
