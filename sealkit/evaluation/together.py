"""Many items in one adapter: the paper's "continued pretraining" (arXiv:2506.10943, section 4.2).

The policy's reward never saw more than one item at a time. What is left of it when N self-edits
share an adapter?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..inner_loop import (
    Lesson,
    Trial,
    ask,
    checkpointed,
    initial_loss_scales,
    make_batch,
    optimizer_step,
    row_losses,
    shuffled_batches,
)
from ..lora import Adapters, fork, side_by_side
from ..models.unpacking import unpacked
from ..policy import Policy, seed_of
from ..runs.cache import Cache, Key, compute_missing

if TYPE_CHECKING:
    from ..tasks import Item, Task


@dataclass(frozen=True)
class Together:
    """How many items share an adapter, and how it is trained: epochs of mini-batches of
    `batch_size` lessons, in an order drawn from `seed`, at the config's learning rate.

    >>> Together(3).group(4, 5)  # the third item of the last group is the first of all
    [3, 4, 0]
    """

    size: int
    epochs: int = 8
    batch_size: int = 4
    seed: int = 0

    def __str__(self) -> str:
        plural = "s" if self.epochs > 1 else ""
        steps = f"{self.epochs} epoch{plural}, {self.batch_size} a gradient step"
        return f"({self.size} at a time in one adapter: {steps})"

    def group(self, i: int, count: int) -> list[int]:
        """The places of the `size` items of `count` that share item i's adapter; where the last
        ones are too few, the first ones keep them company. Raises ValueError."""
        if not 1 <= self.size <= count:
            raise ValueError(
                f"{self.size} items cannot share an adapter, since there are {count}: take a "
                f"number from 1 to {count}."
            )
        first = i - i % self.size
        return [place % count for place in range(first, first + self.size)]


def learn_together(
    policy: Policy, groups: Sequence[Sequence[Lesson]], together: Together
) -> tuple[Adapters, list[list[float]], list[list[int]]]:
    """θ' ← SFT(θ, SE_1, …, SE_N): one adapter for each group of N lessons, groups side by side.

    Every group goes through its lessons in the same order. Returns (adapters, k of them; mean
    losses (k, epochs), in nats per token; tokens (k, N)). Raises FloatingPointError if one
    diverges.
    """
    # 1. a fork of the policy's LoRA for each group, one optimizer for all
    config, count = policy.config, len(groups[0])
    adapters = fork(policy.model, len(groups))
    tensors = [tensor for pair in adapters.values() for tensor in pair]
    optimizer = torch.optim.AdamW(tensors, lr=config.learning_rate, weight_decay=0.0)
    scale, curves = initial_loss_scales(policy, len(groups)), []
    diverged = torch.zeros_like(scale, dtype=torch.bool)
    tokens = [make_batch(policy, group)[2] for group in groups]
    order = torch.Generator().manual_seed(seed_of("together", together.seed))

    def losses_of(places: Tensor, share: float) -> Tensor:
        lessons = [group[i] for group in groups for i in places]
        inputs, labels, _ = make_batch(policy, lessons)
        return row_losses(policy.model, inputs, labels).view(len(groups), -1).sum(1) * share

    # 2. epochs of shuffled mini-batches, each in parts of `rows_per_pass` lessons of every group
    batches = shuffled_batches(count, together.epochs, together.batch_size, order)
    model = policy.model
    with unpacked(model), side_by_side(model, adapters), checkpointed(policy), torch.enable_grad():
        for batch in batches:
            parts = [
                partial(losses_of, part, 1 / len(batch))
                for part in batch.split(config.rows_per_pass)
            ]
            curves.append(optimizer_step(optimizer, scale, parts, diverged))

    if diverged.any():
        raise FloatingPointError(
            f"The training of {count} items in one adapter diverged: take a lower learning rate, "
            "or in float16 a GPU with bfloat16."
        )
    epochs = torch.stack(curves).view(together.epochs, -1, len(groups)).mean(1)
    return adapters, epochs.T.tolist(), tokens


def run_together(
    policy: Policy,
    task: Task[Item],
    pairs: Sequence[tuple[Item, str]],
    together: Together,
    cache: Cache | None = None,
    keys: Sequence[Key] | None = None,
    title: str | None = None,
) -> list[Trial]:
    """The Trial of each (item, self-edit) pair, in their order, where neighbours share an adapter.

    A Trial's losses are its group's, a mean for each epoch. cache, keys (one for each pair), title:
    see `compute_missing`. Raises ValueError for a group of more items than there are.
    """
    cache, count = {} if cache is None else cache, len(pairs)
    place_of = dict(zip(keys or [("together", i) for i in range(count)], range(count), strict=True))
    lessons = [task.lesson(*pair, policy.config) for pair in pairs]
    members = {i: tuple(together.group(i, count)) for i in range(count)}

    def run_batch(keys: list[Key]) -> list[dict]:
        # 1. learn whole groups, also where memory has room for a part of their exams only
        places = [place_of[key] for key in keys]
        groups = list(dict.fromkeys(members[i] for i in places))
        batch = [[lessons[i] for i in group] for group in groups]
        adapters, curves, tokens = learn_together(policy, batch, together)

        # 2. examine each item, closed book, by its group's adapter
        asked = [[i for i in places if members[i] == group] for group in groups]
        answers = examine(policy, task, adapters, [[pairs[i][0] for i in own] for own in asked])
        answers_of = dict(zip(chain(*asked), chain(*answers)))

        # 3. grade
        trials = []
        for i in places:
            g = groups.index(members[i])
            trials.append(
                Trial(
                    self_edit=pairs[i][1],
                    reward=task.reward(pairs[i][0], answers_of[i], policy.config),
                    answers=answers_of[i],
                    losses=curves[g],
                    tokens=tokens[g][members[i].index(i)],
                )
            )
        return [asdict(trial) for trial in trials]

    width = together.size * max(1, policy.config.adapters_per_pass // together.batch_size)
    values = compute_missing(cache, list(place_of), run_batch, width, title)
    return [Trial(**value) for value in values]


def examine(
    policy: Policy, task: Task[Item], adapters: Adapters, items: Sequence[Sequence[Item]]
) -> list[list[list[str]]]:
    """Adapter i's answers on each of its own items, closed book: (k, items, questions)."""
    answers: list[list[list[str]]] = [[] for _ in items]
    count = len(task.exam(items[0][0]))
    width = max(1, policy.config.texts_per_pass // (len(items) * count))
    for n in range(0, max(map(len, items)), width):
        exams = [
            [task.questions(item, policy.config) for item in own[n : n + width]] for own in items
        ]
        replies = ask(policy, adapters, [list(chain(*of_items)) for of_items in exams])
        for row, of_items, reply in zip(answers, exams, map(iter, replies)):
            row += [list(islice(reply, len(exam))) for exam in of_items]
    return answers
