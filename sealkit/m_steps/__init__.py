"""Outer loops side by side: what may stand in place of ReSTEM's M-step, all from the same E-step.

"We tried GRPO and PPO; they were unstable", says the paper (arXiv:2506.10943), without a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..outer_loop import e_step, lora_optimizer, pad_rows
from ..policy import Policy, Weights

if TYPE_CHECKING:
    from ..tasks import Item, Task


@dataclass(frozen=True)
class Samples:
    """What an E-step found: n self-edits with their rewards, k of them for each item, in turn.

    examples: (prompt, self-edit) pairs. rewards: (items, k). item_only: (items,), the rewards of
    training on the item alone. first: the weights of the policy before RL. optimizer: of the run,
    for M-steps that go on where the last one stopped.
    """

    examples: list[tuple[str, str]]
    rewards: Tensor
    item_only: Tensor
    first: Weights
    optimizer: torch.optim.Optimizer


MStep = Callable[[Policy, Samples, object], list[float]]  # -> the loss of each gradient step


@dataclass(frozen=True)
class Update:
    """A policy update of `outer_loop`. inner_loops: self-edits tried so far. mean_reward: of those
    of this update, written before it. losses: of its gradient steps."""

    number: int
    inner_loops: int
    mean_reward: float
    losses: list[float]
    weights: Weights


def outer_loop(
    policy: Policy,
    task: Task[Item],
    items: Sequence[Item],
    m_step: MStep,
    k: int = 5,
    seed: int = 0,
    items_per_update: int | None = None,
) -> Iterator[Update]:
    """Yield an Update after each M-step, for as long as the caller asks.

    items_per_update: how many items an E-step takes, in turn; None: all. Raises ValueError for
    self-edits written of an item's parts, which no one probability belongs to; FloatingPointError
    for an M-step that diverges, the policy then being as it was before that.
    """
    if any(len(task.parts(item, policy.config)) > 1 for item in items):
        raise ValueError(
            "These M-steps weigh a self-edit as a whole: take a config whose prompts have "
            "by_sentence=False."
        )
    first, optimizer, tried = policy.weights(), lora_optimizer(policy), 0
    width = items_per_update or len(items)
    for t in count(1):
        start = (t - 1) * width % len(items)
        batch = items[start : start + width]
        _, item_only, trials = e_step(policy, task, batch, t, k, seed)
        prompts = [task.prompt(item, policy.config) for item in batch]
        samples = Samples(
            [(text, trial.self_edit) for text, row in zip(prompts, trials) for trial in row],
            torch.tensor([[trial.reward for trial in row] for row in trials]),
            torch.tensor(item_only),
            first,
            optimizer,
        )
        before = policy.weights()
        try:
            losses = m_step(policy, samples, (seed, t))
        except FloatingPointError:
            policy.load(before)
            raise
        tried += samples.rewards.numel()
        reward = samples.rewards.mean().item()
        yield Update(t, tried, reward, losses, policy.weights())


def token_log_probs(policy: Policy, rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """log LM_θ of each token of the self-edits, 0 at all others, and which tokens these are: both
    (rows, longest − 1). rows: as `sft_example` makes them."""
    ids, labels = pad_rows(policy, rows)
    logits = policy.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    log_probs = -cross_entropy(logits.mT, labels[:, 1:], ignore_index=-100, reduction="none")
    return log_probs, labels[:, 1:] != -100


@torch.no_grad()
def frozen_log_probs(policy: Policy, rows: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """`token_log_probs` of the policy as it is, without gradient: (length − 1,) for each row."""
    width, found = policy.config.rows_per_pass, []
    for n in range(0, len(rows), width):
        part = rows[n : n + width]
        log_probs, _ = token_log_probs(policy, part)
        found += [each[: len(ids) - 1] for each, (ids, _) in zip(log_probs, part)]
    return found
