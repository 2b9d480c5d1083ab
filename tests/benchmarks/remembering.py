"""Does a reward that counts what a self-edit costs on earlier passages teach to forget less?

From a policy that has learned four passages: one iteration of ReSTEM with the plain reward and one
with the reward that remembers, from the same self-edits. Then each writes for the same streams of
test passages, learned one after the other without another remedy.

python tests/benchmarks/remembering.py [--seed 0] [--streams 16] [--passages 40]
"""

import argparse
from dataclasses import replace

import sealkit
from sealkit.continual.adapters import adapter_state_dict
from sealkit.continual.forgetting import Forgetting
from sealkit.continual.remedies import REMEDIES
from sealkit.continual.remembering import remembering
from sealkit.continual.stream import (
    draw_streams,
    first_edits,
    fixed_edits,
    learn_sequentially,
    run_benchmark,
)
from sealkit.outer_loop import seal
from sealkit.selection import keep_best_above_baseline
from sealkit.tasks import knowledge

WRITES = "first policy writes"  # the only remedy here


def learn_for_good(policy, earlier, seed):
    """Train the policy on passages one after the other, all replayed; returns its mean accuracy."""
    edits = fixed_edits(first_edits(policy, knowledge, [earlier], seed))
    *_, end = learn_sequentially(
        policy, knowledge, [earlier], [seed], edits, REMEDIES["replay of all"]
    )
    policy.load(adapter_state_dict(end.memory[0], 0))
    return end.exams(range(len(earlier)))[0].mean()


def regrade(cache, task, pairs, config):
    """The E-step of `cache` as it is with another task's reward: the trials' answers are there."""
    new = {("policy", 0): cache["policy", 0]}
    for key, value in cache.items():
        if key[0] == "self-edit":
            new[key] = value
        elif key[0] == "trial":
            reward = task.reward(pairs[key[2]], value["answers"], config)
            new[key] = value | {"reward": reward}
    return new


def run_both_rewards(policy, pairs, seed):
    """{reward: LoRA tensors after one iteration}; prints the mean reward of each."""
    cache, weights = {}, {}
    for name, share in {"plain": 0.0, "remembering": 0.5}.items():
        task = remembering(knowledge, share)
        cache = regrade(cache, task, pairs, policy.config) if cache else cache
        iteration = next(seal(policy, task, pairs, 5, seed, cache))
        weights[name] = iteration.weights
        item_only = sum(iteration.item_only_rewards) / len(pairs)
        rewards = f"mean reward {iteration.mean_reward:.1%}, passage only {item_only:.1%}"
        print(f"{name}: {rewards}, {len(iteration.kept)} self-edits kept", flush=True)
    return weights


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"seed": 0, "streams": 16, "passages": 40}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    model, tokenizer = sealkit.load_quantized("bundled")
    config = sealkit.config_for(tokenizer)
    config = replace(config, keep=keep_best_above_baseline)  # for both rewards
    policy = sealkit.Policy(sealkit.attach_policy(model, config, args.seed), tokenizer, config)
    earlier = sealkit.load_passages("bundled", "validation", 4)
    accuracy = learn_for_good(policy, earlier, args.seed)
    print(f"earlier passages, after learning them: {accuracy:.1%}")
    train = sealkit.load_passages("bundled", "train", args.passages)
    start = policy.weights()
    policies = {"before RL": start}
    policies |= run_both_rewards(policy, [(passage, earlier) for passage in train], args.seed)
    streams = draw_streams(sealkit.load_passages("bundled", "test"), args.streams, 8, args.seed)
    rows = {}
    for name, weights in policies.items():
        policy.load(weights)
        remedies = {WRITES: REMEDIES[WRITES]}
        rows[name] = run_benchmark(policy, knowledge, streams, remedies, args.seed).rows[WRITES]
    table = Forgetting(rows)
    print(table)
    intervals = {
        "mean at the end": table.end("remembering", minus="plain"),
        "backward transfer": table.backward_transfer("remembering", minus="plain"),
    }
    for label, interval in intervals.items():
        mean, low, high = (100 * value for value in interval)
        print(f"remembering − plain, {label}: {mean:+.1f} points [{low:+.1f}, {high:+.1f}]")


if __name__ == "__main__":
    main()
