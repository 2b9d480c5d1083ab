"""The arms of the few-shot domain: does SEAL's recipe for each puzzle beat one fixed recipe?"""

import random
from dataclasses import replace

from ..evaluation import Arms, Comparison
from ..loading import load_quantized
from ..models.choice import model_name
from ..policy import Policy, attach_policy
from . import puzzles

FIXED_RECIPES = [
    puzzles.recipe_text(on) for on in (None, *puzzles.FLAGS)
]  # of best fixed and oracle


VIEWS = 5  # that vote, of each test grid
ORACLE, BEST_FIXED = "oracle (best of the grid)", "best fixed recipe"


def load_policy(name=None, seed=0):
    """The Policy of the puzzles' bundled model, or of another by folder or hub id."""
    name = model_name(name)
    model, tokenizer = load_quantized("puzzles" if name == "bundled" else name)
    config = puzzles.config_for(tokenizer)
    return Policy(attach_policy(model, config, seed), tokenizer, config)


def invalid_reason(puzzle, edit, config):
    """Why a self-edit is no valid recipe for this puzzle; empty if it is."""
    return puzzles.lesson(puzzle, edit, config).reason


def random_recipes(items, config, seed=0):
    """For each puzzle a recipe of `random_recipe` that is valid and within the budget."""
    rng, done = random.Random(f"random {seed}"), []
    for puzzle in items:
        while invalid_reason(puzzle, edit := puzzles.random_recipe(rng), config):
            pass
        done.append(edit)
    return done


def compare_recipes(policy, train, items, policies, seed=0, cache=None):
    """The Comparison of arms on held-out puzzles; the policies each write one recipe a puzzle.

    The last one's answers are asked for again as a vote of VIEWS; "best fixed" is the recipe that
    solves most of the training puzzles. All other arms start from the first policy, whose weights
    are left in the model. Notes: invalid recipes, and what each fixed one solves.
    """
    cache, first = {} if cache is None else cache, next(iter(policies.values()))
    config = policy.config
    voting = replace(config, prompts=replace(config.prompts, views=VIEWS))
    arms, on_train = (Arms(policy, puzzles, some, seed, cache) for some in (items, train))
    views = Arms(replace(policy, config=voting), puzzles, items, seed, cache)
    policy.load(first)
    scores = {
        "in context, no training": arms.evaluate_without_training("in context, no training", True)
    }
    drawn = random_recipes(items, config, seed)
    scores["random valid recipe"] = arms.evaluate_given("random valid recipe", drawn)
    notes = []
    for arm, weights in policies.items():
        policy.load(weights)
        scores[arm] = arms.evaluate_sampled(arm)
        texts = [cache[("text", *key[1:])] for key in arms.keys(arm)]
        invalid = sum(bool(invalid_reason(*pair, config)) for pair in zip(items, texts))
        notes.append(f"Invalid recipes, {arm}: {invalid / len(items):.0%}")
    scores[f"{arm}, {VIEWS} views vote"] = views.evaluate_given(f"{arm}, vote", texts)
    policy.load(first)
    fixed = max(
        FIXED_RECIPES, key=lambda edit: sum(on_train.evaluate_given(edit, [edit] * len(train)))
    )
    grid = {edit: arms.evaluate_given(edit, [edit] * len(items)) for edit in FIXED_RECIPES}
    scores[BEST_FIXED] = grid[fixed]
    scores[ORACLE] = list(map(max, zip(*grid.values())))
    shares = (f"{puzzles.style(None, e)} {sum(r) / len(r):.1%}" for e, r in grid.items())
    notes.append(f"Each fixed recipe by its augmentation: {', '.join(shares)}")
    notes.append(f"Best fixed recipe, on training puzzles: {fixed}")
    return Comparison({arm: tuple(values) for arm, values in scores.items()}, tuple(notes))
