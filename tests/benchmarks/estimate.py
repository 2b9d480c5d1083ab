"""python tests/benchmarks/estimate.py: how near the estimate before a run comes to the run, on the bundled model and this machine."""

import argparse
import time

import torch

import sealkit
from sealkit.estimate import estimate_run


def main():
    """The command line: prints the estimate, what it cost, and the run's own duration for each number of passages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, nargs="+", default=[40])
    args = parser.parse_args()
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    policy = sealkit.attach_policy(model)
    print(f"{torch.get_num_threads()} threads, 5 self-edits a passage, 2 iterations\n")
    print(f"| passages | estimated, s | run, s | estimated / run | the estimate itself, s | share of the run |\n|{'---|' * 6}")
    for count in args.passages:
        passages = sealkit.load_passages("bundled", limit=count)
        start = time.perf_counter()
        expected = estimate_run(policy, tokenizer, passages)
        middle = time.perf_counter()
        sealkit.run_seal(policy, tokenizer, passages)
        own, run = middle - start, time.perf_counter() - middle
        print(f"| {count} | {60 * expected.minutes:.1f} | {run:.1f} | {60 * expected.minutes / run:.2f} | {own:.1f} | {own / run:.1%} |", flush=True)
    print(f"\n{expected}")


if __name__ == "__main__":
    main()
