"""A run told at its end: in a terminal, as report.html, and in the picture of the loop.

The page and the picture are templates of Jinja, which escapes whatever a model wrote.
"""

import io
import re
import shlex
import textwrap
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..continual.forgetting import alt_text, plot_forgetting
from ..figures import draw_run, save_figure
from ..runs.files import RunError, write_text
from ..tasks import knowledge
from ..tasks.grading import grade
from .rows import COLUMNS, format_header, format_row

SHOWN = 3  # passages whose self-edits are shown, the first ones held out
LINES = 4  # of a self-edit in a terminal
RIVALS = re.compile(" RL$|passage only|^(best|random).* config$")  # of the last policy's arm


def replace_control_characters(text):
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


def wrap(text, indent="", **options):
    """A text's lines, broken to fit a terminal."""
    later = {"initial_indent": indent, "subsequent_indent": indent + "  ", "width": COLUMNS}
    lines = (
        textwrap.fill(line, **(later | options))
        for line in replace_control_characters(text).splitlines()
    )
    return "\n".join(lines)


def trials_before_and_after(record):
    """(passage, (Trial before RL, Trial after)) of each passage held out, as far as there are."""
    trials = zip(*(record.tried.get(arm, ()) for arm in (record.first, record.last)))
    return list(zip(record.test, trials))


def format_results(record):
    """What a run came to, at most 80 columns wide: self-edits before and after RL, arms, gains."""
    lines = []
    for passage, trials in trials_before_and_after(record)[:SHOWN]:
        lines.append(wrap(f'Held out: "{passage.title}"'))
        for when, trial in zip(("before RL", record.last), trials):
            lines.append(f"  self-edit {when}, reward {trial.reward:.0%}:")
            said = trial.self_edit.splitlines()
            if (more := len(said) - LINES) > 0:
                said[LINES:] = [f"… and {more} more line{'s' if more > 1 else ''}"]
            lines.append(wrap("\n".join(said or ["(empty)"]), "    "))
        lines.append("")
    if record.streams:
        lines.append(wrap(f"{summary(record)}\n\n{record.streams}"))
    elif record.comparison:
        count = len(next(iter(record.comparison.scores.values())))
        lines += [f"{count} {record.task.NOUN}s that no policy has seen, one self-edit each:"]
        lines += [wrap(record.comparison), "", *format_gains(record)]
    return "\n".join(lines)


def format_gains(record):
    """Lines: the last policy's accuracy minus that of each rival, in points."""
    if record.last:
        head = f"{record.last} minus"
        yield f"{head:36}  points   95% interval, paired by {record.task.NOUN}"
        for arm in filter(RIVALS.search, record.arms):
            mean, low, high = (100 * x for x in record.comparison.difference(record.last, arm))
            yield f"{arm:36}{mean:+8.1f}   [{low:+.1f}, {high:+.1f}]"


def format_rows(record):
    """The lines of the table of iterations, its head first."""
    styles = [record.styles(iteration) for iteration in record.iterations]
    yield format_header(styles[0] if styles and styles[0] else (), record.task.NOUN)
    for iteration, shares in zip(record.iterations, styles):
        yield format_row(iteration, record.seconds.get(iteration.number), shares)


def command_of(record):
    """The command line that made a run, as far as its folder tells."""
    given = {n: v for n, v in record.command.items() if v is not None and v is not False}
    words = [[f"--{name}", str(value)][: 1 + (value is not True)] for name, value in given.items()]
    return shlex.join(["python", "-m", "sealkit", *sum(words, [])]) if given else "run_seal"


def summary(record):
    """What the run came to, in a sentence or two."""
    if record.streams:
        streams, _, length = record.streams.matrix(record.streams.best()).shape
        told = alt_text(record.streams, shown_remedies(record))
        return f"{streams} streams of {length} passages, learned in turn. {told}"
    trained = len(record.iterations[0].trials) if record.iterations else len(record.train)
    count = len(record.iterations)
    done = f"{count} iteration{'s' * (count != 1)} on {trained} {record.task.NOUN}s"
    if not (record.last and record.first):
        return f"{done}; its policies have not all been compared yet."
    (before, *_), (after, *_) = map(record.comparison.accuracy, (record.first, record.last))
    gain, low, high = (100 * x for x in record.comparison.difference(record.last, record.first))
    count = len(record.comparison.scores[record.last])
    return (
        f"{done}: on {count} {record.task.NOUN}s that no policy has seen, accuracy went from "
        f"{before:.1%} before RL to {after:.1%}, {gain:+.1f} points (95% interval [{low:+.1f}, "
        f"{high:+.1f}])."
    )


def shown_remedies(record):
    """The remedies that are drawn and told first: none, and the best with one adapter."""
    return list(dict.fromkeys([next(iter(record.streams.rows)), record.streams.best()]))


def draw_record(record, path):
    """Write a run's figure to a file, see `draw`; returns in words what it shows, None if nothing.

    path: or an open file, which receives SVG.
    """
    if record.streams:
        save_figure(plot_forgetting(record.streams, shown_remedies(record)), path)
        return alt_text(record.streams, shown_remedies(record))
    if record.iterations:
        draw_run(record, record.comparison, path, f"{record.task.NOUN}s")
        return "Rewards of all self-edits by iteration, and accuracy of each arm; numbers below."


def write_page(record, path):
    """Write a Record as a page of HTML that needs nothing else, see `write`. Raises RunError."""
    notes = record.comparison.notes if record.comparison else ()
    told = wrap(record.streams or "\n".join([*notes, "", *format_gains(record)]).strip())
    arms = [
        (arm, f"{mean:.1%}", f"[{low:.1%}, {high:.1%}]")
        for arm in record.arms
        for mean, low, high in [record.comparison.accuracy(arm)]
    ]
    texts = {"lead": summary(record), "figure": figure_svg(record), "arms": arms, "told": told}
    texts |= {
        "rows": "\n".join(format_rows(record)),
        "pairs": trials_before_and_after(record)[:SHOWN],
        "exam": exam_rows,
    }
    texts["settings"] = record.settings | {"command": command_of(record)}
    write_template("page.html", path, record=record, **texts)


def write_template(template, path, **values):
    """Fill a template and write it to a file. Raises RunError."""
    write_text(path, TEMPLATES.get_template(template).render(values))


def figure_svg(record):
    """The run's figure as SVG in the page's own ink, empty if there is none."""
    file = io.StringIO()
    if not (told := draw_record(record, file)):
        return ""
    svg = re.search(r"(?s)<svg.*</svg>", file.getvalue())[0].replace("#000000", "currentColor")
    svg = re.sub(r"(?s)<(metadata|style).*?</\1>|</?defs>(?=\s*$)", "", svg)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(told)}"', 1))


def exam_rows(passage, before, after):
    """A passage's exam, a row a question: it, the right answer, what was said before and after."""
    for question, *said in zip(passage.questions, before.answers, after.answers):
        yield question.question, question.answers[0], *said


def write_picture(record, path):
    """Fill the drawing of the loop from a Record. Raises RunError if no policy has been compared.

    Its passage is the first one held out on which the last policy earned more than the first.
    """
    if record.task is not knowledge or record.streams:
        raise RunError("--picture draws runs on passages: see this one's figure.png.")
    if not (trials := trials_before_and_after(record)):
        raise RunError(f"{str(record.folder)!r} has compared no policies yet: let the run end.")
    better = (pair for pair in trials if pair[1][1].reward > pair[1][0].reward)
    passage, trials = next(better, trials[0])
    accuracy = [record.comparison.accuracy(arm)[0] for arm in (record.first, record.last)]
    texts = {"record": record, "passage": passage, "trials": trials, "accuracy": accuracy}
    write_template("loop.svg", path, broken=break_lines, marked=mark_answers, **texts)


def break_lines(text, width, most):
    """A text's lines, broken at `width` characters; "…" for all beyond `most`."""
    lines = [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]
    return lines if len(lines) <= most else [*lines[:most], "…"]


def mark_answers(passage, trial):
    """The answers of a trial, each with a mark, and the right one where it is another."""
    return "\n".join(
        f"✓ {said}" if grade(said, question.answers) else f"✗ {said}, not {question.answers[0]}"
        for said, question in zip(trial.answers, passage.questions)
    )
