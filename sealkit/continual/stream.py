"""Continual learning (paper, section 5): items learned for good, one after the other, θ ← θ'.

k streams of items go side by side, as k adapters; see `remedies` for what each may do against
forgetting, and `forgetting` for what comes out.
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch

from ..evaluation import Arms
from ..inner_loop import ask, sft
from ..lora import fork, side_by_side
from ..outer_loop import write_self_edits
from ..policy import Policy, seed_of
from ..runs.cache import compute_missing
from ..runs.files import write_json
from ..runs.identity import open_run_cache
from .adapters import adapter_state_dict, clone_adapters, interpolate_adapters
from .forgetting import Forgetting
from .remedies import REMEDIES, route_to_newest, route_to_own

LOOKAHEAD = 1  # so many items that are not yet learned are examined too
STREAMS_PER_PASS = (
    8  # streams side by side, so that two processes and a resumed run have parts to share
)


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
    texts: for each stream, those of each lesson. earned: its rewards when just learned.
    seeds: one for each stream. spent: Counter of gradient steps, tokens and seconds of the
    processor, for each stream.
    """

    policy: Policy
    task: object
    streams: list
    memory: list
    texts: list
    earned: list
    seeds: list
    spent: list

    def train(self, lessons, start=None, penalty=None):
        """The adapters after SFT of a copy of `start` (the memory's first), a lesson for each."""
        start, config = start or self.memory[0], self.policy.config
        adapters = clone_adapters(start)
        room = config.max_tokens * (1 + len(self.texts[0]))  # for those replayed, too
        policy = replace(self.policy, config=replace(config, max_tokens=room))
        losses, tokens = sft(policy, adapters, lessons, penalty)
        for own, lesson, count in zip(self.spent, lessons, tokens):
            own.update(steps=lesson.steps, tokens=lesson.steps * count)
        sound = torch.tensor(losses).isfinite().all(1).float()
        return interpolate_adapters(start, adapters, sound)  # one that diverged has learned nothing

    def exams(self, places, memory=None, route=route_to_newest):
        """Rewards (k, places) of the items at some places of the streams.

        Their questions are asked side by side, up to the config's `texts_per_pass`.
        """
        learner, done = replace(self, memory=memory or self.memory), []
        asked = [[self.questions(own[p]) for own in self.streams] for p in places]
        routes = [route(learner, *pair) for pair in zip(places, asked)]
        most = max(sum(map(len, prompts)) for prompts in asked)
        width = max(1, self.policy.config.texts_per_pass // most)
        for n in range(0, len(places), width):
            parts = routes[n : n + width], asked[n : n + width]
            ways, prompts = ([sum(own, []) for own in zip(*part)] for part in parts)
            said = list(map(iter, answer_routed(self.policy, learner.memory, ways, prompts)))
            for place, own in zip(places[n : n + width], asked[n : n + width]):
                told = [list(islice(one, len(some))) for one, some in zip(said, own)]
                items = (stream[place] for stream in self.streams)
                done.append(list(map(self.task.reward, items, told)))
        return np.array(done).T

    def questions(self, item):
        """The prompts of an item's closed-book exam, list[str]."""
        return self.task.questions(item, self.policy.config)


def answer_routed(policy, memory, routes, prompts):
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


def fixed_edits(edits):
    """A writer whose self-edits are there already: for each stream, one for each item."""
    return lambda learner, place: [own[place] for own in edits]


def write_on_policy(learner, place, style=None):
    """SE ~ LM_θ( · | C), written by the policy as it is after all that was learned."""
    wanted = [(stream[place], seed) for stream, seed in zip(learner.streams, learner.seeds)]
    with side_by_side(learner.policy.model, learner.memory[-1]):
        return write_self_edits(learner.policy, learner.task, wanted, "stream", style)


def learn_sequentially(
    policy, task, streams, seeds, write=write_on_policy, remedy=REMEDIES["none"]
):
    """The Learner before any item and after each, k streams side by side: a generator.

    seeds: an int for each stream. write: (learner, place) -> a self-edit for each stream.
    """
    start, none = fork(policy.model, len(streams)), [[] for _ in streams]
    spent = [Counter() for _ in streams]
    yield (learner := Learner(policy, task, streams, [start], none, none, list(seeds), spent))
    for place, items in enumerate(zip(*streams)):
        pairs, began = list(zip(items, write(learner, place))), time.process_time()
        lessons = [task.lesson(*pair, policy.config) for pair in pairs]
        learner = replace(learner, memory=remedy.learn(learner, lessons))  # θ ← θ' = SFT(θ, SE)
        seconds = (time.process_time() - began) / len(streams)
        for own in spent:
            own.update(seconds=seconds)
        edits = [[*own, lesson.texts] for own, lesson in zip(learner.texts, lessons)]
        learner = replace(learner, texts=edits)
        earned = learner.exams([place], route=remedy.route)[:, 0].tolist()
        earned = [[*own, one] for own, one in zip(learner.earned, earned)]
        yield (learner := replace(learner, earned=earned))


def run_benchmark(policy, task, streams, remedies=REMEDIES, seed=0, style=None, cache=None):
    """The Forgetting of each remedy on the same streams. Leaves the policy as it is.

    The policy as it came writes all self-edits, once for all remedies; only where a remedy says
    `write_on_policy` does the policy write as it is by then. style: of the self-edits. cache: see `compute_missing`.
    """
    cache, config = {} if cache is None else cache, policy.config
    seeds, edits = (
        stream_seeds(seed, streams),
        first_edits(policy, task, streams, seed, style, cache),
    )
    rows, width = {}, min(config.adapters_per_pass, STREAMS_PER_PASS)
    for name, remedy in remedies.items():

        def compute(keys, remedy=remedy):
            at = [i for *_, i in keys]
            write = (
                partial(write_on_policy, style=style)
                if remedy.anew
                else fixed_edits([edits[i] for i in at])
            )
            some, own = [streams[i] for i in at], [seeds[i] for i in at]
            return evaluate_stream(
                learn_sequentially(policy, task, some, own, write, remedy), remedy.route
            )

        keys = Arms(policy, task, list(zip(streams, edits)), seed, cache).keys(f"stream, {name}")
        rows[name] = compute_missing(cache, keys, compute, width, f"streams: {name}")
    return Forgetting(rows)


def stream_seeds(seed, streams):
    """A seed for each stream, list[int]."""
    return [seed_of(seed, s) for s in range(len(streams))]


def first_edits(policy, task, streams, seed=0, style=None, cache=None):
    """The self-edits that the policy as it is writes for all items: a list for each stream."""
    seeds, cache = stream_seeds(seed, streams), {} if cache is None else cache
    wanted = [(item, seed) for stream, seed in zip(streams, seeds) for item in stream]

    def compute(keys):
        return write_self_edits(policy, task, [wanted[i] for *_, i in keys], "stream", style)

    keys = Arms(policy, task, wanted, seed, cache).keys(f"self-edits of streams, {style}")
    texts = iter(compute_missing(cache, keys, compute, policy.config.texts_per_pass))
    return [[next(texts) for _ in stream] for stream in streams]


def evaluate_stream(learners, route):
    """The dicts of a Forgetting, one for each stream, of what `learn_sequentially` yields."""
    exams = []
    for learned, learner in enumerate(learners):
        length = len(learner.streams[0])
        places = range(min(learned + LOOKAHEAD, length) if learned else length)
        rewards = learner.exams(places, route=route)
        exams.append(np.pad(rewards, ((0, 0), (0, length - len(places))), constant_values=np.nan))
    size = sum(
        tensor[0].nbytes for one in learner.memory for pair in one.values() for tensor in pair
    )
    routed = (
        routing_accuracy(learner, route)
        if len(learner.memory) > 1
        else [None] * len(learner.streams)
    )
    accuracy = np.stack(exams, 1)
    accuracy = np.where(np.isnan(accuracy), None, accuracy).tolist()
    return [
        {"accuracy": own, "routed": right, "bytes": size} | spent
        for own, right, spent in zip(accuracy, routed, learner.spent)
    ]


def routing_accuracy(learner, route):
    """For each stream, the share of all questions that go to the adapter of their own item."""
    right = []
    for place in range(len(learner.streams[0])):
        prompts = [learner.questions(stream[place]) for stream in learner.streams]
        pairs = zip(route(learner, place, prompts), route_to_own(learner, place, prompts))
        right.append([np.mean(np.equal(*pair)) for pair in pairs])
    return np.mean(right, 0).tolist()


def study(policy, task, streams, folder, seed=0, style=None):
    """`run_benchmark` with every remedy, kept in a run's folder, and the memory of the best adapter.

    folder: receives `results.json`, and `memory/`: what the best remedy with one adapter made of
    the first stream, a stock PEFT adapter. Goes on where it stopped. Returns the Forgetting; the
    policy is left with that memory.
    """
    with open_run_cache(folder, policy, task, streams, len(streams), seed) as cache:
        table = run_benchmark(policy, task, streams, REMEDIES, seed, style, cache)
        best = table.best()
        edits = first_edits(policy, task, streams, seed, style, cache)
    write = partial(write_on_policy, style=style) if REMEDIES[best].anew else fixed_edits(edits[:1])
    seeds = stream_seeds(seed, streams[:1])
    *_, last = learn_sequentially(policy, task, streams[:1], seeds, write, REMEDIES[best])
    policy.load(adapter_state_dict(last.memory[0], 0))
    policy.model.save_pretrained(folder / "memory")
    write_json(folder / "results.json", table.rows)
    return table
