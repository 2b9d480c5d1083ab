"""What a course hands out: made by one command, without solutions; turns that name a mistake."""

import ast
import importlib.util
import re
import shutil
from pathlib import Path
from zipfile import ZipFile

import nbformat
import pytest
from matplotlib import pyplot
from test_assignments import NAMES as ASSIGNMENTS
from test_assignments import SOLUTION, WRONG, run
from test_notebooks import NAMES, ROOT, code_cells, needed, read

TURNS = [  # (notebook, turn): a prompt, a cell with a folded solution, a check
    (name, cell.id.removesuffix("-code"))
    for name in NAMES
    for cell in read(name).cells
    if re.fullmatch(r"turn-\w+-code", cell.id)
]


def cell_of(notebook, cell_id):
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return cell


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """The folder that `python notebooks/students.py` makes, of a copy of the notebooks."""
    root = tmp_path_factory.mktemp("course")
    copy = shutil.copytree(ROOT / "notebooks", root / "notebooks")
    spec = importlib.util.spec_from_file_location("students", copy / "students.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.hand_out(copy, root / "students")
    return root / "students"


def test_there_are_two_or_three_turns_in_a_notebook():
    counts = {name: sum(one == name for one, _ in TURNS) for name in NAMES}
    assert all(count in (2, 3) for count in counts.values()) and len(TURNS) >= 16, counts


@pytest.mark.parametrize("name, turn", TURNS)
def test_a_turn_is_a_prompt_a_short_function_folded_and_a_check(name, turn):
    cells = read(name).cells
    place = [cell.id for cell in cells].index(f"{turn}-code")
    prompt, code, check = cells[place - 1 : place + 2]
    assert prompt.id == turn and prompt.source.startswith("**Your turn.** ")
    assert code.metadata.jupyter.source_hidden and not code.outputs
    assert check.id == f"{turn}-check" and "nbval-check-output" in check.metadata.tags
    assert len(re.findall(SOLUTION, code.source)) == 1
    (function,) = ast.parse(code.source).body
    assert f"`{function.name}(" in prompt.source and isinstance(function, ast.FunctionDef)
    lines = [line for line in code.source.splitlines() if "### " not in line and line.strip()]
    assert 3 <= len(lines) <= 10


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, turn", TURNS)
def test_a_wrong_answer_is_told_the_usual_mistake(name, turn):
    """On the cells that the check needs; the solution passes, the wrong answer does not."""
    text = (WRONG / "turns" / name / f"{turn.removeprefix('turn-')}.py").read_text("utf-8")
    (mistake, pattern, answer), *_ = re.findall(r"# WRONG: (.+?) \| (.+)\n((?:.*\n)*)", text)
    cells = read(name).cells
    place = [cell.id for cell in cells].index(f"{turn}-check")
    names = {"__name__": "__main__"}
    *before, check = needed(cells[: place + 1])
    for cell in before:
        assert run(cell.source, names) is None, cell.source
    assert run(check.source, dict(names)) is None
    assert run(answer, names) is None
    error = run(check.source, names)
    assert isinstance(error, AssertionError), f"{mistake}: {error!r}"
    assert re.search(pattern, str(error)), f"{mistake}: {error}"


@pytest.mark.parametrize("name", NAMES)
def test_lessons_are_handed_out_empty(name, students):
    lesson = nbformat.read(students / "lessons" / f"{name}.ipynb", as_version=4)
    nbformat.validate(lesson)
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(lesson))
    whole = read(name)
    assert [cell.id for cell in lesson.cells] == [cell.id for cell in whole.cells]
    for cell, solved in zip(lesson.cells, whole.cells):
        stub = re.sub(SOLUTION, "", solved.source)
        assert ("YOUR CODE HERE" in cell.source) == (stub != solved.source)
        assert "SOLUTION" not in cell.source and "jupyter" not in cell.metadata
        for part in re.findall(SOLUTION, solved.source):
            told = {line.strip() for line in part.splitlines()}
            assert not told & {line.strip() for line in cell.source.splitlines()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", dict(TURNS))
def test_a_students_lesson_runs_up_to_its_first_turn(name, students, monkeypatch):
    """There it says so; with a solution in place, the check passes."""
    lesson = nbformat.read(students / "lessons" / f"{name}.ipynb", as_version=4)
    turn = next(turn for one, turn in TURNS if one == name)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    pyplot.switch_backend("Agg")
    names = {"__name__": "__main__"}
    for cell in code_cells(lesson):
        error = run(cell.source, names)
        if cell.id == f"{turn}-check":
            break
        assert error is None, f"{cell.id}: {error!r}"
    pyplot.close("all")
    assert isinstance(error, NotImplementedError) and "Your turn" in str(error)
    assert run(cell_of(read(name), f"{turn}-code").source, names) is None
    assert run(cell.source, names) is None


def test_assignments_are_handed_out_without_solutions(students):
    with ZipFile(f"{students}.zip") as bundle:
        names = set(bundle.namelist())
        for name in ASSIGNMENTS:
            text = bundle.read(f"assignments/{name}/{name}.ipynb").decode()
            assert not re.search("BEGIN (SOLUTION|HIDDEN)", text) and "YOUR CODE HERE" in text
    files = {str(path.relative_to(students)) for path in students.rglob("*.ipynb")}
    assert files <= names and len(files) == len(NAMES) + len(ASSIGNMENTS)
    assert not [name for name in names if Path(name).suffix not in ("", ".ipynb")]
