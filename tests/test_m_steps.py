"""M-steps side by side: each equals its formula, and moves the policy where it should."""

import math
from dataclasses import replace
from functools import partial
from itertools import islice

import pytest
import torch

from sealkit.inner_loop import row_losses
from sealkit.m_steps import Samples, frozen_log_probs, outer_loop, token_log_probs
from sealkit.m_steps.losses import (
    advantages,
    clipped_gains,
    dpo,
    k3,
    policy_gradient,
    preference_losses,
    restem,
    reward_weighted,
)
from sealkit.outer_loop import lora_optimizer, pad_rows, seal, sft_rows
from sealkit.selection import keep_best
from sealkit.tasks import knowledge

REWARDS = [[1.0, 0.0, 0.5], [0.25, 0.25, 0.75]]


@pytest.fixture
def short(policy):
    """The policy with M-steps of one epoch, small batches and a rule that always keeps one."""
    config = replace(policy.config, epochs=1, batch_size=3, keep=keep_best)
    return replace(policy, config=config)


@pytest.fixture
def samples(short, validation):
    """Two passages with three self-edits each, and rewards made up for them."""
    edits = [["It is cold.", "Nothing.", "The sea is near."], ["A.", "It is far away.", "C."]]
    prompts = [knowledge.prompt(passage, short.config) for passage in validation[:2]]
    examples = [(prompt, edit) for prompt, row in zip(prompts, edits) for edit in row]
    optimizer = lora_optimizer(short)
    return Samples(examples, torch.tensor(REWARDS), torch.zeros(2), short.weights(), optimizer)


def log_probs_of(policy, samples):
    """log π of each self-edit, (6,)."""
    rows = sft_rows(policy, samples.examples)
    return torch.stack([each.sum() for each in frozen_log_probs(policy, rows)])


def test_restem_in_this_loop_is_seal_bit_for_bit(short, validation):
    given = short, knowledge, validation[:3]
    start = short.weights()
    iterations = list(islice(seal(*given, k=2, seed=1), 2))
    short.load(start)
    updates = list(islice(outer_loop(*given, restem, k=2, seed=1), 2))
    for iteration, update in zip(iterations, updates, strict=True):
        assert update.losses == list(iteration.losses) and iteration.kept
        assert update.mean_reward == pytest.approx(iteration.mean_reward)
        assert update.inner_loops == 6 * update.number
        for name, tensor in iteration.weights.items():
            assert torch.equal(tensor, update.weights[name])
    short.load(start)
    going_on = list(islice(outer_loop(*given, partial(restem, anew=False), k=2, seed=1), 2))
    assert going_on[0].losses == updates[0].losses and going_on[1].losses != updates[1].losses


def test_items_are_taken_in_turn(short, validation):
    loop = outer_loop(short, knowledge, validation[:3], restem, 2, items_per_update=2)
    assert [update.inner_loops for update in islice(loop, 3)] == [4, 6, 10]


def test_log_probs_are_those_of_the_models_own_loss(short, samples):
    rows = sft_rows(short, samples.examples)
    log_probs, mask = token_log_probs(short, rows)
    ids, labels = pad_rows(short, rows)
    means = (log_probs * mask).sum(1) / mask.sum(1)
    assert torch.allclose(-means, row_losses(short.model, {"input_ids": ids}, labels), atol=1e-4)
    assert (log_probs[~mask] == 0).all() and mask.any(1).all()
    for each, own in zip(frozen_log_probs(short, rows), log_probs):
        assert torch.allclose(each, own[: len(each)], atol=1e-3)


def test_formulas_equal_the_books():
    """DPO's equation 7, PPO's equation 7, GRPO's estimate of KL; by other means than the code's."""
    ratios = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    odds = [math.exp(0.3 * a) / (math.exp(0.3 * a) + math.exp(0.3 * b)) for a, b in ratios.tolist()]
    ours = preference_losses(ratios, beta=0.3).tolist()
    assert ours == pytest.approx([-math.log(p) for p in odds], rel=1e-5)
    for log_ratio, gain in ((0.5, 1.0), (0.5, -1.0), (-0.5, 1.0), (-0.5, -1.0), (0.1, 2.0)):
        ratio = math.exp(log_ratio)
        bound = (1 + 0.2) * gain if gain > 0 else (1 - 0.2) * gain  # PPO's g(ε, A)
        (ours,) = clipped_gains(torch.tensor([[log_ratio]]), torch.tensor([gain]), 0.2).flatten()
        assert ours.item() == pytest.approx(min(ratio * gain, bound), rel=1e-5)
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.3, 0.2])
    expected = (p * (p / q).log()).sum()
    assert (p * k3(q.log() - p.log())).sum().item() == pytest.approx(expected.item(), rel=1e-5)
    others = torch.tensor([[0.75, -0.75, 0.0], [-0.25, -0.25, 0.5]])
    assert torch.allclose(advantages(torch.tensor(REWARDS)), others.flatten())
    scaled = advantages(torch.tensor(REWARDS), standardized=True).view(2, 3)
    assert torch.allclose(scaled.std(1), torch.ones(2), atol=1e-3)
    assert torch.allclose(scaled.mean(1), torch.zeros(2), atol=1e-6)


def test_reinforce_is_the_gradient_of_what_is_expected(short, samples):
    """−Σ A ∇ log π / n, from torch's own differentiation of the mean log-likelihoods."""
    plain = replace(short, config=replace(short.config, batch_size=6, rows_per_pass=6))
    gradients = []
    hook = samples.optimizer.register_step_pre_hook(
        lambda optimizer, *_: gradients.extend(
            tensor.grad.clone() for tensor in optimizer.param_groups[0]["params"]
        )
    )
    policy_gradient(plain, samples)
    hook.remove()
    plain.load(samples.first)
    log_probs, mask = token_log_probs(plain, sft_rows(plain, samples.examples))
    gain = advantages(samples.rewards)
    loss = -((log_probs * mask).sum(1) / mask.sum(1) * gain).mean()
    own = torch.autograd.grad(loss, samples.optimizer.param_groups[0]["params"])
    for ours, theirs in zip(gradients, own, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3 * theirs.abs().max().item() + 1e-7)


@pytest.mark.parametrize(
    "m_step",
    [
        reward_weighted,
        dpo,
        policy_gradient,
        partial(policy_gradient, clip=0.2, kl=0.04, standardized=True),
    ],
    ids=["reward-weighted", "DPO", "RLOO", "GRPO"],
)
def test_what_earned_more_becomes_likelier_than_what_earned_less(short, samples, m_step):
    before = log_probs_of(short, samples).view(2, 3)
    losses = m_step(short, samples, seed=0)
    change = log_probs_of(short, samples).view(2, 3) - before
    assert losses and all(map(math.isfinite, losses))
    for item, rewards in zip(change, samples.rewards):
        assert item[rewards.argmax()] > item[rewards.argmin()]


def test_dpo_begins_at_the_log_of_two_and_leaves_out_ties(short, samples):
    tied = replace(samples, rewards=torch.tensor([[1.0, 0.0, 0.5], [0.5, 0.5, 0.5]]))
    (loss,) = dpo(short, tied)
    assert loss == pytest.approx(math.log(2), abs=1e-3)
    assert dpo(short, replace(samples, rewards=torch.ones(2, 3))) == []


def test_the_kl_term_pulls_back_to_the_first_policy(short, samples):
    """With rewards that are all alike, nothing else is learned."""
    slow = replace(short, config=replace(short.config, epochs=10, m_step_learning_rate=5e-4))
    moved = {name: tensor + 0.01 for name, tensor in samples.first.items()}
    alike = replace(samples, rewards=torch.ones(2, 3))
    rows = sft_rows(short, samples.examples)
    first = frozen_log_probs(short, rows)

    def distance():
        return sum(k3(x - y).mean().item() for x, y in zip(first, frozen_log_probs(short, rows)))

    ends = {}
    for kl in (0.0, 1.0):
        short.load(moved)
        start, optimizer = distance(), lora_optimizer(slow)
        policy_gradient(slow, replace(alike, optimizer=optimizer), kl=kl)
        ends[kl] = distance()
    assert ends[0.0] == start > ends[1.0]


def test_the_optimizer_of_the_run_goes_on(short, samples):
    """AdamW's moments: a second M-step is not that of a new optimizer."""
    policy_gradient(short, samples)
    steps = {state["step"].item() for state in samples.optimizer.state.values()}
    policy_gradient(short, samples)
    again = {state["step"].item() for state in samples.optimizer.state.values()}
    assert (steps, again) == ({2.0}, {4.0})


def test_an_m_step_that_diverges_leaves_the_policy_as_it_was(short, validation):
    wild = replace(short, config=replace(short.config, m_step_learning_rate=1e30, epochs=3))
    before = wild.weights()
    loop = outer_loop(wild, knowledge, validation[:2], partial(restem, anew=False), k=2)
    with pytest.raises(FloatingPointError, match="not finite: take a lower learning rate"):
        next(loop)
    assert all(torch.equal(tensor, before[name]) for name, tensor in wild.weights().items())
