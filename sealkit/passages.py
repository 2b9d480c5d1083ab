"""Passages with closed-book questions: the bundled world's, SQuAD's, or your own from a JSON or JSONL file."""

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants as hub

from .loading import BUNDLED_MODEL, choose

BUNDLED = Path(__file__).parent / "bundled"
SPLITS = ("train", "validation", "test")
SQUAD = "rajpurkar/squad"
DATA_VARIABLE = "SEALKIT_DATA"
HELD_OUT = 4   # one passage in so many of a file's is for testing
QUESTIONS = 5  # at most, of a passage of SQuAD: its passages have five as a rule, a few have over twenty


@dataclass(frozen=True)
class Question:
    """A question about a passage and the answers that count as right (one is enough)."""

    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Passage:
    """A short text C with its exam τ. `oracle` is a complete, faithful self-edit where one is known, else empty."""

    title: str
    text: str
    questions: tuple[Question, ...]
    oracle: str = ""


def source_for(model=None):
    """The passages that go with a model, named as for `load_quantized`, as a source for `load_passages`.

    What the environment variable SEALKIT_DATA names; else "bundled" for the bundled model and "squad" for any other.
    """
    return os.environ.get(DATA_VARIABLE) or ("bundled" if choose(model).path == BUNDLED_MODEL else "squad")


def load_passages(source=None, split=None, limit=None):
    """Passages of one split of the bundled world, of SQuAD, or of a file of your own.

    source: "bundled"; "squad" (through `datasets`, https://huggingface.co/datasets/rajpurkar/squad); or the path of
        a JSON file (a list, or SQuAD's own nested form) or a JSONL file (one object a line) with rows
        {"title": str, "text": str, "questions": [{"question": str, "answers": [str, ...]}, ...]}.
        A row may say "context" for "text" and a question "answer": str for "answers" (SQuAD's words).
        None: what goes with the model chosen for this machine, see `source_for`.
    split: "train", "validation" or "test". SQuAD's own test split is not public, so its "test" is its validation split.
        A file's last titles, a quarter of its passages, are its "test" (and "validation") and the others its "train".
        None: "train", and all passages of a file that is given as `source`.
    limit: at most this many, from the start; None for all.
    SQuAD's rows are grouped by passage, in their order, at most QUESTIONS questions each.
    Returns list[Passage]. Raises ValueError naming the row and what to mend, FileNotFoundError for a missing file,
    RuntimeError if SQuAD cannot be downloaded.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: ask for at least one passage, or None for all.")
    if source is None:
        source, split = source_for(), split or "train"
    if split not in (None, *SPLITS):
        raise ValueError(f"There is no split {split!r}: use one of {', '.join(SPLITS)}.")
    if source == "squad":
        return _squad("train" if split in (None, "train") else "validation")[:limit]
    if source == "bundled":
        return _read(BUNDLED / f"{split or 'train'}.jsonl")[:limit]
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"No file {str(source)!r}: give 'bundled', 'squad' or the path of a JSON or JSONL file of passages.")
    passages = _read(path)
    if split:
        train, test = hold_out(passages, max(1, len(passages) // HELD_OUT))
        passages = train if split == "train" else test
    return passages[:limit]


def hold_out(passages, count):
    """Split passages into (train, test), no text and no title in both: the last titles make the test.

    count: of test passages, at most. Titles are kept whole because passages of one article tell of the same things.
    Passages without a title stand for themselves. Raises ValueError if there are too few titles for both sides.
    """
    groups = {}
    for passage in passages:
        groups.setdefault(passage.title or passage.text, []).append(passage)
    articles, test = list(groups.values()), []
    while len(articles) > 1 and len(test) < count:
        test = articles.pop() + test
    texts = {passage.text for passage in test}
    train = [passage for article in articles for passage in article if passage.text not in texts]
    if not test or not train:
        raise ValueError(f"{len(passages)} passages of {len(groups)} titles leave none to train on or none to test: give passages of at least two titles.")
    return train, test[:count]


def save_passages(path, passages):
    """Write passages as JSONL, in the form that `load_passages` reads."""
    rows = (
        {"title": p.title, "text": p.text, "questions": [{"question": q.question, "answers": list(q.answers)} for q in p.questions]}
        | ({"oracle": p.oracle} if p.oracle else {})
        for p in passages
    )
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def reachable(address, seconds=5):
    """Whether the server of a URL takes a connection; True behind a proxy, where only an attempt can tell.

    Without a network the hub's client tries every file six times, about 45 s in all, before it says so.
    """
    url = urlsplit(address)
    if getproxies():
        return True
    try:
        socket.create_connection((url.hostname, url.port or (80 if url.scheme == "http" else 443)), seconds).close()
    except OSError:
        return False
    return True


def _squad(split):
    """SQuAD's passages through `datasets`, which caches them."""
    import datasets  # here, since importing it takes a second that the bundled world need not wait

    offline = hub.HF_HUB_OFFLINE or not reachable(hub.ENDPOINT)  # it would try for half a minute before it looks into its cache
    try:
        with patch.object(datasets.config, "HF_HUB_OFFLINE", offline), patch.object(hub, "HF_HUB_OFFLINE", offline):
            rows = datasets.load_dataset(SQUAD, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RuntimeError(f"SQuAD could not be loaded ({reason}): connect to the network, or give the path of a file of passages.") from error
    return group_questions(rows)


def group_questions(rows):
    """Passages from rows that hold one question each, in SQuAD's fields: title, context, question, answers {"text": [str]}."""
    passages = {}
    for row in rows:
        questions = passages.setdefault((row["title"], row["context"]), [])
        answers = tuple(dict.fromkeys(answer for answer in row["answers"]["text"] if answer.strip()))
        if answers and len(questions) < QUESTIONS:
            questions.append(Question(row["question"].strip(), answers))
    return [Passage(title.replace("_", " "), text, tuple(questions)) for (title, text), questions in passages.items() if questions]


def _read(path):
    """The passages of a JSON or JSONL file."""
    return [_passage(row, f"{path.name}, {number}") for number, row in _rows(path)]


def _rows(path):
    """(where it is, parsed object) of a JSON list, SQuAD's nested JSON or a JSONL file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error
    start = text.lstrip()[:1]
    nested = start == "{" and '"data"' in text[:2000] and '"paragraphs"' in text
    if start == "[" or nested:
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}, line {error.lineno} is not JSON ({error.msg}): mend the file.") from error
        yield from _nested(parsed, path.name) if nested else ((f"row {number}", row) for number, row in enumerate(parsed, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"row {number}", json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path.name}, line {number} is not JSON ({error.msg}): mend or remove the line.") from error


def _nested(parsed, name):
    """(where it is, row as `_passage` takes it) of SQuAD's own file: {"data": [{"title", "paragraphs": [{"context", "qas"}]}]}."""
    for i, article in enumerate(parsed["data"], 1):
        if not isinstance(article, dict) or not isinstance(article.get("paragraphs"), list):
            raise ValueError(f"{name}, article {i} has no list of paragraphs.")
        for j, paragraph in enumerate(article["paragraphs"], 1):
            where = f"article {i}, paragraph {j}"
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
                raise ValueError(f"{name}, {where} has no list of questions 'qas'.")
            answerable = [q for q in paragraph["qas"] if not (isinstance(q, dict) and q.get("is_impossible"))]  # SQuAD 2.0's others
            if answerable or not paragraph["qas"]:
                yield where, {"title": str(article.get("title", "")).replace("_", " "), "text": paragraph.get("context"), "questions": answerable[:QUESTIONS]}


def _passage(row, where):
    """A Passage from one row, or a ValueError that says what the row lacks."""
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not an object with title, text and questions.")
    text = row.get("text") or row.get("context")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{where} has no text: give the passage in a field 'text'.")
    if not row.get("questions"):
        raise ValueError(f"{where} has no questions: without an exam a self-edit earns no reward; add some under 'questions'.")
    questions = []
    for number, q in enumerate(row["questions"], 1):
        q = q if isinstance(q, dict) else {}
        answers = q.get("answers") or q.get("answer") or ()
        answers = answers if isinstance(answers, (list, tuple)) else (answers,)
        answers = (answer.get("text", "") if isinstance(answer, dict) else answer for answer in answers)
        answers = tuple(dict.fromkeys(str(answer) for answer in answers if str(answer).strip()))
        if not str(q.get("question", "")).strip() or not answers:
            raise ValueError(f"{where}, question {number} has no question or no answer: fill both in, or remove it.")
        questions.append(Question(q["question"], answers))
    return Passage(row.get("title", ""), text, tuple(questions), row.get("oracle", ""))
