"""On a CUDA GPU: memory under a T4's cap, the same trials as on a CPU, narrower passes. The parts that need no GPU run on the CPU too."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from unittest import mock

import pytest
import torch
from transformers import MistralConfig

import memory
import sealkit
from families import CONFIGS, save
from memory import GIB, T4_GIB, capped, computed, full_rows, on_meta, peak_of
from sealkit.inner_loop import attach_policy, run_trials

TINY = MistralConfig(vocab_size=2048, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
EITHER = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def a_pass(dtype, device="cuda", config=None):
    """(trials, Passes, peak bytes) of one pass of 5 adapters with rows of 512 tokens, on Mistral-7B's shape or `config`."""
    work, passes = full_rows(5, dtype, device, config), []
    run = partial(run_trials, work.policy, work.tokenizer, work.pairs, replace(work.settings, steps=2), report=passes.append)
    with capped(T4_GIB) if device == "cuda" else nullcontext():
        trials, _, peak = peak_of(run, device)
    assert work.policy.dtype == dtype and work.policy.device.type == device
    return trials, passes, peak


def whole(trials, passes):
    """Raise AssertionError unless these are the trials of one pass of 5 full rows, which learned."""
    assert [one.adapters for one in passes] == [5] and passes[0].positions == passes[0].tokens == 5 * 512
    assert all(trial.losses[1] < trial.losses[0] and len(trial.answers) == 5 for trial in trials) and len(trials) == 5


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_pass_of_five_adapters_on_mistral_7b_fits_a_t4(dtype, capsys):
    if dtype == torch.bfloat16 and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no bfloat16 in hardware")
    trials, passes, peak = a_pass(dtype)
    expected = computed(on_meta(MistralConfig(), dtype)).peak
    with capsys.disabled():
        print(f"\n5 adapters on Mistral-7B's shape in {dtype}, measured: {peak / GIB:.2f} GiB at the peak, computed: {expected / GIB:.2f}")
    whole(trials, passes)
    assert peak <= 9 * GIB and peak == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_same_pass_on_a_tiny_shape_without_a_gpu(dtype):
    trials, passes, _ = a_pass(dtype, "cpu", TINY)
    whole(trials, passes)


def in_dtype(dtype, name, device):
    """`load_quantized`, computing in `dtype` whatever the device."""
    choose = sealkit.loading.choose
    with mock.patch("sealkit.loading.choose", lambda *a: replace(choose(*a), dtype=dtype)):
        return sealkit.load_quantized(name, device)


def outcomes(name, device):
    """Trials of three passages, each without a self-edit and with its oracle, on a model that computes in fp32."""
    model, tokenizer = in_dtype(torch.float32, name, device)
    passages = sealkit.load_passages("bundled", "validation", 3)
    pairs = [(passage, edit) for passage in passages for edit in ("", passage.oracle)]
    return run_trials(attach_policy(model), tokenizer, pairs, sealkit.Settings(steps=3))


@pytest.mark.parametrize("device", EITHER)
@pytest.mark.parametrize("family", ["bundled", *CONFIGS])
def test_trials_agree_with_a_cpus(family, device, tmp_path):
    """In fp32. NF4's rounding and the order of sums may differ between devices, so losses agree within 2%, and one reward may differ."""
    name = family if family == "bundled" else save(family, tmp_path)
    trials, expected = outcomes(name, device), outcomes(name, "cpu")
    for trial, other in zip(trials, expected, strict=True):
        assert trial.losses == pytest.approx(other.losses, rel=2e-2) and trial.tokens == other.tokens
    assert sum(trial.reward != other.reward for trial, other in zip(trials, expected)) <= 1
    assert family != "bundled" or max(trial.reward for trial in trials) > 0.5


@pytest.mark.gpu
def test_a_gpu_below_capability_8_trains_in_fp16(monkeypatch, validation):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *a: (7, 5))
    model, tokenizer = sealkit.load_quantized("bundled", "cuda")
    assert model.dtype == torch.float16 and model.model.layers[0].mlp.up_proj.compute_dtype == torch.float16
    (trial,) = sealkit.evaluate_self_edits(model, tokenizer, validation[0], [validation[0].oracle])
    assert trial.losses[-1] < trial.losses[0]


@pytest.mark.gpu
def test_a_pass_gets_narrower_when_a_gpus_memory_runs_out():
    work = full_rows(16, torch.float16, config=TINY)

    def trials(width):
        torch.cuda.empty_cache()
        passes = []
        torch.cuda.reset_peak_memory_stats()
        done = run_trials(work.policy, work.tokenizer, work.pairs, replace(work.settings, adapters_per_pass=width, steps=2), report=passes.append)
        return done, passes, torch.cuda.max_memory_reserved()

    narrow, wide = trials(4)[2], trials(16)
    with capped((narrow + wide[2]) / 2 / GIB):
        done, passes, _ = trials(16)
    assert 1 < len(passes) and max(one.adapters for one in passes) < 16 and len(done) == len(wide[0]) == 16
    assert [trial.tokens for trial in done] == [trial.tokens for trial in wide[0]]


@pytest.mark.parametrize("fails", [False, True])
def test_the_cap_is_a_share_of_the_gpus_memory_and_is_lifted_again(fails, monkeypatch):
    shares = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: mock.Mock(total_memory=80 * GIB))
    with pytest.raises(MemoryError) if fails else nullcontext():
        with capped(20):
            if fails:
                raise MemoryError
    assert shares == [0.25, 1.0]


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu), "cpu"])
def test_the_t4_report_on_a_tiny_shape(device, capsys):
    memory.t4(device, TINY, passages=1, steps=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A pass of 5 adapters of 512 tokens, 2 steps, exam:")
    assert lines[1].startswith("run_seal, 2 iterations of 1 passages (12 trials):")
