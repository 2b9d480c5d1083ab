"""The notebooks, unchanged, on a model outside the bundled world and on SQuAD's text; each cell run
twice, with the same result.

The model is random: nothing is learned, everything has to run. "tiny" runs everywhere; "7B" has the
shape of Mistral-7B, and shows on a GPU that memory and half precision suffice. Opt-in (pytest -m
twice): the bundled model, and afterwards all cells once more from the first.
"""

import ast
import contextlib
import gc
import io
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
import torch
from conftest import PAPER
from families import save
from IPython.core.inputtransformer2 import TransformerManager
from matplotlib import pyplot

from sealkit.tasks import knowledge

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SHAPES = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
    "7B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
NEW_TOKENS = 16  # of a self-edit: a random model hardly ever ends one
FAST = {"steps": 2, "max_tokens": 96, "epochs": 1, "answer_tokens": 4}  # nothing is learned anyway


@pytest.fixture(
    scope="module",
    params=[
        "tiny",
        pytest.param("bundled", marks=pytest.mark.twice),
        pytest.param("7B", marks=pytest.mark.gpu),
    ],
)
def folder(request, tmp_path_factory):
    """The folder of a random Mistral, or "bundled"."""
    if request.param == "bundled":
        return "bundled"
    if request.param == "7B" and not torch.cuda.is_available():
        pytest.skip("no CUDA GPU: a model of 7 billion parameters needs one")
    with torch.device("cuda" if request.param == "7B" else "cpu"):
        path = save("mistral", tmp_path_factory.mktemp(request.param), **SHAPES[request.param])
    release()
    return path


def release():
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run(cell, names):
    """What a code cell prints and shows, run in a namespace; its figures are drawn."""
    body = ast.parse(TransformerManager().transform_cell(cell.source)).body
    last = body.pop() if body else None  # a cell of comments has none
    with contextlib.redirect_stdout(io.StringIO()) as told:
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), cell.id, "exec"), names)
            shown = eval(compile(ast.Expression(last.value), cell.id, "eval"), names)
            print(getattr(shown, "text", ""))
        else:
            exec(compile(ast.Module(body + [last] * bool(last), []), cell.id, "exec"), names)
    for figure in map(pyplot.figure, pyplot.get_fignums()):
        figure.savefig(io.BytesIO(), format="png")
    pyplot.close("all")
    return told.getvalue()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_unchanged_on_another_model_each_cell_twice(path, folder, tmp_path, monkeypatch):
    if path.stem == "06_few_shot_puzzles" and folder != "bundled":
        pytest.skip("this notebook takes the puzzles' bundled model and no other")
    data = "bundled" if folder == "bundled" else PAPER / "squad_sample.json"
    if folder != "bundled" and not data.is_file():
        pytest.skip("the paper's sample of SQuAD is not beside this checkout")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.setenv("SEALKIT_MODEL", str(folder))
    monkeypatch.setenv("SEALKIT_DATA", str(data))
    tiny = FAST if Path(folder).name.startswith("tiny") else {}
    short = replace(knowledge.GENERAL_CONFIG, max_new_tokens=NEW_TOKENS, **tiny)
    monkeypatch.setattr(knowledge, "GENERAL_CONFIG", short)
    pyplot.switch_backend("Agg")
    cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    names, told, again = {}, {}, cells if folder == "bundled" else []
    try:
        for cell in [*(cell for one in cells for cell in (one, one)), *again]:
            said = run(cell, names)
            if "nbval-ignore-output" not in cell.metadata.get("tags", []):
                assert told.setdefault(cell.id, said) == said, f"{cell.id}, run again, differs"
    finally:
        names.clear()
        pyplot.close("all")
        release()
    assert not any(tmp_path.iterdir())
