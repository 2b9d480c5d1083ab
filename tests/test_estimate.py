"""An estimate changes nothing, and is the arithmetic of what it measured; how near it comes is in tests/benchmarks/README.md."""

from math import ceil

import pytest
import torch

import sealkit
from families import save
from sealkit import estimate as module
from sealkit.estimate import Estimate, estimate_run
from sealkit.inner_loop import attach_policy
from sealkit.outer_loop import policy_tensors

QUICK = sealkit.Settings(steps=2, adapters_per_pass=4)
ONCE = sealkit.Reinforcement(epochs=1, batch_size=2)


def test_nothing_is_changed_to_the_bit(model_and_tokenizer, validation, base_bytes):
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    for name, parameter in policy.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
            parameter.grad = torch.ones_like(parameter) if "lora_B" in name else None
            parameter.requires_grad_("layers.0" in name or "lora_B" in name)

    def state():
        gradients = {name: (p.requires_grad, None if p.grad is None else p.grad.numpy().tobytes()) for name, p in policy.named_parameters()}
        lora = {name: tensor.numpy().tobytes() for name, tensor in policy_tensors(policy).items()}
        return base_bytes(policy), lora, gradients, torch.random.get_rng_state().tolist(), {m.training for m in policy.modules()}

    before = state()
    estimate_run(policy, tokenizer, validation[:2], 1, 2, QUICK, ONCE)
    assert state() == before


def test_a_run_after_an_estimate_is_the_same_run(validation):
    histories = []
    for first in (False, True):
        model, tokenizer = sealkit.load_quantized()
        names = [name for name, _ in model.named_parameters()]
        if first:
            estimate_run(model, tokenizer, validation[:2], 1, 2, QUICK, ONCE)
            assert [name for name, _ in model.named_parameters()] == names, "a plain model should be plain again"
        histories.append(sealkit.run_seal(model, tokenizer, validation[:2], 1, 2, settings=QUICK, reinforcement=ONCE))
    ours, other = (history.iterations[0] for history in histories)
    assert ours.trials == other.trials and ours.losses == other.losses
    assert all(torch.equal(tensor, other.policy[name]) for name, tensor in ours.policy.items())


def test_also_after_an_error_the_model_is_as_it_was(model_and_tokenizer, validation, monkeypatch):
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    before = policy_tensors(policy)
    really = module.m_step

    def fails(*args):
        really(*args)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(module, "m_step", fails)
    with pytest.raises(RuntimeError):
        estimate_run(policy, tokenizer, validation[:1], 1, 1, QUICK, ONCE)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy_tensors(policy).items())


@pytest.fixture
def clock(monkeypatch):
    """Instead of the clock: 0.5 s for a prompt, 0.01 s for a token after it, 2 s for a trial's exam, 0.001 s for a position of a training step."""
    def seconds_of(policy, function, *args, **kwargs):
        result, rows = function(*args, **kwargs), len(args[2])
        if function is module.generate_self_edits:
            return rows * args[3] * (0.5 + 0.01 * kwargs["max_new_tokens"]), result
        return 2 * rows + (0.001 * rows * max(trial.tokens for trial in result) if function is module.run_trials else 0), result

    monkeypatch.setattr(module, "seconds_of", seconds_of)


def test_a_self_edit_costs_its_prompt_and_the_longest_ones_tokens(model_and_tokenizer, validation, clock):
    model, tokenizer = model_and_tokenizer
    longest = len(tokenizer("Bramwick works as a baker.")["input_ids"]) + 1
    seconds = module.sampling_seconds(attach_policy(model), tokenizer, validation[:10], [["", "a"], ["Bramwick works as a baker."]], 2)
    assert seconds == pytest.approx(0.5 + 0.01 * longest)


def test_a_trial_costs_its_positions_among_trials_of_like_length(model_and_tokenizer, validation, clock):
    """Measured in one pass of a short and a long row; of many, the short ones share their passes."""
    model, tokenizer = model_and_tokenizer
    pairs = [(validation[0], ""), (validation[0], validation[0].oracle)]
    short, long = (sum(len(tokenizer(s)["input_ids"]) + 1 for s in sealkit.training_sequences(edit, p)) for p, edit in pairs)
    for trials, positions in ((2, long), (8, (short + long) / 2), (6, (short + long) * 2 / 6 + long * 2 / 6)):
        width, training, exam = module.trial_seconds(attach_policy(model), tokenizer, pairs, sealkit.Settings(steps=7), trials)
        assert (width, exam) == (2, pytest.approx(2)) and training == pytest.approx(7 * 0.001 * positions)


@pytest.mark.parametrize("count, k, iterations, exams", [(1, 3, 1, 0), (1, 3, 2, 0), (7, 3, 2, 0), (14, 3, 2, 0), (7, 1, 2, 0), (7, 3, 2, 11)])
def test_the_sum_by_hand(model_and_tokenizer, validation, monkeypatch, count, k, iterations, exams):
    """0.5 s a self-edit, 1 s of training, 2 s of exam, 3 s a step of an M-step with batches of 2, once over one self-edit a passage."""
    monkeypatch.setattr(module, "sampling_seconds", lambda *a: 0.5)
    monkeypatch.setattr(module, "trial_seconds", lambda *a: (4, 1.0, 2.0))
    monkeypatch.setattr(module, "m_step_seconds", lambda *a: 3.0)
    got = estimate_run(*model_and_tokenizer, validation[:count], iterations, k, QUICK, ONCE, exams)
    trials = count * (k + 1)
    of_one = count * k * 0.5 + trials * 1 + (trials + count) * 2 + ceil(count / 2) * 3
    assert 60 * got.minutes == pytest.approx(iterations * of_one + exams * 3.5)
    assert (got.iterations, got.trials, got.width, got.device) == (iterations, trials, 4, model_and_tokenizer[0].device.type)


def test_a_model_of_the_hub_is_estimated_with_its_own_settings(tmp_path):
    model, tokenizer = sealkit.load_quantized(save("mistral", tmp_path))
    passages = [sealkit.Passage(f"T{i}", "The ferry is 40 m long.", (sealkit.Question("How long?", ("40 m",)),)) for i in range(2)]
    got = estimate_run(model, tokenizer, passages, 1, 2)
    assert got.width == sealkit.inner_loop.settings_for(tokenizer).adapters_per_pass and got.trials == 6 and got.minutes > 0 and got.gib > 0.1


def test_the_pass_is_as_wide_as_memory_allows(model_and_tokenizer, validation, monkeypatch):
    from sealkit.inner_loop import row_losses

    def no_room(model, inputs, labels):
        if len(labels) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return row_losses(model, inputs, labels)

    model, tokenizer = model_and_tokenizer
    monkeypatch.setattr("sealkit.inner_loop.row_losses", no_room)
    assert estimate_run(model, tokenizer, validation[:2], 1, 2, QUICK, ONCE).width == 2


def test_it_reads_like_a_sentence():
    assert str(Estimate(74.2, 8.13, 2, 240, 5, "cuda")) == (
        "Estimate, from one measured pass of 5 trials: about 74 minutes for 2 iterations (240 trials each), peak memory 8.1 GiB on the GPU.")
    assert "about 9 seconds for" in str(Estimate(0.15, 0.9, 1, 12, 12, "cpu"))
    assert "about 1.6 minutes for 1 iteration (12 trials each), peak memory 0.9 GiB of this process." in str(Estimate(1.58, 0.9, 1, 12, 12, "cpu"))


@pytest.mark.parametrize("count, iterations, k", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_nothing_to_estimate_is_refused(model_and_tokenizer, validation, count, iterations, k):
    with pytest.raises(ValueError, match="at least"):
        estimate_run(*model_and_tokenizer, validation[:count], iterations, k)
