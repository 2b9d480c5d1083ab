"""The few-shot domain's run: two iterations of SEAL on puzzles, and the table that asks whether one
fixed recipe would do as well."""

import os
import random
import time
from dataclasses import dataclass, replace
from itertools import islice

from .evaluation import Arms, Comparison
from .loading import VARIABLE, load_quantized
from .memo import write_json, write_log
from .outer_loop import memo_of, seal
from .policy import Policy, attach_policy
from .report import row, row_head, story
from .tasks import puzzles

GRID = [puzzles.recipe_text(on) for on in (None, *puzzles.FLAGS)]  # of best fixed and oracle
VIEWS = 5  # that vote, of each test grid
ORACLE, FIXED = "oracle (best of the grid)", "best fixed recipe"


def load_policy(name=None, seed=0):
    """The Policy of the puzzles' bundled model, or of another by folder or hub id."""
    name = name or os.environ.get(VARIABLE) or "bundled"
    model, tokenizer = load_quantized("puzzles" if name == "bundled" else name)
    recipe = puzzles.recipe_for(tokenizer)
    return Policy(attach_policy(model, recipe, seed), tokenizer, recipe)


def reason_of(puzzle, edit, recipe):
    """Why a self-edit is no valid recipe for this puzzle; empty if it is."""
    return puzzles.lesson(puzzle, edit, recipe).reason


def random_recipes(items, recipe, seed=0):
    """For each puzzle a recipe of `random_recipe` that is valid and within the budget."""
    rng, done = random.Random(f"random {seed}"), []
    for puzzle in items:
        while reason_of(puzzle, edit := puzzles.random_recipe(rng), recipe):
            pass
        done.append(edit)
    return done


@dataclass(frozen=True)
class Table:
    """comparison: rewards of every arm on held-out puzzles. invalid: {arm: share of its recipes}.
    fixed: the recipe that solved most training puzzles. grid: {recipe: share of tests it solves}.
    """

    comparison: Comparison
    invalid: dict[str, float]
    fixed: str
    grid: dict[str, float]

    def __str__(self):
        lines = [
            str(self.comparison),
            f"Best fixed recipe, chosen on training puzzles: {self.fixed}",
            "Each fixed recipe, on these: "
            + ", ".join(f"{share:.1%} {augmentations(edit)}" for edit, share in self.grid.items()),
        ]
        lines += [f"Invalid recipes {arm}: {share:.0%}" for arm, share in self.invalid.items()]
        *_, final = self.invalid
        for other in (next(iter(self.invalid)), FIXED):
            mean, low, high = (100 * x for x in self.comparison.difference(final, other))
            said = f"{mean:+.1f} points, 95% interval [{low:+.1f}, {high:+.1f}]"
            lines.append(f"{final} − {other}: {said}")
        return "\n".join(lines)


def augmentations(edit):
    """What a valid recipe makes of the demonstrations, in words.

    >>> augmentations(GRID[3])
    'recolour'
    """
    settings = puzzles.read_recipe(edit)
    return " and ".join(flag for flag in puzzles.FLAGS if getattr(settings, flag)) or "as they are"


def compare_recipes(policy, train, items, policies, seed=0, memo=None):
    """The Table of arms on held-out puzzles; the policies each write one recipe a puzzle.

    The last one's answers are asked for again as a vote of VIEWS. All other arms start from the
    first policy, whose weights are left in the model.
    """
    memo, first = {} if memo is None else memo, next(iter(policies.values()))
    recipe = policy.recipe
    voting = replace(recipe, prompts=replace(recipe.prompts, views=VIEWS))
    arms, on_train = (Arms(policy, puzzles, some, seed, memo) for some in (items, train))
    views = Arms(replace(policy, recipe=voting), puzzles, items, seed, memo)
    policy.load(first)
    scores = {"in context, no training": arms.asked("in context, no training", True)}
    drawn = random_recipes(items, recipe, seed)
    scores["random valid recipe"] = arms.adapted("random valid recipe", drawn)
    invalid = {}
    for arm, weights in policies.items():
        policy.load(weights)
        scores[arm] = arms.written(arm)
        texts = [memo[("text", *key[1:])] for key in arms.keys(arm)]
        reasons = [reason_of(*pair, recipe) for pair in zip(items, texts)]
        invalid[arm] = sum(map(bool, reasons)) / len(items)
    scores[f"{arm}, {VIEWS} views vote"] = views.adapted(f"{arm}, vote", texts)
    policy.load(first)
    fixed = max(GRID, key=lambda edit: sum(on_train.adapted(edit, [edit] * len(train))))
    grid = {edit: arms.adapted(edit, [edit] * len(items)) for edit in GRID}
    scores[FIXED] = grid[fixed]
    scores[ORACLE] = list(map(max, zip(*grid.values())))
    done = Comparison({arm: tuple(values) for arm, values in scores.items()})
    return Table(done, invalid, fixed, {edit: sum(own) / len(items) for edit, own in grid.items()})


def run(args):
    """One run as the command line says; prints its story, writes the folder with the table."""
    start, data = time.time(), args.data or "bundled"
    policy = load_policy(args.model, args.seed)
    train = puzzles.load_puzzles(data, "train", args.passages)
    test = puzzles.load_puzzles(data, "test", args.held_out)
    print(f"Puzzles of {data}: {len(train)} to train on, {len(test)} of other families to test on.")
    settings = policy, puzzles, train, args.self_edits, args.seed
    with memo_of(args.output, *settings) as memo:
        policies, log, begun = {}, [], time.time()
        print(f"\n{row_head()}  invalid recipes")
        for iteration in islice(seal(*settings, memo), args.iterations):
            policies[f"after iteration {iteration.number}"] = iteration.policy
            told = f"{row(iteration, time.time() - begun)}  {invalid_share(iteration):.0%}"
            log.append(f"{story(iteration, 'puzzle')}\n{told}")
            print(log[-1] if args.verbose else told, flush=True)
            write_log(args.output, log)
            begun = time.time()
        policies = {"before RL": memo["policy", 0]["weights"]} | policies
        table = compare_recipes(policy, train, test, policies, args.seed, memo)
    print(
        f"\nOn {len(test)} puzzles of families that no policy has seen, one recipe each:\n{table}"
    )
    found = {"accuracy": table.comparison.scores, "invalid": table.invalid}
    found |= {"fixed": table.fixed, "grid": table.grid}
    write_json(args.output / "results.json", found)
    print(f"{time.time() - start:.0f} s in all.")


def invalid_share(iteration):
    """The share of an iteration's self-edits that are no valid recipe."""
    reasons = [trial.reason for trials in iteration.trials for trial in trials]
    return sum(map(bool, reasons)) / len(reasons)
