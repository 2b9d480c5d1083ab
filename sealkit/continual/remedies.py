"""Remedies against forgetting, as functions: (learner, lessons) -> the new memory.

A bank of adapters also has a router, (learner, place, prompts) -> which adapter answers each
prompt. learner: a `sealkit.continual.stream.Learner`, k streams side by side. lessons: the k new
ones. A memory is a list of k adapters side by side, the newest last. All remedies take the same
number of gradient steps.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..inner_loop import Lesson, collate, row_losses
from ..lora import Adapters, fork, side_by_side
from ..models.text import encode
from ..policy import seed_of
from .adapters import concat_ranks, init_adapters, interpolate_adapters

if TYPE_CHECKING:
    from .stream import Learner

Memory = list[Adapters]  # each of them k side by side
Prompts = Sequence[Sequence[str]]  # (k, questions)
Routes = list[list[int]]  # (k, questions): a place in the memory
Learn = Callable[["Learner", Sequence[Lesson]], Memory]
Route = Callable[["Learner", int, Prompts], Routes]


def sequential(learner: Learner, lessons: Sequence[Lesson]) -> Memory:
    """No remedy: θ ← SFT(θ, SE)."""
    return [learner.train(lessons)]


def replay(
    learner: Learner, lessons: Sequence[Lesson], count: int | None, by: str | None = None
) -> Memory:
    """Train each step also on `count` earlier lessons (item and self-edit); None for all.

    by: "reward" for the lessons with the highest reward when just learned; None for random ones.
    """
    mixture = []
    for lesson, texts, earned, seed in zip(lessons, learner.texts, learner.earned, learner.seeds):
        order = list(range(len(texts)))
        random.Random(seed_of(seed, len(order))).shuffle(order)
        order = sorted(order, key=lambda j: -earned[j]) if by == "reward" else order
        old = [text for j in sorted(order[:count]) for text in texts[j]]
        mixture.append(replace(lesson, texts=[*lesson.texts, *old]))
    return [learner.train(mixture)]


def gate(learner: Learner, lessons: Sequence[Lesson], budget: float = 0.05) -> Memory:
    """While an update costs more than `budget` on earlier exams, halve it, at most twice; then
    reject it."""
    (old,), new, earlier = learner.memory, learner.train(lessons), range(len(learner.texts[0]))
    share = torch.ones(len(lessons))
    for smaller in (0.5, 0.25, 0.0) if earlier else ():
        before, now = (
            learner.exams(earlier, [adapters]).mean(1)
            for adapters in (old, interpolate_adapters(old, new, share))
        )
        share[torch.tensor(before - now > budget)] = smaller
    return [interpolate_adapters(old, new, share)]


def average(learner: Learner, lessons: Sequence[Lesson], share: float = 0.5) -> Memory:
    """θ ← θ + share (θ' − θ)."""
    (old,), new = learner.memory, learner.train(lessons)
    return [interpolate_adapters(old, new, torch.full((len(lessons),), share))]


def orthogonal(learner: Learner, lessons: Sequence[Lesson], weight: float = 0.5) -> Memory:
    """Add a LoRA for each item, its A orthogonal to earlier ones (O-LoRA, arXiv:2310.14152)."""
    (old,), learned = learner.memory, len(learner.texts[0])
    template = fork(learner.policy.model, len(lessons))
    new = init_adapters(template, [seed_of(seed, learned) for seed in learner.seeds])

    def penalize_overlap(adapters: Adapters) -> Tensor:  # (k,)
        total = torch.zeros(len(lessons), device=learner.policy.model.device)
        for name, (A, _) in adapters.items():
            total = total + (old[name][0] @ A.mT).square().sum((1, 2))
        return weight * total

    with side_by_side(learner.policy.model, old):
        return [concat_ranks(old, learner.train(lessons, new, penalize_overlap))]


def adapter_bank(learner: Learner, lessons: Sequence[Lesson]) -> Memory:
    """Keep an adapter for each item, each trained from the first policy."""
    return [*learner.memory, learner.train(lessons)]


def route_to_newest(learner: Learner, place: int, prompts: Prompts) -> Routes:
    """The adapter that learned last; without a bank, the only one."""
    return [[len(learner.memory) - 1] * len(exam) for exam in prompts]


def route_to_item(learner: Learner, place: int, prompts: Prompts) -> Routes:
    """The adapter of the item at `place`, as an oracle; before it is learned, the first policy."""
    adapter = place + 1 if place + 1 < len(learner.memory) else 0
    return [[adapter] * len(exam) for exam in prompts]


def route_by_words(learner: Learner, place: int, prompts: Prompts) -> Routes:
    """The adapter whose lesson has most of the question's words; common words count less."""

    def count_words(text: str) -> Counter[str]:
        return Counter(re.findall(r"\w+", text.lower()))

    routes = []
    for lessons, exam in zip(learner.texts, prompts):
        counts = [count_words(" ".join(texts)) for texts in lessons]
        lessons_with = Counter(word for count in counts for word in count)
        route = []
        for question in map(count_words, exam):
            scores = [sum(n[w] / lessons_with[w] for w in question & n) for n in counts]
            route.append(1 + int(np.argmax(scores)) if scores else 0)
        routes.append(route)
    return routes


@torch.no_grad()
def route_by_loss(learner: Learner, place: int, prompts: Prompts) -> Routes:
    """The adapter under which the question has the lowest loss."""
    policy, count = learner.policy, len(prompts[0])
    rows = encode(policy.tokenizer, [prompt for exam in prompts for prompt in exam])
    packed = [(ids, list(range(len(ids)))) for ids in rows]
    inputs, labels = collate(packed, policy.tokenizer.pad_token_id, policy.model.device)
    losses = []
    for adapters in learner.memory:
        with side_by_side(policy.model, adapters):
            losses.append(row_losses(policy.model, inputs, labels))
    best = torch.stack(losses[1:] or losses).argmin(0) + (len(losses) > 1)
    return best.view(-1, count).tolist()


class Remedy(NamedTuple):
    """How a new item is learned, and which adapter answers.

    on_policy: whether the policy writes each self-edit as it is by then; otherwise the first policy
    writes all of them.
    """

    learn: Learn
    route: Route = route_to_newest
    on_policy: bool = False


REMEDIES = {
    "none": Remedy(sequential, on_policy=True),
    "first policy writes": Remedy(sequential),
    "replay of all": Remedy(partial(replay, count=None)),
    "replay of 3": Remedy(partial(replay, count=3)),
    "replay of the 3 best": Remedy(partial(replay, count=3, by="reward")),
    "replay of 1": Remedy(partial(replay, count=1)),
    "averaging": Remedy(average),
    "gate": Remedy(gate),
    "orthogonal LoRAs": Remedy(orthogonal),
    "bank, by words": Remedy(adapter_bank, route_by_words),
    "bank, by loss": Remedy(adapter_bank, route_by_loss),
    "bank, oracle": Remedy(adapter_bank, route_to_item),
}
