"""Which self-edits should the policy learn from? Rules of selection, on passages of validation.

For each seed and rule: two iterations of SEAL on 40 training passages, then one self-edit for each
of 40 validation passages from the policy after each iteration, tried out.

python tests/benchmarks/selection.py [--seeds 3] [--passages 40]
"""

import argparse
from dataclasses import replace
from itertools import islice

import sealkit
from sealkit.inner_loop import run_trials
from sealkit.outer_loop import seal
from sealkit.selection import (
    THRESHOLD,
    keep_all_above_baseline,
    keep_best,
    keep_best_above_baseline,
    keep_best_above_threshold,
)
from sealkit.tasks import knowledge


def keep_all_above_threshold(rewards, baseline):
    """All candidates that earn THRESHOLD and beat training on the passage alone."""
    return [j for j in keep_all_above_baseline(rewards, baseline) if rewards[j] >= THRESHOLD]


def results(rule, seed, count):
    """[(kept, mean held-out reward)] of two iterations."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    config = replace(sealkit.config_for(tokenizer), keep=rule)
    policy = sealkit.Policy(sealkit.attach_policy(model, config, seed), tokenizer, config)
    train = sealkit.load_passages("bundled", "train", limit=count)
    held_out = sealkit.load_passages("bundled", "validation", limit=count)
    iterations = list(islice(seal(policy, knowledge, train, 5, seed), 2))
    found = []
    for iteration in iterations:
        policy.load(iteration.weights)
        written = sealkit.generate_self_edits(policy.model, tokenizer, held_out, k=1, seed=0)
        pairs = [(passage, edit) for passage, (edit,) in zip(held_out, written)]
        rewards = [trial.reward for trial in run_trials(policy, knowledge, pairs)]
        found.append((len(iteration.kept), sum(rewards) / count))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--passages", type=int, default=40)
    args = parser.parse_args()
    seeds = range(args.seeds)
    print("| rule | kept in 1 | after iteration 1 | kept in 2 | after iteration 2 |")
    print("|---|---|---|---|---|")
    for rule in (
        keep_best,
        keep_best_above_baseline,
        keep_all_above_baseline,
        keep_all_above_threshold,
        keep_best_above_threshold,
    ):
        runs = [results(rule, seed, args.passages) for seed in seeds]
        cells = []
        for t in range(2):
            cells.append(", ".join(str(run[t][0]) for run in runs))
            cells.append(", ".join(f"{100 * run[t][1]:.1f}" for run in runs))
        print(f"| {rule.__name__} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
