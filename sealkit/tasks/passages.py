"""Passages with closed-book questions: the bundled world's, SQuAD's, or your own from a file.

A row of a file is of one of these forms: - {"title": str, "text": str, "questions": [{"question":
str, "answers": [str]}], "oracle": str}; - one question, as `datasets` has SQuAD: {"title",
"context", "question", "answers": {"text": [str]}}; - an article of SQuAD's own files: {"title",
"paragraphs": [{"context", "qas": [questions]}]}. "passage" or "context" may stand for "text", "qas"
for "questions", "answer" for "answers"; title and oracle may be missing. Answers are one or several
texts, numbers, booleans (true: "true" and "yes") or {"text": ...} with these. Questions that say
"is_impossible" or have no answers in their list are left out, and rows of the same title and text
are merged. In SQuAD's two forms underscores of a title become spaces, and a passage keeps QUESTIONS
questions.
"""

import ast
import csv
import io
import json
import logging
import os
import re
import reprlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import pydantic
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import LocalEntryNotFoundError
from pyarrow import ArrowException, parquet
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, StrictStr

from ..models.choice import BUNDLED_MODEL, choose
from ..runs.errors import explain, reason_of
from ..runs.files import RunError, write_atomically

if TYPE_CHECKING:
    import datasets


BUNDLED = Path(__file__).parents[1] / "bundled"
SPLITS = ("train", "validation", "test")
Value = TypeVar("Value")
HELD_OUT = 4  # one item in so many of a file's is for testing
BLANK = re.compile(r"[\s\u200b-\u200f\u2060-\u2064\ufeff]*")
NO_ANSWER = "CANNOTANSWER"  # in QuAC
QUESTIONS = 5  # most passages of SQuAD have five, a few over twenty


@dataclass(frozen=True)
class Question:
    """A question about a passage and the answers that count as right (one is enough).

    >>> Question("When was it lit?", ("1891",)).answers
    ('1891',)
    """

    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Passage:
    """A short text C with its exam τ. `oracle` is a complete, faithful self-edit, or empty.

    >>> Passage("Lamp", "It was lit in 1891.", (Question("When was it lit?", ("1891",)),)).title
    'Lamp'
    """

    title: str
    text: str
    questions: tuple[Question, ...]
    oracle: str = ""


def source_for(model: str | None = None) -> str:
    """The source for `load_passages` that goes with a model, unless SEALKIT_DATA names one.

    >>> source_for("bundled"), source_for("some/model")
    ('bundled', 'squad')
    """
    fitting = "bundled" if choose(model).path == BUNDLED_MODEL else "squad"
    return os.environ.get("SEALKIT_DATA") or fitting


def load_passages(
    source: "str | Path | datasets.Dataset | None" = None,
    split: str | None = None,
    limit: int | None = None,
) -> list[Passage]:
    """One split of the bundled world, of SQuAD or of a file of your own: list[Passage].

    source: "bundled"; "squad" (https://huggingface.co/datasets/rajpurkar/squad, downloaded once);
        the path of a file, JSON (a list of rows, {"data": rows} or one row), JSON lines, Parquet or
        CSV, for whose rows see this module; a `datasets.Dataset` of such rows; None for what goes
        with the model, see `source_for`.
    split: "train", "validation" or "test". SQuAD's own test split is not public, so "test" is its
        validation split. A file's last titles, a quarter of its passages, are its "test" (and
        "validation"). None: "train", but all of a file given as source.
    limit: at most this many, from the start; None for all.
    Raises ValueError naming file, row and question, FileNotFoundError if there is no such file,
    RunError if SQuAD cannot be downloaded.

    >>> len(load_passages("bundled", "test", limit=2))
    2
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: ask for at least one passage, or None for all.")
    if source is None:
        source, split = source_for(), split or "train"
    if split not in (None, *SPLITS):
        raise ValueError(f"There is no split {split!r}: use one of {', '.join(SPLITS)}.")
    if not isinstance(source, (str, Path)):
        return _split(group_questions(iter(source), "the data set"), split)[:limit]
    if source in ("bundled", "squad"):
        path = BUNDLED / f"{split or 'train'}.jsonl" if source == "bundled" else _squad(split)
        return group_questions(_rows(path))[:limit]
    if not (path := Path(source)).is_file():
        remedy = "give 'bundled', 'squad' or the path of a file of passages"
        raise FileNotFoundError(f"No file {str(source)!r}: {remedy}.")
    return _split(group_questions(_rows(path), repr(path.name)), split)[:limit]


def _split(passages: list[Passage], split: str | None) -> list[Passage]:
    """A side of a user's passages; all of them without a split."""
    if not split:
        return passages
    train, test = hold_out(passages, max(1, len(passages) // HELD_OUT))
    return train if split == "train" else test


def to_dataset(passages: list[Passage]) -> "datasets.Dataset":
    """Passages as a `datasets.Dataset`, a row each, which `load_passages` reads again.

    >>> lamp = Passage("Lamp", "It was lit in 1891.", (Question("When?", ("1891",)),))
    >>> load_passages(to_dataset([lamp])) == [lamp]
    True
    """
    import datasets  # importing it takes a second, and few need it

    return datasets.Dataset.from_list([asdict(passage) for passage in passages])


def hold_out(passages: Sequence[Passage], count: int) -> tuple[list[Passage], list[Passage]]:
    """Split passages into (train, test), no text and no title in both: the last titles are the
    test.

    count: of test passages, at most. Titles are kept whole because passages of one article tell of
    the same things. Passages without a title stand for themselves.
    Raises ValueError if there are too few titles for both sides.

    >>> train, test = hold_out([Passage(title, title + n, ()) for title in "AB" for n in "12"], 1)
    >>> [passage.text for passage in train], [passage.text for passage in test]
    (['A1', 'A2'], ['B1'])
    """
    groups: dict[str, list[Passage]] = {}
    for passage in passages:
        groups.setdefault(passage.title or passage.text, []).append(passage)
    articles = list(groups.values())
    test: list[Passage] = []
    while len(articles) > 1 and len(test) < count:
        test = articles.pop() + test
    texts = {passage.text for passage in test}
    train = [passage for article in articles for passage in article if passage.text not in texts]
    if not test or not train:
        counted = f"{len(passages)} passages of {len(groups)} titles"
        raise ValueError(f"{counted} cannot be split: give passages of at least two titles.")
    return train, test[:count]


def save_passages(path: str | Path, passages: Iterable[Passage]) -> None:
    """Write passages as JSON lines that `load_passages` reads: all of them or, on an error, none.

    Raises ValueError, naming the passage, for one that could not be read again.

    >>> save_passages("p.jsonl", [Passage("Rain", "", (Question("Why?", ("clouds",)),))])
    Traceback (most recent call last):
    ValueError: 'p.jsonl' is not written, passage 1, text: field required, so mend it or omit it.
    """
    lines = []
    for number, passage in enumerate(passages, 1):
        row = {field: value for field, value in asdict(passage).items() if value}
        checked(_Row.model_validate, row, f"{str(path)!r} is not written, passage {number}")
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomically(path, "".join(lines).encode("utf-8"))


def group_questions(rows: Iterable[Any], name: str = "") -> list[Passage]:
    """The passages of rows (dicts of the forms above), in their order: list[Passage].

    name: of their file; with it a log line tells what was merged or left out.
    Raises ValueError naming row and question, also if there are none to answer.

    >>> row = {"context": "A tower, 3 m high.", "question": "How high?", "answers": {"text": [3]}}
    >>> group_questions([row, row])[0].questions
    (Question(question='How high?', answers=('3',)),)
    """
    by_text: dict[tuple[str, str], tuple[dict[Question, bool], str]] = {}
    counts: Counter[str] = Counter()
    for place, squad, row in _parts(rows):
        passage = checked(_Row.model_validate, row, f"{name}, {place}" if name else place)
        key = (passage.title or "").replace("_", " " if squad else "_"), passage.text
        counts["repeated passages"] += key in by_text and not squad
        known, _ = by_text.setdefault(key, ({}, passage.oracle or ""))
        for asked in passage.questions:
            question = Question(asked.question, tuple(dict.fromkeys(asked.answers)))
            if not asked.answers:
                counts["unanswerable questions"] += 1
            elif question in known:
                counts["repeated questions"] += 1
            elif squad and len(known) == QUESTIONS:
                counts[f"questions beyond {QUESTIONS} of a passage"] += 1
            else:
                known[question] = True
    if name and +counts:
        summary = ", ".join(f"{count} {kind}" for kind, count in (+counts).items())
        logging.getLogger(__name__).warning("%s: left out or merged %s.", name, summary)
    passages = [Passage(*key, tuple(q), oracle) for key, (q, oracle) in by_text.items() if q]
    if not passages:
        raise ValueError(f"{name or 'The rows'}: no question to answer in it, give at least one.")
    return passages


def _parts(rows: Iterable[Any]) -> Iterator[tuple[str, bool, Any]]:
    """(place, whether in a form of SQuAD's, row) of each passage: a row or a paragraph of one."""
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict) and isinstance(row.get("paragraphs"), list):
            for n, part in enumerate(row["paragraphs"], 1):
                part = {"title": row.get("title")} | part if isinstance(part, dict) else part
                yield f"row {number}, paragraph {n}", True, part
        else:
            flat = isinstance(row, dict) and "question" in row and "questions" not in row
            yield f"row {number}", flat, row | {"questions": [row]} if flat else row


def skip_blank(text: str, at: int) -> int:
    """The place of the next visible character from `at` on."""
    blank = BLANK.match(text, at)
    return blank.end() if blank else at


def json_values(text: str) -> object:
    """The value of a JSON text, or a list of the values of JSON lines. Raises ValueError."""
    values, end = [], 0
    while (start := skip_blank(text, end)) < len(text):
        value, end = json.JSONDecoder().raw_decode(text, start)
        values.append(value)
    return values[0] if len(values) == 1 else values


def _rows(path: Path) -> list:
    """The rows of a Parquet or CSV file, a JSON list, object or {"data": list}, or JSON lines."""
    data = path.read_bytes()
    try:
        if data.startswith(b"PAR1"):
            return parquet.read_table(io.BytesIO(data)).to_pylist()
        text = data.decode("utf-8-sig")
        if path.suffix.lower() == ".csv":
            return _csv_rows(text, repr(path.name))
        rows = json_values(text)
    except UnicodeDecodeError:
        encoding = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252 (Windows)"
        reason = f"no JSON, JSON lines, CSV or Parquet in UTF-8 but perhaps in {encoding}"
        raise ValueError(f"{path.name!r} is {reason}: save it in UTF-8.") from None
    except (ArrowException, OSError, ValueError, RecursionError, csv.Error) as error:
        if str(error).startswith(repr(path.name)):
            raise
        reason = f"no JSON, JSON lines, CSV or Parquet ({' '.join(str(error).split())})"
        raise ValueError(f"{path.name!r} is {reason}: mend it, or save it as such.") from None
    rows = rows.get("data", rows) if isinstance(rows, dict) else rows
    return rows if isinstance(rows, list) else [rows]


def _csv_rows(text: str, name: str) -> list[dict]:
    """The rows of a CSV text, whose cells are texts as they stand; blank ones are left out."""
    csv.field_size_limit(2**31 - 1)
    rows = []
    for number, cells in enumerate(csv.DictReader(io.StringIO(text, newline=""), strict=True), 1):
        if None in cells:
            raise ValueError(f"{name}, row {number}: more cells than columns, so quote its commas.")
        row = {key: cell for key, cell in cells.items() if cell and not BLANK.fullmatch(cell)}
        for key in {"answer", "answers", "questions", "qas"} & set(row):
            row[key] = _structure(row[key], f"{name}, row {number}, {key}")
        rows.append(row)
    return rows


def _structure(cell: str, where: str) -> object:
    """The dict or list that a cell writes out, in JSON's or Python's words; else the cell."""
    if (cell.strip()[0] + cell.strip()[-1]) not in ("{}", "[]"):
        return cell
    for read in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings(action="ignore"):  # of odd escapes in a literal
                value = read(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(value, list) or (isinstance(value, dict) and "text" in value):
            return value
    remedy = "write the answer as plain text, or save the file as JSON lines"
    raise ValueError(f"{where}: neither text nor SQuAD's answers ({cell.strip()!r:.40}): {remedy}.")


def _squad(split: str | None) -> Path:
    """The hub's file of a split of SQuAD: Path. Once it is in the cache, no network is needed.

    Not `datasets.load_dataset`, which waits for minutes where the hub is silent.
    """
    split = "train" if split in (None, "train") else "validation"
    file = f"plain_text/{split}-00000-of-00001.parquet"
    place: dict[str, Any] = {"repo_id": "rajpurkar/squad", "filename": file}
    place["repo_type"] = "dataset"
    try:
        return Path(hf_hub_download(**place, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        get_hf_file_metadata(hf_hub_url(**place), timeout=5)  # asks once; a download, for 30 s
        return Path(hf_hub_download(**place))
    except Exception as error:  # the hub's, its HTTP library's or the disk's
        instead = "give the path of a file of passages"
        sentence = explain(error, "SQuAD is not in the local cache", instead)
        sentence = sentence or f"SQuAD could not be loaded ({reason_of(error)}): {instead}."
        raise RunError(sentence) from error


def checked(validate: Callable[[Any], Value], value: object, where: str) -> Value:
    """What pydantic's `validate` makes of a value, or a ValueError of one sentence."""
    try:
        return validate(value)
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False)[0]
    for p in fault["loc"]:
        where = f"{where.removesuffix('s')} {p + 1}" if isinstance(p, int) else f"{where}, {p}"
    message = fault["msg"].removeprefix("Value error, ").split(" or instance of ")[0]
    shown = "" if fault["type"] == "missing" else f" ({reprlib.repr(fault['input']):.60})"
    message = f"{message[0].lower()}{message[1:]}{shown}"
    raise ValueError(f"{where}: {message}, so mend it or omit it.")


def _written(value: Any) -> Any:
    """A number or boolean as JSON writes it, None for a blank text; NaN and all else as it is."""
    if isinstance(value, (int, float)) and abs(value) < float("inf"):
        return json.dumps(value)
    return None if isinstance(value, str) and BLANK.fullmatch(value) else value


def _sound(text: str) -> str:
    if BLANK.fullmatch(text) or re.search("[\0\ud800-\udfff]", text):
        raise ValueError("text should be visible, without NUL or half a surrogate pair")
    return text


def _answers(value: Any, info: pydantic.ValidationInfo) -> Any:
    """The answers in a list, whether they came as one, as several or as SQuAD's {"text": ...}."""
    if info.data.get("is_impossible"):
        return []
    value = value.get("text") if isinstance(value, dict) else value
    values = value if isinstance(value, (list, tuple)) else [value]
    values = [v.get("text") if isinstance(v, dict) else v for v in values]
    if values and all(v == NO_ANSWER for v in values):
        return []
    values = [v for v in values if v != NO_ANSWER]
    texts = [t for v in values if (t := _written(v)) is not None or v is None] or values
    return texts + ["yes" if v else "no" for v in values if isinstance(v, bool)]


_Text = Annotated[StrictStr, AfterValidator(_sound)]
_Label = Annotated[_Text | None, BeforeValidator(_written)]


class _Asked(pydantic.BaseModel):
    question: Annotated[_Text, AfterValidator(str.strip)]
    is_impossible: bool | None = None
    answers: Annotated[list[_Text], BeforeValidator(_answers)] = Field(
        None, validate_default=True, validation_alias=AliasChoices("answers", "answer")
    )


class _Row(pydantic.BaseModel):
    title: _Label = None
    text: _Text = Field(validation_alias=AliasChoices("text", "context", "passage"))
    questions: list[_Asked] = Field(min_length=1, validation_alias=AliasChoices("questions", "qas"))
    oracle: _Label = None
