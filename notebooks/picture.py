"""python notebooks/picture.py runs/1 [FILE]

Draws the loop with the texts and figures of a run on passages, as the README shows it:
an SVG, by default notebooks/images/loop.svg, from its template loop.svg.jinja.
"""

import sys
import textwrap
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sealkit import Passage, RunError, Trial, grade
from sealkit.cli.page import replace_control_characters, trials_before_and_after
from sealkit.cli.record import Record, read_record
from sealkit.runs.files import write_text
from sealkit.tasks import knowledge

IMAGES = Path(__file__).parent / "images"


def write_picture(record: Record, path: Path) -> None:
    """Fill the drawing of the loop from a Record. Raises RunError for one without arms.

    Its passage is the first held-out one on which RL earned more than the first policy.
    """
    if record.task is not knowledge or record.streams:
        raise RunError("The picture is of runs on passages: see this one's figure.png.")
    if not (pairs := trials_before_and_after(record)):
        raise RunError(
            f"{str(record.folder)!r} has compared no policies yet: let the run end."
        )
    better = (pair for pair in pairs if pair[1][1].reward > pair[1][0].reward)
    passage, trials = next(better, pairs[0])
    accuracy = [
        record.comparison.accuracy(arm)[0] for arm in (record.first, record.last)
    ]
    texts = {
        "record": record,
        "passage": passage,
        "trials": trials,
        "accuracy": accuracy,
    }
    templates = Environment(
        loader=FileSystemLoader(IMAGES),
        autoescape=True,
        keep_trailing_newline=True,
        finalize=replace_control_characters,
        undefined=StrictUndefined,
    )
    template = templates.get_template("loop.svg.jinja")
    write_text(path, template.render(broken=break_lines, marked=mark_answers, **texts))


def break_lines(text: str, width: int, most: int) -> list[str]:
    """A text's lines, broken at `width` characters; "…" for all beyond `most`."""
    lines = [
        part
        for line in text.splitlines()
        for part in textwrap.wrap(line, width) or [""]
    ]
    return lines if len(lines) <= most else [*lines[:most], "…"]


def mark_answers(passage: Passage, trial: Trial) -> str:
    """The answers of a trial, each marked, and the right one where it is another."""
    return "\n".join(
        f"✓ {answer}"
        if grade(answer, question.answers)
        else f"✗ {answer}, not {question.answers[0]}"
        for answer, question in zip(trial.answers, passage.questions)
    )


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    try:
        write_picture(
            read_record(sys.argv[1]), Path((sys.argv[2:] or [IMAGES / "loop.svg"])[0])
        )
    except RunError as error:
        sys.exit(f"picture.py: {error}")
