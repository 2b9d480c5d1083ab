"""The assignments: released without solutions, graded by nbgrader, clear about what is wrong."""

import ast
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbgrader.api import Gradebook
from nbgrader.validator import Validator

ROOT = Path(__file__).parents[1]
COURSE = ROOT / "notebooks" / "assignments"
WRONG = Path(__file__).parent / "wrong_answers"
NAMES = [
    "01_quantized_loading",
    "02_self_edit_generation",
    "03_qlora_inner_loop",
    "04_restem_outer_loop",
    "05_evaluation",
    "06_few_shot_puzzles",
    "07_continual_learning",
    "08_open_questions",
]
SOLUTION = r"(?ms)^ *### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION$"
HIDDEN = r"(?ms)^### BEGIN HIDDEN TESTS\n(.*?)^### END HIDDEN TESTS$"


def read(folder, name):
    return nbformat.read(Path(folder) / name / f"{name}.ipynb", as_version=4)


def source(name):
    return read(COURSE / "source", name)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def is_(cell, role):
    """Whether nbgrader marks the cell as "grade" (it has points) or "solution" (to fill in)."""
    return cell.metadata.get("nbgrader", {}).get(role, False)


def exercises(notebook):
    """{grade id of the solution cell: its test cells}, for the autograded exercises."""
    found = {}
    for cell in code_cells(notebook):
        if is_(cell, "solution"):
            tests = found.setdefault(grade_id(cell), [])
        elif is_(cell, "grade"):
            tests.append(cell)
    return found


def wrong_answers(name, exercise):
    """[(what is wrong, pattern that the message has to match, code)] from the exercise's file."""
    text = (WRONG / name / f"{exercise}.py").read_text("utf-8")
    return re.findall(r"^# WRONG: (.+?) \| (.+)\n((?:(?!# WRONG).*\n?)*)", text, re.M)


# --- The sources


@pytest.mark.parametrize("name", NAMES)
def test_source_is_clean_and_says_what_it_asks(name):
    notebook = source(name)
    nbformat.validate(notebook)
    cells, text = code_cells(notebook), "\n".join(cell.source for cell in notebook.cells)
    lesson = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    setup, environment = (cell.source for cell in code_cells(lesson)[:2])
    assert [cell.source for cell in cells[:2]] == [
        setup,
        environment.replace("environment()", 'environment("bundled")'),
    ]
    assert all(cell.execution_count is None and not cell.outputs for cell in cells)
    assert max(len(cell.source.splitlines()) for cell in cells if not is_(cell, "grade")) <= 30
    marked = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert all(meta.schema_version == 3 for meta in marked)
    stated = re.findall(r"^\*Difficulty: ●+○* · (\d+) minutes · (\d+) points", text, re.M)
    minutes, points = (sum(map(int, column)) for column in zip(*stated))
    assert (
        3 <= len(stated) <= 5
        and 60 <= minutes <= 90
        and points == sum(meta.get("points", 0) for meta in marked)
    )
    words = ["", "One", "Two", "Three", "Four", "Five"]
    assert f"**{words[len(stated)]} exercises, {points} points, about {minutes} minutes.**" in text
    manual = [cell for cell in notebook.cells if is_(cell, "grade") and is_(cell, "solution")]
    assert len(exercises(notebook)) + len(manual) == len(stated)
    for tests in exercises(notebook).values():
        assert (
            len(tests) >= 2
            and not re.search(HIDDEN, tests[0].source)
            and re.search(HIDDEN, tests[-1].source)
        )
        for statement in ast.walk(ast.parse("\n".join(cell.source for cell in tests))):
            if isinstance(statement, ast.Assert):
                said = [
                    node.value
                    for node in ast.walk(statement.msg or statement)
                    if isinstance(node, ast.Constant)
                ]
                assert any(isinstance(text, str) and " " in text.strip() for text in said), (
                    ast.unparse(statement)
                )


COLUMNS = Validator().width - 3 - len(Validator().indent)  # of which `nbgrader validate` cuts none
WIDTH = COLUMNS - len("---> 12 ")  # of code, which it prints with its numbers
HINT = 70  # columns of a message


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_a_test_is_cut_by_validate(name):
    tests = [cell.source for cell in code_cells(source(name)) if is_(cell, "grade")]
    wide = [line for text in tests for line in text.splitlines() if len(line) > WIDTH]
    assert tests and not wide, wide
    told = [hint for text in tests for hint in hints(text)]
    assert len(told) >= 30 and all(map(uncut, told)), [hint for hint in told if not uncut(hint)]


def hints(text):
    """The messages of a test cell's assertions; of f-strings what stands between the values."""
    asserts = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assert)]
    for node in (node for statement in asserts for node in ast.walk(statement.msg)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def uncut(error):
    """Whether `nbgrader validate` shows a message whole, behind "AssertionError: " and indented."""
    first, *others = str(error).splitlines() or [""]
    return len(first) <= COLUMNS - len("AssertionError: ") and all(
        len(line) <= HINT for line in others
    )


# --- Wrong answers: each loses points, and is told why


def run(code, namespace):
    """Execute a cell quietly in a namespace, as IPython would; returns None, or the error."""
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            exec(TransformerManager().transform_cell(code), namespace)
    except Exception as error:
        return error


def mark(tests, namespace):
    """(points earned, first error or None) of an exercise's test cells."""
    errors = [run(cell.source, namespace) for cell in tests]
    earned = sum(
        cell.metadata.nbgrader.points for cell, error in zip(tests, errors) if error is None
    )
    return earned, next((error for error in errors if error), None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_wrong_answers_lose_points_with_a_message_that_names_the_mistake(name, capsys):
    notebook, namespace, rows = source(name), {"__name__": "__main__"}, []
    found = exercises(notebook)
    for cell in code_cells(notebook):
        if is_(cell, "solution"):
            exercise, tests = grade_id(cell), found[grade_id(cell)]
            most = sum(test.metadata.nbgrader.points for test in tests)
            for mistake, pattern, code in wrong_answers(name, exercise):
                own = dict(namespace)
                assert run(code, own) is None, mistake
                earned, error = mark(tests, own)
                message = " ".join(str(error).split())
                named = isinstance(error, AssertionError) and bool(re.search(pattern, message))
                assert uncut(error), str(error)
                rows.append(
                    (
                        exercise,
                        mistake,
                        earned < most,
                        named,
                        f"{earned}/{most}",
                        message or repr(error),
                    )
                )
            assert run(cell.source, namespace) is None
            assert mark(tests, dict(namespace)) == (most, None), exercise
        elif not is_(cell, "grade"):
            assert run(cell.source, namespace) is None
    told = sum(lost and named for _, _, lost, named, *_ in rows)
    with capsys.disabled():
        print(f"\n{name}: exercise | wrong answer | points | message")
        for exercise, mistake, lost, named, points, message in rows:
            end = "" if lost and named else "   <-- NOT TOLD"
            print(f"  {exercise} | {mistake} | {points} | {message}{end}")
        print(f"  {told} of {len(rows)} wrong answers lose points and are told the mistake")
    assert all(sum(row[0] == exercise for row in rows) >= 4 for exercise in found)
    assert told >= 0.95 * len(rows)


# --- nbgrader itself, on a copy of the course


def nbgrader(course, *arguments):
    """Run an nbgrader command in a course folder; fails with its output."""
    # nbgrader calls alembic by its name
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments],
        cwd=course,
        env=os.environ | {"PATH": paths},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def submit(course, name, student, answers):
    """Hand in the released notebook with {grade id: text of the answer} filled in."""
    notebook = read(course / "release", name)
    for cell in notebook.cells:
        if is_(cell, "solution") and grade_id(cell) in answers:
            cell.source = answers[grade_id(cell)]
    folder = course / "submitted" / student / name
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def grades(course, name, student):
    """{grade id: (points by the autograder, maximum, needs a person)} of one submission."""
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as book:
        (notebook,) = book.find_submission(name, student).notebooks
        return {
            grade.name: (grade.auto_score, grade.max_score, grade.needs_manual_grade)
            for grade in notebook.grades
        }


def reference(name):
    return {grade_id(cell): cell.source for cell in source(name).cells if is_(cell, "solution")}


def by_hand(name):
    """The grade ids of the answers that a person marks."""
    cells = source(name).cells
    return {grade_id(cell) for cell in cells if is_(cell, "grade") and is_(cell, "solution")}


def points_of_stub(course, name):
    """{grade id: points} of the released notebook as it is, with the hidden tests, run here."""
    whole = {grade_id(cell): cell for cell in source(name).cells if is_(cell, "grade")}
    namespace, points = {"__name__": "__main__"}, {}
    for cell in code_cells(read(course / "release", name)):
        if is_(cell, "grade"):
            test = whole.pop(grade_id(cell))
            points[grade_id(cell)], _ = mark([test], namespace)
        elif error := run(cell.source, namespace):
            assert is_(cell, "solution") or isinstance(error, NotImplementedError), error
    assert not whole and points
    return points


def grade_course(course, name):
    """Release, hand in the reference solution, autograde; returns its seconds.

    So too an untouched stub, where nbgrader has to see that nobody need mark it by hand.
    Here nbgrader is as strict as by default: anything on stderr in a test cell scores 0.
    """
    (course / "source").mkdir(parents=True)
    shutil.copytree(COURSE / "source" / name, course / "source" / name)
    shutil.copy(COURSE / "nbgrader_config.py", course)
    nbgrader(course, "generate_assignment", name)
    submit(course, name, "reference", reference(name))
    if by_hand(name):
        submit(course, name, "stub", {})
    start = time.time()
    nbgrader(course, "autograde", name, "--IgnorePattern.enabled=False")
    return time.time() - start


@pytest.fixture(scope="module")
def courses(tmp_path_factory):
    """A function: assignment -> (its course folder, graded; seconds). Two run at a time."""
    root = tmp_path_factory.mktemp("courses")
    with ThreadPoolExecutor(2) as pool:
        jobs = {name: pool.submit(grade_course, root / name, name) for name in NAMES}
        yield lambda name: (root / name, jobs[name].result())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_solutions_and_hidden_tests_is_released(name, courses):
    notebook = read(courses(name)[0] / "release", name)
    released = "\n".join(cell.source for cell in notebook.cells)
    secret, public = set(), set()
    for cell in source(name).cells:
        parts = re.findall(SOLUTION, cell.source) + re.findall(HIDDEN, cell.source)
        if is_(cell, "solution") and cell.cell_type == "markdown":
            parts = [cell.source]
        secret |= {line.strip() for part in parts for line in part.splitlines()}
        rest = re.sub(HIDDEN, "", re.sub(SOLUTION, "", cell.source))
        public |= {line.strip() for line in rest.splitlines() if cell.source not in parts}
    assert len(secret - public) > 20
    assert not (secret - public) & {line.strip() for line in released.splitlines()}
    assert not re.search("SOLUTION|HIDDEN TEST", released) and not any(
        cell.outputs for cell in code_cells(notebook)
    )
    assert (
        released.count("YOUR CODE HERE") >= len(exercises(source(name)))
        and "Hidden tests:" in released
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_reference_gets_everything_and_an_untouched_stub_nothing(name, courses):
    course, seconds = courses(name)
    full = grades(course, name, "reference")
    manual = by_hand(name)
    assert {grade for grade, (_, _, person) in full.items() if person} == manual
    assert {grade for grade, (points, most, _) in full.items() if points != most} == manual
    if manual:
        empty = grades(course, name, "stub")
        assert all(points == 0 and not person for points, _, person in empty.values())
    else:
        assert points_of_stub(course, name) == dict.fromkeys(full, 0)
    for cell in code_cells(read(course / "autograded" / "reference", name)):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.source
    assert seconds < 240, "two submissions of at most two minutes each"


NOISE = """import sys, warnings
from tqdm.auto import tqdm

def noise():
    warnings.warn("careful")
    print("thinking", file=sys.stderr)
    return list(tqdm(range(3)))

noise()
"""


def test_a_noisy_student_loses_nothing_and_a_wrong_one_is_told_why(courses):
    name = "05_evaluation"
    course, _ = courses(name)
    noisy = {
        key: NOISE + text.replace("### BEGIN SOLUTION", "noise()")
        for key, text in reference(name).items()
    }
    noisy["claim"] = reference(name)["claim"]
    noisy["grade"] = NOISE + reference(name)["grade"]  # a test calls it thousands of times
    mistake, pattern, code = wrong_answers(name, "interval")[0]
    submit(course, name, "noisy", noisy)
    submit(course, name, "wrong", noisy | {"interval": code})
    nbgrader(course, "autograde", name)  # those who are not marked yet
    nbgrader(course, "generate_feedback", name, "--student", "wrong")
    lost = {
        student: {
            grade
            for grade, (points, most, _) in grades(course, name, student).items()
            if points != most
        }
        for student in ("noisy", "wrong")
    }
    assert lost == {
        "noisy": {"claim"},
        "wrong": {"claim", "test_interval"},
    }  # a claim is marked by hand
    feedback = (course / "feedback" / "wrong" / name / f"{name}.html").read_text("utf-8")
    assert re.search(pattern, " ".join(feedback.split())), mistake
