"""A run told at its end: in a terminal, and as report.html, a page that needs nothing else."""

import html
import io
import re
import shlex
import textwrap
from pathlib import Path
from string import Template

from .forgetting import Forgetting, in_words, plot_forgetting
from .memo import failing, write_whole
from .report import COLUMNS, draw, row, row_head, save
from .tasks import puzzles

PAGE = Path(__file__).with_name("page.html")
SHOWN = 3  # passages whose self-edits are shown, the first ones held out
LINES = 4  # of a self-edit in a terminal
WAYS, ROWS, WRITTEN = (  # notes below headings
    f"<p class='note'>{said}</p>"
    for said in (
        "Accuracy is the mean over items; intervals are bootstraps over items.",
        "reward: mean of all self-edits. passage only: after training without a self-edit. kept: "
        "self-edits that the policy was finetuned on. loss: of that finetuning, first and last "
        "step. Then, of passages, the share of each style.",
        "The first held-out passages. A fork of the LoRA is trained on passage and self-edit, and "
        "answers without seeing either.",
    )
)


def wrapped(text, indent="", **options):
    """A text's lines, broken to fit a terminal."""
    text = visible(text)
    later = {"initial_indent": indent, "subsequent_indent": indent + "  ", "width": COLUMNS}
    lines = (textwrap.fill(line, **(later | options)) for line in text.splitlines())
    return "\n".join(lines)


def pairs(record):
    """Yield (passage, Trial before RL, Trial after) of the first passages held out."""
    before, after = (record.tried.get(arm, ()) for arm in (record.first, record.last))
    yield from list(zip(record.test, before, after))[:SHOWN]


def in_terminal(record):
    """What a run came to, at most 80 columns wide: self-edits before and after RL, arms, gains."""
    lines = []
    for passage, *trials in pairs(record):
        lines.append(wrapped(f'Held out: "{passage.title}"'))
        for when, trial in zip(("before RL", record.last), trials):
            lines.append(f"  self-edit {when}, reward {trial.reward:.0%}:")
            said = trial.self_edit.splitlines()
            if (more := len(said) - LINES) > 0:
                said[LINES:] = [f"… and {more} more line{'s' if more > 1 else ''}"]
            lines.append(wrapped("\n".join(said or ["(empty)"]), "    "))
        lines.append("")
    if record.table:
        lines.append(wrapped(f"{lead(record)}\n\n{record.table}"))
    elif record.comparison:
        lines += [f"{len(record.test)} passages that no policy has seen, one self-edit each:"]
        lines += [str(record.comparison), "", *gains(record)]
    return "\n".join(lines)


def gains(record):
    """Lines: the last policy's accuracy minus that of each rival, in points."""
    if record.table or not record.last:
        return
    yield f"{record.last} minus".ljust(38) + "points   95% interval, paired by passage"
    for arm in record.comparison.scores:
        if arm.endswith((" RL", "no RL")) or arm == "passage only":
            mean, low, high = (100 * x for x in record.comparison.difference(record.last, arm))
            yield f"{arm:36}{mean:+8.1f}   [{low:+.1f}, {high:+.1f}]"


def rows(record):
    """The lines of the table of iterations, its head first."""
    styles = [record.styles(iteration) for iteration in record.iterations]
    yield row_head(styles[0] if styles and styles[0] else ())
    for iteration, shares in zip(record.iterations, styles):
        yield row(iteration, record.seconds.get(iteration.number), shares)


def write_page(record, path):
    """Write a Record as a page of HTML, see `write_whole`. Raises RunError."""
    with failing(path):
        write_whole(path, page(record).encode("utf-8", "replace"))


def page(record):
    """The page of a Record: str. All text of passages, models and settings is escaped."""
    settings = record.settings | {"command": command_of(record)}
    return Template(PAGE.read_text("utf-8")).substitute(
        title=escaped(record.folder.resolve().name),
        lead=escaped(lead(record)),
        figure=figure(record),
        parts="\n".join(parts(record)),
        settings=table(["setting", "value"], settings.items()),
        machine=table(["machine", "value"], record.machine.items()),
    )


def parts(record):
    """Yield what a page tells of a Record between its figure and its settings, as HTML."""
    if record.comparison:
        yield f"<h2>Ways to adapt, on the same held-out {noun(record)}</h2>{WAYS}"
        yield table(["arm", "accuracy", "95% interval"], arms(record))
    told = f"{record.table or ''}".removeprefix(f"{record.comparison}\n")
    if told := wrapped(told) or "\n".join(gains(record)):
        yield f"<pre class='table'>{escaped(told)}</pre>"
    if record.iterations:
        yield f"<h2>The iterations</h2>{ROWS}"
        yield "<pre class='table'>" + escaped("\n".join(rows(record))) + "</pre>"
    if told := [example(*pair, record.last) for pair in pairs(record)]:
        yield from [f"<h2>What the policy learned to write</h2>{WRITTEN}", *told]


def command_of(record):
    """The command line that made a run, as far as its folder tells."""
    unsaid = None, False
    given = {n: v for n, v in record.command.items() if not any(v is one for one in unsaid)}
    words = [[f"--{name}", str(value)][: 1 + (value is not True)] for name, value in given.items()]
    return shlex.join(["python", "-m", "sealkit", *sum(words, [])]) if given else "run_seal"


def noun(record):
    """What the items of a run are called."""
    return "puzzles" if record.settings.get("task") == puzzles.__name__ else "passages"


def lead(record):
    """What the run came to, in a sentence or two."""
    if isinstance(record.table, Forgetting):
        streams, _, length = record.table.matrix(record.table.best()).shape
        told = in_words(record.table, shown(record))
        return f"{streams} streams of {length} passages, learned in turn. {told}"
    trained = len(record.iterations[0].trials) if record.iterations else len(record.train)
    count = len(record.iterations)
    done = f"{count} iteration{'s' * (count != 1)} on {trained} {noun(record)}"
    if not (record.last and record.first):
        return f"{done}; its policies have not all been compared yet."
    (before, *_), (after, *_) = map(record.comparison.accuracy, (record.first, record.last))
    gain, low, high = (100 * x for x in record.comparison.difference(record.last, record.first))
    count = len(record.comparison.scores[record.last])
    return (
        f"{done}: on {count} {noun(record)} that no policy has seen, accuracy went from "
        f"{before:.1%} before RL to {after:.1%}, {gain:+.1f} points (95% interval [{low:+.1f}, "
        f"{high:+.1f}])."
    )


def arms(record):
    """Yield the rows of the table of arms: name, accuracy, 95% interval."""
    for arm in record.comparison.scores if record.comparison else ():
        mean, low, high = record.comparison.accuracy(arm)
        yield arm, f"{mean:.1%}", f"[{low:.1%}, {high:.1%}]"


def shown(record):
    """The remedies that are drawn and told first: none, and the best with one adapter."""
    return list(dict.fromkeys([next(iter(record.table.rows)), record.table.best()]))


def draw_record(record, path):
    """Write a run's figure to a file, see `draw`; returns in words what it shows, None if nothing.

    path: or an open file, which receives SVG.
    """
    if isinstance(record.table, Forgetting):
        save(plot_forgetting(record.table, shown(record)), path)
        return in_words(record.table, shown(record))
    if record.iterations:
        draw(record, record.comparison, path, noun(record))
        return "Rewards of all self-edits by iteration, and accuracy of each arm; numbers below."


def figure(record):
    """The run's figure as SVG in the page's own ink, empty if there is none."""
    file = io.StringIO()
    if not (told := draw_record(record, file)):
        return ""
    svg = re.search(r"(?s)<svg.*</svg>", file.getvalue())[0].replace("#000000", "currentColor")
    svg = re.sub(r"(?s)<(metadata|style).*?</\1>|</?defs>(?=\s*$)", "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escaped(told)}"', 1)


def example(passage, before, after, last):
    """A passage with its self-edits before and after, their answers and rewards."""
    cells = "".join(
        f"<div><h4>{escaped(when)}: reward {trial.reward:.0%}</h4>"
        f"<pre>{escaped(trial.self_edit or '(empty)')}</pre></div>"
        for when, trial in (("before RL", before), (last, after))
    )
    exam = []
    for number, question in enumerate(passage.questions):
        said = [trial.answers[number] for trial in (before, after)]
        exam.append((question.question, question.answers[0], *said))
    head = ["question", "right answer", "said before", "said after"]
    title, text = escaped(passage.title), escaped(passage.text)
    return (
        f"<h3>{title}</h3><p>{text}</p><div class='pair'>{cells}</div>"
        f"<details><summary>The exam, closed book</summary>{table(head, exam)}</details>"
    )


def table(head, rows):
    """An HTML table of texts."""
    first = "".join(f"<th scope='col'>{escaped(cell)}</th>" for cell in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<div class='scroll'><table><tr>{first}</tr>{body}</table></div>"


def escaped(text):
    """Text as HTML that nothing in it can break out of."""
    return html.escape(visible(text))


def visible(text):
    """Text with U+FFFD for control characters, which a model may write: they steer terminals."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", "\ufffd", text)
