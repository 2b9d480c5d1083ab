"""What a run will take on this machine, from a few seconds of it, before it begins."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from typing import Any, TypeVar

import psutil
import torch
from transformers import PreTrainedTokenizerBase

from .api import check_counts, check_passages, config_of
from .continual.stream import LOOKAHEAD, STREAMS_PER_PASS, run_benchmark
from .inner_loop import run_trials
from .outer_loop import m_step, write_self_edits, written_texts
from .policy import Model, Policy, temporary_policy
from .runs.processes import distributed_state
from .tasks import Domain, knowledge
from .tasks.passages import Passage

Value = TypeVar("Value")
SAMPLED = 8  # passages, at most, whose self-edits are sampled


@dataclass(frozen=True)
class Estimate:
    """Minutes; the most memory (GiB) so far, torch's on a GPU, else the process's; "cuda" or "cpu".

    >>> print(Estimate(minutes=2.0, gib=1.2, device="cpu"))
    Estimate, from one measured pass: about 2.0 minutes, at least 1.2 GiB of memory (cpu).
    """

    minutes: float
    gib: float
    device: str

    def __str__(self) -> str:
        time = f"{self.minutes:.1f} minutes" if self.minutes >= 1 else f"{60 * self.minutes:.0f} s"
        memory = f"at least {self.gib:.1f} GiB of memory ({self.device})"
        return f"Estimate, from one measured pass: about {time}, {memory}."


def estimate_run(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[Passage],
    iterations: int = 2,
    k: int = 5,
    exams: int = 0,
    task: Domain[Any] = knowledge,
) -> Estimate:
    """Estimate of `run_seal`, from some self-edits, one pass and two steps of the M-step.

    exams: (passage, self-edit) pairs that are sampled and tried out afterwards, as `compare` does.
    task: the domain; of another one, passages are its items, and the model is a policy's.
    The model is left as it was. Raises ValueError for what `run_seal` refuses.

    >>> import sealkit
    >>> passages = sealkit.load_passages("bundled", limit=2)
    >>> 0 < sealkit.estimate_run(*sealkit.load_quantized("bundled"), passages, k=1).minutes < 60
    True
    """
    if task is knowledge:
        check_passages(passages)
    check_counts(iterations, k)
    with temporary_policy(model, tokenizer, config_of(model, tokenizer)) as policy:
        config, trials = policy.config, len(passages) * (k + 1)
        seconds: list[float] = []

        def timed(function: Callable[..., Value], *args: Any) -> Value:
            start = time.perf_counter()
            result = function(*args)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            seconds.append(time.perf_counter() - start)
            return result

        requests = [(passage, j) for passage in passages[:SAMPLED] for j in range(k)]
        requests = requests[: config.texts_per_pass]
        edits = timed(write_self_edits, policy, task, requests, ("estimate", 0))
        cycled = cycle((passage, edit) for (passage, _), edit in zip(requests, edits))
        pairs = list(islice(cycled, min(trials, config.adapters_per_pass)))
        paces = [task.lesson(*pair, config).steps for pair in pairs]
        if len(set(paces)) > 1:  # side by side go those of one schedule: time the longest
            longest = pairs[paces.index(max(paces))][1]
            pairs = [(passage, longest) for passage, _ in pairs]
        run_trials(policy, task, pairs[:1])  # the first pass takes longer
        timed(run_trials, policy, task, pairs)
        rows = [row for pair in pairs for row in written_texts(policy, task, *pair)]
        once = replace(policy, config=replace(config, epochs=2))
        timed(m_step, once, rows[: config.batch_size])
    writing, trying, step = (s / n for s, n in zip(seconds, (len(requests), len(pairs), 2)))
    kept = len(passages) * len(rows) / len(pairs)  # texts, where one self-edit a passage is kept
    m_steps = iterations * config.epochs * ceil(kept / config.batch_size) * step
    dealt = iterations * (k * len(passages) * writing + trials * trying)
    total = m_steps + (dealt + exams * (writing + trying)) / distributed_state().num_processes
    return Estimate(total / 60, most_memory(model.device) / 2**30, model.device.type)


def estimate_streams(policy: Policy, streams: Sequence[Sequence[Passage]], style: str) -> Estimate:
    """Estimate of `study`, from all of its remedies on the first two passages of some streams.

    The time grows as the number of exams does: after each passage all earlier ones are examined,
    and the most thorough remedies train on them.
    """
    width, start = min(policy.config.adapters_per_pass, STREAMS_PER_PASS), time.perf_counter()
    run_benchmark(policy, knowledge, [stream[:2] for stream in streams[:width]], style=style)
    seconds = time.perf_counter() - start

    def exams(n: int) -> int:
        return n + sum(1 + min(learned + LOOKAHEAD, n) for learned in range(1, n + 1))

    batches, growth = ceil(len(streams) / width), exams(len(streams[0])) / exams(2)
    memory = most_memory(policy.model.device) / 2**30
    return Estimate(seconds * batches * growth / 60, memory, policy.model.device.type)


def most_memory(device: torch.device) -> int:
    """The most bytes so far: what torch allocated on a GPU, or this process held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    from resource import RUSAGE_SELF, getrusage  # of POSIX alone

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
