"""The arms of the few-shot domain: does SEAL's recipe for each puzzle beat one fixed recipe?"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import ceil

from ..evaluation import Arms, Comparison
from ..loading import load_quantized
from ..models.choice import model_name
from ..policy import Config, Policy, Weights, attach_policy
from ..runs.cache import Cache
from . import puzzles
from .puzzles import Puzzle

GRID = {  # of fixed recipes, (augmentation, rate, steps): JSON
    (flag, rate, steps): puzzles.recipe_text(flag, learning_rate=rate, steps=steps)
    for flag, rate, steps in product((None, *puzzles.FLAGS), puzzles.RATES, puzzles.STEPS)
}
FIRST, BEST = 5, 4  # all of the grid are tried on a fifth of the training puzzles, so many on all
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

    The recipes of the last one are also evaluated with VIEWS votes; "best fixed" is the recipe of
    GRID that solves most of the training puzzles, the oracle the best of GRID for each puzzle. All
    other arms start from the first policy, whose weights are left in the model. Notes: invalid
    recipes, what each augmentation solves at the best pace, and how often the last policy asks for
    the one that solves a puzzle.
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
    fixed = best_fixed(arms_on_train)
    by_flag = {flag: rewards(arms, GRID[flag, *fixed[1:]]) for flag in (None, *puzzles.FLAGS)}
    scores = arms.scores | arms_with_votes.scores | {BEST_FIXED: by_flag[fixed[0]]}
    scores[ORACLE] = best_of(arms, GRID.values(), tuple(map(max, zip(*by_flag.values()))))
    shares = (f"{flag or 'none'} {sum(r) / len(r):.1%}" for flag, r in by_flag.items())
    notes.append(f"Each fixed recipe by its augmentation: {', '.join(shares)}")
    notes.append(f"Best fixed recipe, on training puzzles: {GRID[fixed]}")
    notes += right_augmentations(arm, items, edits, by_flag)
    return Comparison(scores, tuple(notes))


def count_fixed(train: int, test: int) -> int:
    """About how many trials fixed recipes take: all of GRID on one training puzzle in FIRST, the
    BEST on all; on the test puzzles one of each augmentation, the others on an unsolved tenth.

    >>> count_fixed(60, 120)
    1536
    """
    some, flags = ceil(train / FIRST), 1 + len(puzzles.FLAGS)
    return len(GRID) * some + BEST * train + flags * test + (len(GRID) - flags) * test // 10


def rewards(arms: Arms[Puzzle], edit: str) -> tuple[float, ...]:
    """What one recipe earns on each of the arms' puzzles."""
    title = f"fixed recipe: {puzzles.style(None, edit)}"
    return tuple(trial.reward for trial in arms.evaluate(edit, [edit] * len(arms.items), title))


def best_fixed(arms: Arms[Puzzle]) -> tuple[str | None, float, int]:
    """The key of GRID's best recipe: all are tried on a fifth of the puzzles, the best on all."""
    some = replace(arms, items=arms.items[: ceil(len(arms.items) / FIRST)])
    on_some = {key: sum(rewards(some, edit)) for key, edit in GRID.items()}
    best = sorted(GRID, key=on_some.__getitem__, reverse=True)[:BEST]
    return max(best, key=lambda key: sum(rewards(arms, GRID[key])))


def best_of(arms: Arms[Puzzle], edits: Iterable[str], best: tuple[float, ...]) -> tuple[float, ...]:
    """For each puzzle the highest reward of these recipes, each tried where none has solved it.

    best: what has been reached already.
    """
    for edit in edits:
        left = [i for i, reward in enumerate(best) if reward < 1]
        some = rewards(replace(arms, items=[arms.items[i] for i in left]), edit) if left else ()
        reached = dict(zip(left, some))
        best = tuple(max(reward, reached.get(i, 0)) for i, reward in enumerate(best))
    return best


def right_augmentations(
    arm: str,
    items: Sequence[Puzzle],
    edits: Sequence[str],
    by_flag: Mapping[str | None, Sequence[float]],
) -> list[str]:
    """For each augmentation a line: of puzzles that it alone solves, how many recipes have it."""
    lines = []
    for flag, earned in by_flag.items():
        others = [own for name, own in by_flag.items() if name != flag]
        alone = [i for i in range(len(items)) if earned[i] == 1 > max(own[i] for own in others)]
        asked = [puzzles.style(items[i], edits[i]) == (flag or "none") for i in alone]
        if alone:
            name = flag or "none"
            lines.append(f"Solved by {name} alone: {len(alone)}, {arm} {name} for {sum(asked)}")
    return lines
