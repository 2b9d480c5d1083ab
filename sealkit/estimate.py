"""How long a run will take and how much memory, from one measured pass, before it begins."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil

import psutil
import torch
from peft import set_peft_model_state_dict

from .exam import answer_questions
from .inner_loop import attach_policy, run_trials, settings_for
from .outer_loop import check, m_step, policy_tensors, reinforcement_for
from .self_edits import generate_self_edits

GLANCE = (2, 8)  # new tokens of the two short samplings whose difference tells what a token costs
SAMPLED = 8      # passages, at most, that are sampled for so briefly; more take proportionally longer


@dataclass(frozen=True)
class Estimate:
    """What a run will take on this machine."""

    minutes: float
    gib: float       # most memory so far, the measured pass included: what torch allocated on a GPU, or the process holds on a CPU
    iterations: int
    trials: int      # of each iteration, those on the passage alone included
    width: int       # trials in the measured pass
    device: str      # "cuda", "cpu", ...

    def __str__(self):
        minutes = f"{60 * self.minutes:.0f} seconds" if self.minutes < 1 else f"{self.minutes:.{int(self.minutes < 10)}f} minutes"
        rounds = f"{self.iterations} iteration{'s' * (self.iterations > 1)} ({self.trials} trials each)"
        where = "of this process" if self.device == "cpu" else "on the GPU"
        return (f"Estimate, from one measured pass of {self.width} trials: about {minutes} for {rounds}, "
                f"peak memory {self.gib:.1f} GiB {where}.")


def estimate_run(model, tokenizer, passages, iterations=2, k=5, settings=None, reinforcement=None, exams=0):
    """Estimate of `run_seal(model, tokenizer, passages, iterations, k, settings=..., reinforcement=...)`, from a few seconds of it.

    Self-edits are sampled for the first passages; one pass of the inner loop at full width trains on them for one step and
    sits the exam; the M-step makes two steps; the rest is proportion. Assumed: one self-edit kept for each passage.
    exams: (passage, self-edit) pairs that will be sampled and tried once more after training, as `compare` does.
    Leaves model, gradients, torch's random state and its memory statistics as they were.
    Raises ValueError for what `run_seal` refuses.
    """
    check(passages, iterations, k)
    settings, reinforcement, passages = settings or settings_for(tokenizer), reinforcement or reinforcement_for(tokenizer), list(passages)
    trials = len(passages) * (k + 1)
    width = min(settings.adapters_per_pass, trials)
    first = passages[: ceil(width / (k + 1))]
    with unchanged(model, settings) as policy, most_memory(policy.device) as memory:
        edits = generate_self_edits(policy, tokenizer, first, k, seed=("estimate", 0))
        pairs = [(passage, edit) for passage, own in zip(first, edits) for edit in ("", *own)][:width]
        sampling = sampling_seconds(policy, tokenizer, passages, edits, k)
        width, training, exam = trial_seconds(policy, tokenizer, pairs, settings, trials)
        step = m_step_seconds(policy, tokenizer, [pair for pair in pairs if pair[1]] or pairs, reinforcement)
    steps = reinforcement.epochs * ceil(len(passages) / reinforcement.batch_size)
    iteration = k * len(passages) * sampling + trials * training + (trials + len(passages)) * exam + steps * step
    seconds = iterations * iteration + exams * (sampling + training + exam)
    return Estimate(seconds / 60, memory[0] / 2**30, iterations, trials, width, policy.device.type)


def seconds_of(policy, function, *args, **kwargs):
    """(seconds that a call takes, until the GPU has finished too; what it returns)."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    if policy.device.type == "cuda":
        torch.cuda.synchronize(policy.device)
    return time.perf_counter() - start, result


def sampling_seconds(policy, tokenizer, passages, edits, k):
    """Seconds per self-edit when `passages` get k each, in the batches of `generate_self_edits`: prompts, and tokens up to the longest of `edits`."""
    some = passages[:SAMPLED]
    short, long = (seconds_of(policy, generate_self_edits, policy, tokenizer, some, k, ("estimate", 1), max_new_tokens=n)[0] for n in GLANCE)
    token = max(0.0, long - short) / (GLANCE[1] - GLANCE[0])
    longest = max(len(tokenizer(edit)["input_ids"]) for own in edits for edit in own) + 1
    return (short + (longest - GLANCE[0]) * token) / (len(some) * k)


def trial_seconds(policy, tokenizer, pairs, settings, trials):
    """(trials side by side, seconds of training and of the exam per trial), when `trials` like those of `pairs` run in passes of like length."""
    once, passes = replace(settings, steps=1), []
    run_trials(policy, tokenizer, pairs[:1], once)  # what only the first pass takes
    whole, done = seconds_of(policy, run_trials, policy, tokenizer, pairs, once, report=passes.append)
    exam, _ = seconds_of(policy, answer_questions, policy, tokenizer, [passage for passage, _ in pairs])
    width = max(one.adapters for one in passes)
    position = max(0.0, whole - exam) / sum(one.positions for one in passes)
    lengths = sorted(trial.tokens for trial in done for _ in range(ceil(trials / len(done))))
    groups = [lengths[i : i + width] for i in range(0, len(lengths), width)]
    return width, settings.steps * position * sum(len(group) * group[-1] for group in groups) / len(lengths), exam / len(pairs)


def m_step_seconds(policy, tokenizer, pairs, reinforcement):
    """Seconds of one gradient step of the M-step."""
    return seconds_of(policy, m_step, policy, tokenizer, pairs[: reinforcement.batch_size], replace(reinforcement, epochs=2))[0] / 2


@contextmanager
def unchanged(model, settings):
    """A policy on `model` (itself, if it is one) whose LoRA, gradients and torch's random state are afterwards as they were before."""
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        policy = attach_policy(model, settings)
        tensors = policy_tensors(policy)
        held = [(parameter, parameter.requires_grad, parameter.grad) for parameter in policy.parameters()]
        for parameter, _, _ in held:
            parameter.grad = None  # set aside, where no step adds to them
        try:
            yield policy
        finally:
            set_peft_model_state_dict(policy, tensors)
            for parameter, wanted, gradient in held:
                parameter.requires_grad_(wanted)
                parameter.grad = gradient
            if policy is not model:
                policy.unload()


@contextmanager
def most_memory(device):
    """A list whose one item is afterwards the most bytes so far: torch's own count on a GPU; else what the process held within this context."""
    most, done = [0], threading.Event()
    if torch.device(device).type == "cuda":
        yield most
        most[0] = torch.cuda.max_memory_allocated(device)
        return
    process = psutil.Process()

    def watch():
        while True:
            most[0] = max(most[0], process.memory_info().rss)
            if done.wait(0.02):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
