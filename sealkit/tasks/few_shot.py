"""The arms of the few-shot domain: does SEAL's recipe for each puzzle beat one fixed recipe?"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..evaluation import Arms, Comparison
from ..loading import load_quantized
from ..models.choice import model_name
from ..policy import Config, Policy, Weights, attach_policy
from ..runs.cache import Cache
from . import puzzles
from .puzzles import Puzzle

FIXED_RECIPES = [puzzles.recipe_text(flag) for flag in (None, *puzzles.FLAGS)]
VIEWS = 5  # of each test grid, which vote
ORACLE, BEST_FIXED = "oracle (best of the grid)", "best fixed recipe"


def load_policy(name: str | None = None, seed: int = 0) -> Policy:
    """The Policy of the puzzles' bundled model, or of another by folder or hub id."""
    chosen = model_name(name)
    model, tokenizer = load_quantized("puzzles" if chosen == "bundled" else chosen)
    config = puzzles.config_for(tokenizer)
    return Policy(attach_policy(model, config, seed), tokenizer, config)


def invalid_reason(puzzle: Puzzle, edit: str, config: Config) -> str:
    """Why a self-edit is no valid recipe for this puzzle; empty if it is."""
    return puzzles.lesson(puzzle, edit, config).reason


def random_recipes(items: Sequence[Puzzle], config: Config, seed: int = 0) -> list[str]:
    """For each puzzle a recipe of `random_recipe` that is valid and within the budget."""
    rng, recipes = random.Random(f"random {seed}"), []
    for puzzle in items:
        while invalid_reason(puzzle, edit := puzzles.random_recipe(rng), config):
            pass
        recipes.append(edit)
    return recipes


def compare_recipes(
    policy: Policy,
    train: Sequence[Puzzle],
    items: Sequence[Puzzle],
    policies: Mapping[str, Weights],
    seed: int = 0,
    cache: Cache | None = None,
) -> Comparison:
    """The Comparison of arms on held-out puzzles; each of the policies writes a recipe a puzzle.

    The recipes of the last one are also evaluated with VIEWS votes; "best fixed" is the recipe that
    solves most of the training puzzles. All other arms start from the first policy, whose weights
    are left in the model. Notes: invalid recipes, and what each fixed one solves.
    """
    cache, first = {} if cache is None else cache, next(iter(policies.values()))
    config = policy.config
    voting = replace(config, prompts=replace(config.prompts, views=VIEWS))
    arms = Arms(policy, puzzles, items, seed, cache)
    arms_on_train = Arms(policy, puzzles, train, seed, cache)
    arms_with_votes = Arms(replace(policy, config=voting), puzzles, items, seed, cache)

    # 1. without a self-edit of the policy
    policy.load(first)
    arm = "in context, no training"
    arms.add_untrained(arm, in_context=True)
    arms.add("random valid recipe", random_recipes(items, config, seed), written=0)

    # 2. with the recipe that each policy samples; of the last one, also with votes
    notes = []
    for arm, weights in policies.items():
        policy.load(weights)
        arms.add_sampled(arm)
        edits = [edit for (edit,) in arms.write(arm)]
        invalid = sum(bool(invalid_reason(*pair, config)) for pair in zip(items, edits))
        notes.append(f"Invalid recipes, {arm}: {invalid / len(items):.0%}")
    arms_with_votes.add(f"{arm}, {VIEWS} views vote", edits)

    # 3. with fixed recipes: the best on the training puzzles, and the best for each puzzle
    policy.load(first)

    def rewards(arms: Arms[Puzzle], edit: str) -> list[float]:
        title = f"fixed recipe: {puzzles.style(None, edit)}"
        return [trial.reward for trial in arms.evaluate(edit, [edit] * len(arms.items), title)]

    fixed = max(FIXED_RECIPES, key=lambda edit: sum(rewards(arms_on_train, edit)))
    grid = {edit: rewards(arms, edit) for edit in FIXED_RECIPES}
    scores = arms.scores | arms_with_votes.scores
    scores |= {BEST_FIXED: tuple(grid[fixed]), ORACLE: tuple(map(max, zip(*grid.values())))}
    shares = (f"{puzzles.style(None, e)} {sum(r) / len(r):.1%}" for e, r in grid.items())
    notes.append(f"Each fixed recipe by its augmentation: {', '.join(shares)}")
    notes.append(f"Best fixed recipe, on training puzzles: {fixed}")
    return Comparison(scores, tuple(notes))
