"""A run told at its end: in a terminal, and as report.html, a page that needs nothing else."""

import html
import io
import re
import shlex
import textwrap
from pathlib import Path
from string import Template

from .memo import failing, write_whole
from .record import BEFORE
from .report import COLUMNS, draw, row, row_head

PAGE = Path(__file__).with_name("page.html")
SHOWN = 3  # passages whose self-edits are shown, the first ones held out
LINES = 4  # of a self-edit in a terminal


def wrapped(text, indent="", **options):
    """A text's lines, broken to fit a terminal."""
    text = visible(text)
    later = {"initial_indent": indent, "subsequent_indent": indent + "  ", "width": COLUMNS}
    lines = (textwrap.fill(line, **(later | options)) for line in text.splitlines())
    return "\n".join(lines)


def pairs(record):
    """Yield (passage, Trial before RL, Trial after) of the first passages held out."""
    before, after = (record.tried.get(arm, ()) for arm in (BEFORE, record.last))
    yield from list(zip(record.test, before, after))[:SHOWN]


def in_terminal(record):
    """What a run came to, at most 80 columns wide: self-edits before and after RL, arms, gains."""
    lines = []
    for passage, *trials in pairs(record):
        lines.append(wrapped(f'Held out: "{passage.title}"'))
        for when, trial in zip(("before RL", record.last), trials):
            lines.append(f"  self-edit {when}, reward {trial.reward:.0%}:")
            said = trial.self_edit.splitlines()
            said[LINES:] = [f"… and {len(said) - LINES} more lines"] if len(said) > LINES else []
            lines.append(wrapped("\n".join(said or ["(empty)"]), "    "))
        lines.append("")
    if record.comparison:
        lines += [f"{len(record.test)} passages that no policy has seen, one self-edit each:"]
        lines += [str(record.comparison), "", *gains(record)]
    return "\n".join(lines)


def gains(record):
    """Lines: the last policy's accuracy minus that of each rival, in points."""
    if not record.last:
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
        figure=figure(record) if record.iterations else "",
        arms=table(["arm", "accuracy", "95% interval"], arms(record)),
        gains=escaped("\n".join(gains(record) if record.comparison else ())),
        iterations=escaped("\n".join(rows(record))),
        examples="\n".join(example(*pair, record.last) for pair in pairs(record)),
        settings=table(["setting", "value"], settings.items()),
        machine=table(["machine", "value"], record.machine.items()),
    )


def command_of(record):
    """The command line that made a run, as far as its folder tells."""
    unsaid = None, False
    given = {n: v for n, v in record.command.items() if not any(v is one for one in unsaid)}
    words = [[f"--{name}", str(value)][: 1 + (value is not True)] for name, value in given.items()]
    return shlex.join(["python", "-m", "sealkit", *sum(words, [])]) if given else "run_seal"


def lead(record):
    """One sentence: what the run came to."""
    done = f"{len(record.iterations)} iterations on {len(record.train)} passages"
    if not (record.comparison and record.last and BEFORE in record.comparison.scores):
        return f"{done}; its policies have not all been compared yet."
    (before, *_), (after, *_) = map(record.comparison.accuracy, (BEFORE, record.last))
    gain, low, high = (100 * x for x in record.comparison.difference(record.last, BEFORE))
    return (
        f"{done}: on {len(record.test)} passages that no policy has seen, accuracy went from "
        f"{before:.1%} before RL to {after:.1%}, {gain:+.1f} points (95% interval [{low:+.1f}, "
        f"{high:+.1f}])."
    )


def arms(record):
    """Yield the rows of the table of arms: name, accuracy, 95% interval."""
    for arm in record.comparison.scores if record.comparison else ():
        mean, low, high = record.comparison.accuracy(arm)
        yield arm, f"{mean:.1%}", f"[{low:.1%}, {high:.1%}]"


def figure(record):
    """The run's figure as SVG in the page's own ink."""
    file = io.StringIO()
    draw(record, record.comparison, file)
    svg = re.search(r"(?s)<svg.*</svg>", file.getvalue())[0].replace("#000000", "currentColor")
    svg = re.sub(r"(?s)<(metadata|style).*?</\1>|</?defs>(?=\s*$)", "", svg)
    label = "Rewards of all self-edits by iteration, and accuracy of each arm; numbers below."
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


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
