"""ARC's tasks from files: every shape is read, or refused in one sentence naming file and task."""

import json
import logging

import pytest
from conftest import PAPER

from sealkit.tasks.puzzles import Puzzle, load_puzzles

CASES = PAPER.parent / "cases" / "puzzles"


def task_of(n):
    return {"train": [{"input": [[1, n]], "output": [[n, 1]]}], "test": TASK["test"]}


TASK = {
    "train": [{"input": [[1, 0]], "output": [[0, 1]]}],
    "test": [{"input": [[2, 0]], "output": [[0, 2]]}],
}


def written(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), "utf-8")
    return path


def test_one_task_a_file_many_in_one_and_solutions_apart(tmp_path):
    expected = Puzzle("a", ((((1, 0),), ((0, 1),)),), ((((2, 0),), ((0, 2),)),))
    assert load_puzzles(written(tmp_path / "a.json", TASK)) == [expected]
    assert load_puzzles(tmp_path) == [expected]
    many = written(tmp_path / "many_challenges.json", {"a": TASK | {"test": [{"input": [[2, 0]]}]}})
    with pytest.raises(ValueError, match="task 'a': the output of a test is missing"):
        load_puzzles(many)
    elsewhere = written(tmp_path / "answers.json", {"a": [[[0, 2]]]})
    assert load_puzzles(many, solutions=elsewhere) == [expected]
    written(tmp_path / "many_solutions.json", {"a": [[[0, 2]]]})
    assert load_puzzles(many) == [expected]
    eight = written(tmp_path / "eight.json", {str(n): task_of(n) for n in range(8)})
    assert [p.title for p in load_puzzles(eight, "test")] == ["6", "7"]
    assert len(load_puzzles(eight, "train")) == 6 and len(load_puzzles(eight, limit=3)) == 3


@pytest.mark.parametrize(
    "value, said",
    [
        ("{", "can't be read as JSON"),
        ([], "holds no tasks"),
        (5, "task 'bad': input should be"),
        ([{"input": [[1]], "output": [[2]]}], "task 'bad', train: list should have"),
        ({}, "holds no tasks"),
        (TASK | {"train": []}, "task 'bad', train: list should have at least 1 item"),
        ({"test": TASK["test"]}, "task 'bad', train: field required"),
        ({"train": TASK["train"]}, "task 'bad', test: field required"),
        ({"x": 5}, "task 'x': input should be"),
        (TASK | {"test": [{"input": [[1]]}]}, "task 'bad': the output of a test is missing"),
        (TASK | {"test": [{"output": [[1]]}]}, "task 'bad', test 1, input: field required"),
        (TASK | {"train": [{"input": [[1]]}]}, "task 'bad', train 1: a demonstration needs"),
        (TASK | {"train": [{"input": [[1], [1, 2]], "output": [[1]]}]}, "rows differ in length"),
        (TASK | {"train": [{"input": [[10]], "output": [[1]]}]}, "less than 10"),
        (TASK | {"train": [{"input": [[-1]], "output": [[1]]}]}, "greater than or equal to 0"),
        (TASK | {"train": [{"input": [["1"]], "output": [[1]]}]}, "valid integer"),
        (
            TASK | {"train": [{"input": [[]], "output": [[1]]}]},
            "train 1, input 1: tuple should have at least 1 item",
        ),
        (TASK | {"train": [{"input": [[1] * 31], "output": [[1]]}]}, "at most 30"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence_that_names_file_and_task(tmp_path, value, said):
    path = written(tmp_path / "bad.json", value)
    with pytest.raises(ValueError) as error:
        load_puzzles(path)
    assert said in str(error.value) and "bad.json" in str(error.value)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_solutions_that_do_not_fit_are_refused(tmp_path):
    many = written(tmp_path / "c_challenges.json", {"a": TASK | {"test": [{"input": [[2]]}] * 2}})
    for answers in ({"a": [[[0]]]}, {"b": []}, {"a": None}, [], {"a": [[[0]], [[11]]]}):
        path = written(tmp_path / "c_solutions.json", answers)
        with pytest.raises(ValueError, match="c_solutions.json', task 'a'[:,] ") as error:
            load_puzzles(many)
        assert "\n" not in str(error.value) and path.name in str(error.value)


def test_a_missing_file_an_empty_folder_and_an_unknown_split(tmp_path):
    for source, said in ((tmp_path / "none.json", "none.json"), (tmp_path, "holds no .json")):
        with pytest.raises(ValueError, match=said):
            load_puzzles(source)
    with pytest.raises(ValueError, match="No split 'dev'"):
        load_puzzles("bundled", "dev")


def test_every_shape_of_a_file_is_read(tmp_path):
    tasks = {str(n): task_of(n) for n in range(4)}
    expected = load_puzzles(written(tmp_path / "named.json", tasks))
    parts = {"train": {n: tasks[n] for n in "01"}, "eval": {n: tasks[n] for n in "23"}}
    listed = [{"id": n} | task for n, task in tasks.items()]
    shapes = [parts, listed, "\n".join(map(json.dumps, listed)), "\ufeff" + json.dumps(tasks)]
    for shape in shapes:
        assert load_puzzles(written(tmp_path / "shape.json", shape)) == expected
    pairs = [{"input": [[n]], "output": [[n + 1]]} for n in range(6)]
    (puzzle,) = load_puzzles(written(tmp_path / "pairs.json", pairs))
    assert [len(puzzle.demonstrations), puzzle.tests] == [3, ((((3,),), ((4,),)),)]
    (puzzle,) = load_puzzles(written(tmp_path / "pairs.json", pairs[:2]))
    assert [len(puzzle.demonstrations), puzzle.tests] == [1, ((((1,),), ((2,),)),)]


def test_a_folder_with_hidden_files_solutions_and_a_submission(tmp_path):
    written(tmp_path / ".hidden.json", "{")
    written(tmp_path / "a_challenges.json", {"x": TASK | {"test": [{"input": [[2, 0]]}]}})
    written(tmp_path / "a_solutions.json", {"x": [[[0, 2]]]})
    written(tmp_path / "sample_submission.json", {"x": [{"attempt_1": [[0]]}]})
    assert [puzzle.title for puzzle in load_puzzles(tmp_path)] == ["x"]


def test_one_task_under_two_names_is_one_and_one_task_is_no_split(tmp_path, caplog):
    path = written(tmp_path / "p.json", {"a": TASK, "b": TASK})
    with caplog.at_level(logging.WARNING):
        assert [puzzle.title for puzzle in load_puzzles(path)] == ["a"]
    assert caplog.messages == ["'p.json': merged 1 repeated tasks."]
    for split in ("train", "test"):
        with pytest.raises(ValueError, match="holds one task: give at least two"):
            load_puzzles(path, split)
    path = written(tmp_path / "p.json", {"a": task_of(3), "b": TASK})
    assert [load_puzzles(path, split)[0].title for split in ("train", "test")] == ["a", "b"]


@pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases/puzzles is not beside this checkout")
def test_files_of_people_who_do_this_job():
    assert len(load_puzzles(CASES / "bom.json")) == 1 and load_puzzles(CASES / "kaggle")
    assert load_puzzles(CASES / "arc2d.json")
    with pytest.raises(ValueError, match="give at least two"):
        load_puzzles(CASES / "two.json", "test")
    train, test = (load_puzzles(CASES / "dup.json", split) for split in ("train", "test"))
    assert not {p.demonstrations for p in train} & {p.demonstrations for p in test}


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "\0"])
def test_the_name_of_a_task_can_be_printed(tmp_path, name):
    with pytest.raises(ValueError, match=r"p.json', task .* is not printable, so mend it\.$"):
        load_puzzles(written(tmp_path / "p.json", {name: TASK}))
    with pytest.raises(ValueError, match=r"task 'y{59}: the output of a test is missing\.$"):
        load_puzzles(written(tmp_path / "p.json", {"y" * 999: TASK | {"test": [{"input": [[1]]}]}}))


def test_pairs_that_become_no_part_of_a_puzzle_are_counted(tmp_path, caplog):
    """re-arc's lists of a thousand pairs, and pairs under keys that ARC does not have."""
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    task = {"train": [pair] * 2, "test": [pair]}
    folder = tmp_path / "many"
    folder.mkdir()
    for colour, (name, pairs) in enumerate({"a": 10, "b": 4, "c": 2}.items()):
        pairs = [{"input": [[n, colour]], "output": [[colour, n]]} for n in range(pairs)]
        (folder / f"{name}.json").write_text(json.dumps(pairs))
    assert [len(puzzle.demonstrations) for puzzle in load_puzzles(folder)] == [3, 3, 1]
    assert "'many': left out 6 pairs: of a list of pairs the first 3 are" in caplog.text
    caplog.clear()
    (tmp_path / "golf.json").write_text(json.dumps(task | {"arc-gen": [pair] * 5, "tags": ["x"]}))
    assert len(load_puzzles(tmp_path / "golf.json")) == 1
    assert "left out 5 pairs" in caplog.text
    caplog.clear()
    (tmp_path / "plain.json").write_text(json.dumps({"one": task}))
    load_puzzles(tmp_path / "plain.json")
    assert not caplog.text
