"""The arms of the few-shot domain: does SEAL's recipe for each puzzle beat one fixed recipe?"""

import random
from dataclasses import replace

from .evaluation import Arms, Comparison
from .loading import load_quantized, named
from .policy import Policy, attach_policy
from .tasks import puzzles

GRID = [puzzles.recipe_text(on) for on in (None, *puzzles.FLAGS)]  # of best fixed and oracle
VIEWS = 5  # that vote, of each test grid
ORACLE, FIXED = "oracle (best of the grid)", "best fixed recipe"


def load_policy(name=None, seed=0):
    """The Policy of the puzzles' bundled model, or of another by folder or hub id."""
    name = named(name)
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


def compare_recipes(policy, train, items, policies, seed=0, memo=None):
    """The Comparison of arms on held-out puzzles; the policies each write one recipe a puzzle.

    The last one's answers are asked for again as a vote of VIEWS; "best fixed" is the recipe that
    solves most of the training puzzles. All other arms start from the first policy, whose weights
    are left in the model. Notes: invalid recipes, and what each fixed one solves.
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
    notes = []
    for arm, weights in policies.items():
        policy.load(weights)
        scores[arm] = arms.written(arm)
        texts = [memo[("text", *key[1:])] for key in arms.keys(arm)]
        invalid = sum(bool(reason_of(*pair, recipe)) for pair in zip(items, texts))
        notes.append(f"Invalid recipes, {arm}: {invalid / len(items):.0%}")
    scores[f"{arm}, {VIEWS} views vote"] = views.adapted(f"{arm}, vote", texts)
    policy.load(first)
    fixed = max(GRID, key=lambda edit: sum(on_train.adapted(edit, [edit] * len(train))))
    grid = {edit: arms.adapted(edit, [edit] * len(items)) for edit in GRID}
    scores[FIXED] = grid[fixed]
    scores[ORACLE] = list(map(max, zip(*grid.values())))
    shares = (f"{puzzles.style(None, e)} {sum(r) / len(r):.1%}" for e, r in grid.items())
    notes.append(f"Each fixed recipe by its augmentation: {', '.join(shares)}")
    notes.append(f"Best fixed recipe, on training puzzles: {fixed}")
    return Comparison({arm: tuple(values) for arm, values in scores.items()}, tuple(notes))
