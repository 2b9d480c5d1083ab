"""Continual learning (paper, section 5): items learned for good, one after the other, θ ← θ'.

k streams of items go side by side, as k adapters. A remedy against forgetting is a function that
makes the new memory of the old one; a bank of adapters also needs one that picks for a question.
"""

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from .evaluation import Arms, bootstrap_interval
from .inner_loop import ask, collate, row_losses, sft
from .lora import again, fork, fresh, joined, mixed, side_by_side
from .memo import remembered
from .outer_loop import write_self_edits
from .policy import Policy, encode, seed_of


def draw_streams(items, count=16, length=8, seed=0):
    """`count` streams of `length` items, each drawn without replacement: list of lists.

    >>> [sorted(stream) for stream in draw_streams("abc", count=2, length=3)]
    [['a', 'b', 'c'], ['a', 'b', 'c']]
    """
    if len(items) < length:
        raise ValueError(
            f"A stream of {length} needs as many passages, and there are {len(items)}."
        )
    return [random.Random(seed_of("stream", seed, s)).sample(items, length) for s in range(count)]


@dataclass(frozen=True)
class Learner:
    """k streams after so many of their items: what a remedy is given.

    memory: a list of k adapters side by side, see `fork`; the last is the newest.
    edits: for each stream, the texts of each self-edit. earned: and its reward when just learned.
    seeds: one for each stream. spent: Counter of gradient steps and tokens, for each stream.
    """

    policy: Policy
    task: object
    streams: list
    memory: list
    edits: list
    earned: list
    seeds: list
    spent: list

    def train(self, lessons, start=None, penalty=None):
        """The adapters after SFT of a copy of `start` (the memory's first), a lesson for each."""
        start = start or self.memory[0]
        adapters = again(start)
        losses, tokens = sft(self.policy, adapters, lessons, penalty)
        for own, lesson, count in zip(self.spent, lessons, tokens):
            own.update(steps=lesson.steps, tokens=lesson.steps * count)
        sound = torch.tensor(losses).isfinite().all(1).float()
        return mixed(start, adapters, sound)  # one that diverged has learned nothing

    def exams(self, places, memory=None, route=None):
        """Rewards (k, places) of the items at some places of the streams."""
        rewards, memory = [], memory or self.memory
        for place in places:
            items = [stream[place] for stream in self.streams]
            prompts = [self.task.questions(item, self.policy.recipe) for item in items]
            routes = (route or newest)(replace(self, memory=memory), place, prompts)
            said = answers(self.policy, memory, routes, prompts)
            rewards.append(list(map(self.task.reward, items, said)))
        return np.array(rewards).reshape(len(places), -1).T


def answers(policy, memory, routes, prompts):
    """Stream i's answers to its own prompts, each by the adapter of the memory that its route says.

    routes, prompts: k lists, of ints and of str. Returns k lists of str.
    """
    said = [[None] * len(own) for own in prompts]
    for n, adapters in enumerate(memory):
        at = [[q for q, chosen in enumerate(route) if chosen == n] for route in routes]
        told = ask(policy, adapters, [[own[q] for q in qs] for own, qs in zip(prompts, at)])
        for own, qs, new in zip(said, at, told):
            for q, text in zip(qs, new):
                own[q] = text
    return said


# --- Remedies: (learner, lessons) -> the new memory


def plain(learner, lessons):
    """No remedy: θ ← SFT(θ, SE)."""
    return [learner.train(lessons)]


def replay(learner, lessons, count, by=None):
    """Each step also on `count` earlier self-edits, at random or those of most reward."""
    mixture = []
    for lesson, edits, earned, seed in zip(lessons, learner.edits, learner.earned, learner.seeds):
        order = list(range(len(edits)))
        random.Random(seed_of(seed, len(order))).shuffle(order)
        order = sorted(order, key=lambda j: -earned[j]) if by == "reward" else order
        old = [text for j in sorted(order[:count]) for text in edits[j]]
        mixture.append(replace(lesson, texts=[*lesson.texts, *old]))
    return [learner.train(mixture)]


def gate(learner, lessons, budget=0.05):
    """Halve an edit, at most twice, then reject it, while its cost on earlier exams is too high."""
    (old,), new, earlier = learner.memory, learner.train(lessons), range(len(learner.edits[0]))
    share = torch.ones(len(lessons))
    for least in (0.5, 0.25, 0.0) if earlier else ():
        before, now = (learner.exams(earlier, [a]).mean(1) for a in (old, mixed(old, new, share)))
        share[torch.tensor(before - now > budget)] = least
    return [mixed(old, new, share)]


def average(learner, lessons, share=0.5):
    """θ ← θ + share (θ' − θ)."""
    (old,), new = learner.memory, learner.train(lessons)
    return [mixed(old, new, torch.full((len(lessons),), share))]


def orthogonal(learner, lessons, weight=0.5):
    """A LoRA more for each item, its A orthogonal to those before (O-LoRA, arXiv:2310.14152)."""
    (old,), done = learner.memory, len(learner.edits[0])
    like = fork(learner.policy.model, len(lessons))
    new = fresh(like, [seed_of(seed, done) for seed in learner.seeds])

    def overlap(adapters):
        pairs = [(old[name][0], A) for name, (A, _) in adapters.items()]
        return weight * sum((before @ A.mT).square().sum((1, 2)) for before, A in pairs)

    with side_by_side(learner.policy.model, old):
        return [joined(old, learner.train(lessons, new, overlap))]


def apart(learner, lessons):
    """A bank: an adapter for each item, from the first policy."""
    return [*learner.memory, learner.train(lessons)]


# --- Routers: (learner, place, prompts) -> for each prompt, which of the memory's adapters answers


def newest(learner, place, prompts):
    return [[len(learner.memory) - 1] * len(own) for own in prompts]


def oracle(learner, place, prompts):
    """The item's own adapter; before it is learned, the first policy."""
    own = place + 1 if place + 1 < len(learner.memory) else 0
    return [[own] * len(some) for some in prompts]


def by_words(learner, place, prompts):
    """The self-edit that shares most words with the question; common words count less."""

    def words(text):
        return set(re.findall(r"\w+", text.lower()))

    routes = []
    for edits, own in zip(learner.edits, prompts):
        known = [words(" ".join(texts)) for texts in edits]
        common = Counter(word for some in known for word in some)
        scores = [[sum(1 / common[w] for w in words(q) & some) for some in known] for q in own]
        routes.append([1 + int(np.argmax(row)) if row else 0 for row in scores])
    return routes


@torch.no_grad()
def by_loss(learner, place, prompts):
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
    route: Callable = newest
    anew: bool = False


WIDTH = 8  # streams side by side, so that two processes and a resumed run have parts to share
REMEDIES = {
    "none": Remedy(plain, anew=True),
    "first policy writes": Remedy(plain),
    "replay of 1": Remedy(partial(replay, count=1)),
    "replay of 3": Remedy(partial(replay, count=3)),
    "replay of the 3 best": Remedy(partial(replay, count=3, by="reward")),
    "replay of all": Remedy(partial(replay, count=None)),
    "gate": Remedy(gate),
    "averaging": Remedy(average),
    "orthogonal LoRAs": Remedy(orthogonal),
    "bank, by words": Remedy(apart, by_words),
    "bank, by loss": Remedy(apart, by_loss),
    "bank, oracle": Remedy(apart, oracle),
}


# --- The stream


def given(edits):
    """A writer whose self-edits are there already: for each stream, one for each item."""
    return lambda learner, place: [own[place] for own in edits]


def anew(learner, place, style=None):
    """SE ~ LM_θ( · | C), written by the policy as it is after all that was learned."""
    wanted = [(stream[place], seed) for stream, seed in zip(learner.streams, learner.seeds)]
    with side_by_side(learner.policy.model, learner.memory[-1]):
        return write_self_edits(learner.policy, learner.task, wanted, "stream", style)


def learn_in_turn(policy, task, streams, seeds, write=anew, remedy=REMEDIES["none"]):
    """The Learner before any item and after each, k streams side by side: a generator.

    seeds: an int for each stream. write: (learner, place) -> a self-edit for each stream.
    """
    start, none = fork(policy.model, len(streams)), [[] for _ in streams]
    spent = [Counter() for _ in streams]
    yield (learner := Learner(policy, task, streams, [start], none, none, list(seeds), spent))
    for place, items in enumerate(zip(*streams)):
        pairs, began = list(zip(items, write(learner, place))), time.perf_counter()
        lessons = [task.lesson(*pair, policy.recipe) for pair in pairs]
        learner = replace(learner, memory=remedy.learn(learner, lessons))  # θ ← θ' = SFT(θ, SE)
        seconds = (time.perf_counter() - began) / len(streams)
        for own in spent:
            own.update(seconds=seconds)
        new = [new_texts(task, *pair, policy.recipe) for pair in pairs]
        learner = replace(learner, edits=[[*own, one] for own, one in zip(learner.edits, new)])
        earned = learner.exams([place], route=remedy.route)[:, 0].tolist()
        earned = [[*own, one] for own, one in zip(learner.earned, earned)]
        yield (learner := replace(learner, earned=earned))


def new_texts(task, item, edit, recipe):
    """The texts of a self-edit's lesson that are not the item's own."""
    own = task.lesson(item, "", recipe).texts
    return [text for text in task.lesson(item, edit, recipe).texts if text not in own]


@dataclass(frozen=True)
class Forgetting:
    """What the learners of each remedy know, and what it cost: {remedy: a dict for each stream}.

    A dict has "accuracy", rows of shares in [0, 1]: row i, column j is the accuracy on item j after
    i items are learned (row 0: never adapted). "routed": share of questions on learned items that
    their own adapter answers at the end (None without a bank). "steps", "tokens", "seconds" of
    training and "bytes" of adapters kept. Methods with (mean, low, high): 95% bootstrap over
    streams.

    >>> row = {"accuracy": [[0.0, 0.0], [0.8, 0.1], [0.4, 0.6]], "routed": None}
    >>> row |= {"steps": 10, "tokens": 900, "seconds": 1.0, "bytes": 2048}
    >>> one = Forgetting({"none": [row]})
    >>> one.end("none"), round(one.kept("none"), 2)
    ((0.5, 0.5, 0.5), 0.71)
    >>> one.backward_transfer("none")
    (-0.4, -0.4, -0.4)
    """

    rows: dict[str, list[dict]]

    def matrix(self, remedy):
        """Accuracy (streams, items + 1, items)."""
        return np.array([row["accuracy"] for row in self.rows[remedy]])

    def control(self):
        """Mean over all items without any adaptation: (mean, low, high)."""
        return bootstrap_interval(self.matrix(next(iter(self.rows)))[:, 0].mean(1))

    def end(self, remedy, minus=None):
        """Mean over all items at the end, or that minus another remedy's: (mean, low, high)."""
        ends = self.matrix(remedy)[:, -1].mean(1)
        return bootstrap_interval(ends - self.matrix(minus)[:, -1].mean(1) if minus else ends)

    def learned(self, remedy):
        """Accuracy on each item when it was just learned: (streams, items)."""
        return np.diagonal(self.matrix(remedy)[:, 1:], axis1=1, axis2=2)

    def kept(self, remedy):
        """Mean at the end as a share of the mean just learned."""
        return float(self.matrix(remedy)[:, -1].mean() / self.learned(remedy).mean())

    def backward_transfer(self, remedy):
        """Mean of R(N, i) − R(i, i) over the items but the last (arXiv:1706.08840)."""
        change = self.matrix(remedy)[:, -1] - self.learned(remedy)
        return bootstrap_interval(change[:, :-1].mean(1))

    def cost(self, remedy, what):
        """Mean of "steps", "tokens", "seconds" or "bytes", as a ratio to the first remedy's."""
        first = next(iter(self.rows))
        ours, theirs = (np.mean([row[what] for row in self.rows[one]]) for one in (remedy, first))
        return float(ours / theirs)

    def __str__(self):
        width = max(map(len, self.rows))
        mean, low, high = (100 * value for value in self.control())
        columns = "  mean at the end, %    just   kept   backward transfer    ratios to the first: "
        lines = [f"{'remedy':<{width}}{columns}steps tokens seconds bytes  routed right"]
        lines.append(f"{'never adapted':<{width}}  {mean:5.1f} [{low:4.1f}, {high:4.1f}]")
        for remedy, rows in self.rows.items():
            mean, low, high = (100 * value for value in self.end(remedy))
            line = f"{remedy:<{width}}  {mean:5.1f} [{low:4.1f}, {high:4.1f}]"
            line += f"  {self.learned(remedy).mean():6.1%} {self.kept(remedy):6.0%}"
            mean, low, high = (100 * value for value in self.backward_transfer(remedy))
            line += f"  {mean:+6.1f} [{low:+5.1f}, {high:+5.1f}]" + 21 * " "
            costs = [self.cost(remedy, what) for what in ("steps", "tokens", "seconds", "bytes")]
            line += "".join(f"{cost:{n}.2f}" for cost, n in zip(costs, (7, 7, 8, 6)))
            routed = [row["routed"] for row in rows if row["routed"] is not None]
            lines.append(line + (f"  {np.mean(routed):.1%}" if routed else ""))
        return "\n".join(lines)


def forget(policy, task, streams, remedies=REMEDIES, seed=0, style=None, memo=None):
    """The Forgetting of each remedy on the same streams. Leaves the policy as it is.

    The policy as it came writes all self-edits, once for all remedies; only where a remedy says
    `anew` does the policy write as it is by then. style: of the self-edits. memo: see `remembered`.
    """
    memo, recipe = {} if memo is None else memo, policy.recipe
    seeds = [seed_of(seed, s) for s in range(len(streams))]
    edits = first_edits(policy, task, streams, seeds, style, memo)
    rows, width = {}, min(recipe.adapters_per_pass, WIDTH)
    for name, remedy in remedies.items():

        def compute(keys, remedy=remedy):
            at = [i for *_, i in keys]
            write = partial(anew, style=style) if remedy.anew else given([edits[i] for i in at])
            some, own = [streams[i] for i in at], [seeds[i] for i in at]
            return course(learn_in_turn(policy, task, some, own, write, remedy), remedy.route)

        keys = Arms(policy, task, list(zip(streams, edits)), seed, memo).keys(f"stream, {name}")
        rows[name] = remembered(memo, keys, compute, width, f"streams: {name}")
    return Forgetting(rows)


def first_edits(policy, task, streams, seeds, style, memo):
    """The self-edits that the policy as it is writes for all items: a list for each stream."""
    wanted = [(item, seed) for stream, seed in zip(streams, seeds) for item in stream]

    def compute(keys):
        return write_self_edits(policy, task, [wanted[i] for *_, i in keys], "stream", style)

    keys = Arms(policy, task, wanted, seeds, memo).keys(f"self-edits of streams, {style}")
    texts = iter(remembered(memo, keys, compute, policy.recipe.texts_per_pass))
    return [[next(texts) for _ in stream] for stream in streams]


def course(learners, route):
    """The dicts of a Forgetting, one for each stream, of what `learn_in_turn` yields."""
    exams = []
    for learner in learners:
        places = range(len(learner.streams[0]))
        exams.append(learner.exams(places, route=route))
    size = sum(
        tensor[0].nbytes for one in learner.memory for pair in one.values() for tensor in pair
    )
    routed = routing(learner, route) if len(learner.memory) > 1 else [None] * len(learner.streams)
    accuracy = np.stack(exams, 1).tolist()
    return [
        {"accuracy": own, "routed": right, "bytes": size} | spent
        for own, right, spent in zip(accuracy, routed, learner.spent)
    ]


def routing(learner, route):
    """For each stream, the share of all questions that go to the adapter of their own item."""
    right = []
    for place in range(len(learner.streams[0])):
        items = [stream[place] for stream in learner.streams]
        prompts = [learner.task.questions(item, learner.policy.recipe) for item in items]
        pairs = zip(route(learner, place, prompts), oracle(learner, place, prompts))
        right.append([np.mean(np.equal(*pair)) for pair in pairs])
    return np.mean(right, 0).tolist()
