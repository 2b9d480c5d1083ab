"""Passages with closed-book questions: the bundled world's, or your own from a JSON or JSONL file."""

import json
from dataclasses import dataclass
from pathlib import Path

BUNDLED = Path(__file__).parent / "bundled"
SPLITS = ("train", "validation", "test")


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


def load_passages(source="bundled", split="train", limit=None):
    """Passages of one split of the bundled world, or of a file of your own.

    source: "bundled", or the path of a JSON file (a list) or a JSONL file (one object a line) with rows
        {"title": str, "text": str, "questions": [{"question": str, "answers": [str, ...]}, ...]}.
        A row may say "context" for "text" and a question "answer": str for "answers" (SQuAD's words).
    split: "train", "validation" or "test" (bundled only).
    limit: at most this many, from the start; None for all.
    Returns list[Passage]. Raises ValueError naming the row and what to mend, FileNotFoundError for a missing file.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: ask for at least one passage, or None for all.")
    if source == "bundled":
        if split not in SPLITS:
            raise ValueError(f"The bundled world has no split {split!r}: use one of {', '.join(SPLITS)}.")
        path = BUNDLED / f"{split}.jsonl"
    else:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"No file {str(source)!r}: give 'bundled' or the path of a JSON or JSONL file of passages.")
    return [_passage(row, f"{path.name}, row {number}") for number, row in _rows(path)][:limit]


def save_passages(path, passages):
    """Write passages as JSONL, in the form that `load_passages` reads."""
    rows = (
        {"title": p.title, "text": p.text, "questions": [{"question": q.question, "answers": list(q.answers)} for q in p.questions]}
        | ({"oracle": p.oracle} if p.oracle else {})
        for p in passages
    )
    Path(path).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _rows(path):
    """(row number from 1, parsed object) of a JSON list or a JSONL file."""
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), 1)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}, line {error.lineno} is not JSON ({error.msg}): mend the file.") from error
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path.name}, line {number} is not JSON ({error.msg}): mend or remove the line.") from error


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
        answers = tuple(str(answer) for answer in answers if str(answer).strip())
        if not str(q.get("question", "")).strip() or not answers:
            raise ValueError(f"{where}, question {number} has no question or no answer: fill both in, or remove it.")
        questions.append(Question(q["question"], answers))
    return Passage(row.get("title", ""), text, tuple(questions), row.get("oracle", ""))
