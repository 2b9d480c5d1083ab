"""python -m sealkit: SEAL from loading in 4 bits to the table of arms on passages that no policy
has seen."""

import argparse
import shlex
import sys
import time
from itertools import islice
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

from . import compare, environment, estimate_run, load_passages, load_quantized
from .api import recipe_of
from .loading import BUNDLED_MODEL, choose, weight_bytes
from .memo import RunError, write_json
from .outer_loop import History, memo_of, seal
from .policy import Policy, attach_policy
from .report import excerpt, plot_comparison, plot_rewards
from .tasks import knowledge
from .tasks.passages import source_for


def count(text):
    """A number from 1 on, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def arguments_of(words):
    """The command line's arguments, with `command`, the words that would go on with the run."""
    parser = argparse.ArgumentParser(prog="python -m sealkit", description=__doc__)
    add = parser.add_argument
    add("--model", help="'bundled', a folder or a hub id (default: $SEALKIT_MODEL, else bundled)")
    add(
        "--data",
        metavar="squad|FILE",
        help="'bundled', 'squad', or a JSON or JSONL file of passages, of which the last "
        "titles, a quarter, are held out (default: $SEALKIT_DATA, else what goes with the model)",
    )
    add("--seed", type=int, default=0)
    add("--iterations", type=count, default=2, help="ReSTEM iterations (default: %(default)s)")
    add(
        "--self-edits",
        type=count,
        default=5,
        metavar="K",
        help="self-edits per passage (default: %(default)s)",
    )
    add(
        "--passages",
        type=count,
        default=40,
        metavar="N",
        help="training passages (default: %(default)s)",
    )
    add(
        "--held-out",
        type=count,
        default=60,
        metavar="N",
        help="test passages of the table (default: %(default)s)",
    )
    add(
        "--styles",
        action="store_true",
        help="add an arm for each single style of prompt, without RL",
    )
    add(
        "--output",
        type=Path,
        help="the run's folder; one that holds a run already goes on where it stopped (default: "
        "the next free runs/N)",
    )
    args = parser.parse_args(words)
    args.command = ["python", "-m", "sealkit", *(sys.argv[1:] if words is None else words)]
    if args.output is None:
        args.output = next(
            path for n in range(1, sys.maxsize) if not (path := Path("runs") / str(n)).exists()
        )
        args.command += ["--output", str(args.output)]
    return args


def main(words=None):
    """The command line; returns the exit status: 2 and one sentence on stderr for bad input."""
    args, status = arguments_of(words), 2
    try:
        return run(args)
    except torch.OutOfMemoryError:
        said = (
            "memory ran out, even with one self-edit at a time: free the GPU of other programs, or take a smaller "
            "model with --model. What was finished is kept."
        )
    except KeyboardInterrupt:
        status, said = (
            130,
            f"stopped; nothing that was finished is lost. To go on: {shlex.join(args.command)}",
        )
    except (ValueError, OSError, SetupError, RunError, FloatingPointError) as error:
        said = error
    print(f"python -m sealkit: {said}", file=sys.stderr)
    return status


class SetupError(Exception):
    """Model or data could not be had on this machine; the message names the remedy."""


def run(args):
    """One run as `args` say; prints its story, writes the run folder with table and figure."""
    start, choice = time.time(), choose(args.model)
    try:
        model, tokenizer = load_quantized(args.model)
        data = args.data or source_for(args.model)
        train, test = (
            load_passages(data, "train", args.passages),
            load_passages(data, "test", args.held_out),
        )
    except RuntimeError as error:
        raise SetupError(error) from error
    tell_setup(args, choice, model, data, train, test)
    recipe, k, seed = recipe_of(model, tokenizer), args.self_edits, args.seed
    styles = recipe.prompts.styles if args.styles else ()
    if not (args.output / "run.json").exists():
        exams = len(test) * (args.iterations + len(styles) + 3)
        print(estimate_run(model, tokenizer, train, args.iterations, k, exams))
    policy, iterations = Policy(attach_policy(model, recipe, seed), tokenizer, recipe), []
    with memo_of(args.output, policy, knowledge, train, k, seed) as memo:
        for iteration in islice(seal(policy, knowledge, train, k, seed, memo), args.iterations):
            iterations.append(iteration)
            print(iteration, flush=True)
        history = History(policy.model, memo["policy", 0]["weights"], tuple(iterations))
        policies = {"self-edits before RL": history.start}
        policies |= {
            f"after iteration {iteration.number}": iteration.policy for iteration in iterations
        }
        comparison = compare(policy.model, tokenizer, test, policies, styles, seed, memo)
    tell_results(args, history, comparison)
    print(
        f"{time.time() - start:.0f} s in all. Trials, policies, scores and figure: {excerpt(str(args.output), 200)}"
    )


def tell_setup(args, choice, model, data, train, test):
    """Print what is run on what."""
    held, plain = weight_bytes(model)
    name = "the bundled Mistral" if choice.path == BUNDLED_MODEL else choice.path
    print(environment(args.model))
    fewer = "".join(
        f" (--{option} {wanted} were asked for)"
        for option, wanted, there in (
            ("passages", args.passages, train),
            ("held-out", args.held_out, test),
        )
        if len(there) < wanted and (args.passages, args.held_out) != (40, 60)
    )
    print(f"Passages: {len(train)} of {data} to train on, {len(test)} others to test on{fewer}.")
    print(
        f"Loading {name} in 4 bits (NF4, double quantization): {held / 1e6:.2f} MB of weights, "
        f"{plain / 1e6:.2f} MB in 16 bits."
    )


def tell_results(args, history, comparison):
    """Print the table of arms and what the last policy is better by; write both, and the figure,
    into the folder."""
    final = list(comparison.scores)[-2 if "oracle" in comparison.scores else -1]
    print(
        f"On {len(next(iter(comparison.scores.values())))} passages that no policy has seen, one self-edit each:"
    )
    print(comparison)
    for other in comparison.scores:
        if other == "self-edits before RL" or other.startswith("prompt for"):
            mean, low, high = (100 * value for value in comparison.difference(final, other))
            print(f"{final} − {other}: {mean:+.1f} points, 95% interval [{low:+.1f}, {high:+.1f}]")
    write_json(args.output / "results.json", {"accuracy": comparison.scores})
    matplotlib.use("Agg")
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.2), width_ratios=(2, 3), layout="constrained"
    )
    plot_rewards(history, left).set_title("training passages", fontsize="medium")
    plot_comparison(comparison, right)
    figure.savefig(args.output / "figure.png", dpi=120)


if __name__ == "__main__":
    sys.exit(main())
