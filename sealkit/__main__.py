"""python -m sealkit: SEAL on the bundled model, from loading in 4 bits to the table of arms on held-out passages."""

import argparse
import json
import sys
import time
from pathlib import Path

import matplotlib

from . import compare, load_passages, load_quantized, run_seal
from .loading import weight_bytes
from .outer_loop import excerpt
from .plots import plot_comparison, plot_rewards
from .self_edits import STYLES


def main(arguments=None):
    """The command line; returns the exit status: 2 and one sentence on stderr for bad input."""
    parser = argparse.ArgumentParser(prog="python -m sealkit", description=__doc__)
    parser.add_argument("--model", help="a folder or hub id instead of the bundled model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=2, help="ReSTEM iterations (default: %(default)s)")
    parser.add_argument("--self-edits", type=int, default=5, metavar="K", help="self-edits per passage (default: %(default)s)")
    parser.add_argument("--passages", type=int, default=40, metavar="N", help="training passages (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=60, metavar="N", help="test passages of the table (default: %(default)s)")
    parser.add_argument("--styles", action="store_true", help="add an arm for each single style of prompt, without RL")
    parser.add_argument("--output", type=Path, help="a new folder for the run (default: the next free runs/N)")
    args = parser.parse_args(arguments)
    try:
        run(args)
    except (ValueError, FileExistsError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def run(args):
    """One run as `args` say; prints its story, writes the run folder with table and figure."""
    start = time.time()
    output = args.output or next(path for n in range(1, sys.maxsize) if not (path := Path("runs") / str(n)).exists())
    train = load_passages("bundled", "train", args.passages)
    test = load_passages("bundled", "test", args.held_out)
    model, tokenizer = load_quantized(args.model)
    held, plain = weight_bytes(model)
    name = args.model or "the bundled Mistral"
    print(f"Loading {name} in 4 bits (NF4, double quantization): {held / 1e6:.2f} MB of weights, {plain / 1e6:.2f} MB in 16 bits.")
    history = run_seal(model, tokenizer, train, args.iterations, args.self_edits, output, args.seed, log=print, progress=True)
    policies = {"self-edits before RL": history.start}
    policies |= {f"after iteration {iteration.number}": iteration.policy for iteration in history.iterations}
    print(f"\nThe same for {len(test)} passages that no policy has seen, one self-edit each:")
    comparison = compare(
        history.policy, tokenizer, test, policies, seed=args.seed, styles=STYLES if args.styles else (), progress="held-out passages"
    )
    print(comparison)
    final = list(policies)[-1]
    others = ["self-edits before RL", *(arm for arm in comparison.scores if arm.startswith("prompt for"))]
    for other in others:
        mean, low, high = (100 * value for value in comparison.difference(final, other))
        print(f"{final} − {other}: {mean:+.1f} points, 95% interval [{low:+.1f}, {high:+.1f}]")
    (output / "results.json").write_text(json.dumps(comparison.scores, indent=1) + "\n", encoding="utf-8")
    draw(history, comparison, output / "figure.png")
    print(f"{time.time() - start:.0f} s in all. Trials, policies, scores and figure: {excerpt(str(output), 200)}")


def draw(history, comparison, path):
    """The run's figure: rewards in training, arms on held-out passages."""
    matplotlib.use("Agg")
    figure, (left, right) = matplotlib.pyplot.subplots(1, 2, figsize=(12, 4.2), width_ratios=(2, 3), layout="constrained")
    plot_rewards(history, left).set_title("training passages", fontsize="medium")
    plot_comparison(comparison, right)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
