"""Which M-step? ReSTEM and its rivals from the same E-steps, at equal numbers of inner loops.

Each M-step gets as many inner loops, and the same effort of tuning: with --tune, three learning
rates each on one seed and `validation` passages. Else the best of these, on `test`. Results are
kept in a file, one line a run; what is there is not run again.

python tests/benchmarks/m_steps.py [--tune] [--seeds 3] [--inner-loops 600] [--only NAME …]
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from statistics import mean

import sealkit
from sealkit.evaluation import Arms, bootstrap_interval
from sealkit.m_steps import MStep, frozen_log_probs, outer_loop
from sealkit.m_steps.losses import dpo, policy_gradient, restem, reward_weighted
from sealkit.outer_loop import sft_rows
from sealkit.selection import keep_all_above_baseline, keep_best
from sealkit.tasks import knowledge


@dataclass(frozen=True)
class Way:
    """An M-step with its settings. rates: learning rates tried, the first is the one taken."""

    m_step: MStep
    rates: tuple[float, ...]
    config: dict = field(default_factory=dict)
    items_per_update: int | None = None


ON_POLICY = {"batch_size": 10}
CLIPPED = partial(policy_gradient, clip=0.2, standardized=True)
SFT_RATES = 2e-3, 1e-3, 4e-3
WAYS = {
    "ReSTEM": Way(restem, SFT_RATES),
    "ReSTEM, from the last policy": Way(partial(restem, anew=False), SFT_RATES),
    "ReSTEM, all above the baseline": Way(restem, SFT_RATES, {"keep": keep_all_above_baseline}),
    "ReSTEM, each passage's best": Way(restem, SFT_RATES, {"keep": keep_best}),
    "reward-weighted": Way(reward_weighted, (1e-3, 2e-3, 4e-3)),
    "DPO": Way(dpo, (2e-4, 5e-4, 1e-3)),
    "RLOO": Way(policy_gradient, (2e-3, 1e-3, 4e-3), ON_POLICY | {"epochs": 1}, 8),
    "GRPO": Way(partial(CLIPPED, kl=0.04), (1e-3, 2e-3, 4e-3), ON_POLICY | {"epochs": 4}, 8),
    "GRPO, no KL": Way(CLIPPED, (5e-4, 1e-3, 2e-3), ON_POLICY | {"epochs": 4}, 8),
}


def run(name, rate, seed, split, held_out, inner_loops):
    """One run: {points: held-out rewards and diagnosis after every 200 inner loops}."""
    way = WAYS[name]
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    config = replace(sealkit.config_for(tokenizer), **way.config, m_step_learning_rate=rate)
    policy = sealkit.Policy(sealkit.attach_policy(model, config, seed), tokenizer, config)
    train = sealkit.load_passages("bundled", "train", 40)
    test = sealkit.load_passages("bundled", split, held_out)
    first = policy.weights()
    points = [examine(policy, test, first, seed) | {"inner_loops": 0}]
    seconds, begun, failed = [], time.process_time(), ""
    timed = partial(clocked, way.m_step, seconds)
    try:
        for update in outer_loop(policy, knowledge, train, timed, 5, seed, way.items_per_update):
            if update.inner_loops % 200 == 0:
                points.append(examine(policy, test, first, seed))
                points[-1] |= {"inner_loops": update.inner_loops, "training": update.mean_reward}
            if update.inner_loops >= inner_loops:
                break
    except FloatingPointError as error:
        failed = str(error)
    spent = {"m_step_seconds": sum(seconds), "seconds": time.process_time() - begun}
    return {"points": points, "failed": failed} | spent


def clocked(m_step: Callable, seconds: list, *args):
    """An M-step whose processor time is appended to `seconds`."""
    begun = time.process_time()
    losses = m_step(*args)
    seconds.append(time.process_time() - begun)
    return losses


def examine(policy, items, first, seed):
    """Held-out rewards of the policy, and how far its texts are from the first policy's."""
    arms = Arms(policy, knowledge, items, seed, {})
    arms.add_sampled("held out")
    edits = [edit for (edit,) in arms.write("held out")]
    lines = [list(takewhile(str.strip, edit.split("\n"))) for edit in edits]
    prompts = [knowledge.prompt(item, policy.config) for item in items]
    rows = sft_rows(policy, list(zip(prompts, edits)))
    last = policy.weights()
    own = frozen_log_probs(policy, rows)
    policy.load(first)
    reference = frozen_log_probs(policy, rows)
    policy.load(last)
    written = sum((labels != -100).sum().item() for _, labels in rows)
    return {
        "rewards": arms.scores["held out"],
        "nats": -sum(x.sum().item() for x in own) / written,
        "log_ratio": sum((x - y).sum().item() for x, y in zip(own, reference)) / written,
        "distinct": sum(len(set(each)) for each in lines) / max(1, sum(map(len, lines))),
        "lines": mean(map(len, lines)),
    }


def points(interval):
    """(mean, low, high) in points, as text."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in interval))


def print_tables(runs, names):
    """runs: {name: one run for each seed}. The first name is what the others are compared with."""
    loops = [point["inner_loops"] for point in runs[names[0]][0]["points"]]
    print("\n| held out, % | " + " | ".join(f"after {n} inner loops" for n in loops), end=" |\n")
    print("|---" * (1 + len(loops)) + "|")
    for name in names:
        columns = zip(*([100 * mean(p["rewards"]) for p in run["points"]] for run in runs[name]))
        print(f"| {name} |", " | ".join(", ".join(f"{v:.1f}" for v in c) for c in columns), "|")
    base = runs[names[0]]
    print(f"\n| at the end | minus {names[0]}, by seed | below the start | moved | nats | ", end="")
    print("distinct lines | M-step, s, as a ratio |\n|---|---|---|---|---|---|---|")
    for name in names:
        ends = [run["points"][-1] for run in runs[name]]
        pairs = zip(ends, (run["points"][-1] for run in base))
        gaps = [
            bootstrap_interval([a - b for a, b in zip(end["rewards"], other["rewards"])])
            for end, other in pairs
        ]
        starts = [mean(run["points"][0]["rewards"]) for run in runs[name]]
        fallen = sum(mean(end["rewards"]) < start for end, start in zip(ends, starts))
        cells = [
            "; ".join(map(points, gaps)) if name != names[0] else "",
            f"{fallen} of {len(ends)}",
        ]
        cells += [
            f"{mean(end[key] for end in ends):.2f}" for key in ("log_ratio", "nats", "distinct")
        ]
        seconds = [mean(run["m_step_seconds"] for run in of) for of in (runs[name], base)]
        print(f"| {name} |", " | ".join([*cells, f"{seconds[0] / seconds[1]:.2f}"]), "|")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--inner-loops", type=int, default=600)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--file", type=Path, default=Path("runs/m_steps.jsonl"))
    args = parser.parse_args()
    args.file.parent.mkdir(parents=True, exist_ok=True)
    lines = args.file.read_text().splitlines() if args.file.exists() else []
    known = {tuple(key): value for key, value in map(json.loads, lines)}
    split, held_out, loops = (
        ("validation", 60, 400) if args.tune else ("test", 120, args.inner_loops)
    )
    seeds = [100] if args.tune else range(args.seeds)
    for seed in seeds:
        for name in args.only:
            for rate in WAYS[name].rates if args.tune else WAYS[name].rates[:1]:
                key = name, rate, seed, split, held_out, loops
                if key not in known:
                    known[key] = run(*key)
                    with args.file.open("a") as file:
                        print(json.dumps([key, known[key]]), file=file)
                points = known[key]["points"]
                ends = " ".join(f"{100 * mean(point['rewards']):.1f}" for point in points)
                print(name, rate, seed, ends, known[key]["failed"], flush=True)
    if not args.tune:
        keys = {
            name: [(name, WAYS[name].rates[0], seed, split, held_out, loops) for seed in seeds]
            for name in args.only
        }
        print_tables({name: [known[key] for key in keys[name]] for name in args.only}, args.only)


if __name__ == "__main__":
    main()
