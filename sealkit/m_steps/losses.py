"""M-steps of a few lines each: likelihood, preferences, policy gradient."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.nn.utils.rnn import pad_sequence

from ..inner_loop import row_losses
from ..outer_loop import finetune, m_step, pad_rows, sft_rows
from ..policy import Policy
from . import Samples, frozen_log_probs, token_log_probs


def restem(policy: Policy, samples: Samples, seed: object = 0, anew: bool = True) -> list[float]:
    """ReSTEM (arXiv:2312.06585): SFT on what `config.keep` keeps.

    anew: from the first policy, as ReST-EM has it; else from the last, as in the paper's code.
    """
    keep, k = policy.config.keep, samples.rewards.shape[1]
    rewards = zip(samples.rewards.tolist(), samples.item_only.tolist())
    kept = [samples.examples[i * k + j] for i, pair in enumerate(rewards) for j in keep(*pair)]
    if anew and kept:
        policy.load(samples.first)
    return m_step(policy, kept, seed)


def reward_weighted(
    policy: Policy, samples: Samples, seed: object = 0, beta: float = 0.25
) -> list[float]:
    """Advantage-weighted regression (arXiv:1910.00177): SFT on all, weighted by exp(A/β).

    A is the reward less the mean of the item's others; the weights' mean is 1. Goes on from the
    last policy.
    """
    rows = sft_rows(policy, samples.examples)
    weights = (advantages(samples.rewards) / beta).exp()
    weights = weights / weights.mean()

    def losses(part: Tensor) -> Tensor:
        ids, labels = pad_rows(policy, [rows[i] for i in part])
        return weights[part].to(ids.device) * row_losses(policy.model, {"input_ids": ids}, labels)

    return finetune(policy, len(rows), losses, seed)


def dpo(policy: Policy, samples: Samples, seed: object = 0, beta: float = 0.1) -> list[float]:
    """Direct preference optimization (arXiv:2305.18290): each item's best against its worst.

    −log σ(β (log π(y⁺)/π_ref(y⁺) − log π(y⁻)/π_ref(y⁻))), where π_ref is the policy that wrote
    them. Items whose self-edits earned the same are left out. Goes on from the last policy.
    """
    k, rows = samples.rewards.shape[1], sft_rows(policy, samples.examples)
    spread = samples.rewards.amax(1) > samples.rewards.amin(1)
    first = torch.arange(len(spread)) * k
    both = first + samples.rewards.argmax(1), first + samples.rewards.argmin(1)
    pairs: list[list[int]] = torch.stack(both, 1)[spread].tolist()
    reference = [log_probs.sum() for log_probs in frozen_log_probs(policy, rows)]

    def losses(part: Tensor) -> Tensor:
        members = [n for p in part for n in pairs[p]]
        log_probs, _ = token_log_probs(policy, [rows[n] for n in members])
        known = torch.stack([reference[n] for n in members])
        ratios = log_probs.sum(1) - known.to(log_probs.device)
        return preference_losses(ratios.view(-1, 2), beta)

    return finetune(policy, len(pairs), losses, seed)


def policy_gradient(
    policy: Policy,
    samples: Samples,
    seed: object = 0,
    clip: float = float("inf"),
    kl: float = 0.0,
    standardized: bool = False,
) -> list[float]:
    """Policy gradient with the group as baseline: RLOO (arXiv:2402.14740), GRPO (arXiv:2402.03300).

    −min(ρ A, clip(ρ, 1 ± clip) A) + kl · k3 at each token, averaged over a self-edit's tokens;
    ρ = π/π_old, and π_ref of `k3` is the first policy. A is the reward less the mean of the item's
    others (RLOO), or `standardized` within the item (GRPO). Goes on from the last policy, with the
    run's optimizer.
    """
    rows, last = sft_rows(policy, samples.examples), policy.weights()
    advantage = advantages(samples.rewards, standardized)
    old = frozen_log_probs(policy, rows)
    policy.load(samples.first)
    reference = frozen_log_probs(policy, rows) if kl else old
    policy.load(last)

    def losses(part: Tensor) -> Tensor:
        log_probs, mask = token_log_probs(policy, [rows[n] for n in part])
        before, first = (
            pad_sequence([each[n] for n in part], True).to(mask.device) for each in (old, reference)
        )
        gains = clipped_gains(log_probs - before, advantage[part].to(mask.device), clip)
        return ((kl * k3(first - log_probs) - gains) * mask).sum(1) / mask.sum(1)

    return finetune(policy, len(rows), losses, seed, samples.optimizer)


def preference_losses(log_ratios: Tensor, beta: float) -> Tensor:
    """−log σ(β (better − worse)) of log π/π_ref of (better, worse), (pairs, 2) -> (pairs,).

    >>> preference_losses(torch.zeros(1, 2), beta=0.1)
    tensor([0.6931])
    """
    better, worse = log_ratios.T
    return -logsigmoid(beta * (better - worse))


def clipped_gains(log_ratios: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """min(ρ A, clip(ρ, 1 ± clip) A) of log ρ (n, tokens) and A (n,): (n, tokens).

    >>> log_ratios = torch.tensor([[0.5, 2.0]]).log()
    >>> clipped_gains(log_ratios, torch.tensor([1.0]), clip=0.2)
    tensor([[0.5000, 1.2000]])
    >>> clipped_gains(log_ratios, torch.tensor([-1.0]), clip=0.2)
    tensor([[-0.8000, -2.0000]])
    """
    ratio, gain = log_ratios.exp(), advantage[:, None]
    return torch.minimum(ratio * gain, ratio.clamp(1 - clip, 1 + clip) * gain)


def k3(log_ratios: Tensor) -> Tensor:
    """exp(x) − x − 1 of x = log π_ref/π: at each token an unbiased estimate of KL(π, π_ref), never
    negative (Schulman, Approximating KL divergence, 2020)."""
    return log_ratios.exp() - log_ratios - 1


def advantages(rewards: Tensor, standardized: bool = False) -> Tensor:
    """(items, k) -> (items · k,): a reward less the mean of its item's others; or standardized
    within the item."""
    k, centred = rewards.shape[1], rewards - rewards.mean(1, keepdim=True)
    if standardized:
        return (centred / (rewards.std(1, keepdim=True) + 1e-4)).flatten()
    return (centred * k / max(k - 1, 1)).flatten()
