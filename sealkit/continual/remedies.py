"""Remedies against forgetting, as functions: (learner, lessons) -> the new memory; for a bank of
adapters also a router, (learner, place, prompts) -> which adapter answers each prompt.

learner: a `sealkit.continual.stream.Learner`, k streams side by side. lessons: the k new ones. A memory is
a list of k adapters side by side, the newest last. All take the same number of gradient steps.
"""

import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from ..inner_loop import collate, row_losses
from ..lora import fork, side_by_side
from ..policy import encode, seed_of
from .adapters import concat_ranks, init_adapters, interpolate_adapters


def sequential(learner, lessons):
    """No remedy: θ ← SFT(θ, SE)."""
    return [learner.train(lessons)]


def replay(learner, lessons, count, by=None):
    """Each step also on `count` earlier lessons (item and self-edit), at random or the best ones.

    by: "reward" for those that earned most when they were just learned; all for count None.
    """
    mixture = []
    for lesson, texts, earned, seed in zip(lessons, learner.texts, learner.earned, learner.seeds):
        order = list(range(len(texts)))
        random.Random(seed_of(seed, len(order))).shuffle(order)
        order = sorted(order, key=lambda j: -earned[j]) if by == "reward" else order
        old = [text for j in sorted(order[:count]) for text in texts[j]]
        mixture.append(replace(lesson, texts=[*lesson.texts, *old]))
    return [learner.train(mixture)]


def gate(learner, lessons, budget=0.05):
    """Halve an edit, at most twice, then reject it, while its cost on earlier exams is too high."""
    (old,), new, earlier = learner.memory, learner.train(lessons), range(len(learner.texts[0]))
    share = torch.ones(len(lessons))
    for least in (0.5, 0.25, 0.0) if earlier else ():
        before, now = (
            learner.exams(earlier, [a]).mean(1)
            for a in (old, interpolate_adapters(old, new, share))
        )
        share[torch.tensor(before - now > budget)] = least
    return [interpolate_adapters(old, new, share)]


def average(learner, lessons, share=0.5):
    """θ ← θ + share (θ' − θ)."""
    (old,), new = learner.memory, learner.train(lessons)
    return [interpolate_adapters(old, new, torch.full((len(lessons),), share))]


def orthogonal(learner, lessons, weight=0.5):
    """A LoRA more for each item, its A orthogonal to those before (O-LoRA, arXiv:2310.14152)."""
    (old,), done = learner.memory, len(learner.texts[0])
    like = fork(learner.policy.model, len(lessons))
    new = init_adapters(like, [seed_of(seed, done) for seed in learner.seeds])

    def overlap(adapters):
        pairs = [(old[name][0], A) for name, (A, _) in adapters.items()]
        return weight * sum((before @ A.mT).square().sum((1, 2)) for before, A in pairs)

    with side_by_side(learner.policy.model, old):
        return [concat_ranks(old, learner.train(lessons, new, overlap))]


def adapter_bank(learner, lessons):
    """A bank: an adapter for each item, from the first policy."""
    return [*learner.memory, learner.train(lessons)]


def route_to_newest(learner, place, prompts):
    """The adapter that learned last: the only one, without a bank."""
    return [[len(learner.memory) - 1] * len(own) for own in prompts]


def route_to_own(learner, place, prompts):
    """The item's own adapter; before it is learned, the first policy."""
    own = place + 1 if place + 1 < len(learner.memory) else 0
    return [[own] * len(some) for some in prompts]


def route_by_words(learner, place, prompts):
    """The adapter whose lesson has most of the question's words, common ones counting less."""

    def words(text):
        return Counter(re.findall(r"\w+", text.lower()))

    routes = []
    for lessons, own in zip(learner.texts, prompts):
        known = [words(" ".join(texts)) for texts in lessons]
        common = Counter(word for some in known for word in some)
        scores = [
            [sum(some[w] / common[w] for w in words(q) & some) for some in known] for q in own
        ]
        routes.append([1 + int(np.argmax(row)) if row else 0 for row in scores])
    return routes


@torch.no_grad()
def route_by_loss(learner, place, prompts):
    """The adapter that finds the question likeliest."""
    policy, count = learner.policy, len(prompts[0])
    rows = [encode(policy.tokenizer, prompt)["input_ids"] for own in prompts for prompt in own]
    packed = [(ids, list(range(len(ids)))) for ids in rows]
    inputs, labels = collate(packed, policy.tokenizer.pad_token_id, policy.model.device)
    losses = []
    for adapters in learner.memory:
        with side_by_side(policy.model, adapters):
            losses.append(row_losses(policy.model, inputs, labels))
    best = torch.stack(losses[1:] or losses).argmin(0) + (len(losses) > 1)
    return best.view(-1, count).tolist()


class Remedy(NamedTuple):
    """How a new item is learned, which adapter answers, and whether θ writes as it changes."""

    learn: Callable
    route: Callable = route_to_newest
    anew: bool = False


REMEDIES = {
    "none": Remedy(sequential, anew=True),
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
    "bank, oracle": Remedy(adapter_bank, route_to_own),
}
