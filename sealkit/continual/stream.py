"""Continual learning (paper, section 5): items learned one after the other, for good, θ ← θ'.

k streams of items are learned side by side, as k adapters. `remedies` has what can be done against
forgetting, `forgetting` how it is measured.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from ..evaluation import Arms
from ..inner_loop import Lesson, ask, sft
from ..lora import Adapters, fork, side_by_side
from ..outer_loop import write_self_edits
from ..policy import Policy, seed_of
from ..runs.cache import Cache, Key, compute_missing
from ..runs.files import write_json
from ..runs.identity import open_run_cache
from ..tasks import Item, Task
from .adapters import adapter_state_dict, clone_adapters, interpolate_adapters
from .forgetting import Forgetting, Row, Spent
from .remedies import (
    REMEDIES,
    Memory,
    Prompts,
    Remedy,
    Route,
    Routes,
    route_to_item,
    route_to_newest,
)

LOOKAHEAD = 1  # this many items that are not yet learned are examined too
STREAMS_PER_PASS = 8  # at most: two processes and a resumed run then have parts to share
MEMORY: Key = ("memory",)  # of the adapter that a stream leaves, and so the name of its folder
Write = Callable[["Learner", int], list[str]]  # (learner, place) -> a self-edit for each stream


def draw_streams(
    items: Sequence[Item], count: int = 16, length: int = 8, seed: int = 0
) -> list[list[Item]]:
    """`count` streams of `length` items, each drawn without replacement.

    >>> [sorted(stream) for stream in draw_streams("abc", count=2, length=3)]
    [['a', 'b', 'c'], ['a', 'b', 'c']]
    """
    if len(items) < length:
        raise ValueError(
            f"A stream of {length} needs as many passages, and there are {len(items)}."
        )
    return [random.Random(seed_of("stream", seed, s)).sample(items, length) for s in range(count)]


@dataclass(frozen=True)
class Learner(Generic[Item]):
    """k streams after some of their items: what a remedy gets.

    memory: adapters, k side by side each (see `fork`), the newest last. texts: those of each lesson
    so far, (k, lessons, texts). earned: the reward of each when just learned, (k, lessons). seeds:
    one for each stream. spent: what training each stream has cost so far.
    """

    policy: Policy
    task: Task[Item]
    streams: Sequence[Sequence[Item]]
    memory: Memory
    texts: list[list[list[str]]]
    earned: list[list[float]]
    seeds: list[int]
    spent: list[Spent]

    def train(
        self,
        lessons: Sequence[Lesson],
        start: Adapters | None = None,
        penalty: Callable[[Adapters], Tensor] | None = None,
    ) -> Adapters:
        """The adapters after SFT of a copy of `start`, adapter i on lesson i.

        start: None for the first of the memory. penalty: see `sft`. An adapter whose training
        diverges stays as it was.
        """
        start, config = start or self.memory[0], self.policy.config
        adapters = clone_adapters(start)
        max_tokens = config.max_tokens * (1 + len(self.texts[0]))  # room for replayed lessons, too
        policy = replace(self.policy, config=replace(config, max_tokens=max_tokens))
        losses, tokens = sft(policy, adapters, lessons, penalty)
        for spent, lesson, count in zip(self.spent, lessons, tokens):
            spent["steps"] += lesson.steps
            spent["tokens"] += lesson.steps * count
        finite = torch.tensor(losses).isfinite().all(1).float()
        return interpolate_adapters(start, adapters, finite)

    def exams(
        self, places: Sequence[int], memory: Memory | None = None, route: Route = route_to_newest
    ) -> np.ndarray:
        """Rewards (k, places) of the items at some places of the streams.

        Their questions are asked side by side, up to the config's `texts_per_pass`.
        """
        # 1. the prompts of each place's exams, and the adapter that answers each of them
        learner = replace(self, memory=memory or self.memory)
        prompts = [[self.questions(stream[place]) for stream in self.streams] for place in places]
        routes = [route(learner, place, exams) for place, exams in zip(places, prompts)]

        # 2. the answers, for several places at a time
        most = max(sum(map(len, exams)) for exams in prompts)
        width = max(1, self.policy.config.texts_per_pass // most)
        rewards = []
        for n in range(0, len(places), width):
            batch = slice(n, n + width)
            all_routes, all_prompts = (join_exams(rows[batch]) for rows in (routes, prompts))
            answers = answer_routed(self.policy, learner.memory, all_routes, all_prompts)
            remaining = list(map(iter, answers))

            # 3. their rewards
            for place, exams in zip(places[batch], prompts[batch]):
                items = [stream[place] for stream in self.streams]
                of_place = [list(islice(r, len(exam))) for r, exam in zip(remaining, exams)]
                pairs = zip(items, of_place)
                rewards.append([self.task.reward(*pair, self.policy.config) for pair in pairs])
        return np.array(rewards).T

    def questions(self, item: Item) -> list[str]:
        """The prompts of an item's closed-book exam."""
        return self.task.questions(item, self.policy.config)


def join_exams(rows: Sequence[Sequence[list]]) -> list[list]:
    """(places, k, questions) -> (k, questions of all places)."""
    return [sum(exams, []) for exams in zip(*rows)]


def answer_routed(
    policy: Policy, memory: Memory, routes: Routes, prompts: Prompts
) -> list[list[str]]:
    """Stream i's answers to its own prompts, each by the adapter of the memory that `routes` names.

    routes, prompts, and the answers returned: (k, questions).
    """
    answers = [[""] * len(exam) for exam in prompts]
    for n, adapters in enumerate(memory):
        places = [[q for q, adapter in enumerate(route) if adapter == n] for route in routes]
        routed = [[exam[q] for q in of_stream] for exam, of_stream in zip(prompts, places)]
        for row, of_stream, texts in zip(answers, places, ask(policy, adapters, routed)):
            for q, text in zip(of_stream, texts):
                row[q] = text
    return answers


def fixed_edits(edits: Sequence[Sequence[str]]) -> Write:
    """A writer that returns given self-edits: (streams, items)."""
    return lambda learner, place: [of_stream[place] for of_stream in edits]


def write_on_policy(learner: Learner[Item], place: int, style: str | None = None) -> list[str]:
    """SE ~ LM_θ( · | C), written by the policy as it is after all that it has learned so far."""
    requests = [(stream[place], seed) for stream, seed in zip(learner.streams, learner.seeds)]
    with side_by_side(learner.policy.model, learner.memory[-1]):
        return write_self_edits(learner.policy, learner.task, requests, "stream", style)


def learn_sequentially(
    policy: Policy,
    task: Task[Item],
    streams: Sequence[Sequence[Item]],
    seeds: Sequence[int],
    write: Write = write_on_policy,
    remedy: Remedy = REMEDIES["none"],
) -> Iterator[Learner[Item]]:
    """Yield the Learner before any item and after each, k streams side by side.

    seeds: one for each stream. write: (learner, place) -> a self-edit for each stream.
    """
    # 1. fork the policy's LoRA, once for each stream: θ
    memory = [fork(policy.model, len(streams))]
    texts: list[list[list[str]]] = [[] for _ in streams]
    earned: list[list[float]] = [[] for _ in streams]
    spent = [Spent(steps=0, tokens=0, seconds=0.0) for _ in streams]
    yield (learner := Learner(policy, task, streams, memory, texts, earned, list(seeds), spent))

    for place, items in enumerate(zip(*streams)):
        # 2. a self-edit for the next item of each stream
        pairs = list(zip(items, write(learner, place)))

        # 3. train on it, and keep the result: θ ← θ' = SFT(θ, SE)
        start = time.process_time()
        lessons = [task.lesson(*pair, policy.config) for pair in pairs]
        learner = replace(learner, memory=remedy.learn(learner, lessons))
        seconds = (time.process_time() - start) / len(streams)
        for costs in spent:
            costs["seconds"] += seconds
        texts = [[*earlier, lesson.texts] for earlier, lesson in zip(learner.texts, lessons)]
        learner = replace(learner, texts=texts)

        # 4. examine what was just learned
        rewards = learner.exams([place], route=remedy.route)[:, 0].tolist()
        earned = [[*earlier, reward] for earlier, reward in zip(learner.earned, rewards)]
        yield (learner := replace(learner, earned=earned))


def run_benchmark(
    policy: Policy,
    task: Task[Item],
    streams: Sequence[Sequence[Item]],
    remedies: Mapping[str, Remedy] = REMEDIES,
    seed: int = 0,
    style: str | None = None,
    cache: Cache | None = None,
) -> Forgetting:
    """The Forgetting of each remedy on the same streams. Leaves the policy as it is.

    The first policy writes all self-edits, once for all remedies; only for a remedy that is
    `on_policy` does the policy write as it is by then. style: of the self-edits. cache: see
    `compute_missing`.
    """
    # 1. the self-edits of the first policy
    cache, rows = {} if cache is None else cache, {}
    seeds = stream_seeds(seed, streams)
    edits = first_edits(policy, task, streams, seed, style, cache)
    arms = Arms(policy, task, list(zip(streams, edits)), seed, cache)  # type: ignore[misc]
    width = min(policy.config.adapters_per_pass, STREAMS_PER_PASS)

    # 2. learn the streams with each remedy, and examine after each item
    for name, remedy in remedies.items():
        keys = arms.keys(f"stream, {name}")
        index_of = {key: i for i, key in enumerate(keys)}

        def compute(
            keys: list[Key], remedy: Remedy = remedy, index_of: dict[Key, int] = index_of
        ) -> list[Row]:
            places = [index_of[key] for key in keys]
            write: Write = fixed_edits([edits[i] for i in places])
            if remedy.on_policy:
                write = partial(write_on_policy, style=style)
            batch = [streams[i] for i in places], [seeds[i] for i in places]
            learners = learn_sequentially(policy, task, *batch, write, remedy)
            return evaluate_stream(learners, remedy.route)

        rows[name] = compute_missing(cache, keys, compute, width, f"streams: {name}")
    return Forgetting(rows)


def stream_seeds(seed: int, streams: Sequence[Sequence[Item]]) -> list[int]:
    """A seed for each stream."""
    return [seed_of(seed, s) for s in range(len(streams))]


def first_edits(
    policy: Policy,
    task: Task[Item],
    streams: Sequence[Sequence[Item]],
    seed: int = 0,
    style: str | None = None,
    cache: Cache | None = None,
) -> list[list[str]]:
    """The self-edits that the policy, as it is, writes for all items: (streams, items)."""
    seeds, cache = stream_seeds(seed, streams), {} if cache is None else cache
    requests = [(item, seed) for stream, seed in zip(streams, seeds) for item in stream]
    arms = Arms(policy, task, requests, seed, cache)  # type: ignore[misc]
    keys = arms.keys(f"self-edits of streams, {style}")
    request_of = dict(zip(keys, requests))

    def compute(keys: list[Key]) -> list[str]:
        return write_self_edits(policy, task, [request_of[k] for k in keys], "stream", style)

    texts = iter(compute_missing(cache, keys, compute, policy.config.texts_per_pass))
    return [[next(texts) for _ in stream] for stream in streams]


def evaluate_stream(learners: Iterable[Learner[Item]], route: Route) -> list[Row]:
    """The Rows of a Forgetting, one for each stream, from what `learn_sequentially` yields."""
    # 1. after each item, examine all that are learned and LOOKAHEAD more; before the first, all
    rewards = []  # (items + 1, k, items)
    for learned, learner in enumerate(learners):
        length = len(learner.streams[0])
        places = range(min(learned + LOOKAHEAD, length) if learned else length)
        examined = learner.exams(places, route=route)
        rewards.append(
            np.pad(examined, ((0, 0), (0, length - len(places))), constant_values=np.nan)
        )
    accuracy = np.stack(rewards, 1)  # (k, items + 1, items)

    # 2. how often the router is right, and how much is kept
    routed: list[float | None] = [None] * len(learner.streams)
    if len(learner.memory) > 1:
        routed = routing_accuracy(learner, route)
    pairs = [pair for adapters in learner.memory for pair in adapters.values()]
    size = sum(tensor[0].nbytes for pair in pairs for tensor in pair)

    # 3. a Row for each stream
    cells = accuracy.astype(object)
    cells[np.isnan(accuracy)] = None
    return [
        Row(accuracy=matrix, routed=share, bytes=size, **spent)
        for matrix, share, spent in zip(cells.tolist(), routed, learner.spent)
    ]


def routing_accuracy(learner: Learner[Item], route: Route) -> list[float | None]:
    """For each stream, the share of all questions that go to the adapter of their own item."""
    shares = []  # (items, k)
    for place in range(len(learner.streams[0])):
        prompts = [learner.questions(stream[place]) for stream in learner.streams]
        pairs = zip(route(learner, place, prompts), route_to_item(learner, place, prompts))
        shares.append([np.mean(np.equal(*pair)) for pair in pairs])
    return np.mean(shares, 0).tolist()


def study(
    policy: Policy,
    task: Task[Item],
    streams: Sequence[Sequence[Item]],
    folder: Path,
    seed: int = 0,
    style: str | None = None,
) -> Iterator[Forgetting]:
    """`run_benchmark` with every remedy in a run folder, and the memory of the best adapter.

    folder: receives `results.json`, and `memory/`: the adapter that the best remedy with a single
    adapter has after the first stream, in PEFT's format, its checksum in the journal. An
    interrupted run is resumed. Yields the Forgetting of the remedies so far, after each; at the
    end the policy is left with that memory.
    """
    # 1. all remedies
    with open_run_cache(folder, policy, task, streams, len(streams), seed) as cache:
        table = Forgetting({})
        for name, remedy in REMEDIES.items():
            new = run_benchmark(policy, task, streams, {name: remedy}, seed, style, cache)
            yield (table := Forgetting(table.rows | new.rows))
        edits = first_edits(policy, task, streams, seed, style, cache)

        # 2. the first stream once more with the best of them
        def learn(keys: list[Key]) -> list[dict]:
            remedy = REMEDIES[table.best()]
            write: Write = fixed_edits(edits[:1])
            if remedy.on_policy:
                write = partial(write_on_policy, style=style)
            seeds = stream_seeds(seed, streams[:1])
            *_, last = learn_sequentially(policy, task, streams[:1], seeds, write, remedy)
            return [{"weights": adapter_state_dict(last.memory[0], 0)}]

        (memory,) = compute_missing(cache, [MEMORY], learn, 1)

    # 3. the table, and the policy with that memory
    write_json(folder / "results.json", table.rows)
    policy.load(memory["weights"])
