"""python tests/benchmarks/estimate.py: how near an estimate comes to the run, on this machine.

With the bundled model.
"""

import argparse
import time

import torch

import sealkit

HEAD = "passages | estimated, s | run, s | estimated / run | the estimate itself, s | its share"


def main():
    """Print estimate, its cost and the run's own duration for each number of passages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, nargs="+", default=[40])
    args = parser.parse_args()
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    policy = sealkit.attach_policy(model)
    start = sealkit.Policy(policy, tokenizer, None).weights()
    print(f"{torch.get_num_threads()} threads, 5 self-edits a passage, 2 iterations\n")
    print(f"| {HEAD} |\n|{'---|' * 6}")
    for count in args.passages:
        passages = sealkit.load_passages("bundled", limit=count)
        sealkit.Policy(policy, tokenizer, None).load(start)
        begun = time.perf_counter()
        expected = sealkit.estimate_run(policy, tokenizer, passages)
        middle = time.perf_counter()
        sealkit.run_seal(policy, tokenizer, passages)
        own, run, said = middle - begun, time.perf_counter() - middle, 60 * expected.minutes
        row = (
            f"| {count} | {said:.1f} | {run:.1f} | {said / run:.2f} | {own:.1f} | {own / run:.1%} |"
        )
        print(row, flush=True)
    print(f"\n{expected}")


if __name__ == "__main__":
    main()
