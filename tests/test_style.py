"""The house rules that a machine can check: short functions, few parameters, imports downwards."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sealkit"
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
HOUSE = {name: path for name, path in FILES.items() if not name.startswith("bundled.")}
ORDER = [  # each may import those before it
    "runs.errors",
    "runs.files",
    "runs.processes",
    "runs.cache",
    "runs.journal",
    "runs.folder",
    "runs.identity",
    "models.smollm2",
    "models.choice",
    "models.errors",
    "models.convert",
    "models.sampling",
    "models.text",
    "models.adapters",
    "models.unpacking",
    "checks",
    "selection",
    "loading",
    "policy",
    "lora",
    "inner_loop",
    "outer_loop",
    "evaluation.together",
    "evaluation.__init__",
    "evaluation.controls",
    "m_steps.__init__",
    "m_steps.losses",
    "tasks.tokens",
    "tasks.grading",
    "tasks.passages",
    "tasks.knowledge",
    "tasks.arc",
    "tasks.puzzles",
    "tasks.diagnosis",
    "tasks.few_shot",
    "continual.adapters",
    "continual.forgetting",
    "continual.remedies",
    "continual.stream",
    "continual.remembering",
    "api",
    "estimate",
    "figures",
    "cli.rows",
    "cli.record",
    "cli.minutes",
    "cli.page",
    "cli.talk",
    "cli.web",
    "cli.main",
    "__main__",
]
TAUGHT = {  # the notebook that builds by hand what the module does
    "loading": "01_quantized_loading",
    "selection": "04_restem_outer_loop",
    "policy": "02_self_edit_generation",
    "tasks.knowledge": "02_self_edit_generation",
    "lora": "03_qlora_inner_loop",
    "inner_loop": "03_qlora_inner_loop",
    "outer_loop": "04_restem_outer_loop",
    "tasks.tokens": "05_evaluation",
    "tasks.grading": "05_evaluation",
    "evaluation.__init__": "05_evaluation",
    "tasks.puzzles": "06_few_shot_puzzles",
    "tasks.few_shot": "06_few_shot_puzzles",
    "continual.forgetting": "07_continual_learning",
    "continual.remedies": "07_continual_learning",
    "continual.remembering": "07_continual_learning",
    "continual.stream": "07_continual_learning",
    "evaluation.together": "08_open_questions",
    "m_steps.__init__": "08_open_questions",
    "m_steps.losses": "08_open_questions",
}
LINES, PARAMETERS = 55, 7  # with annotated signature and docstring


def functions(path):
    """The functions of a file, methods and nested ones too."""
    kinds = ast.FunctionDef, ast.AsyncFunctionDef
    return [
        node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, kinds)
    ]


def lines_of(path):
    return len(path.read_text("utf-8").splitlines())


def test_no_function_is_longer_than_a_screen():
    long = [
        f"{name}.{node.name}: {node.end_lineno - node.lineno + 1}"
        for name, path in FILES.items()
        for node in functions(path)
        if not name.startswith("bundled")  # the house of the issue is sealkit without it
        if node.end_lineno - node.lineno + 1 > LINES
    ]
    assert not long, ", ".join(long)


def test_no_function_has_more_than_seven_parameters():
    many = {}
    for name, path in FILES.items():
        for node in functions(path):
            every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            if (
                count := len([one for one in every if one.arg not in ("self", "cls")])
            ) > PARAMETERS:
                many[f"{name}.{node.name}"] = count
    assert not many, ", ".join(f"{name}: {count}" for name, count in many.items())


def imported(name, path):
    """The modules of this package that a file imports, at any depth."""
    package, tree = ["sealkit", *name.split(".")][:-1], ast.parse(path.read_text("utf-8"))
    for node in list(ast.walk(tree)):  # what a type checker alone imports is no arrow
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names if alias.name.startswith("sealkit")]
        elif isinstance(node, ast.ImportFrom) and (
            node.level or (node.module or "").startswith("sealkit")
        ):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")]
            base = ".".join(part for part in base if part)
            found = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for one in found:
            one = one.removeprefix("sealkit").removeprefix(".")
            one = one if one in FILES else one.rpartition(".")[0] or "__init__"
            yield one if one in FILES else f"{one}.__init__"


def test_imports_run_downwards():
    declared = "tasks.__init__"  # what a domain has to have
    every = {
        name
        for name, path in HOUSE.items()
        if not name.endswith("__init__") or (functions(path) and name != declared)
    }
    assert set(ORDER) == every, "a new module belongs into the order, a gone one out of it"
    upwards = []
    for place, name in enumerate(ORDER):
        for other in imported(name, FILES[name]):
            public = other == "__init__" and name == "__main__"  # the command line, a user of it
            if not public and other not in (*ORDER[:place], declared):
                upwards.append(f"{name} imports {other}")
    assert not upwards, ", ".join(upwards)


def test_how_large_the_house_is_and_how_much_of_it_is_taught(capsys):
    """Prints it, and holds it: at most 13 files flat, of 1,900 lines, and 4,500 in all."""
    sizes = {name: lines_of(path) for name, path in HOUSE.items()}
    total, teaching = sum(sizes.values()), sum(sizes[name] for name in TAUGHT)
    with capsys.disabled():
        print(f"\nsealkit without bundled/: {total} lines, {teaching / total:.0%} of them taught")
        for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
            print(f"  {size:4} {name}{' | ' + TAUGHT[name] if name in TAUGHT else ''}")
    flat = [size for name, size in sizes.items() if "." not in name]
    assert len(flat) <= 13 and sum(flat) <= 1_900


@pytest.mark.parametrize("name", TAUGHT)
def test_a_notebook_shows_what_its_module_does(name):
    """By using at least one of its functions or classes, or of what `api` makes of them."""
    path = PACKAGE.parent / "notebooks" / f"{TAUGHT[name]}.ipynb"
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    tree = ast.parse(FILES[name].read_text("utf-8"))
    own = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert [one for one in own if re.search(rf"\b{one}\b", code)], f"{path.name} uses none of {own}"


def test_no_line_is_wider_than_100_columns():
    wide = [
        f"{name}:{number}"
        for name, path in HOUSE.items()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if len(line) > 100
    ]
    assert not wide, ", ".join(wide)


def test_every_function_is_annotated_and_a_type_checker_finds_nothing():
    """The command of .github/CONTRIBUTING.md; all but bundled/ and the page's template values."""
    ran = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert not ran.returncode, ran.stdout + ran.stderr


@pytest.mark.parametrize("command", ["format --check", "check"])
def test_ruff_has_nothing_to_say(command):
    """The command of the README: 100 columns, 88 in notebooks."""
    ran = subprocess.run(
        ["ruff", *command.split(), "."], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert not ran.returncode, ran.stdout + ran.stderr
