"""Reports of a finished run: in a terminal, and as report.html.

The page is a Jinja template, which escapes whatever a model wrote.
"""

import io
import re
import shlex
import textwrap
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..continual.forgetting import alt_text, plot_forgetting
from ..evaluation import FEW, few
from ..figures import draw_run, save_figure
from ..inner_loop import Trial
from ..outer_loop import History
from ..runs.files import write_text
from ..tasks import puzzles
from ..tasks.arc import Puzzle
from ..tasks.passages import Passage
from .record import Record
from .rows import COLUMNS, format_header, format_row, plural

SHOWN = 3  # passages whose self-edits are shown, the first ones held out
COMMAND = "  python -m sealkit "
LINES = 4  # of a self-edit in a terminal
# of the last policy's arm
GRID = re.compile(r"\d( \d)*( / \d( \d)*)*")  # as `puzzles.line` writes it
MARKS = {True: " ✓", False: " ✗", None: ""}
STEPS = 4  # of a recipe's training that are drawn
RIVALS = re.compile("no RL|no reward|before RL$|passage only|^(best|random).* recipe$")


def replace_control_characters(text: object) -> str:
    """Text with U+FFFD for control characters, which a model may write: they steer terminals."""
    if isinstance(text, Markup):
        return text
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", str(text))


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    keep_trailing_newline=True,
    finalize=replace_control_characters,
    undefined=StrictUndefined,
)


def wrap(text: object, indent: str = "") -> str:
    """Break a text's lines to fit a terminal, but no command, which may be copied."""
    filler = textwrap.TextWrapper(COLUMNS, indent, indent + "  ")
    lines = replace_control_characters(text).splitlines()
    return "\n".join(s if s.startswith(COMMAND) else filler.fill(s) for s in lines)


def trials_before_and_after(record: Record) -> list[tuple[Any, tuple[Trial, ...]]]:
    """(item, (Trial before RL, Trial after)) of each held-out item, as far as there are."""
    trials = zip(*(record.tried.get(arm, ()) for arm in (record.first, record.last)))
    return list(zip(record.test, trials))


def format_results(record: Record) -> str:
    """The results of a run in 80 columns: self-edits before and after RL, arms, gains."""
    lines = []
    for passage, trials in trials_before_and_after(record)[:SHOWN]:
        lines.append(wrap(f'Held out: "{passage.title}"'))
        for when, trial in zip(("before RL", record.last), trials):
            lines.append(f"  self-edit {when}, reward {trial.reward:.0%}:")
            edit = trial.self_edit.splitlines()
            if (more := len(edit) - LINES) > 0:
                edit[LINES:] = [f"… and {more} more line{'s' if more > 1 else ''}"]
            lines.append(wrap("\n".join(edit or ["(empty)"]), "    "))
        lines.append("")
    if record.streams:
        lines.append(wrap(f"{summary(record)}\n\n{record.streams}"))
    elif record.comparison:
        count = len(next(iter(record.comparison.scores.values())))
        items = plural(count, record.task.NOUN)
        lines += [f"{items} that no policy has seen, one self-edit each:"]
        lines += [wrap(record.comparison), "", *format_gains(record)]
        lines += [wrap(few(count, record.task.NOUN).strip())] * (count < FEW)
    return "\n".join(lines)


def format_gains(record: Record) -> Iterator[str]:
    """Lines: the last policy's accuracy minus that of each rival, in points."""
    if record.last:
        head = f"{record.last} minus"
        yield f"{head:36}  points   95% interval, paired by {record.task.NOUN}"
        for arm in filter(RIVALS.search, record.arms):
            mean, low, high = (100 * x for x in record.comparison.difference(record.last, arm))
            yield f"{arm:36}{mean:+8.1f}   [{low:+.1f}, {high:+.1f}]"


def format_rows(record: Record) -> Iterator[str]:
    """The lines of the table of iterations, its head first."""
    styles = [record.styles(iteration) for iteration in record.iterations]
    yield format_header(styles[0] if styles and styles[0] else (), record.task.NOUN)
    for iteration, shares in zip(record.iterations, styles):
        yield format_row(iteration, record.seconds.get(iteration.number), shares)


def command_of(record: Record) -> str:
    """The command line that made a run, as far as its folder knows it."""
    given = {n: v for n, v in record.command.items() if v is not None and v is not False}
    words = [[f"--{name}", str(value)][: 1 + (value is not True)] for name, value in given.items()]
    return shlex.join(["python", "-m", "sealkit", *sum(words, [])]) if given else "run_seal"


def summary(record: Record) -> str:
    """The results of a run in a sentence or two."""
    if record.streams:
        streams, _, length = record.streams.matrix(record.streams.best()).shape
        accuracies = alt_text(record.streams, shown_remedies(record))
        what = f"{plural(streams, 'stream')} of {plural(length, 'passage')}"
        return f"{what}, learned in turn. {accuracies}"
    trained = len(record.iterations[0].trials) if record.iterations else len(record.train)
    count = len(record.iterations)
    trained_on = f"{plural(count, 'iteration')} on {plural(trained, record.task.NOUN)}"
    if not (record.last and record.first):
        return f"{trained_on}; its policies have not all been compared yet."
    (before, *_), (after, *_) = map(record.comparison.accuracy, (record.first, record.last))
    gain, low, high = (100 * x for x in record.comparison.difference(record.last, record.first))
    count = len(record.comparison.scores[record.last])
    items = plural(count, record.task.NOUN)
    return (
        f"{trained_on}: on {items} that no policy has seen, accuracy went from "
        f"{before:.1%} before RL to {after:.1%}, {gain:+.1f} points (95% interval [{low:+.1f}, "
        f"{high:+.1f}]).{few(count, record.task.NOUN)}"
    )


def shown_remedies(record: Record) -> list[str]:
    """The remedies that a figure shows: none, and the best with one adapter."""
    return list(dict.fromkeys([next(iter(record.streams.rows)), record.streams.best()]))


def draw_record(record: Record, path: Path | io.StringIO) -> str | None:
    """Write a run's figure to a file, see `draw_run`; return its text, None if there is none.

    path: or an open file, which receives SVG.
    """
    if record.streams:
        save_figure(plot_forgetting(record.streams, shown_remedies(record)), path)
        return alt_text(record.streams, shown_remedies(record))
    if record.iterations:
        history = History(None, {}, record.iterations)
        draw_run(history, record.comparison, path, f"{record.task.NOUN}s")
        return "Rewards of all self-edits by iteration, and accuracy of each arm; numbers below."
    return None


def write_page(record: Record, path: Path) -> None:
    """Write a Record as a page of HTML that needs nothing else. Raises RunError."""
    notes = record.comparison.notes if record.comparison else ()
    details = wrap(record.streams or "\n".join([*notes, "", *format_gains(record)]).strip())
    arms = [
        (arm, f"{mean:.1%}", f"[{low:.1%}, {high:.1%}]")
        for arm in record.arms
        for mean, low, high in [record.comparison.accuracy(arm)]
    ]
    texts = {
        "lead": summary(record),
        "figure": figure_svg(record),
        "arms": arms,
        "details": details,
    }
    texts |= {
        "rows": "\n".join(format_rows(record)),
        "pairs": trials_before_and_after(record)[:SHOWN],
        "exam": partial(exam_rows, record),
        "versions": partial(training_versions, record),
        "puzzles": record.task is puzzles,
        "version": sealkit_version(),
        "cells": cells,
        "line": puzzles.line,
        "marks": MARKS,
    }
    texts |= {"settings": record.settings, "command": command_of(record)}
    write_text(path, TEMPLATES.get_template("page.html").render(record=record, **texts))


def figure_svg(record: Record) -> str:
    """The run's figure as SVG in the page's own ink, empty if there is none."""
    file = io.StringIO()
    if not (description := draw_record(record, file)):
        return ""
    svg = re.search(r"(?s)<svg.*</svg>", file.getvalue())[0].replace("#000000", "currentColor")
    svg = re.sub(r"(?s)<(metadata|style).*?</\1>|</?defs>(?=\s*$)", "", svg)
    return Markup(
        svg.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(description)}"', 1)
    )


def exam_rows(record: Record, passage: Passage, *trials: Trial) -> Iterator[tuple[str, ...]]:
    """A row for each question: it, the right answer, the answers before RL and after, marked."""
    for n, question in enumerate(passage.questions):
        answers = [
            f"{trial.answers[n]}{MARKS[record.right(passage, n, trial.answers[n])]}"
            for trial in trials
            if n < len(trial.answers)
        ]
        yield question.question, question.answers[0], *answers


def training_versions(record: Record, puzzle: Puzzle, trial: Trial) -> list[list[str]]:
    """[input, output], as text, of the first demonstration as a recipe's first steps see it."""
    if record.config is None or trial.reason:
        return []
    lesson = puzzles.lesson(puzzle, trial.self_edit, record.config)
    texts = [lesson.part(step).texts[0] for step in range(min(lesson.steps, STEPS))]
    return [text.splitlines()[-1].split(" -> ") for text in dict.fromkeys(texts)]


def cells(text: str) -> list[list[str]]:
    """The rows of a grid that is written as text; [] if it is none.

    >>> cells("1 2 / 3 4"), cells("1 2 or so")
    ([['1', '2'], ['3', '4']], [])
    """
    return [row.split() for row in text.split("/")] if GRID.fullmatch(text.strip()) else []


def sealkit_version() -> str:
    """The installed version of sealkit; of a copy that is only on the path, that it is one."""
    try:
        return version("sealkit")
    except PackageNotFoundError:
        return "(not installed)"
