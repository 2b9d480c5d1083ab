"""python -m sealkit: SEAL from loading in 4 bits to the table of arms on held-out passages, on the bundled model or a real one."""

import argparse
import shlex
import sys
import time
from pathlib import Path

import matplotlib
import torch

from . import compare, environment, estimate_run, load_passages, load_quantized, run_seal
from .loading import BUNDLED_MODEL, choose, weight_bytes
from .outer_loop import excerpt
from .plots import plot_comparison, plot_rewards
from .prompts import prompts_for
from .runs import RunError
from .tasks.passages import source_for


def main(arguments=None):
    """The command line; returns the exit status: 2 and one sentence on stderr for bad input."""
    parser = argparse.ArgumentParser(prog="python -m sealkit", description=__doc__)
    parser.add_argument("--model", help="'bundled', a folder or a hub id (default: what this machine can carry)")
    parser.add_argument("--data", metavar="squad|FILE", help="'bundled', 'squad', or a file of passages (JSON, JSONL or Parquet), of which the last "
                        "titles, a quarter, are held out (default: $SEALKIT_DATA, else bundled for the bundled model, else squad)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=2, help="ReSTEM iterations (default: %(default)s)")
    parser.add_argument("--self-edits", type=int, default=5, metavar="K", help="self-edits per passage (default: %(default)s)")
    parser.add_argument("--passages", type=int, default=40, metavar="N", help="training passages (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=60, metavar="N", help="test passages of the table (default: %(default)s)")
    parser.add_argument("--styles", action="store_true", help="add an arm for each single style of prompt, without RL")
    parser.add_argument("--output", type=Path, help="the run's folder; one that holds a run already goes on where it stopped (default: "
                        "the next free runs/N)")
    args = parser.parse_args(arguments)
    command = ["python", "-m", "sealkit", *(sys.argv[1:] if arguments is None else arguments)]
    if args.output is None:
        args.output = next(path for n in range(1, sys.maxsize) if not (path := Path("runs") / str(n)).exists())
        command += ["--output", str(args.output)]
    try:
        run(args)
    except (ValueError, OSError, SetupError, RunError, FloatingPointError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError:
        print(f"{parser.prog}: memory ran out, even with one self-edit at a time: free the GPU of other programs, or take a smaller model with --model. "
              "What was finished is kept.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped; nothing that was finished is lost. To go on: {shlex.join(command)}", file=sys.stderr)
        return 130


def run(args):
    """One run as `args` say; prints its story, writes the run folder with table and figure."""
    start = time.time()
    choice = choose(args.model)
    data = args.data or source_for(args.model)
    try:
        train, test = load_passages(data, "train", args.passages), load_passages(data, "test", args.held_out)
        model, tokenizer = load_quantized(args.model)
    except RuntimeError as error:
        raise SetupError(error) from error
    held, plain = weight_bytes(model)
    name = "the bundled Mistral" if choice.path == BUNDLED_MODEL else choice.path
    print(environment(args.model))
    print(f"Passages: {len(train)} of {data} to train on, {len(test)} others to test on.")
    print(f"Loading {name} in 4 bits (NF4, double quantization): {held / 1e6:.2f} MB of weights, {plain / 1e6:.2f} MB in 16 bits.")
    styles = prompts_for(tokenizer).styles if args.styles else ()
    if not (args.output / "run.json").exists():
        print(estimate_run(model, tokenizer, train, args.iterations, args.self_edits, exams=len(test) * (args.iterations + len(styles) + 3)))
    history = run_seal(model, tokenizer, train, args.iterations, args.self_edits, args.output, args.seed, log=print, progress=True)
    policies = {"self-edits before RL": history.start}
    policies |= {f"after iteration {iteration.number}": iteration.policy for iteration in history.iterations}
    print(f"\nThe same for {len(test)} passages that no policy has seen, one self-edit each:")
    comparison = compare(
        history.policy, tokenizer, test, policies, seed=args.seed, styles=styles, progress="held-out passages", save_to=args.output / "results.json"
    )
    print(comparison)
    final = list(policies)[-1]
    others = ["self-edits before RL", *(arm for arm in comparison.scores if arm.startswith("prompt for"))]
    for other in others:
        mean, low, high = (100 * value for value in comparison.difference(final, other))
        print(f"{final} − {other}: {mean:+.1f} points, 95% interval [{low:+.1f}, {high:+.1f}]")
    draw(history, comparison, args.output / "figure.png")
    print(f"{time.time() - start:.0f} s in all. Trials, policies, scores and figure: {excerpt(str(args.output), 200)}")


class SetupError(Exception):
    """Model or data could not be had on this machine; the message names the remedy."""


def draw(history, comparison, path):
    """The run's figure: rewards in training, arms on held-out passages."""
    matplotlib.use("Agg")
    figure, (left, right) = matplotlib.pyplot.subplots(1, 2, figsize=(12, 4.2), width_ratios=(2, 3), layout="constrained")
    plot_rewards(history, left).set_title("training passages", fontsize="medium")
    plot_comparison(comparison, right)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
