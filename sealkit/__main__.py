"""python -m sealkit: SEAL, from loading in 4 bits to the table of arms on passages held out."""

import argparse
import shlex
import sys
import time
from itertools import islice
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

from . import can_read, compare, environment, estimate_run, few_shot, load_passages, load_quantized
from .api import recipe_of
from .loading import weight_bytes
from .memo import RunError, write_json
from .outer_loop import History, memo_of, seal
from .policy import Policy, attach_policy
from .report import excerpt, plot_comparison, plot_rewards
from .tasks import knowledge
from .tasks.passages import source_for

HELP = {
    "model": "'bundled', a folder or a hub id (default: $SEALKIT_MODEL, else bundled)",
    "data": "'bundled', 'squad', or a file of passages, of which the last titles, a quarter, are "
    "held out (default: $SEALKIT_DATA, else what goes with the model)",
    "seed": "of all that is drawn (default: 0)",
    "iterations": "ReSTEM iterations (default: 2)",
    "self-edits": "self-edits per passage (default: 5)",
    "passages": "training passages, at most (default: 40)",
    "held-out": "test passages of the table, at most (default: 60)",
    "styles": "add an arm for each single style of prompt, without RL",
    "task": "'knowledge', passages (default), or 'puzzles', few-shot puzzles; then --data is "
    "'bundled' or ARC's JSON, and a self-edit a training recipe",
    "output": "the run's folder; one that holds it already goes on (default: the next runs/N)",
}
OUT_OF_MEMORY = (
    "memory ran out, even with one self-edit at a time: free the GPU of other programs, or take a "
    "smaller model with --model. What was finished is kept."
)


class SetupError(Exception):
    """Model or data could not be had on this machine; the message names the remedy."""


def main(words=None):
    """The command line; returns the exit status: 2 and one sentence on stderr for bad input."""
    args, status = arguments(words), 2
    try:
        return (few_shot.run if args.task == "puzzles" else run)(args)
    except torch.OutOfMemoryError:
        said = OUT_OF_MEMORY
    except (ValueError, OSError, SetupError, RunError, FloatingPointError) as error:
        said = error
    except KeyboardInterrupt:
        again = ["python", "-m", "sealkit", *(sys.argv[1:] if words is None else words)]
        again += [] if "--output" in " ".join(again) else ["--output", str(args.output)]
        status, said = 130, f"nothing that was finished is lost; to go on: {shlex.join(again)}"
    print(f"python -m sealkit: {said}", file=sys.stderr)
    return status


def arguments(words):
    """The command line, parsed: numbers that make no run are refused before anything is loaded."""

    def number(text):
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
        return int(text)

    parser = argparse.ArgumentParser(prog="python -m sealkit", description=__doc__)
    parser.add_argument("--model", help=HELP["model"])
    parser.add_argument("--data", metavar="squad|FILE", help=HELP["data"])
    parser.add_argument("--seed", type=int, default=0, help=HELP["seed"])
    sizes = {"iterations": 2, "self-edits": 5, "passages": 40, "held-out": 60}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=number, default=default, metavar="N", help=HELP[name])
    parser.add_argument("--styles", action="store_true", help=HELP["styles"])
    tasks = "knowledge", "puzzles"
    parser.add_argument("--task", choices=tasks, default="knowledge", help=HELP["task"])
    parser.add_argument("--output", type=Path, help=HELP["output"])
    args = parser.parse_args(words)
    if args.data not in (None, "bundled", "squad") and not Path(args.data).is_file():
        parser.error(f"argument --data: there is no file {args.data!r}")
    free = (path for n in range(1, sys.maxsize) if not (path := Path("runs") / str(n)).exists())
    args.output = args.output or next(free)
    return args


def load(args):
    """Model, tokenizer, passages to train on and to test on; prints what they are."""
    try:
        model, tokenizer = load_quantized(args.model)
        data = args.data or source_for(args.model)
        train = load_passages(data, "train", args.passages)
        test = load_passages(data, "test", args.held_out)
    except RuntimeError as error:
        raise SetupError(error) from error
    held, plain = (f"{count / 1e6:.2f}" for count in weight_bytes(model))
    print(environment(args.model))
    print(f"In 4 bits (NF4, double quantization): {held} MB of weights, {plain} in 16 bits.")
    print(f"Passages of {data}: {len(train)} to train on, {len(test)} others to test on.")
    sizes = ("passages", args.passages, train), ("held-out", args.held_out, test)
    for name, asked, there in sizes:
        if len(there) < asked:
            print(f"(--{name} {asked}: there are {len(there)}.)")
    return model, tokenizer, train, test


def run(args):
    """One run as `args` say; prints its story, writes the run folder with table and figure."""
    start = time.time()
    model, tokenizer, train, test = load(args)
    recipe, k, seed = recipe_of(model, tokenizer), args.self_edits, args.seed
    styles = recipe.prompts.styles if args.styles else ()
    if not (args.output / "run.json").exists():
        exams = len(test) * (args.iterations + len(styles) + 3)
        print(estimate_run(model, tokenizer, train, args.iterations, k, exams))
        print(can_read(model, tokenizer, train), flush=True)
    policy, done = Policy(attach_policy(model, recipe, seed), tokenizer, recipe), []
    with memo_of(args.output, policy, knowledge, train, k, seed) as memo:
        for iteration in islice(seal(policy, knowledge, train, k, seed, memo), args.iterations):
            done.append(iteration)
            print(iteration, flush=True)
        history = History(policy.model, memo["policy", 0]["weights"], tuple(done))
        policies = {"self-edits before RL": history.start}
        policies |= {f"after iteration {one.number}": one.policy for one in done}
        comparison = compare(policy.model, tokenizer, test, policies, styles, seed, memo)
    print(f"On {len(test)} passages that no policy has seen, one self-edit each:\n{comparison}")
    final = list(policies)[-1]
    for other in [arm for arm in comparison.scores if arm.endswith((" RL", "no RL"))]:
        mean, low, high = (100 * value for value in comparison.difference(final, other))
        print(f"{final} − {other}: {mean:+.1f} points, 95% interval [{low:+.1f}, {high:+.1f}]")
    write_json(args.output / "results.json", {"accuracy": comparison.scores})
    draw(history, comparison, args.output / "figure.png")
    print(f"{time.time() - start:.0f} s in all. Everything is in {excerpt(str(args.output), 200)}.")


def draw(history, comparison, path):
    """The run's figure: rewards in training, arms on held-out passages."""
    matplotlib.use("Agg")
    _, axes = plt.subplots(1, 2, figsize=(12, 4.2), width_ratios=(2, 3), layout="constrained")
    plot_rewards(history, axes[0]).set_title("training passages", fontsize="medium")
    plot_comparison(comparison, axes[1]).figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
