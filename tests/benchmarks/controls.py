"""What does the reward find that no prompt, no decoding and no count of lines finds?

Runs `python -m sealkit --controls --held-out 120` with several seeds, each in its own folder (a
run that is there already goes on), and prints their arms side by side in Markdown: means over
passages, differences with 95% bootstrap intervals paired by passage, and an interval over seeds.

python tests/benchmarks/controls.py [--seeds 5] [--iterations 2] [--folder runs/controls]
"""

import argparse
from pathlib import Path
from statistics import mean, stdev

from sealkit.cli.main import main as sealkit_main
from sealkit.cli.record import read_record

STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 8: 2.365, 10: 2.262}  # 97.5%, by n


def over_seeds(values):
    """Mean and 95% interval of Student's t over seeds, in points, as text; of one seed, nothing."""
    if len(values) == 1:
        return ""
    half = STUDENT[len(values)] * stdev(values) / len(values) ** 0.5
    return f"{mean(values):+.1f} [{mean(values) - half:+.1f}, {mean(values) + half:+.1f}]"


def points(triple):
    """(mean, low, high) in points, as text; bold where the interval is above 0."""
    middle, low, high = (100 * value for value in triple)
    text = f"{middle:+.1f}"
    return (f"**{text}**" if low > 0 else text) + f" [{low:+.1f}, {high:+.1f}]"


def print_tables(records):
    """The arms' accuracy and cost, and the last policy's lead over each."""
    seeds = " | ".join(f"seed {record.settings['seed']}" for record in records)
    line = "|---|" + "---|" * (len(records) + 1)
    last = records[0].last
    print(f"| accuracy, % | {seeds} | texts, tokens |\n{line}")
    for arm in records[0].arms:
        cells = [f"{100 * record.comparison.accuracy(arm)[0]:.1f}" for record in records]
        costs = [record.comparison.costs.get(arm) for record in records]
        cost = f"{costs[0][0]:.0f}, {mean(c[1] for c in costs):.0f}" if all(costs) else ""
        print(f"| {arm} | {' | '.join(cells)} | {cost} |")
    print(f"\n| {last} minus, points | {seeds} | over seeds |\n{line}")
    for arm in records[0].arms:
        found = [record.comparison.difference(last, arm) for record in records]
        if arm != last:
            total = over_seeds([100 * middle for middle, *_ in found])
            print(f"| {arm} | {' | '.join(map(points, found))} | {total} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seeds", type=int, default=5, choices=STUDENT)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/controls"))
    parser.add_argument("--model", default="bundled")
    args = parser.parse_args()
    folders = [args.folder / f"{seed}" for seed in range(args.seeds)]
    for seed, folder in enumerate(folders):
        words = f"--controls --held-out 120 --iterations {args.iterations} --seed {seed}".split()
        words += ["--model", args.model, "--data", "bundled", "--output", str(folder)]
        if status := sealkit_main(words):
            raise SystemExit(status)
    print_tables([read_record(folder) for folder in folders])


if __name__ == "__main__":
    main()
