"""The committed notebooks: executed, clean, alike where they should be, compared for real."""

import ast
import dis
import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from itertools import product
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from IPython.core.interactiveshell import InteractiveShell
from test_grading import half

import sealkit
from sealkit.tasks import grading

ROOT = Path(__file__).parents[1]
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


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell):
    """Every text in a cell's outputs."""
    for output in cell.outputs:
        yield output.get("text", "")
        yield from (
            value for kind, value in output.get("data", {}).items() if kind.startswith("text/")
        )


def test_each_has_its_module():
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES
    modules = "loading policy inner_loop outer_loop evaluation few_shot continual m_steps".split()
    for name, module in zip(NAMES, modules):
        assert any(module in cell.source for cell in code_cells(read(name)))


@pytest.mark.parametrize("name", NAMES)
def test_committed_executed_and_clean(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert "widgets" not in notebook.metadata and not any(
        "execution" in cell.metadata for cell in cells
    )
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", cell.source
            assert not any("widget" in kind for kind in output.get("data", {}))
        for text in texts(cell):
            assert not re.search(
                r"(?<![\w.])/(home|root|tmp|work|Users|usr|content)/|[A-Z]:\\", text
            ), cell.source
            assert "Warning" not in text and "Traceback" not in text, cell.source
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@pytest.mark.parametrize("name", NAMES)
def test_short_cells_and_checked_claims(name):
    cells = code_cells(read(name))
    code = [[line for line in cell.source.splitlines() if line.strip()] for cell in cells]
    assert len(cells) <= 60 and max(map(len, code)) <= 15
    assert sum(len(lines) <= 12 for lines in code) >= 0.9 * len(cells)
    assert max(len(line) for lines in code for line in lines) <= 88
    checked = [cell for cell in cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    assert len(checked) >= 5 and all(cell.outputs for cell in checked)
    assert sum("assert " in cell.source for cell in cells) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_opens_with_what_and_how_long_and_ends_with_what_next(name):
    notebook = read(name)
    first = notebook.cells[0].source
    assert (
        first.startswith("# ")
        and "You will learn" in first
        and re.search(r"\*\*Time:\*\* .*CPU.*T4.*A100", first)
    )
    assert f"images/loop.svg#step-{int(name[:2])})" in first and "**You are here: " in first
    *_, recap, scratch, result = notebook.cells
    parts = "## Recap", "## Check yourself", "## What to try next"
    places = [recap.source.find(part) for part in parts]
    assert -1 not in places and places == sorted(places)
    assert scratch.cell_type == "code" and result.source.startswith("<details>")
    shown = "".join(texts(code_cells(notebook)[1]))
    assert all(
        word in shown
        for word in ("Python", "torch", "bitsandbytes", "Device:", "Model:", "because")
    )


@pytest.mark.parametrize("name", NAMES)
def test_asks_to_predict_and_folds_its_answers(name):
    cells = [cell.source for cell in read(name).cells if cell.cell_type == "markdown"]
    asked = sum(source.count("**Predict first.**") for source in cells)
    assert 3 <= asked <= 6
    for source in cells:
        folds, ends = source.count("<details><summary>"), source.count("</details>")
        assert folds == ends >= source.count("**Predict first.**")
        assert folds == len(re.findall(r"</summary>\n\n", source)), "JupyterLab needs a blank line"


@pytest.mark.parametrize("name", NAMES)
def test_every_assertion_says_what_went_wrong(name):
    mute = [
        ast.unparse(node)
        for cell in code_cells(read(name))
        for node in ast.walk(ast.parse(plain(cell.source)))
        if isinstance(node, ast.Assert) and not node.msg
    ]
    assert not mute


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_text(name):
    """The last word of a cell that draws is `describe`, whose text is the figure's alternative."""
    for cell in code_cells(read(name)):
        if re.search(r"plt\.(subplots|figure)\(|\bplot_\w+\(", cell.source):
            last = ast.parse(plain(cell.source)).body[-1]
            assert isinstance(last, ast.Expr) and last.value.func.id == "describe", cell.source
            assert len(ast.literal_eval(last.value.args[1])) >= 40, cell.source
            (png,) = (o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {}))
            width = int.from_bytes(b64decode(png)[16:20], "big")
            assert width <= 760, f"{width} pixels: on a page of 800 its letters would shrink"
    assert not re.search("#[0-9a-f]{6}", "".join(cell.source for cell in code_cells(read(name))))


def plain(source):
    return TransformerManager().transform_cell(source)


def names_of(code, top=True, own=None):
    """(names that a cell reads before it sets them itself, names that it sets)."""
    reads, sets = set(), set() if own is None else own
    for step in dis.get_instructions(code):
        if inspect.iscode(step.argval):
            reads |= names_of(step.argval, False, set(sets))[0]
        elif step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and step.argval not in sets:
            reads.add(step.argval)
        elif step.opname == "STORE_NAME" and (top or own is not None):
            sets.add(step.argval)
    return reads, sets


@pytest.mark.parametrize("name", NAMES)
def test_cells_can_be_run_again_in_any_order(name):
    """No cell sets a name that itself or an earlier cell reads, and that was set before. (All but
    the model: `attach_policy` returns a policy as it is.)"""
    cells = [compile(plain(cell.source), "cell", "exec") for cell in code_cells(read(name))]
    names, spoilt = list(map(names_of, cells)), []
    for k, (reads, sets) in enumerate(names):
        spoilt += [f"cell {k + 1} changes {one}" for one in reads & sets - {"model"}]
        for j in range(k):
            before = set().union(*(names[i][1] for i in range(j)))
            for one in sets & names[j][0] & before:
                spoilt.append(f"cell {k + 1} sets {one}, which cell {j + 1} reads")
    assert not spoilt, "; ".join(spoilt)


def test_a_cell_that_spoils_another_would_be_noticed():
    code = compile("def f():\n    return [x for x in values]\nn = n + 1\nk = 1\nk += 1", "", "exec")
    reads, sets = names_of(code)
    assert {"values", "n"} <= reads and sets == {"f", "n", "k"} and "k" not in reads


# --- Colab: one set-up cell, one address


def test_set_up_cell_is_the_same_everywhere_and_is_stamped():
    repository = re.search(
        r'Repository = "https://github.com/(.+)"', (ROOT / "pyproject.toml").read_text()
    )[1]
    cells = {name: code_cells(read(name))[0].source for name in NAMES}
    assert (
        len(set(cells.values())) == 1 and f"git+https://github.com/{repository}" in cells[NAMES[0]]
    )
    for name in NAMES:
        badge = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb"
        assert badge in read(name).cells[0].source and badge in (ROOT / "README.md").read_text(
            "utf-8"
        )
        assert sum("COLAB" in cell.source for cell in read(name).cells) == 1


@pytest.mark.parametrize("colab", [False, True])
def test_set_up_cell_installs_in_colab_alone(colab, monkeypatch):
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    if colab:
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260801")
    shell, installed = InteractiveShell(), []
    shell.register_magic_function(installed.append, magic_name="pip")
    shell.run_cell(code_cells(read(NAMES[0]))[0].source).raise_error()
    assert len(installed) == colab
    assert not any(re.search(r"torch|numpy|jupyter|upgrade|-U\b|force", line) for line in installed)


def test_a_fork_is_stamped_by_one_command(tmp_path):
    spec = importlib.util.spec_from_file_location("stamp", ROOT / "notebooks" / "stamp.py")
    stamp = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stamp)
    for folder in ("notebooks", ".github"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("README.md", "pyproject.toml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    files = [
        tmp_path / "README.md",
        tmp_path / "pyproject.toml",
        tmp_path / "CITATION.cff",
        *(tmp_path / "notebooks").glob("*.ipynb"),
    ]
    before = {path: path.read_text("utf-8") for path in files}
    address = re.search(r'Repository = "(.+)"', before[tmp_path / "pyproject.toml"])[1]
    (place,) = (cell for cell in read(NAMES[3]).cells if cell.id == "colab")
    assert place.source == stamp.COLAB_CELL
    stamp.stamp(tmp_path)
    assert {path: path.read_text("utf-8") for path in files} == before
    assert stamp.stamp(tmp_path, "https://github.com/teacher.x/nlp-2027") == "teacher.x/nlp-2027"
    for path in files:
        assert "teacher.x/nlp-2027" in path.read_text("utf-8") and address.removeprefix(
            "https://"
        ) not in path.read_text("utf-8")
    stamp.stamp(tmp_path, address)
    assert {path: path.read_text("utf-8") for path in files} == before
    with pytest.raises(ValueError, match="give https://github.com/OWNER/REPOSITORY"):
        stamp.stamp(tmp_path, "teacher/nlp")


ASSIGNMENTS = sorted((ROOT / "notebooks" / "assignments" / "source").glob("*/*.ipynb"))


@pytest.mark.parametrize(
    "path", [*(ROOT / "notebooks").glob("*.ipynb"), *ASSIGNMENTS], ids=lambda path: path.stem
)
def test_a_copy_alone_in_an_empty_folder_keeps_pictures_and_links(path, tmp_path):
    """Every address is absolute or of the notebook itself; those of this repository exist in it."""
    copy = Path(shutil.copy(path, tmp_path))
    cells = nbformat.read(copy, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^()\s]+)\)", text)
    targets += re.findall(r"(?:src|href)=[\"']([^\"']+)", text)
    repository = re.search(
        r'Repository = "https://github.com/(.+)"', (ROOT / "pyproject.toml").read_text()
    )[1]
    own = (
        rf"https://(?:github\.com/{repository}/blob|raw\.githubusercontent\.com/{repository})/main/"
    )
    for target in targets:
        assert re.match(r"https?://|#|attachment:|data:", target), f"{target} is lost in a copy"
        if found := re.match(own + "([^#]+)", target):
            assert (ROOT / found[1]).is_file(), f"{target}: there is no such file"


def test_binder_installs_the_same_versions():
    lines = (ROOT / "binder" / "requirements.txt").read_text().splitlines()
    pinned = re.search(r"(?m)^torch==(.+)$", (ROOT / "requirements.txt").read_text())[1]
    assert f"torch=={pinned}+cpu" in lines and "-r ../requirements.txt" in lines
    assert re.fullmatch(r"python-3\.\d+\n", (ROOT / "binder" / "runtime.txt").read_text())


# --- The comparison is real: a wrong number in a committed output is caught

KEY_RESULTS = [  # notebook, what its output says, what a corrupted copy says instead
    ("01_quantized_loading", "0 of 24,576", "1 of 24,576"),
    ("01_quantized_loading", "NF4: 4.13 GB", "NF4: 4.23 GB"),
    ("02_self_edit_generation", "5 of 5 self-edits", "4 of 5 self-edits"),
    ("03_qlora_inner_loop", "identical to the byte: True", "identical to the byte: False"),
    ("04_restem_outer_loop", "for 3 of 3 passages", "for 2 of 3 passages"),
    ("05_evaluation", "agreement 88.5%", "agreement 92.5%"),
    ("06_few_shot_puzzles", "2880 cells trained on", "2881 cells trained on"),
    ("07_continual_learning", "never adapted 30.7%", "never adapted 20.7%"),
]


def needed(cells):
    """The code cells that the last one needs: those that set what it reads, and so on."""
    *before, last = (cell for cell in cells if cell.cell_type == "code")
    kept, wanted = [last], names_of(compile(plain(last.source), "cell", "exec"))[0]
    for cell in reversed(before):
        reads, sets = names_of(compile(plain(cell.source), "cell", "exec"))
        if sets & wanted:
            kept, wanted = [cell, *kept], wanted - sets | reads
    return kept


@pytest.fixture(scope="module")
def caught(tmp_path_factory):
    """{lie: (cells of its copy, those of them that nbval calls wrong, what it printed)}.

    The copies follow each other in one notebook, for one kernel; each begins without the names of
    the one before it.
    """
    copies, cells = {}, []
    for name, truth, lie in KEY_RESULTS:
        notebook = read(name)
        at = next(
            i
            for i, cell in enumerate(notebook.cells)
            if cell.cell_type == "code" and any(truth in text for text in texts(cell))
        )
        assert "nbval-check-output" in notebook.cells[at].metadata.tags
        notebook.cells = needed(notebook.cells[: at + 1])
        copy = nbformat.reads(nbformat.writes(notebook).replace(truth, lie), as_version=4)
        cells += [nbformat.v4.new_code_cell("%reset -f", execution_count=1), *copy.cells]
        copies[lie] = range(len(cells) - len(copy.cells), len(cells))
    folder = tmp_path_factory.mktemp("corrupted")
    notebook.cells = cells
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"  # notebooks share ids
    nbformat.write(notebook, folder / "copies.ipynb")
    options = ["-q", "-p", "no:cacheprovider", "--nbval-lax", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", *options, "copies.ipynb"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1, done.stdout
    failed = set(map(int, re.findall(r"^FAILED .*Cell (\d+)", done.stdout, re.M)))
    assert failed <= {i for places in copies.values() for i in places}, done.stdout
    return {lie: (places, failed & set(places), done.stdout) for lie, places in copies.items()}


@pytest.mark.parametrize("name, truth, lie", KEY_RESULTS)
def test_nbval_sees_a_corrupted_result(name, truth, lie, caught):
    places, failed, said = caught[lie]
    assert failed == {places[-1]}, said


# --- What the notebooks quote stands where they say


def test_quoted_numbers_are_those_of_the_papers_files(paper):
    source = "\n".join(cell.source for cell in read("05_evaluation").cells)
    tables = paper("tables.json")
    single, ablation = tables["single_passage_accuracy_pct"], tables["prompt_ablation_accuracy_pct"]
    quoted = re.search(r"^paper = (\{.*?\})$", source, re.M | re.S)[1]
    keys = (
        "no_adaptation",
        "passage_only",
        "passage_plus_base_self_edits",
        "seal_after_1_iteration",
        "seal_after_2_iterations",
    )
    assert list(ast.literal_eval(quoted).values()) == [single[key] for key in keys]
    for key in (
        "implications",
        "implications_long",
        "implications_very_long",
        "rewrite",
        "self_qa",
    ):
        assert str(ablation[key]) in source
    for key in ("seal_minus_base_self_edits", "seal_minus_gpt4_1", "rewrite_no_rl_minus_seal"):
        mean, low, high = (
            f"{value:+.1f}".replace("-", "−")
            for value in tables["paired_bootstrap_95ci_points"][key]
        )
        assert re.search(
            rf"{re.escape(mean)}.{{0,30}}\[{re.escape(low)}, {re.escape(high)}\]", source
        ), key


def test_figures_beside_ours_are_the_papers(paper):
    source = "\n".join(cell.source for cell in read("04_restem_outer_loop").cells)
    tables = paper("tables.json")
    single, arc = tables["single_passage_accuracy_pct"], tables["few_shot_arc_pct"]
    keys = "no_adaptation", "passage_only", "passage_plus_base_self_edits"
    keys += "seal_after_2_iterations", "passage_plus_gpt4_1_edits"
    row = " | ".join(str(single[key]) for key in keys)
    assert f"| paper: SQuAD, $n = 1$, Qwen2.5-7B | {row} |" in source
    no, ttt, seal, oracle = (
        arc[key] for key in ("in_context", "ttt_self_edit_no_rl", "seal", "oracle_ttt")
    )
    assert f"Llama-3.2-1B-Instruct | {no} | – | {ttt} | {seal} | {oracle} |" in source


def test_quoted_matrix_is_the_papers(paper):
    source = "\n".join(cell.source for cell in read("07_continual_learning").cells)
    quoted = ast.literal_eval(re.search(r"^paper = (\[.*?^\])$", source, re.M | re.S)[1])
    for row, theirs in zip(quoted, paper("tables.json")["forgetting_matrix"], strict=True):
        assert row == theirs[: len(row)] and not any(theirs[len(row) :])


def test_quoted_verdict_counts_are_measured(paper):
    source = "\n".join(cell.source for cell in read("05_evaluation").cells)
    quoted = ast.literal_eval(re.search(r"^counts = (\{.*\})$", source, re.M)[1])
    rows = paper("verdicts.jsonl")
    for name, chosen in (("looked at", 1), ("kept back", 0)):
        part = [row for row in rows if half(row) == chosen]
        pairs = [(sealkit.grade(row["prediction"], row["gold"]), row["correct"]) for row in part]
        possible = product((True, False), repeat=2)
        assert quoted[name] == tuple(pairs.count(pair) for pair in possible)


def test_quoted_grader_is_the_projects():
    source = "\n".join(cell.source for cell in read("05_evaluation").cells)
    quoted = re.search(r"```python\n(def exact_match.*?)```", source, re.S)[1]
    whole = inspect.getsource(grading.exact_match)
    assert quoted == re.sub(r'    """.*?"""\n\n', "", whole, flags=re.S)


def test_quoted_table_of_seeds_is_that_of_the_benchmarks():
    source = "\n".join(cell.source for cell in read("05_evaluation").cells)
    readme = (ROOT / "tests" / "benchmarks" / "README.md").read_text("utf-8")
    readme = readme.replace("*", "").replace("-", "−")
    rows = re.findall(r"^\| after iteration 2 − .*", source, re.M)
    assert len(rows) == 8
    for row in rows:
        for number in re.findall(r"[+−]\d+\.\d \[.*?\]", row):
            assert number in readme, number
