"""SEAL, from loading a model in 4 bits to a table of arms on held-out passages."""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib

from ..continual.remedies import REMEDIES
from ..continual.stream import draw_streams, study
from ..estimate import estimate_run, estimate_streams
from ..evaluation import Arms, add_arms
from ..evaluation.controls import add_controls
from ..evaluation.together import Together
from ..loading import load_quantized, weight_bytes
from ..models.choice import environment, model_name
from ..models.text import encode
from ..models.unpacking import quantization
from ..outer_loop import Iteration, format_log, seal
from ..policy import Policy, Weights, attach_policy
from ..runs.cache import Cache
from ..runs.errors import explain
from ..runs.files import RunError, os_errors_as_run_error, write_json, write_text
from ..runs.folder import check_mounted, new_run_folder
from ..runs.identity import open_run_cache
from ..runs.processes import distributed_state, run_alone
from ..tasks import Domain, knowledge, puzzles
from ..tasks.diagnosis import diagnose
from ..tasks.few_shot import compare_recipes, count_fixed
from ..tasks.passages import load_passages, source_for
from .minutes import format_minutes
from .page import command_of, draw_record, format_results, format_rows, wrap, write_page
from .record import BEFORE, note_command, read_record
from .rows import count_styles, format_header, format_row
from .talk import talk
from .web import serve

HELP = {
    "model": "'bundled', 'smollm2', a folder or a hub id (default: $SEALKIT_MODEL, else bundled)",
    "data": "'bundled', 'squad', or a file of passages, of which the last titles, a quarter, are "
    "held out (default: $SEALKIT_DATA, else what goes with the model)",
    "test-data": "a file whose passages are held out, all of --data then being to train on",
    "seed": "of all that is drawn (default: 0)",
    "iterations": "ReSTEM iterations (default: 2; 3 for puzzles)",
    "self-edits": "self-edits per passage (default: 5)",
    "passages": "training passages, at most (default: 40; 60 puzzles)",
    "held-out": "test passages of the table, at most (default: 60)",
    "styles": "add an arm for each single style of prompt, without RL",
    "controls": "add what might do as well: greedy text, longest of five, ReSTEM without reward",
    "together": "let N held-out passages share one adapter (default: each has its own)",
    "task": "'knowledge', passages (default); 'puzzles', whose self-edits are training recipes "
    "(--data is then 'bundled' or ARC's JSON); 'stream', passages learned for good, in turn",
    "streams": "streams of eight test passages, with --task stream (default: 16)",
    "verbose": "print what log.txt holds too: a line for each self-edit",
    "output": "the run's folder; one that holds it already goes on (default: the next runs/N)",
    "estimate": "print the minutes on a Colab GPU with Mistral-7B, computed, and load nothing",
    "show": "print and draw a past run, from its folder alone",
    "ask": "let the policy of a past run study a passage held out, and ask it questions",
    "passage": "which of the passages held out (default: 1)",
    "web": "as a page in the browser, on which one can edit self-edits and let them be learned",
}
SIZES = {"iterations": 2, "self-edits": 5, "passages": 40, "held-out": 60, "streams": 16}
RUN, LOG = ("model", "data", "test-data", "seed", "task"), ("verbose", "output")
LOOP = "iterations", "self-edits", "passages", "held-out"
USED: dict[str, tuple[str, ...]] = {  # the options that each task and command goes by
    "--task knowledge": (*RUN, *LOOP, "styles", "controls", "together", *LOG),
    "--task stream": (*RUN, "streams", "held-out", *LOG),
    "--task puzzles": (*RUN, *LOOP, *LOG),
    "estimate": LOOP,
    "show": (),
    "ask": ("passage", "web"),
}
EXAMPLES = """examples:
  python -m sealkit                         the bundled model on its own world
  python -m sealkit --held-out 120 --styles --seed 1
  python -m sealkit --output runs/1 --iterations 3       go on with runs/1
  python -m sealkit --data mine.jsonl --passages 20
  python -m sealkit --task stream           passages learned for good, in turn
  python -m sealkit --task puzzles          self-edits are training recipes
  python -m sealkit --model smollm2 --data mine.jsonl    a real model on a CPU
  python -m sealkit --model mistralai/Mistral-7B-v0.1    a GPU of 14 GiB, SQuAD
  python -m sealkit --passages 10 --self-edits 3 --iterations 1 estimate
  python -m sealkit show runs/1
  python -m sealkit ask runs/1 --passage 2
  python -m sealkit ask runs/1 --web
"""
NAME = max(map(len, REMEDIES))  # columns
LONG, DIAGNOSED = 10, 8  # minutes from which a run is diagnosed before; on so many passages
OPTIONS = {"k": "--self-edits", "seed": "--seed", "model": "--model"}
OPTIONS |= {"items": "what --data and --passages give"}  # as `describe_differences` names them


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status.

    It is 2, with one sentence on stderr, for bad input and for what the machine lacks.
    """
    matplotlib.use("Agg")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not so in a notebook or a test
            stream.reconfigure(errors="replace")  # a terminal or a pipe may know no arrows
    args = parse_arguments(words)
    try:
        if args.act in (show, ask, estimate):
            run_alone()
        elif distributed_state().process_index:  # the first process prints
            sys.stdout = open(os.devnull, "w")
        args.act(args)
        return 0
    except (KeyboardInterrupt, BrokenPipeError) as error:
        if isinstance(error, BrokenPipeError):  # as of `| head`: nothing is to be flushed there
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if args.act in (show, ask, estimate):
            return 130
        again = ["python", "-m", "sealkit", *(sys.argv[1:] if words is None else words)]
        if args.output and "--output" not in " ".join(again):
            again += ["--output", str(args.output)]
        status, message = 130, f"nothing that was finished is lost; to go on: {shlex.join(again)}"
    except Exception as error:
        own = isinstance(error, (ValueError, RunError, FloatingPointError))
        sentence = str(error) if own else explain(error)
        if sentence is None and not isinstance(error, OSError):
            raise
        name = rf"(?<=[(;] |.\()\b({'|'.join(OPTIONS)})(?= is .* there and )"
        status, message = 2, re.sub(name, lambda match: OPTIONS[match[1]], sentence or str(error))
    print(f"python -m sealkit: {message}", file=sys.stderr)
    return status


def positive_int(text: str) -> int:
    """A whole number from 1 on, or argparse's error."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def data_source(text: str) -> str:
    """Where passages come from, or argparse's error."""
    if text not in ("bundled", "squad") and not Path(text).exists():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return text


def parse_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; words that make no run are refused, the first such word first."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m sealkit", description=__doc__, epilog=EXAMPLES, formatter_class=raw
    )
    parser.set_defaults(act=run)
    parser.add_argument("--model", help=HELP["model"])
    parser.add_argument("--data", type=data_source, metavar="squad|FILE", help=HELP["data"])
    parser.add_argument("--test-data", type=data_source, metavar="FILE", help=HELP["test-data"])
    parser.add_argument("--seed", type=int, help=HELP["seed"])
    for name in (*SIZES, "together"):
        parser.add_argument(f"--{name}", type=positive_int, metavar="N", help=HELP[name])
    for name in ("styles", "controls", "verbose"):
        parser.add_argument(f"--{name}", action="store_true", default=None, help=HELP[name])
    parser.add_argument("--task", choices=("knowledge", "puzzles", "stream"), help=HELP["task"])
    parser.add_argument("--output", type=Path, help=HELP["output"])
    commands = parser.add_subparsers(title="commands", metavar="estimate|show|ask", dest="command")
    for name, act in {"estimate": estimate, "show": show, "ask": ask}.items():
        command = commands.add_parser(name, help=HELP[name], description=HELP[name])
        command.set_defaults(act=act)
        if act is not estimate:
            command.add_argument("folder", type=Path, help="the run's folder, such as runs/1")
    command.add_argument("--passage", type=positive_int, metavar="N", help=HELP["passage"])
    command.add_argument("--web", action="store_true", default=None, help=HELP["web"])
    words = sys.argv[1:] if words is None else words
    check_spelling(parser, words)
    args = parser.parse_args(words)
    fill_in(parser, args)
    known = args.data in (None, "bundled", "squad") or Path(args.data).is_file()
    if not known and args.task != "puzzles":  # which may be a folder, too
        parser.error(f"argument --data: there is no file {args.data!r}")
    args.domain = puzzles if args.task == "puzzles" else knowledge
    args.act = run_stream if args.task == "stream" else args.act
    return args


def check_spelling(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """End with argparse's error at the first word that is no option, or the start of one."""
    known = ["--help", *(f"--{name}" for name in dict.fromkeys(sum(USED.values(), ())))]
    for word in words:
        name = word.partition("=")[0]
        if word.startswith("--") and not any(option.startswith(name) for option in known):
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else "--help lists all."
            parser.error(f"there is no option {name}: {hint}")


def fill_in(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Put defaults where nothing is given; end with argparse's error where nothing would use it."""
    what = args.command or f"--task {args.task or 'knowledge'}"
    defaults: dict[str, Any] = {"seed": 0, "task": "knowledge", "passage": 1} | SIZES
    if args.task == "puzzles":
        defaults |= {"passages": 60, "iterations": 3}
    for name in dict.fromkeys(sum(USED.values(), ())):
        place = name.replace("-", "_")
        if getattr(args, place, None) is None:
            setattr(args, place, defaults.get(name))
        elif name not in USED[what]:
            parser.error(f"argument --{name}: {what} does not use it; leave it out")


def load_inputs(args: argparse.Namespace, log: Log) -> tuple[Policy, list[Any], list[Any]]:
    """Load the policy, items to train on and items to test on, and log what they are."""
    name, task, others = args.model, args.domain, "others"
    read: Callable[..., list[Any]] = load_passages
    if task is puzzles:
        name = "puzzles" if model_name(name) == "bundled" else name
        args.data, read = args.data or "bundled", puzzles.load_puzzles
        others = "of other families" if args.data == "bundled" else "others"
    args.data = args.data or source_for(name)
    model, tokenizer = load_quantized(name)
    apart = args.test_data is not None
    train = read(args.data, None if apart else "train", args.passages)
    test = read(args.test_data or args.data, None if apart else "test", args.held_out)
    if both := {task.name(item) for item in train} & {task.name(item) for item in test}:
        raise ValueError(
            f"{len(both)} {task.NOUN}s are in --data and in --test-data, {min(both)[0]!r} for one: "
            "what is tested must not have been trained on."
        )
    held, plain = (f"{count / 1e6:.2f}" for count in weight_bytes(model))
    log(environment(name))
    log(f"In 4 bits ({quantization(model)}): {held} MB of weights, {plain} in 16 bits.")
    items = f"{task.NOUN}s of {args.data}".capitalize()
    sizes = [("passages", args.passages, train), ("held-out", args.held_out, test)]
    if args.task == "stream":
        sizes = sizes[1:]
        log(f"{items}: {len(test)} of the test split, from which the streams are drawn.")
    else:
        log(f"{items}: {len(train)} to train on, {len(test)} {others} to test on.")
    for option, most, loaded in sizes:
        if len(loaded) < most:
            log(f"(--{option} {most}: there are {len(loaded)}, all are taken.)")
    config = task.config_for(tokenizer)
    if task is puzzles:
        expected, config = config.answer_tokens, puzzles.with_room(config, tokenizer, train + test)
        if config.answer_tokens > expected:
            log(
                f"The longest output takes {config.answer_tokens} tokens, and answers may now be "
                f"that long: a model that has only written {expected} will hardly solve such grids."
            )
    policy = Policy(attach_policy(model, config, args.seed), tokenizer, config)
    log_limits(policy, task, [*train, *test], log)
    return policy, train, test


def log_limits(policy: Policy, task: Domain[Any], items: Sequence[Any], log: Log) -> None:
    """Log how many items have more tokens than are trained on, or than an answer may have."""

    def count(text: str) -> int:
        return len(encode(policy.tokenizer, [text])[0])

    config = policy.config
    most = config.max_tokens // (2 if task is knowledge else 1)
    lengths = [sum(map(count, task.lesson(i, "", config).part(0).texts)) for i in items]
    if long := sum(length > most for length in lengths):
        log(
            f"{long} of {len(items)} {task.NOUN}s have more than {most} tokens: they are cut where "
            f"what is trained on has more than {config.max_tokens}, as the rows will count."
        )
    if task is knowledge:
        shortest = [min(count(f" {a}") for a in q.answers) for i in items for q in i.questions]
        if long := sum(length > config.answer_tokens for length in shortest):
            log(
                f"{long} of {len(shortest)} questions have answers longer than the "
                f"{config.answer_tokens} tokens that are written (`answer_tokens`): they can "
                "hardly be answered right."
            )


class Log:
    """Prints each message, and keeps all of them, in full, for a run's log.txt."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self.messages: list[str] = []
        self.start = time.time()

    def __call__(self, short: str, full: str | None = None) -> None:
        """Print `short`, or with --verbose `full`; keep `full`."""
        self.messages.append(full or short)
        print(full if self.verbose and full else wrap(short), flush=True)

    def save(self, folder: Path) -> None:
        """Write all messages to the folder's log.txt. Raises RunError."""
        write_text(folder / "log.txt", "\n".join(self.messages))


def run(args: argparse.Namespace) -> None:
    """Run SEAL, then its arms on held-out items: print a row an iteration, write the folder."""
    # 1. load, and estimate what the run will take
    log, seed, k = Log(args.verbose), args.seed, args.self_edits
    if args.output:
        check_mounted(args.output)
    policy, train, test = load_inputs(args, log)
    together = Together(args.together, seed=seed) if args.together else None
    if together:
        together.group(0, len(test))  # raises ValueError for more than there are
    args.output = args.output or new_run_folder()
    task, items, noun = args.domain, {"train": train, "test": test}, args.domain.NOUN
    styled = task is knowledge and (args.styles or args.controls)
    styles = policy.config.prompts.styles if styled else ()
    if not (args.output / "run.json").exists():
        loaded = policy.model, policy.tokenizer, train
        exams = (args.iterations + len(styles) + 3) * len(test)
        if task is puzzles:
            exams += count_fixed(len(train), len(test))
        estimated = estimate_run(*loaded, args.iterations, k, exams, task)
        log(str(estimated))
        if task is knowledge and estimated.minutes >= LONG:
            log(str(diagnose(policy, train[-DIAGNOSED:], k, seed)))

    # 2. SEAL: an iteration at a time, each in the log before the next begins
    with open_run_cache(args.output, policy, task, train, k, seed) as cache:
        note_command(args.output, run_options(args), **items)
        log(f"\n{format_header(task.KINDS, noun)}")
        policies: dict[str, Weights] = {}
        iterations: list[Iteration] = []
        for iteration in time_iterations(seal(policy, task, train, k, seed, cache), args, cache):
            styles_seen = count_styles(iteration, train, task)
            row = format_row(iteration, cache["seconds", iteration.number], styles_seen)
            log(row, f"{format_log(iteration, noun)}\n{row}")
            log.save(args.output)
            policies[f"after iteration {iteration.number}"] = iteration.weights
            iterations.append(iteration)

        # 3. compare all policies, and their rivals, on the held-out items
        policies = {BEFORE: cache["policy", 0]["weights"]} | policies
        if task is knowledge:
            arms = Arms(policy, task, test, seed, cache, together)
            add_arms(arms, policies, styles)
            if args.controls:
                add_controls(arms, train, iterations, policies, styles)
            comparison = arms.comparison
        else:
            comparison = compare_recipes(policy, train, test, policies, seed, cache)
    results = {"accuracy": comparison.scores, "notes": comparison.notes, "costs": comparison.costs}
    write_json(args.output / "results.json", results)
    write_reports(args.output, log)
    log(f"{time.time() - log.start:.0f} s in all.")
    log.save(args.output)


def run_stream(args: argparse.Namespace) -> None:
    """Learn streams of test passages for good, with each remedy against forgetting."""
    log = Log(args.verbose)
    policy, _, test = load_inputs(args, log)
    args.output, style = args.output or new_run_folder(), "questions"
    streams = draw_streams(test, args.streams, min(8, len(test)), args.seed)
    if not (args.output / "run.json").exists():
        log(str(estimate_streams(policy, streams, style)))
    for table in study(policy, knowledge, streams, args.output, args.seed, style):
        *_, remedy = table.rows
        if len(table.rows) == 1:
            note_command(args.output, run_options(args), test=test)
            log("\n" + "\n".join(table.head(NAME)))
        log(table.format_row(remedy, NAME))
        log.save(args.output)
    write_reports(args.output, log)
    log(f"{time.time() - log.start:.0f} s in all.")
    log.save(args.output)


def run_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a run that its folder remembers: {name on the command line: value}."""
    left_out = LOG + ("task",) * (args.task == "knowledge")
    names = [name for name in USED[f"--task {args.task}"] if name not in left_out]
    values = {name: getattr(args, name.replace("-", "_")) for name in names}
    return values | {"model": str(model_name(args.model))}


def time_iterations(
    iterations: Iterator[Iteration], args: argparse.Namespace, cache: Cache
) -> Iterator[Iteration]:
    """As many of the iterations as were asked for, their seconds stored in the cache."""
    begun = time.perf_counter()
    for iteration in islice(iterations, args.iterations):
        if (key := ("seconds", iteration.number)) not in cache:
            cache.update({key: time.perf_counter() - begun})
        yield iteration
        begun = time.perf_counter()


def show(args: argparse.Namespace) -> None:
    """Print a past run's command, rows and results; draw its figure and its page."""
    record = read_record(args.folder)
    print(wrap(f"{args.folder}:\n  {command_of(record)}\n"))
    if record.iterations:
        print("\n".join(format_rows(record)))
    elif not record.streams:
        print("No iteration is finished yet.")
    write_reports(args.folder, print)


def write_reports(folder: Path, log: Callable[[str], None]) -> None:
    """Log a run's results and how to go on; draw its figure and its page."""
    record = read_record(folder)
    log(f"\n{format_results(record)}\n")
    with os_errors_as_run_error(folder / "figure.png"):
        draw_record(record, folder / "figure.png")
    write_page(record, folder / "report.html")
    words = ("show", "ask") if record.test and record.task is knowledge else ("show",)
    again = "".join(f"\n  python -m sealkit {word} {shlex.quote(str(folder))}" for word in words)
    log(f"Open {folder / 'report.html'}, or go on with{again}")


def estimate(args: argparse.Namespace) -> None:
    """Print what a run with these options would take with Mistral-7B."""
    print(format_minutes(args.iterations, args.self_edits, args.passages, args.held_out))


def ask(args: argparse.Namespace) -> None:
    """Talk to the adapted model of a past run, in the terminal or on a page."""
    (serve if args.web else talk)(read_record(args.folder), args.passage)
