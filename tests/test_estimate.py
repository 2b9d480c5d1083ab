"""An estimate changes nothing, and is the arithmetic of what it measured.

How near it comes is in tests/benchmarks/README.md.
"""

import re
from dataclasses import replace
from itertools import cycle
from math import ceil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from families import save

import sealkit
from sealkit import estimate as module
from sealkit.cli.main import main
from sealkit.cli.minutes import compute_minutes
from sealkit.inner_loop import row_losses
from sealkit.tasks import few_shot, puzzles
from sealkit.tasks.knowledge import BUNDLED_CONFIG, GENERAL_CONFIG

QUICK = replace(BUNDLED_CONFIG, steps=2, adapters_per_pass=4, epochs=1, batch_size=2)


@pytest.fixture
def quick(policy):
    """(model, tokenizer): a policy of the recipe QUICK, whose B is not 0."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in policy.model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.02, generator=generator)
    policy.model.seal_config = QUICK
    yield policy.model, policy.tokenizer
    policy.model.seal_config = policy.config


def test_of_several_schedules_the_longest_is_timed(monkeypatch):
    """Each goes through a batch of its own; a run has enough of each to fill one."""
    policy, items = few_shot.load_policy("bundled"), puzzles.load_puzzles("bundled", "train", 3)
    ten, forty = (puzzles.recipe_text("recolour", steps=steps) for steps in (10, 40))
    written, tried = cycle([ten, "no recipe", forty]), []
    write = lambda policy, task, requests, seed: [next(written) for _ in requests]  # noqa: E731
    monkeypatch.setattr(module, "write_self_edits", write)
    monkeypatch.setattr(module, "run_trials", lambda policy, task, pairs: tried.append(pairs))
    module.estimate_run(policy.model, policy.tokenizer, items, 1, 2, task=puzzles)
    (first,), timed = tried
    assert len(timed) == 9 and {edit for _, edit in timed} == {forty} and first[1] == forty


def test_nothing_is_changed_to_the_bit(quick, validation, base_bytes):
    model, tokenizer = quick

    def state():
        lora = sealkit.Policy(model, tokenizer, QUICK).weights()
        lora = {name: tensor.numpy().tobytes() for name, tensor in lora.items()}
        random = torch.random.get_rng_state().tolist()
        return base_bytes(model), lora, random, {part.training for part in model.modules()}

    before = state()
    sealkit.estimate_run(model, tokenizer, validation[:2], 1, 2)
    assert state() == before


def test_a_run_after_an_estimate_is_the_same_run(validation):
    runs = []
    for first in (False, True):
        model, tokenizer = sealkit.load_quantized()
        if first:
            names = [name for name, _ in model.named_parameters()]
            sealkit.estimate_run(model, tokenizer, validation[:1], 1, 2)
            assert names == [name for name, _ in model.named_parameters()], "plain before and after"
        model = sealkit.attach_policy(model, QUICK)
        runs.append(sealkit.run_seal(model, tokenizer, validation[:2], 1, 2).iterations[0])
    ours, other = runs
    assert ours == replace(other, weights=ours.weights)
    assert all(torch.equal(tensor, other.weights[name]) for name, tensor in ours.weights.items())


def test_also_after_an_error_the_model_is_as_it_was(quick, validation, monkeypatch):
    policy, m_step = sealkit.Policy(*quick, QUICK), module.m_step
    before = policy.weights()

    def fails(*args):
        m_step(*args)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "m_step", fails)
    with pytest.raises(RuntimeError):
        sealkit.estimate_run(*quick, validation[:1], 1, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.weights().items())


@pytest.mark.parametrize(
    "count, k, iterations, exams, processes",
    [(1, 3, 1, 0, 1), (1, 3, 2, 0, 1), (7, 3, 2, 0, 1), (14, 3, 2, 0, 1), (7, 1, 2, 0, 1)]
    + [(7, 3, 2, 11, 1), (7, 3, 2, 11, 4)],
)
def test_the_sum_by_hand(quick, validation, monkeypatch, count, k, iterations, exams, processes):
    """0.5 s a self-edit, 1.5 s a trial, 3 s a step of an M-step with batches of 2; 9 s at first.

    Of several processes each has its share, but for the M-step, which all wait for.
    """
    now, passes = 0.0, 0

    def write(policy, task, wanted, seed):
        nonlocal now
        assert len(wanted) == min(count, module.SAMPLED) * k
        now += 0.5 * len(wanted)
        return ["An edit."] * len(wanted)

    def trials(policy, task, pairs):
        nonlocal now, passes
        now += 9 if passes == 0 else 1.5 * len(pairs)
        passes += 1
        assert len(pairs) == (1 if passes == 1 else min(4, count * (k + 1)))

    def learn(policy, examples):
        nonlocal now
        assert policy.config.epochs == 2 and len(examples) == 2
        now += 3 * 2

    monkeypatch.setattr(module, "write_self_edits", write)
    monkeypatch.setattr(module, "run_trials", trials)
    monkeypatch.setattr(module, "m_step", learn)
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    several = SimpleNamespace(num_processes=processes)
    monkeypatch.setattr(module, "distributed_state", lambda: several)
    got = sealkit.estimate_run(*quick, validation[:count], iterations, k, exams)
    dealt = iterations * (count * k * 0.5 + count * (k + 1) * 1.5) + exams * 2
    m_steps = iterations * ceil(count / 2) * 3
    assert 60 * got.minutes == pytest.approx(dealt / processes + m_steps)
    assert got.device == quick[0].device.type and 0.05 < got.gib < 50


def test_a_model_of_the_hub_is_estimated_with_its_own_recipe(tmp_path, monkeypatch):
    model, tokenizer = sealkit.load_quantized(save("mistral", tmp_path))
    short = replace(GENERAL_CONFIG, max_new_tokens=8)
    monkeypatch.setattr("sealkit.tasks.knowledge.GENERAL_CONFIG", short)
    recipes, m_step = [], module.m_step
    monkeypatch.setattr(module, "m_step", lambda *a: recipes.append(a[0].config) or m_step(*a))
    questions = (sealkit.Question("How long?", ("40 m",)),)
    passages = [sealkit.Passage(f"T{i}", "The ferry is 40 m long.", questions) for i in range(2)]
    assert sealkit.estimate_run(model, tokenizer, passages, 1, 2).minutes > 0
    assert recipes == [replace(short, epochs=2)]


def test_a_pass_that_needs_too_much_memory_is_estimated_narrower(quick, validation, monkeypatch):
    def no_room(model, inputs, labels):
        if len(labels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return row_losses(model, inputs, labels)

    monkeypatch.setattr("sealkit.inner_loop.row_losses", no_room)
    assert sealkit.estimate_run(*quick, validation[:2], 1, 2).minutes > 0


def test_it_reads_like_a_sentence():
    said = str(sealkit.Estimate(74.2, 8.13, "cuda"))
    assert said.startswith("Estimate, from one measured pass: about 74")
    assert "8.1 GiB" in said and "minutes" in said and said.endswith(".")
    assert "about 9 s" in str(sealkit.Estimate(0.15, 0.9, "cpu"))
    assert "about 1.6 minutes" in str(sealkit.Estimate(1.58, 0.9, "cpu"))


@pytest.mark.parametrize("count, iterations, k", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_to_estimate_is_refused(loaded, validation, count, iterations, k):
    with pytest.raises(ValueError, match="at least"):
        sealkit.estimate_run(*loaded, validation[:count], iterations, k)


# --- Mistral-7B on a GPU of Colab, computed


def test_the_computed_minutes_by_hand():
    """720 trials of 10 steps on 512 tokens, 6 operations a weight, at 40 and 20% of 65 TFLOPS."""
    parts = compute_minutes("T4", iterations=2, k=5, passages=40, held_out=60)
    at_peak = 720 * 10 * 512 * 6 * 7.24e9 / 65e12 / 60
    assert parts["training"] == pytest.approx((at_peak / 0.4, at_peak / 0.2))
    # 580 self-edits, 20 at a time: 29 batches of 320 steps, beside the arithmetic of their tokens
    tokens, steps = 580 * (400 + 320), 29 * 320
    least = (2 * tokens * 7.24e9 / 65e12 + steps * 4.1e9 / 320e9) / 0.4 / 60
    most = (2 * tokens * 7.24e9 / 65e12 + steps * (4.1e9 + 29e9) / 320e9) / 0.2 / 60
    assert parts["writing"] == pytest.approx((least, most))


def test_the_readmes_quote_what_the_command_prints(capsys):
    root = Path(__file__).parents[1]
    main_page, page = (
        (root / name).read_text("utf-8") for name in ("README.md", "sealkit/README.md")
    )
    session = ["--passages", "10", "--self-edits", "3", "--iterations", "1", "--held-out", "10"]
    quoted = []
    for options in ([], session):
        assert main([*options, "estimate"]) == 0
        rows = re.findall(r"^(T4|A100) .* in all (\d+ to \d+)$", capsys.readouterr().out, re.M)
        quoted += rows[: 2 if options is not session else 1]
    assert all(f"| {total} |" in page for _, total in quoted)
    assert f"{quoted[0][1]} minutes on a T4" in main_page
    total = quoted[-1][1]
    cell = (root / "notebooks" / "stamp.py").read_text("utf-8").replace("\n#", "")
    assert f"{total} minutes" in cell and int(total.split()[-1]) < 45, "beside the download"
