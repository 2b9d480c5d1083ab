"""python tests/benchmarks/load.py: what other busy processes cost, and what several processes gain.

First table: sampling and trying out 10 self-edits of the bundled model, while 0, 1 or 2 other
processes multiply matrices, with one thread and with two. Second table: an E-step of 10 passages
with 5 self-edits each, dealt to 1, 2 and 3 processes by torchrun, beside one process with two
threads. Medians over repeats, interleaved; ratios are to the first row.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import sealkit
from sealkit.memo import processes
from sealkit.outer_loop import e_step
from sealkit.tasks import knowledge

BUSY = "import torch; a = torch.randn(1000, 1000)\nwhile True: a @ a"


def work(passages, k):
    """Seconds of an E-step, the second of two: the first also loads what is loaded once."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    recipe = sealkit.recipe_for(tokenizer)
    policy = sealkit.Policy(sealkit.attach_policy(model, recipe), tokenizer, recipe)
    items = sealkit.load_passages("bundled", limit=passages)
    e_step(policy, knowledge, items[:1], 1, 1)
    processes().wait_for_everyone()
    start = time.perf_counter()
    e_step(policy, knowledge, items, 1, k)
    return time.perf_counter() - start


def timed(threads, count, *sizes):
    """`work` in `count` new processes of so many threads each: seconds."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command = [sys.executable, *(torchrun if count > 1 else []), __file__, "--work", *sizes]
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout.split()[-1])


def load_table(repeats):
    """Rows of (threads, busy processes, seconds)."""
    cases = [(threads, busy) for threads in (1, 2) for busy in (0, 1, 2)]
    seconds = {case: [] for case in cases}
    for _ in range(repeats):
        for threads, busy in cases:
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            others = [subprocess.Popen([sys.executable, "-c", BUSY], env=env) for _ in range(busy)]
            try:
                seconds[threads, busy].append(timed(threads, 1, 2, 5))
            finally:
                for other in others:
                    other.kill()
    return [(*case, statistics.median(own)) for case, own in seconds.items()]


def process_table(repeats):
    """Rows of (processes, threads of each, seconds)."""
    cases = (1, 2), (1, 1), (2, 1), (3, 1)
    seconds = {case: [] for case in cases}
    for _ in range(repeats):
        for count, threads in cases:
            seconds[count, threads].append(timed(threads, count, 10, 5))
    return [(*case, statistics.median(own)) for case, own in seconds.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", nargs=2, type=int, metavar=("PASSAGES", "K"))
    args = parser.parse_args()
    if args.work:
        seconds = work(*args.work)
        if processes().is_main_process:
            print(seconds)
        return
    print(f"On {os.cpu_count()} cores, medians of {args.repeats}\n")
    print("| threads | busy processes beside | s | slower than idle |\n|---|---|---|---|")
    idle = {}
    for threads, busy, seconds in load_table(args.repeats):
        idle.setdefault(threads, seconds)
        print(f"| {threads} | {busy} | {seconds:.1f} | {seconds / idle[threads]:.1f} |")
    print("\n| processes | threads of each | s | faster than the first |\n|---|---|---|---|")
    rows = process_table(args.repeats)
    for count, threads, seconds in rows:
        print(f"| {count} | {threads} | {seconds:.1f} | {rows[0][2] / seconds:.2f} |")


if __name__ == "__main__":
    main()
