"""Cheaper rewards: does a shorter trial first, for the better half alone a whole one, pay?

Two iterations of ReSTEM on 40 training passages with five self-edits each. The E-step is whole; or
halved: one gradient step each, and the 100 of 200 that earn most go on to all steps (successive
halving, arXiv:1502.07943); or random: 100 of 200 at random go on. What does not go on is not kept.

python tests/benchmarks/halving.py [--seeds 3] [--held-out 120]
"""

import argparse
import random
from dataclasses import replace

import sealkit
from sealkit.evaluation import Arms, bootstrap_interval
from sealkit.inner_loop import run_trials
from sealkit.outer_loop import m_step, write_self_edits
from sealkit.tasks import knowledge

PASSAGES, K = 40, 5


def e_step(policy, train, t, seed, way):
    """({cell: Trial} of the self-edits that had a whole trial, passage-only rewards, tokens)."""
    cells = [(i, j) for i in range(PASSAGES) for j in range(K)]
    edits = write_self_edits(policy, knowledge, [(train[i], j) for i, j in cells], (seed, t))
    pairs = dict(zip(cells, [(train[i], edit) for (i, _), edit in zip(cells, edits)]))
    alone = run_trials(policy, knowledge, [(passage, "") for passage in train])
    going_on, tokens = cells, 0
    if way == "halved":
        short = replace(policy, config=replace(policy.config, steps=1))
        first = dict(zip(cells, run_trials(short, knowledge, list(pairs.values()))))
        tokens += sum(trial.tokens for trial in first.values())
        going_on = sorted(cells, key=lambda cell: -first[cell].reward)[: len(cells) // 2]
    if way == "random":
        going_on = random.Random(f"{seed} {t}").sample(cells, len(cells) // 2)
    trials = run_trials(policy, knowledge, [pairs[cell] for cell in going_on])
    tokens += policy.config.steps * sum(trial.tokens for trial in trials)
    return dict(zip(going_on, trials)), [trial.reward for trial in alone], tokens


def run(seed, way, held_out):
    """(held-out rewards after two iterations, tokens of the inner loops, kept in each)."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    config = sealkit.config_for(tokenizer)
    policy = sealkit.Policy(sealkit.attach_policy(model, config, seed), tokenizer, config)
    train = sealkit.load_passages("bundled", "train", PASSAGES)
    first, spent, counts = policy.weights(), 0, []
    for t in (1, 2):
        trials, alone, tokens = e_step(policy, train, t, seed, way)
        spent += tokens
        kept = []
        for i, passage in enumerate(train):
            own = [trials[i, j] for j in range(K) if (i, j) in trials]
            places = config.keep([trial.reward for trial in own], alone[i]) if own else []
            kept += [(knowledge.prompt(passage, config), own[n].self_edit) for n in places]
        counts.append(len(kept))
        policy.load(first)
        m_step(policy, kept, (seed, t))
    test = sealkit.load_passages("bundled", "test", held_out)
    arms = Arms(policy, knowledge, test, seed, {})
    arms.add_sampled("held out")
    return arms.scores["held out"], spent, counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--held-out", type=int, default=120)
    args = parser.parse_args()
    print("| seed | E-step | kept in 1, 2 | held out, % | minus whole, points | tokens |")
    print("|---|---|---|---|---|---|")
    for seed in range(args.seeds):
        whole = None
        for way in ("whole", "halved", "random"):
            rewards, tokens, kept = run(seed, way, args.held_out)
            whole = whole or (rewards, tokens)
            mean, *_ = bootstrap_interval(rewards)
            paired = bootstrap_interval([a - b for a, b in zip(rewards, whole[0])])
            minus = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in paired))
            row = f"| {seed} | {way} | {kept[0]}, {kept[1]} | {100 * mean:.1f} "
            print(f"{row}| {minus} | {tokens / whole[1]:.0%} |", flush=True)


if __name__ == "__main__":
    main()
