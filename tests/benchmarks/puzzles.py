"""Does a recipe that looks at the puzzle beat one recipe for all? Seeds side by side, as a table.

Each seed is `python -m sealkit --task puzzles --held-out 120 --seed N`, in a folder of its own;
killed, the same command goes on. Then the recipes of the last policy by the sort of the rule, and
puzzles of neither sort.

python tests/benchmarks/puzzles.py [--seeds 0 1 2 3 4] [--folder runs/puzzles]
"""

import argparse
from pathlib import Path

import numpy as np

from sealkit.bundled.puzzles import FOLDER, MAPS
from sealkit.cli.main import main as run_command
from sealkit.cli.record import read_record
from sealkit.evaluation import bootstrap_interval
from sealkit.inner_loop import run_trials
from sealkit.outer_loop import write_self_edits
from sealkit.runs.journal import Journal
from sealkit.tasks import few_shot, puzzles

HELD_OUT, ITERATIONS, FIRST = 120, 3, "self-edits before RL"
LAST = f"after iteration {ITERATIONS}"
WANTED = {"places": "recolour", "colours": "shuffle"}


def sort_of(puzzle):
    """Which sort of rule a puzzle of the `test` split has."""
    return "colours" if puzzle.title.rsplit(" ", 1)[0] in MAPS["test"] else "places"


def points(interval):
    """An interval in points of percent."""
    return "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * value for value in interval))


def rows_of(folder, seed):
    """{row of the table: its cell} of one finished run."""
    record, journal = read_record(folder), Journal(folder)
    comparison, test = record.comparison, puzzles.load_puzzles("bundled", "test", HELD_OUT)
    rows = {arm: f"{100 * comparison.accuracy(arm)[0]:.1f}" for arm in comparison.scores}
    for arm in (FIRST, few_shot.BEST_FIXED):
        rows[f"{LAST} − {arm}"] = points(comparison.difference(LAST, arm))
    rows[f"{LAST} − the best augmentation for all, chosen on the test"] = points(
        bootstrap_interval(np.subtract(comparison.scores[LAST], best_on_test(journal)))
    )
    rows[f"oracle − {LAST}"] = points(comparison.difference(few_shot.ORACLE, LAST))
    texts = {key[3]: row["self_edit"] for key, row in journal.items() if key[:2] == ("arm", LAST)}
    for sort, flag in WANTED.items():
        own = [puzzles.style(p, texts[i]) for i, p in enumerate(test) if sort_of(p) == sort]
        rows[f"{flag} for rules of {sort}"] = f"{own.count(flag) / len(own):.0%} of {len(own)}"
    families = [puzzle.title.rsplit(" ", 1)[0] for puzzle in test]
    for family in sorted(set(families)):
        own = [x for x, one in zip(comparison.scores[LAST], families) if one == family]
        rows[f"“{family}”, {LAST}"] = f"{sum(own) / len(own):.0%} of {len(own)}"
    invalid = sum(puzzles.style(None, text) == "invalid" for text in texts.values())
    rows["invalid recipes"] = f"{invalid / len(texts):.1%}"
    return rows | neither(journal["policy", ITERATIONS]["weights"], seed)


def best_on_test(journal):
    """What that recipe of the grid earns on each test puzzle which earns most on all of them."""
    (inputs,) = {key[2] for key in journal if key[:2] == ("arm", FIRST)}
    earned = {}
    for key, row in journal.items():
        if key[0] == "arm" and key[2] == inputs and key[1] in few_shot.GRID.values():
            earned.setdefault(key[1], {})[key[3]] = row["reward"]
    whole = [[own[i] for i in range(HELD_OUT)] for own in earned.values() if len(own) == HELD_OUT]
    return max(whole, key=sum)


def neither(weights, seed):
    """{row: cell} of puzzles whose rule is of neither sort, by the last policy and untouched."""
    policy = few_shot.load_policy("bundled", seed)
    third, first = puzzles.load_puzzles(FOLDER / "puzzles_neither.json"), policy.weights()
    policy.load(weights)
    texts = write_self_edits(policy, puzzles, [(puzzle, 0) for puzzle in third], (seed, "neither"))
    policy.load(first)
    rows = {}
    for arm, edits in ((LAST, texts), ("as they are", [puzzles.recipe_text()] * len(third))):
        rewards = [trial.reward for trial in run_trials(policy, puzzles, list(zip(third, edits)))]
        rows[f"rules of neither sort, {arm}"] = f"{100 * sum(rewards) / len(rewards):.1f}"
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--folder", type=Path, default=Path("runs/puzzles"))
    args = parser.parse_args()
    table = {}
    for seed in args.seeds:
        folder = args.folder / str(seed)
        if not (folder / "results.json").exists():
            words = ["--task", "puzzles", "--held-out", str(HELD_OUT), "--seed", str(seed)]
            words += ["--iterations", str(ITERATIONS)]
            run_command([*words, "--output", str(folder)])
        table[seed] = rows_of(folder, seed)
    print("| figure | " + " | ".join(f"seed {seed}" for seed in table) + " |")
    print("|---" * (1 + len(table)) + "|")
    for row in next(iter(table.values())):
        print(f"| {row} | " + " | ".join(cells.get(row, "–") for cells in table.values()) + " |")


if __name__ == "__main__":
    main()
