"""A run's folder, read back: what it holds by now, without a model and without computing."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any

from ..continual.forgetting import Forgetting, Row
from ..continual.stream import MEMORY
from ..evaluation import Comparison
from ..inner_loop import Trial
from ..outer_loop import Iteration
from ..policy import Config, Weights
from ..runs.files import RunError, corrupt_file_error, write_json
from ..runs.identity import digest
from ..runs.journal import Journal
from ..tasks import Domain, arc, knowledge, puzzles
from ..tasks.passages import Passage, load_passages, save_passages
from .rows import count_styles

BEFORE = "self-edits before RL"
AFTER = re.compile(r"after iteration \d+")
SPLITS = "train", "test"


@dataclass(frozen=True)
class Record:
    """What `read_record` found.

    settings, machine: of run.json. command: the options it was last given, {} for `run_seal`'s.
    train, test: its passages; of puzzles, those of `test`. iterations: those that are finished.
    seconds: {iteration: float}. comparison: the arms that are finished, None before there is one.
    tried: {arm: a Trial for each of `test`}, of the arms that train. streams: the Forgetting of a
    run on streams, memory: the adapter that the first of them left.
    """

    folder: Path
    settings: dict
    machine: dict
    command: dict
    train: list[Passage]
    test: list[Any]
    iterations: tuple[Iteration, ...]
    seconds: dict[int, float]
    comparison: Comparison | None
    tried: dict[str, list[Trial]]
    streams: Forgetting | None = None
    memory: Weights | None = None

    @property
    def task(self) -> Domain[Any]:
        """The domain, a module."""
        return puzzles if self.settings.get("task") == puzzles.__name__ else knowledge

    def styles(self, iteration: Iteration) -> dict[str, int] | None:
        """{kind: number of self-edits of an iteration}, None if its passages are not known."""
        items: list[Any] = self.train or [None] * len(iteration.trials)
        known = self.train or self.task is puzzles  # which needs none of them
        return count_styles(iteration, items, self.task) if known else None

    @property
    def begun(self) -> str:
        """The day on which the run began, empty if nobody knows."""
        path = self.folder / "run.json"  # which is written once
        return date.fromtimestamp(path.stat().st_mtime).isoformat() if path.is_file() else ""

    @property
    def config(self) -> Config | None:
        """The Config that the run went by, without its `keep`; None for prompts of one's own."""
        task: Any = self.task
        configs = [c for name, c in vars(task).items() if name.endswith("_CONFIG")]
        known = {digest([c.prompts]): c for c in configs}
        names = {field.name for field in fields(Config)} - {"prompts", "keep"}
        config = known.get(self.settings.get("prompts", ""))
        return config and replace(config, **{n: self.settings[n] for n in names})

    def right(self, item: Any, n: int, answer: str) -> bool | None:
        """Whether the task grades the answer to an item's question n as right; None: not known."""
        if (config := self.config) is None:
            return None
        part = "questions" if self.task is knowledge else "tests"
        one = replace(item, **{part: getattr(item, part)[n : n + 1]})
        return self.task.reward(one, [answer], config) == 1

    @property
    def first(self) -> str | None:
        """The arm of the first policy, None before there is one."""
        return next((arm for arm in self.arms if arm.endswith("before RL")), None)

    @property
    def last(self) -> str | None:
        """The arm of the last policy, None before there is one."""
        return next((arm for arm in reversed(self.arms) if AFTER.fullmatch(arm)), None)

    @property
    def arms(self) -> list[str]:
        """The names of the arms that are finished."""
        return list(self.comparison.scores) if self.comparison else []


def note_command(folder: Path, command: Mapping[str, Any], **items: Sequence[Any]) -> None:
    """Write to a run's folder what only its command line knows: options, and items by split."""
    write_json(folder / "command.json", command)
    for split, of_split in items.items():
        if command.get("task") == "puzzles":
            write_json(folder / f"{split}.json", list(map(arc.task_of, of_split)))
        else:
            save_passages(folder / f"{split}.jsonl", of_split)


def read_record(folder: str | Path) -> Record:
    """The Record of a run's folder, finished or not. Raises RunError if it holds no run."""
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise RunError(f"{str(folder)!r} holds no run: give a run's folder, such as runs/1.")
    names = "run.json", "command.json", "results.json"
    about, command, results = (read_json(folder / name) for name in names)
    files = [folder / f"{split}.jsonl" for split in SPLITS]
    test: list[Any]
    train, test = (load_passages(path) if path.is_file() else [] for path in files)
    if (path := folder / "test.json").is_file():
        test = arc.puzzles_of_file(path, None, [])
    journal = Journal(folder)
    streams = streams_of(journal, about["settings"].get("k"))
    tried, scores = ({}, {}) if streams else arms_of(journal, len(test))
    if about["settings"].get("task") == puzzles.__name__ or not scores:
        scores = {arm: tuple(r) for arm, r in results.get("accuracy", {}).items()}
    notes, costs = tuple(results.get("notes", ())), results.get("costs", {})
    comparison = Comparison(scores, notes, costs) if scores else None
    seconds = {key[1]: value for key, value in journal.items() if key[0] == "seconds"}
    try:
        iterations = tuple(iterations_of(journal, [passage.title for passage in train]))
    except KeyError as error:
        raise corrupt_file_error(journal.path, f"no line has the key {error}") from error
    parts = about["settings"], about["machine"], command, train, test, iterations
    memory = journal.get(MEMORY, {}).get("weights")
    return Record(folder, *parts, seconds, comparison, tried, streams, memory)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; {} if there is none."""
    try:
        value = json.loads(path.read_text("ascii")) if path.is_file() else {}
        if not isinstance(value, dict) or path.name == "run.json" and not value["settings"]:
            raise ValueError("no record of a run")
        return value
    except (OSError, ValueError, KeyError) as error:
        raise corrupt_file_error(path, error) from error


def iterations_of(journal: Journal, names: Sequence[str]) -> Iterator[Iteration]:
    """Yield the Iteration of each M-step in a journal. names: of the items, as far as known."""
    for t in count(1):
        if ("policy", t) not in journal:
            return
        cells = sorted(key[2:] for key in journal if key[:2] == ("self-edit", t))
        n, k = (1 + max(cell[axis] for cell in cells) for axis in (0, 1))
        trial = {(i, j): Trial(**journal["trial", t, i, j]) for i in range(n) for j in range(k)}
        update = journal["policy", t]
        yield Iteration(
            number=t,
            names=tuple(names) if len(names) == n else tuple(f"{i + 1}" for i in range(n)),
            baseline_rewards=tuple(journal["before", t, i] for i in range(n)),
            item_only_rewards=tuple(journal["trial", t, i, None]["reward"] for i in range(n)),
            trials=tuple(tuple(trial[i, j] for j in range(k)) for i in range(n)),
            kept=tuple(map(tuple, update.get("kept", ()))),
            losses=tuple(update["losses"]),
            weights=update["weights"],
        )


def streams_of(journal: Journal, count: int) -> Forgetting | None:
    """The Forgetting of `count` streams, of the remedies that are done; None if there is none."""
    rows: dict[str, dict[int, Row]] = {}  # remedy, stream
    start = "stream, "
    for key, row in journal.items():
        if key[0] == "arm" and key[1].startswith(start):
            rows.setdefault(key[1].removeprefix(start), {})[key[3]] = row
    finished = {
        name: [by_stream[i] for i in range(count)]
        for name, by_stream in rows.items()
        if len(by_stream) == count
    }
    return Forgetting(finished) if finished else None


def arms_of(
    journal: Journal, count: int
) -> tuple[dict[str, list[Trial]], dict[str, tuple[float, ...]]]:
    """({arm: its Trials}, {arm: its rewards}) on the `count` passages of the last comparison."""
    by_arm: dict[str, dict[str, dict[int, Any]]] = {}  # arm, inputs, place of the item
    tried: dict[str, list[Trial]] = {}
    scores: dict[str, tuple[float, ...]] = {}
    for key, value in journal.items():
        if (
            count and key[0] == "arm" and key[2].startswith(f"{count + 1}, ")
        ):  # the config is digested too
            by_arm.setdefault(key[1], {}).setdefault(key[2], {})[key[3]] = value
    for arm in sorted(by_arm, key="oracle".__eq__):  # last, also after more iterations
        values = list(by_arm[arm].values())[-1]
        if len(values) == count:
            rows = [values[i] for i in range(count)]
            if isinstance(rows[0], dict):
                tried[arm] = [Trial(**row) for row in rows]
                rows = [row["reward"] for row in rows]
            scores[arm] = tuple(rows)
    return tried, scores
