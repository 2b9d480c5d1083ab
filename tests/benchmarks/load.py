"""python tests/benchmarks/load.py: what other busy processes cost, and what several processes gain.

First table: sampling and trying out 10 self-edits of the bundled model, while 0, 1 or 2 other
processes multiply matrices, with one thread and with two. Second: an E-step of 10 passages with 5
self-edits each, dealt to 1, 2 and 3 processes by torchrun, beside one process with two threads, and
what `predicted` says of it from the costs of one self-edit, trial, ... Third: by the same formula,
an iteration of 10,000 passages. Medians over repeats, interleaved; ratios are to the first row.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import sealkit
from sealkit.inner_loop import run_trials
from sealkit.outer_loop import answer_exams, e_step, m_step, write_self_edits
from sealkit.runs.processes import broadcast, distributed_state
from sealkit.tasks import knowledge

BUSY = "import torch; a = torch.randn(1000, 1000)\nwhile True: a @ a"
COSTS = "exam", "self-edit", "trial", "kept self-edit"  # of which kinds `predicted` adds up


def seconds_of(function, *args):
    """(seconds, result), from when all processes are there."""
    distributed_state().wait_for_everyone()
    start = time.perf_counter()
    result = function(*args)
    return time.perf_counter() - start, result


def work(passages, k):
    """Seconds of an E-step, the second of two: the first also loads what is loaded once. And of
    handing a policy round; and by one process, of each exam, self-edit, trial and kept self-edit.
    """
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    config = sealkit.config_for(tokenizer)
    policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    items = sealkit.load_passages("bundled", limit=passages)
    e_step(policy, knowledge, items[:1], 1, 1)
    seconds, (_, _, trials) = seconds_of(e_step, policy, knowledge, items, 1, k)
    found = {"E-step": seconds, "turn": seconds_of(broadcast, policy.weights())[0]}
    if distributed_state().num_processes == 1:
        wanted = [(item, j) for item in items for j in range(k)]
        pairs = [(item, trial.self_edit) for item, own in zip(items, trials) for trial in own]
        kept = [
            (knowledge.prompt(item, config), own[0].self_edit) for item, own in zip(items, trials)
        ]
        tasks = {
            "exam": (items, answer_exams, policy, knowledge, items),
            "self-edit": (wanted, write_self_edits, policy, knowledge, wanted, (0, 1)),
            "trial": (pairs, run_trials, policy, knowledge, pairs),
            "kept self-edit": (kept, m_step, policy, kept),
        }
        for name, (all_of_it, *task) in tasks.items():
            found[name] = seconds_of(*task)[0] / len(all_of_it)
    return found


def predicted(costs, passages, k, count):
    """Seconds of (E-step, M-step, handing round) of an iteration on `count` processes.

    Each kind of work is cut into parts of one width, which are dealt to the processes in turn; the
    M-step, of one kept self-edit a passage, is done by one. Then each process that had a part hands
    round what it made; "turn": what that takes for a policy, which is more than for a part.
    """
    config, e, turns = sealkit.Config(), 0.0, 1
    widths = config.texts_per_pass, config.texts_per_pass, config.adapters_per_pass
    for name, number, width in zip(COSTS, (passages, passages * k, passages * (k + 1)), widths):
        parts = [min(width, number - start) for start in range(0, number, width)]
        e += costs[name] * max(sum(parts[rank::count]) for rank in range(count))
        turns += min(len(parts), count)
    return e, costs["kept self-edit"] * passages, costs["turn"] * turns * (count > 1)


def timed(threads, count, *sizes):
    """`work` in `count` new processes of so many threads each."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command = [sys.executable, *(torchrun if count > 1 else []), __file__, "--work", *sizes]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def load_table(repeats):
    """Rows of (threads, busy processes, seconds)."""
    cases = [(threads, busy) for threads in (1, 2) for busy in (0, 1, 2)]
    seconds = {case: [] for case in cases}
    for _ in range(repeats):
        for threads, busy in cases:
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            others = [subprocess.Popen([sys.executable, "-c", BUSY], env=env) for _ in range(busy)]
            try:
                seconds[threads, busy].append(timed(threads, 1, 2, 5)["E-step"])
            finally:
                for other in others:
                    other.kill()
    return [(*case, statistics.median(own)) for case, own in seconds.items()]


def process_table(repeats):
    """({(processes, threads of each): seconds of an E-step}, costs), medians."""
    cases = (1, 2), (1, 1), (2, 1), (3, 1)
    found = {case: [] for case in cases}
    for _ in range(repeats):
        for count, threads in cases:
            found[count, threads].append(timed(threads, count, 10, 5))

    def median(case, name):
        return statistics.median(row[name] for row in found[case])

    costs = {name: median((1, 1), name) for name in COSTS} | {"turn": median((2, 1), "turn")}
    return {case: median(case, "E-step") for case in cases}, costs


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs=2, type=int, metavar=("PASSAGES", "K"))
    args = parser.parse_args()
    if args.work:
        found = work(*args.work)
        if distributed_state().is_main_process:
            print(json.dumps(found))
        return
    print(f"On {os.cpu_count()} cores, medians of {args.repeats}\n")
    print("| threads | busy processes beside | s | slower than idle |\n|---|---|---|---|")
    idle = {}
    for threads, busy, seconds in load_table(args.repeats):
        idle.setdefault(threads, seconds)
        print(f"| {threads} | {busy} | {seconds:.1f} | {seconds / idle[threads]:.1f} |")
    table, costs = process_table(args.repeats)
    first = table[1, 2]
    print("\n| processes | threads of each | s | faster than the first | predicted, s |")
    print("|---|---|---|---|---|")
    for (count, threads), seconds in table.items():
        e, _, turns = predicted(costs, 10, 5, count)
        said = f"{e + turns:.1f}" if threads == 1 else ""
        print(f"| {count} | {threads} | {seconds:.1f} | {first / seconds:.2f} | {said} |")
    print("\n" + ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in costs.items()))
    print("\n| processes | E-step, min | M-step, min | handing round, min | faster than one |")
    print("|---|---|---|---|---|")
    alone = sum(predicted(costs, 10_000, 5, 1))
    for count in (1, 8, 256):
        parts = predicted(costs, 10_000, 5, count)
        minutes = " | ".join(f"{part / 60:.1f}" for part in parts)
        print(f"| {count} | {minutes} | {alone / sum(parts):.1f} |")


if __name__ == "__main__":
    main()
