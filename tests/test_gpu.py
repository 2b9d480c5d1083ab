"""On a CUDA GPU: memory under a T4's cap, the same trials as on a CPU, narrower passes.

The parts that need no GPU run on the CPU too.
"""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from unittest import mock

import memory
import pytest
import torch
from families import CONFIGS, save
from memory import GIB, T4_GIB, capped, computed, full_rows, on_meta, peak_of
from transformers import MistralConfig

import sealkit
from sealkit import inner_loop
from sealkit.inner_loop import run_trial_batch, run_trials
from sealkit.tasks import knowledge

TINY = MistralConfig(
    vocab_size=2048,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
EITHER = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture
def passes(monkeypatch):
    """How many adapters each pass from here on has, list."""
    seen = []

    def noted(*args):
        trials = run_trial_batch(*args)
        seen.append(len(trials))
        return trials

    monkeypatch.setattr(inner_loop, "run_trial_batch", noted)
    return seen


def a_pass(dtype, device="cuda", config=None):
    """(trials, peak bytes) of one pass of 5 adapters with rows of 512 tokens.

    On Mistral-7B's shape or `config`.
    """
    policy, pairs = full_rows(5, dtype, device, config, steps=2)
    with capped(T4_GIB) if device == "cuda" else nullcontext():
        trials, _, peak = peak_of(partial(run_trials, policy, knowledge, pairs), device)
    assert policy.model.dtype == dtype and policy.model.device.type == device
    return trials, peak


def whole(trials, passes):
    """Check that these are the trials of one pass of 5 full rows, which learned."""
    assert passes == [5] and [trial.tokens for trial in trials] == [512] * 5
    assert all(trial.losses[1] < trial.losses[0] for trial in trials)
    assert all(len(trial.answers) == 5 for trial in trials)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_pass_of_five_adapters_on_mistral_7b_fits_a_t4(dtype, passes, capsys):
    if dtype == torch.bfloat16 and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no bfloat16 in hardware")
    trials, peak = a_pass(dtype)
    expected = computed(on_meta(MistralConfig(), dtype)).peak
    with capsys.disabled():
        print(f"\n5 adapters on Mistral-7B's shape in {dtype}, at the peak, measured:", end=" ")
        print(f"{peak / GIB:.2f} GiB, computed: {expected / GIB:.2f}")
    whole(trials, passes)
    assert peak <= 9 * GIB and peak == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_same_pass_on_a_tiny_shape_without_a_gpu(dtype, passes):
    whole(a_pass(dtype, "cpu", TINY)[0], passes)


def outcomes(name, device):
    """Trials of three passages, each with "" and with its oracle, on a model in fp32."""
    choose = sealkit.loading.choose

    def exact(*args):
        return replace(choose(*args), dtype=torch.float32, products=torch.float32)

    with mock.patch("sealkit.loading.choose", exact):
        model, tokenizer = sealkit.load_quantized(name, device)
    config = replace(knowledge.BUNDLED_CONFIG, steps=3)  # also for the others, which are as small
    policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    passages = sealkit.load_passages("bundled", "validation", 3)
    pairs = [(passage, edit) for passage in passages for edit in ("", passage.oracle)]
    return run_trials(policy, knowledge, pairs)


@pytest.mark.parametrize("device", EITHER)
@pytest.mark.parametrize("family", ["bundled", *CONFIGS])
def test_trials_agree_with_a_cpus(family, device, tmp_path):
    """In fp32. NF4's rounding and the order of sums may differ between devices.

    So losses agree within 2%, and one reward may differ.
    """
    name = family if family == "bundled" else save(family, tmp_path)
    trials, expected = outcomes(name, device), outcomes(name, "cpu")
    for trial, other in zip(trials, expected, strict=True):
        assert trial.losses == pytest.approx(other.losses, rel=2e-2)
        assert trial.tokens == other.tokens
    assert sum(trial.reward != other.reward for trial, other in zip(trials, expected)) <= 1
    assert family != "bundled" or max(trial.reward for trial in trials) > 0.5


@pytest.mark.gpu
def test_a_gpu_below_capability_8_trains_in_fp16(monkeypatch, validation):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *a: (7, 5))
    model, tokenizer = sealkit.load_quantized("bundled", "cuda")
    layer = model.model.layers[0].mlp.up_proj
    assert model.dtype == layer.compute_dtype == torch.float16
    edits = [validation[0].oracle]
    (trial,) = sealkit.evaluate_self_edits(model, tokenizer, validation[0], edits)
    assert trial.losses[-1] < trial.losses[0]


@pytest.mark.gpu
def test_a_pass_gets_narrower_when_a_gpus_memory_runs_out(passes):
    policy, pairs = full_rows(16, torch.float16, config=TINY, steps=2)

    def trials(width):
        passes.clear()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        config = replace(policy.config, adapters_per_pass=width)
        done = run_trials(replace(policy, config=config), knowledge, pairs)
        return done, torch.cuda.max_memory_reserved()

    (_, narrow), (expected, wide) = trials(4), trials(16)
    assert passes == [16]
    with capped((narrow + wide) / 2 / GIB):
        done, _ = trials(16)
    assert len(passes) > 1 and max(passes) < 16 and sum(passes) == 16
    assert [trial.tokens for trial in done] == [trial.tokens for trial in expected]


@pytest.mark.parametrize("fails", [False, True])
def test_the_cap_is_a_share_of_the_gpus_memory_and_is_lifted_again(fails, monkeypatch):
    shares, card = [], mock.Mock(total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    with pytest.raises(MemoryError) if fails else nullcontext():
        with capped(20):
            if fails:
                raise MemoryError
    assert shares == [0.25, 1.0]


@pytest.mark.parametrize("device", EITHER)
def test_the_t4_report_on_a_tiny_shape(device, capsys, monkeypatch):
    monkeypatch.setattr(memory, "REAL", replace(memory.REAL, max_new_tokens=16))
    memory.t4(device, TINY, passages=1, steps=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("A pass of 5 adapters of 512 tokens, 2 steps, exam:")
    assert lines[1].startswith("run_seal, 2 iterations of 1 passages (12 trials):")
