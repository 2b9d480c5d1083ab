"""What a GPU would refuse is found without one: sealkit, notebooks and assignments on
`pretended_gpu`.

Notebooks run on a random model and a few passages, so nothing is learned: what their assertions
compare is computed, but not asserted. Assignments keep theirs.
"""

import ast
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import peft
import pytest
import torch
from families import save
from IPython.core.inputtransformer2 import TransformerManager
from matplotlib import pyplot
from pretended_gpu import A100, T4, on_gpu, pretended_gpu
from test_assignments import NAMES, code_cells, is_, source
from test_assignments import run as run_quietly
from test_notebooks_real import FAST, NOTEBOOKS, SHAPES

import sealkit
from sealkit.inner_loop import ask, sft
from sealkit.lora import fork
from sealkit.outer_loop import m_step
from sealkit.tasks import knowledge, puzzles

pytestmark = pytest.mark.filterwarnings("ignore")
SMALL = {"epochs": 1, "adapters_per_pass": 60, "rows_per_pass": 8, "texts_per_pass": 60}
SHORT = {"steps": 2, "max_new_tokens": 12, "epochs": 1, "answer_tokens": 4}


def short_policy(**changes: Any) -> sealkit.Policy:
    """A policy on the bundled model that takes few steps and writes few tokens."""
    model, tokenizer = sealkit.load_quantized("bundled")
    config = replace(sealkit.config_for(tokenizer), **SHORT | changes)
    return sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)


@pytest.mark.parametrize("capability, dtype", [(T4, torch.float16), (A100, torch.bfloat16)])
def test_the_whole_path_on_a_gpu(capability, dtype, tmp_path):
    with pretended_gpu(capability):
        policy = short_policy(checkpointing=True)
        model, tokenizer = policy.model, policy.tokenizer
        assert model.device.type == "cuda" and model.dtype == dtype
        start, passages = policy.weights(), sealkit.load_passages("bundled", limit=2)
        edits = sealkit.generate_self_edits(model, tokenizer, passages[0], k=2)
        adapters = fork(model, 2)
        assert all(on_gpu(matrix) for pair in adapters.values() for matrix in pair)
        lessons = [knowledge.lesson(passages[0], edit, policy.config) for edit in edits]
        losses, _ = sft(policy, adapters, lessons)
        assert all(after < before for before, after in losses)
        prompts = [knowledge.questions(passages[0], policy.config)] * 2
        assert len(ask(policy, adapters, prompts)) == 2
        pairs = [(knowledge.prompt(passages[0], policy.config), edit) for edit in edits]
        assert m_step(policy, pairs)
        policy.load(start)
        history = sealkit.run_seal(model, tokenizer, passages, 1, 2, tmp_path / "run")
        again = sealkit.run_seal(model, tokenizer, passages, 1, 2, tmp_path / "run")
        assert again.iterations[0].kept == history.iterations[0].kept
        sealkit.compare(model, tokenizer, passages, {"before RL": start})
        model.save_pretrained(tmp_path / "policy")
        saved = peft.load_peft_weights(tmp_path / "policy", device="cpu")
        other = short_policy()
        other.load(saved)
        answers = sealkit.answer_questions(model, tokenizer, passages[0])
        assert sealkit.answer_questions(other.model, tokenizer, passages[0]) == answers


# --- What is broken on purpose is found


def feed_from_the_cpu(policy: sealkit.Policy) -> None:
    policy.model(policy.tokenizer("It rains.", return_tensors="pt")["input_ids"])


def read_as_numpy(policy: sealkit.Policy) -> None:
    next(policy.model.parameters()).detach().numpy()


def plot_a_parameter(policy: sealkit.Policy) -> None:
    pyplot.plot(next(policy.model.parameters()).detach()[0])


def go_by_numpy(policy: sealkit.Policy) -> None:
    weight = next(policy.model.parameters()).detach()
    weight + torch.from_numpy(np.ones(weight.shape[1], dtype=np.float32))


def multiply_two_dtypes(policy: sealkit.Policy) -> None:
    weight = policy.model.get_input_embeddings().weight
    weight.float() @ weight.T


def multiply_integers(policy: sealkit.Policy) -> None:
    counts = torch.ones(2, 2, dtype=torch.long, device=policy.model.device)
    counts @ counts


def draw_from_a_generator_of_the_cpu(policy: sealkit.Policy) -> None:
    torch.rand(3, generator=torch.Generator().manual_seed(0), device=policy.model.device)


def mask_from_the_cpu(policy: sealkit.Policy) -> None:
    ids = torch.arange(4, device=policy.model.device)
    ids.masked_fill(torch.arange(4) > 2, -100)


def put_together(policy: sealkit.Policy) -> None:
    torch.cat([torch.zeros(2, device=policy.model.device), torch.zeros(2)])


FAULTS = [feed_from_the_cpu, read_as_numpy, plot_a_parameter, go_by_numpy, multiply_two_dtypes]
FAULTS += [multiply_integers, draw_from_a_generator_of_the_cpu, mask_from_the_cpu, put_together]
REFUSED = "same device|to numpy|same dtype|no product|generator"


@pytest.fixture(scope="module")
def on_t4():
    with pretended_gpu(T4):
        return short_policy()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found(fault: Callable, on_t4):
    with pretended_gpu(T4), pytest.raises((RuntimeError, TypeError), match=REFUSED):
        fault(on_t4)


def test_what_a_gpu_accepts_is_accepted(on_t4):
    with pretended_gpu(T4):
        x = torch.arange(4.0, device=on_t4.model.device)
        assert (
            x[torch.tensor([1])].tolist() == [1] and (x + torch.tensor(1.0)).device.type == "cuda"
        )
        assert x.cpu().numpy().tolist() == [0, 1, 2, 3] and x.sum().item() == 6
        x.copy_(torch.ones(4))
        assert x.is_cuda and x.view(2, 2).device == x.device and not x.cpu().is_cuda


def test_a_line_of_a_notebook_broken_on_purpose_is_found(on_t4):
    cell = 'ids = tokenizer("It rains.", return_tensors="pt")["input_ids"].to(model.device)'
    names = {"tokenizer": on_t4.tokenizer, "model": on_t4.model}
    with pretended_gpu(T4):
        execute(cell + "\nmodel(ids)", names)
        with pytest.raises(RuntimeError, match="same device"):
            execute(cell.replace(".to(model.device)", "") + "\nmodel(ids)", names)


def train_as_in_notebook_6(scale: str) -> None:
    """Its cells from the first to the one that trains by hand, with another loss scale."""
    notebook, names = nbformat.read(NOTEBOOKS[5], as_version=4), {}
    cells = [cell.source for cell in code_cells(notebook)]
    last = next(i for i, code in enumerate(cells) if "list(train_by_hand(lesson))" in code)
    code = "\n".join(cells[: last + 1])
    assert code.count("(1024 * loss).backward()") == 1
    execute(code.replace("1024 * loss", scale), names)


def test_training_in_float16_without_a_loss_scale_is_found(small_world, monkeypatch):
    with pretended_gpu(T4):
        train_as_in_notebook_6("1024 * loss")
        for scale in ("loss", "1 * loss", "loss / 3"):
            with pytest.raises(RuntimeError, match="vanish without a loss scale"):
                train_as_in_notebook_6(scale)
    with pretended_gpu(A100):  # bfloat16 needs none
        train_as_in_notebook_6("loss")


def test_the_inner_loop_without_its_loss_scale_is_found(on_t4, monkeypatch):
    monkeypatch.setattr("sealkit.inner_loop.LOSS_SCALE", 1.0)
    lesson = knowledge.lesson(sealkit.load_passages("bundled", limit=1)[0], "", on_t4.config)
    with pretended_gpu(T4), pytest.raises(RuntimeError, match="vanish without a loss scale"):
        sft(on_t4, fork(on_t4.model, 1), [lesson])


# --- Notebooks


class Unasserted(ast.NodeTransformer):
    """Computes what an assertion compares, on the device where it is, and goes on."""

    def visit_Assert(self, node: ast.Assert) -> ast.Expr:
        return ast.copy_location(ast.Expr(node.test), node)


def execute(code: str, names: dict) -> None:
    """Run a cell in a namespace, its assertions computed and not asserted."""
    tree = Unasserted().visit(ast.parse(TransformerManager().transform_cell(code)))
    exec(compile(ast.fix_missing_locations(tree), "cell", "exec"), names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a random Mistral and a file of passages with two questions each."""
    folder = save("mistral", tmp_path_factory.mktemp("tiny"), **SHAPES["tiny"])
    passages = sealkit.load_passages("bundled", "test", limit=24)
    short = [asdict(replace(passage, questions=passage.questions[:2])) for passage in passages]
    (folder / "passages.json").write_text(json.dumps(short), "utf-8")
    return folder


def shortened(lesson: Callable) -> Callable:
    """A task's `lesson`, of one step and at one learning rate, so that all fill one batch."""

    def short_lesson(*args: Any) -> sealkit.Lesson:
        whole = lesson(*args)
        return replace(whole, steps=min(whole.steps, 1), learning_rate=0.003)

    return short_lesson


@pytest.fixture
def small_world(folder, monkeypatch):
    """A random model, eight passages, four puzzles, one step: enough for every cell to run."""
    monkeypatch.setenv("SEALKIT_MODEL", str(folder))
    monkeypatch.setenv("SEALKIT_DATA", str(folder / "passages.json"))
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    for module, name in ((knowledge, "GENERAL_CONFIG"), (puzzles, "BUNDLED_CONFIG")):
        monkeypatch.setattr(module, name, replace(getattr(module, name), **SMALL))
    short = replace(knowledge.GENERAL_CONFIG, **FAST | {"max_new_tokens": 4, "answer_tokens": 2})
    monkeypatch.setattr(knowledge, "GENERAL_CONFIG", short)
    for module in (knowledge, puzzles):
        monkeypatch.setattr(module, "lesson", shortened(module.lesson))
    load_passages, load_puzzles = sealkit.load_passages, puzzles.load_puzzles

    def few_puzzles(source: str | Path, split: str | None = None, limit: int | None = None) -> list:
        if split in ("train", None):
            return load_puzzles(source, split, 4)
        every = load_puzzles(source, split)[2::3]
        kinds = [next(p for p in every if p.title.startswith(k)) for k in ("right 2", "cycle")]
        return [puzzle for puzzle in kinds + every[:2] for _ in range(4)]

    monkeypatch.setattr(sealkit, "load_passages", lambda *a, **k: load_passages(*a, **k)[:8])
    monkeypatch.setattr(puzzles, "load_puzzles", few_puzzles)
    pyplot.switch_backend("Agg")
    yield
    pyplot.close("all")


def rehearsed(path: Path, capsys: pytest.CaptureFixture) -> tuple[int, int]:
    """Run a notebook's code cells, none left out, print and return: (those with tensors, all)."""
    cells, names, touching = code_cells(nbformat.read(path, as_version=4)), {}, 0
    with pretended_gpu(T4) as kernels:
        for cell in cells:
            before = kernels.operations
            execute(cell.source, names)
            touching += kernels.operations > before
    with capsys.disabled():
        print(
            f"\n{path.stem}: {len(cells)} code cells run, {touching} compute with tensors", end=""
        )
        print(f" ({kernels.operations:,} operations)")
    return touching, len(cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_of_notebooks_on_a_gpu(path: Path, small_world, capsys):
    """Every code cell; prints how many compute with tensors."""
    touching, every = rehearsed(path, capsys)
    assert 0 < touching <= every


def test_the_prepared_cell_for_colab_runs_when_its_lines_are_uncommented(
    small_world, tmp_path, monkeypatch, capsys
):
    cells = code_cells(nbformat.read(NOTEBOOKS[3], as_version=4))
    (cell,) = (cell for cell in cells if cell.id == "colab")
    assert cell.source.startswith("# @title") and cell.metadata.cellView == "form"
    assert not [line for line in cell.source.splitlines() if not line.startswith("# ")]
    lines = cell.source.removeprefix("# ").replace("\n# ", "\n").splitlines()
    code = "\n".join(lines[next(i for i, line in enumerate(lines) if "import" in line) :])
    run_dir, mounted = tmp_path / "seal", []
    drive = SimpleNamespace(mount=mounted.append)
    secrets = SimpleNamespace(get={"HF_TOKEN": "a token"}.get)
    colab = SimpleNamespace(drive=drive, userdata=secrets)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setenv("HF_TOKEN", "")
    load_quantized, load_passages = sealkit.load_quantized, sealkit.load_passages
    monkeypatch.setattr(sealkit, "load_quantized", lambda name: load_quantized())
    monkeypatch.setattr(
        sealkit, "load_passages", lambda name, part, limit: load_passages(split=part, limit=limit)
    )
    assert '"/content/drive/MyDrive/seal"' in code and "mistralai/Mistral-7B-v0.1" in code
    with pretended_gpu(T4):
        execute(
            code.replace("/content/drive/MyDrive/seal", str(run_dir)),
            {"sealkit": sealkit, "os": os},
        )
    assert mounted == ["/content/drive"] and os.environ["HF_TOKEN"] == "a token"
    assert (run_dir / "run.json").exists() and "after" in capsys.readouterr().out


# Their models stay on the CPU, in float32, unless a device is named, so their steps are plain: no
# loss scale is asked of them.
# --- Assignments: a right solution gets all points, with its models on the GPU


@pytest.mark.parametrize("name", NAMES)
def test_reference_solutions_pass_on_a_gpu(name: str):
    names: dict = {"__name__": "__main__"}
    with pretended_gpu(T4, least_gradient=0), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for cell in code_cells(source(name)):
            error = run_quietly(cell.source, names)
            points = "a test" if is_(cell, "grade") else "a cell"
            assert error is None, f"{points} of {name}: {error!r}\n{cell.source}"
