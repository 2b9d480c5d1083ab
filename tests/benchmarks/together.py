"""Many passages in one adapter: what is left of RL's gain when N self-edits are learned at once?

Takes the policies of `controls.py`, whose folders have to be there, and the test split. Every
lesson is seen in 8 epochs, whatever N is: equal tokens a passage. Rows are kept in a file, one line
for each seed and N; what is there is not run again.

python tests/benchmarks/together.py [--seeds 3] [--sizes 1 8 32 120] [--folder runs/controls]
"""

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np

import sealkit
from sealkit.cli.record import read_record
from sealkit.evaluation import Arms, bootstrap_interval
from sealkit.evaluation.together import Together
from sealkit.runs.journal import Journal
from sealkit.tasks import knowledge

PROMPT = "questions, greedy, no RL"


def run(folder, seed, size, count):
    """({arm: rewards}, seconds, peak memory in GB) of the policies in a run's folder."""
    record = read_record(folder)
    start, last = Journal(folder)["policy", 0]["weights"], record.iterations[-1].weights
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    config = sealkit.config_for(tokenizer)
    policy = sealkit.Policy(sealkit.attach_policy(model, config, seed), tokenizer, config)
    items = sealkit.load_passages("bundled", "test", count)
    begun = time.process_time()
    together = Together(size, batch_size=min(size, 4), seed=seed)
    arms = Arms(policy, knowledge, items, seed, {}, together)
    policy.load(start)
    arms.add("passage only", [""] * len(items), 0)
    arms.add_sampled("self-edits before RL")
    arms.add_sampled(PROMPT, "questions", greedy=True)
    arms.add("oracle", [item.oracle for item in items], 0)
    policy.load(last)
    arms.add_sampled("SEAL")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return arms.scores, time.process_time() - begun, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 32, 120])
    parser.add_argument("--passages", type=int, default=120)
    parser.add_argument("--folder", type=Path, default=Path("runs/controls"))
    parser.add_argument("--file", type=Path, default=Path("runs/together.jsonl"))
    args = parser.parse_args()
    lines = args.file.read_text().splitlines() if args.file.exists() else []
    known = {tuple(key): value for key, value in map(json.loads, lines)}
    for size in args.sizes:
        for seed in range(args.seeds):
            key = seed, size, args.passages
            if key not in known:
                known[key] = run(args.folder / f"{seed}", *key)
                with args.file.open("a") as file:
                    print(json.dumps([key, known[key]]), file=file)
            scores, seconds, peak = known[key]
            accuracy = {arm: f"{100 * np.mean(rewards):.1f}" for arm, rewards in scores.items()}
            print(f"\n{size} an adapter, seed {seed}: {seconds:.0f} s, {peak:.2f} GB", accuracy)
            for arm in scores:
                paired = np.subtract(scores["SEAL"], scores[arm])
                mean, low, high = (100 * value for value in bootstrap_interval(paired))
                print(f"  SEAL − {arm}: {mean:+.1f} [{low:+.1f}, {high:+.1f}]", flush=True)


if __name__ == "__main__":
    main()
