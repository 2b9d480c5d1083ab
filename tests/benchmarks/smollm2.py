"""SEAL with a real model on a CPU: what SmolLM2-135M gains on passages of SQuAD, and why no more.

Runs SEAL with each seed in a folder of its own, in which a run that was broken off goes on (with
two processes, if torchrun starts two), and prints the arms on the test passages: of all seeds side
by side, with intervals paired by passage; then, of seed 0, what needs no reinforcement learning:
greedy self-edits, and exam lines as self-edits (the oracle).

python tests/benchmarks/smollm2.py TRAIN.jsonl TEST.jsonl [--seeds 3]

--few        seed 0 alone, and of the test passages the 24 about which a large language model, which
             saw them and not their exams, wrote the self-edits of squad_self_edits.json
--sixteen    the arms before RL, with the checkpoint's own 16 bits instead of NF4
--trials 100 after one of these: seed 0's first trials again, with products in fp32 and in bf16
--schedules  what trials learn by steps and learning rates, on 14 training passages
"""

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from controls import points, print_tables
from safetensors.torch import load_file

import sealkit
from sealkit.cli.record import read_record
from sealkit.evaluation import UNTRAINED, Arms, Comparison, bootstrap_interval
from sealkit.inner_loop import run_trials
from sealkit.models import sampling, smollm2, unpacking
from sealkit.outer_loop import write_self_edits
from sealkit.runs.journal import Journal
from sealkit.tasks import knowledge
from sealkit.tasks.diagnosis import exam_lines

BEFORE, AFTER = "self-edits before RL", "after iteration 2"
WRITTEN = Path(__file__).with_name("squad_self_edits.json")
UPPER = r".*layers\.(1[5-9]|2\d)\..*_proj"  # half of the layers
SCHEDULES = [  # steps, learning rate, what else
    (10, 1e-3, {}),
    (5, 2e-3, {}),
    (5, 3e-3, {}),
    (5, 3e-3, {"target_modules": UPPER}),
    (4, 4e-3, {}),
    (4, 4e-3, {"alpha": 64}),
    (3, 5e-3, {"alpha": 64}),
]
RANK = int(os.environ.get("RANK", 0))  # of torchrun


def load(seed=0, **changes):
    """The policy that a run of this seed begins with."""
    model, tokenizer = sealkit.load_quantized("smollm2")
    config = replace(sealkit.config_for(tokenizer), **changes)
    return sealkit.Policy(sealkit.attach_policy(model, config, seed), tokenizer, config)


def in_16_bits(model):
    """Have products take the checkpoint's own weights, not those that NF4 makes of them."""
    weights = load_file(smollm2.FOLDER / "model.safetensors")
    own = {}
    for name, module in model.named_modules():
        if isinstance(module, unpacking.Linear4bit):
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            own[module.weight.data_ptr()] = weights[f"{plain}.weight"].float()
    unpacking.dequantize_4bit = lambda weight, state: own[weight.data_ptr()]


def add_before_rl(policy, test, seed, folder):
    """The arms that need no RL, in a folder's journal."""
    arms = Arms(policy, knowledge, test, seed, open_journal(folder))
    for arm in UNTRAINED:
        arms.add_untrained(arm, in_context=arm != UNTRAINED[0])
    arms.add("passage only", [""] * len(test), written=0)
    arms.add_sampled(BEFORE)
    return arms


def evaluate(train, test, folder, seed):
    """(arms, iterations) of the run in a folder, with the first policy as the present one."""
    policy = load(seed)
    history = sealkit.run_seal(policy.model, policy.tokenizer, train, 2, 5, folder, seed)
    policy.load(history.start)
    arms = add_before_rl(policy, test, seed, folder)
    policy.load(history.iterations[-1].weights)
    arms.add_sampled(AFTER)
    policy.load(history.start)
    return arms, history.iterations


def evaluate_seeds(train, test, folder, seeds):
    """Print all seeds' arms side by side, then those of seed 0 that have no RL, and its E-steps."""
    runs = []
    for seed in range(seeds):
        arms, iterations = evaluate(train, test, folder / f"{seed}", seed)
        print(f"\nseed {seed}")
        print_e_steps(iterations)
        print_differences(arms)
        settings, table = {"seed": seed}, arms.comparison
        runs += [
            SimpleNamespace(settings=settings, last=AFTER, arms=table.scores, comparison=table)
        ]
    print()
    print_tables(runs)
    arms, _ = evaluate(train, test, folder / "0", 0)
    arms.add_sampled("greedy, no RL", greedy=True)
    arms.add("exam lines", list(map(exam_lines, test)), written=0)
    print_differences(arms)


def evaluate_few(train, test, folder):
    """Print seed 0's policies on the passages of WRITTEN, beside what a stronger writer teaches."""
    written = json.loads(WRITTEN.read_text("utf-8"))
    some = [test[row["row"]] for row in written]
    arms, _ = evaluate(train, some, folder / "0", 0)
    arms.add_sampled("greedy, no RL", greedy=True)
    for kind in ("implications", "questions"):
        arms.add(f"stronger writer, {kind}", [row[kind] for row in written])
    arms.add("exam lines", list(map(exam_lines, some)), written=0)
    print_differences(arms)


def evaluate_16_bits(test, folder):
    """Print what seed 0's policy does before RL, with 16-bit weights."""
    policy = load()
    in_16_bits(policy.model)
    print_differences(add_before_rl(policy, test, 0, folder / "16-bits"))


def print_differences(arms):
    """All arms, and what each is above the passage only and above self-edits before RL."""
    table = arms.comparison
    print(f"\n{table}")
    for arm in table.scores:
        over = [f"{points(table.difference(arm, o))} to {o}" for o in ("passage only", BEFORE)]
        print(f"{arm}: {', '.join(over)}")


def print_e_steps(iterations):
    """What each E-step had to choose from, on the training passages."""
    for iteration in iterations:
        rewards = np.array([[trial.reward for trial in row] for row in iteration.trials])
        lengths = np.array([[len(trial.self_edit) for trial in row] for row in iteration.trials])
        longest = rewards[np.arange(len(rewards)), lengths.argmax(1)]
        rows = {"passage only": iteration.item_only_rewards, "mean of 5": rewards.mean(1)}
        rows |= {"longest of 5": longest, "best of 5": rewards.max(1)}
        print(f"\niteration {iteration.number}")
        table = Comparison({arm: tuple(row) for arm, row in rows.items()})
        print(table)
        for arm in rows:
            print(f"{arm}: {points(table.difference(arm, 'passage only'))} to passage only")
        spread = (np.ptp(rewards, axis=1) > 0).sum()
        print(f"{spread} passages have a spread of rewards, {len(iteration.kept)} self-edits kept")


def compare_schedules(train):
    """Print what trials learn from the passage alone and from exam lines, for each of SCHEDULES."""
    some = train[-14:]
    pairs = [(p, edit) for p in some for edit in ("", exam_lines(p))]
    for steps, learning_rate, changes in SCHEDULES:
        policy = load(steps=steps, learning_rate=learning_rate, **changes)
        rewards = np.array([trial.reward for trial in run_trials(policy, knowledge, pairs)])
        alone, lines = rewards.reshape(-1, 2).mean(0)
        print(
            f"{steps} × {learning_rate} {changes}: {alone:.1%}, exam lines {lines:.1%}", flush=True
        )


def time_trials(policy, tried):
    """Print seconds of a written line, and of trials, as they were before and as they are.

    tried: (passage, Trial) pairs.
    """
    slow = replace(policy, config=replace(policy.config, checkpointing=True))
    unpack, head, prefix = unpacking.MAX_UNPACKED, unpacking.LARGE_HEAD, sampling.LONG_PREFIX
    ways = {"fp32, recomputing, unpacking for each product, each prompt whole": (slow, "float32")}
    ways |= {"fp32": (policy, "float32"), "bf16": (policy, "bfloat16")}
    pairs = [(passage, trial.self_edit) for passage, trial in tried[:10]]
    one_each = [(passage, 0) for passage, _ in tried[::5]][:4]
    for way, (each, dtype) in ways.items():
        unpacking.MAX_UNPACKED = 0 if each is slow else unpack
        unpacking.LARGE_HEAD = float("inf") if each is slow else head
        sampling.LONG_PREFIX = float("inf") if each is slow else prefix
        unpacking.set_compute_dtype(policy.model, getattr(torch, dtype))
        start = time.perf_counter()
        lines = "\n".join(write_self_edits(each, knowledge, one_each, 0)).count("\n") + 1
        wrote = time.perf_counter()
        run_trials(each, knowledge, pairs)
        trying = (time.perf_counter() - wrote) / len(pairs)
        print(f"{way}: {(wrote - start) / lines:.2f} s a line, {trying:.2f} s a trial", flush=True)


def compare_products(policy, tried, folder):
    """Print the rewards of a run's trials, whose products were in bf16, against those in fp32.

    tried: (passage, Trial) pairs, five of each passage.
    """
    unpacking.set_compute_dtype(policy.model, torch.float32)
    pairs = [(passage, trial.self_edit) for passage, trial in tried]
    keys = [("fp32", n) for n in range(len(pairs))]
    again = run_trials(policy, knowledge, pairs, open_journal(folder), keys)
    rewards = np.array([[trial.reward, other.reward] for (_, trial), other in zip(tried, again)])
    same = (rewards[:, 0] == rewards[:, 1]).mean()
    by_passage = (rewards[:, 0] - rewards[:, 1]).reshape(-1, 5).mean(1)
    difference = points(bootstrap_interval(by_passage))
    print(f"{len(pairs)} rewards: bf16 {rewards.mean(0)[0]:.3f}, fp32 {rewards.mean(0)[1]:.3f}")
    print(f"bf16 - fp32: {difference} points; the same in {same:.0%}")


def open_journal(folder):
    """This process's journal in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Journal(folder, rank=RANK)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/smollm2"))
    parser.add_argument("--sixteen", action="store_true")
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--schedules", action="store_true")
    args = parser.parse_args()
    if RANK:
        sys.stdout = open(os.devnull, "w")
    test = sealkit.load_passages(args.test, limit=120)
    if args.schedules:
        return compare_schedules(sealkit.load_passages(args.train))
    if args.sixteen:
        return evaluate_16_bits(test, args.folder)
    train = sealkit.load_passages(args.train, limit=40)
    if args.few:
        return evaluate_few(train, test, args.folder)
    if args.trials:
        of_trials = zip(train, read_record(args.folder / "0").iterations[0].trials)
        tried = [(passage, trial) for passage, row in of_trials for trial in row][: args.trials]
        policy = load()
        time_trials(policy, tried)
        return compare_products(policy, tried, args.folder / "fp32")
    evaluate_seeds(train, test, args.folder, args.seeds)


if __name__ == "__main__":
    main()
