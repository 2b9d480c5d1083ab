"""The notebooks, unchanged, on a model outside the bundled world and on SQuAD's text: all must run.

The model is random and learns nothing. "tiny" runs everywhere; "7B" has the shape of Mistral-7B,
and shows on a GPU that memory and half precision suffice.
"""

import dataclasses
import gc
import io
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


@pytest.fixture(scope="module", params=["tiny", pytest.param("7B", marks=pytest.mark.gpu)])
def folder(request, tmp_path_factory):
    """The folder of a random Mistral."""
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_unchanged_on_another_model(path, folder, tmp_path, monkeypatch):
    data = PAPER / "squad_sample.json"
    if not data.is_file():
        pytest.skip("the paper's sample of SQuAD is not beside this checkout")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    monkeypatch.setenv("SEALKIT_MODEL", str(folder))
    monkeypatch.setenv("SEALKIT_DATA", str(data))
    recipe = dataclasses.replace(knowledge.GENERAL, max_new_tokens=NEW_TOKENS)
    monkeypatch.setattr(knowledge, "GENERAL", recipe)
    pyplot.switch_backend("Agg")
    names = {}
    try:
        for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
            if cell.cell_type == "code":
                code = TransformerManager().transform_cell(cell.source)
                exec(compile(code, f"{path.name}, cell {number}", "exec"), names)
                for figure in map(pyplot.figure, pyplot.get_fignums()):
                    figure.savefig(io.BytesIO(), format="png")
                pyplot.close("all")
    finally:
        names.clear()
        pyplot.close("all")
        release()
    assert not any(tmp_path.iterdir())
