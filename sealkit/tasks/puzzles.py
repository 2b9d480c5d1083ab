"""Few-shot puzzles (paper, section 3.1): demonstrations C, a self-edit that is a training recipe in
JSON, test grids τ.

A recipe says how to make more demonstrations out of those given, and how to train on them. An
augmentation conjugates the puzzle's rule: mirrored demonstrations of "move right" show "move left".
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Annotated, Literal, TypeVar, get_args

import pydantic
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from ..inner_loop import Lesson
from ..models.text import encode
from ..policy import Config, seed_of
from .arc import COLOURS, Puzzle, load_puzzles  # noqa: F401  (also reached as puzzles.load_puzzles)

Value = TypeVar("Value")
Grid = tuple[tuple[int, ...], ...]  # rows of cells
GridPair = tuple[Grid, Grid]  # input, output

NOUN = "puzzle"  # what an item is called
FLAGS = "mirror", "shuffle", "recolour"
KINDS: tuple[str, ...] = (*FLAGS, "invalid")  # of recipes, see `style`
Loss = Literal["outputs", "all"]
LOSSES: tuple[Loss, ...] = get_args(Loss)
RATES, STEPS = (0.001, 0.003, 0.005), (10, 20, 40)  # of the bundled model's recipes
CHARACTERS = 10_000  # of a self-edit that are read


@dataclass(frozen=True)
class Prompts:
    """The texts around a puzzle, and what its recipes may do.

    cue: under the demonstrations; the model goes on with a recipe. in_view: whether demonstrations
    stand before a grid to solve, in training (leave-one-out) and in the exam; without, the rule
    has to be in the weights. views: in how many ways a grid is asked, see `view`, whose answers
    vote. budget: of cells trained on, over all steps. stops: where a recipe ends, besides the end
    token.
    """

    cue: str = "Recipe:"
    before: str = ""
    in_view: bool = False
    views: int = 1
    budget: int = 1500
    stops: tuple[str, ...] = ("\n",)
    styles: tuple[str, ...] = ()


class Recipe(pydantic.BaseModel):
    """A recipe: what a self-edit has to be as JSON, with these keys, no others, and these types.

    rule: the puzzle's rule in the policy's words; it comes first, so that all else can hang on it,
    and trains nothing. mirror, shuffle, recolour: augmentations, see `versions`. loss: on outputs
    or on all cells.

    >>> Recipe(mirror=False, shuffle=False, recolour=True, loss="all", learning_rate=0.003,
    ...          steps=5).steps
    5
    """

    model_config = pydantic.ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )
    rule: Annotated[str, Field(max_length=200)] = ""
    mirror: bool
    shuffle: bool
    recolour: bool
    loss: Loss
    learning_rate: Annotated[float, Field(gt=0, le=0.1)]
    steps: Annotated[int, Field(ge=1, le=100)]


class InvalidRecipe(ValueError):
    """A self-edit that is no recipe, or one over the budget; the message says why."""


def keep_solved(rewards: Sequence[float], baseline: float) -> list[int]:
    """The rule of the paper for this domain: every recipe that solved its puzzle wholly.

    >>> keep_solved([1.0, 0.5, 1.0], 1.0)
    [0, 2]
    """
    return [j for j, reward in enumerate(rewards) if reward == 1]


def keep_best_solving(rewards: Sequence[float], baseline: float) -> list[int]:
    """A puzzle's best recipe and all that equal it, if they solved one test grid at least: so that
    hard puzzles are heard, too.

    >>> keep_best_solving([0.5, 0.0, 0.5], 0.0), keep_best_solving([0.5, 1.0], 0.0)
    ([0, 2], [1])
    """
    best = max(rewards)
    return [j for j, reward in enumerate(rewards) if reward == best > 0]


BUNDLED_CONFIG = Config(
    Prompts(),
    learning_rate=0.003,
    steps=20,
    answer_tokens=8,
    max_new_tokens=56,
    top_p=1.0,
    epochs=15,
    m_step_learning_rate=1e-3,
    keep=keep_best_solving,
    adapters_per_pass=20,
)


# Rank, rates and what a text looks like are the paper's; nobody has tried them on a GPU.
GENERAL_CONFIG = Config(
    Prompts(
        before="Each line shows a grid, its rows parted by /, and what a hidden rule makes of it. "
        'A recipe is JSON such as {"mirror": false, "shuffle": false, "recolour": true, '
        '"loss": "outputs", "learning_rate": 0.0001, "steps": 10}.\n',
        in_view=True,
        budget=200_000,
    ),
    rank=128,
    alpha=16,
    learning_rate=1e-4,
    steps=10,
    answer_tokens=1024,
    max_new_tokens=96,
    max_tokens=8192,
    keep=keep_solved,
    epochs=2,
    m_step_learning_rate=3e-4,
    adapters_per_pass=1,
    rows_per_pass=1,
    texts_per_pass=20,
    checkpointing=True,
)


def config_for(tokenizer: PreTrainedTokenizerBase) -> Config:
    """The Recipe that goes with a model: what its tokenizer's folder names, else GENERAL."""
    return {"puzzles": BUNDLED_CONFIG}.get(tokenizer.init_kwargs.get("prompts"), GENERAL_CONFIG)


def with_room(
    config: Config, tokenizer: PreTrainedTokenizerBase, items: Sequence[Puzzle]
) -> Config:
    """The config with `answer_tokens` for the longest output of some puzzles.

    >>> import sealkit
    >>> grid = ((1, 2, 3),) * 3
    >>> nine = Puzzle("nine cells", ((grid, grid),), ((grid, grid),))
    >>> tokenizer = sealkit.load_quantized("puzzles")[1]
    >>> BUNDLED_CONFIG.answer_tokens, with_room(BUNDLED_CONFIG, tokenizer, [nine]).answer_tokens
    (8, 13)
    """
    outputs = [f"-> {line(y)}\n" for puzzle in items for _, y in puzzle.tests if y]
    start, *rows = encode(tokenizer, ["->", *outputs])
    longest = max(map(len, rows), default=0) - len(start)
    return replace(config, answer_tokens=max(config.answer_tokens, longest))


def line(grid: Grid) -> str:
    """A grid as text, its rows parted by slashes.

    >>> line(((1, 2), (3, 4)))
    '1 2 / 3 4'
    """
    return " / ".join(" ".join(map(str, row)) for row in grid)


def shown(pairs: Iterable[GridPair]) -> str:
    """Pairs (input, output) as text, a line each."""
    return "".join(f"{line(x)} -> {line(y)}\n" for x, y in pairs)


def name(puzzle: Puzzle) -> tuple[str, str]:
    """What tells one puzzle from another: its title first."""
    return puzzle.title, shown(puzzle.demonstrations)


def parts(puzzle: Puzzle, config: Config) -> list[Puzzle]:
    """A recipe is written of the puzzle as a whole."""
    return [puzzle]


def prompt(puzzle: Puzzle, config: Config, style: str | None = None) -> str:
    """What asks for a recipe: the demonstrations, without the tests."""
    prompts = config.prompts
    return prompts.before + shown(puzzle.demonstrations) + prompts.cue


def exam(puzzle: Puzzle) -> Sequence[GridPair]:
    """The puzzle's test grids."""
    return puzzle.tests


def questions(puzzle: Puzzle, config: Config, in_context: bool = False) -> list[str]:
    """The prompts of the test grids, list[str]; with several views, those of a grid in a row."""
    prompts, texts = config.prompts, []
    for (x, _), number in product(puzzle.tests, range(prompts.views)):
        see, before = view(number)[0], ""
        if in_context or prompts.in_view:
            pairs = [(see(a), see(b)) for a, b in puzzle.demonstrations]
            before = prompts.before + shown(pairs)
        texts.append(f"{before}{line(see(x))} ->")
    return texts


def reward(puzzle: Puzzle, answers: Sequence[str], config: Config | None = None) -> float:
    """Share of the test grids that `answers` (list[str]) get right in every cell, in [0, 1]."""
    if not puzzle.tests or any(y is None for _, y in puzzle.tests):
        raise ValueError(f"The puzzle {puzzle.title!r} has no solutions: there is no reward.")
    views = len(answers) // len(puzzle.tests) or 1
    votes = [vote(answers[i : i + views]) for i in range(0, len(answers), views)]
    right = [answer == line(y) for answer, (_, y) in zip(votes, puzzle.tests, strict=True)]
    return sum(right) / len(puzzle.tests)


def view(number: int) -> tuple[Callable[[Grid], Grid], Callable[[Grid], Grid]]:
    """A way to look at a grid, and the way back: two functions. The first is to look at it as it
    is, then come other colours and other orders of the cells in turn."""
    colours, back = draw_colours(random.Random(number)), list(range(COLOURS))
    for colour, other in enumerate(colours):
        back[other] = colour
    if number == 0:
        return (lambda grid: grid,) * 2
    if number % 2:
        return partial(recolour, colours=colours), partial(recolour, colours=back)
    return partial(shuffle, order=number), partial(shuffle, order=number, back=True)


def vote(answers: Sequence[str]) -> str:
    """The grid, as text, that most views of it say (the first of these), each seen back.

    What is no grid does not vote; "" if none is.

    >>> vote(["1 2", "5 9", "2 1"]), vote(["?", "?", "2 1"])
    ('1 2', '1 2')
    """
    seen_back = []
    for number, answer in enumerate(answers):
        grid = tuple(tuple(map(int, re.findall("[0-9]", row))) for row in answer.split("/"))
        is_grid = answer.split() == line(grid).split() and len(set(map(len, grid))) == 1
        seen_back += [line(view(number)[1](grid))] if is_grid else []
    return max(seen_back, key=seen_back.count, default="")


def random_recipe(rng: random.Random, rule: str = "") -> str:
    """A recipe in JSON, each of its values drawn from a `random.Random`; at most one flag is on."""
    flags: tuple[str | None, ...] = (None, *FLAGS)
    flag, loss = rng.choice(flags), rng.choice(LOSSES)
    return recipe_text(flag, loss, rng.choice(RATES), rng.choice(STEPS), rule)


def recipe_text(
    on: str | None = None,
    loss: str = "outputs",
    learning_rate: float = 0.003,
    steps: int = 40,
    rule: str = "",
) -> str:
    """A recipe in JSON. on: the one augmentation that it asks for, if any. rule: in words, if any.

    >>> recipe_text("mirror")[:35]
    '{"mirror": true, "shuffle": false, '
    """
    flags = {flag: flag == on for flag in FLAGS}
    pace = {"loss": loss, "learning_rate": learning_rate, "steps": steps}
    return json.dumps(({"rule": rule} if rule else {}) | flags | pace)


def read_recipe(edit: str) -> Recipe:
    """The Recipe that a self-edit says, or InvalidRecipe in one sentence."""
    try:
        return Recipe.model_validate_json(edit[:CHARACTERS].encode("utf-8", "replace"))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:40]
        raise InvalidRecipe(f"no recipe: {where + ': ' if where else ''}{first['msg']}") from error


def style(puzzle: Puzzle | None, edit: str) -> str:
    """The kind of a recipe: its first augmentation, "none" or "invalid".

    >>> style(None, recipe_text("recolour")), style(None, "[1]")
    ('recolour', 'invalid')
    """
    try:
        settings = read_recipe(edit)
    except InvalidRecipe:
        return "invalid"
    return next((flag for flag in FLAGS if getattr(settings, flag)), "none")


def lesson(puzzle: Puzzle, edit: str, config: Config) -> Lesson:
    """What the inner loop trains on, and how fast; one with a reason for an invalid self-edit.

    Without a self-edit (""): the demonstrations as they are, at the recipe's own pace. Raises
    ValueError if answers may have fewer tokens than an output has cells: no trial could earn 1.
    """
    cells = max((sum(map(len, y)) for _, y in puzzle.tests if y), default=0)
    if cells > config.answer_tokens:
        raise ValueError(
            f"The puzzle {puzzle.title!r} has an output of {cells} cells, and answers end after "
            f"{config.answer_tokens} tokens: take the config that `puzzles.with_room` returns."
        )
    plain = recipe_text(learning_rate=config.learning_rate, steps=config.steps)
    try:
        return lesson_of(puzzle, read_recipe(edit or plain), config.prompts)
    except InvalidRecipe as error:
        return Lesson([], 0, 0.0, reason=str(error))


def lesson_of(puzzle: Puzzle, settings: Recipe, prompts: Prompts) -> Lesson:
    """The Lesson of valid settings, each step another version of all demonstrations. Raises
    InvalidRecipe if it is over the budget."""
    starts, texts = [], []
    for pairs in versions(puzzle, settings):
        for others, (x, y) in leave_one_out(pairs):
            start = (prompts.before + shown(others) if prompts.in_view else "") + f"{line(x)} ->"
            starts.append(start)
            texts.append(f"{start} {line(y)}")
    width = len(puzzle.demonstrations)
    cells = settings.steps * sum(sum(map(str.isdigit, text)) for text in texts[:width])
    if cells > prompts.budget:
        raise InvalidRecipe(f"over the budget: {cells} cells trained on, {prompts.budget} allowed")
    starts = starts if settings.loss == "outputs" else []
    return Lesson(texts, settings.steps, settings.learning_rate, starts, per_step=width)


def mirror(grid: Grid) -> Grid:
    """A grid seen in a mirror.

    >>> mirror(((1, 2, 3),))
    ((3, 2, 1),)
    """
    return tuple(row[::-1] for row in grid)


def shuffle(grid: Grid, order: float, back: bool = False) -> Grid:
    """A grid with its columns in another order, as `random.Random(order)` has it; or back again.

    >>> shuffle(((1, 2, 3),), order=1)
    ((2, 3, 1),)
    >>> shuffle(((2, 3, 1),), order=1, back=True)
    ((1, 2, 3),)
    """
    places = list(range(len(grid[0])))
    random.Random(order).shuffle(places)
    places = sorted(places, key=places.__getitem__) if back else places
    return tuple(tuple(row[i] for i in places) for row in grid)


def recolour(grid: Grid, colours: Sequence[int]) -> Grid:
    """A grid with other colours. colours: for each of the ten, what becomes of it.

    >>> recolour(((0, 1, 2),), [0, 2, 1, 3, 4, 5, 6, 7, 8, 9])
    ((0, 2, 1),)
    """
    return tuple(tuple(colours[colour] for colour in row) for row in grid)


def draw_colours(rng: random.Random) -> list[int]:
    """A random permutation of the colours that leaves black (0) alone."""
    return [0, *rng.sample(range(1, COLOURS), COLOURS - 1)]


def augmentation(settings: Recipe, seed: int) -> Callable[[Grid], Grid]:
    """A function grid -> grid that draws from `seed` what the settings allow."""
    rng = random.Random(seed)
    mirrored, order, colours = rng.random() < 0.5, rng.random(), draw_colours(rng)

    def augment(grid: Grid) -> Grid:
        grid = mirror(grid) if settings.mirror and mirrored else grid
        grid = shuffle(grid, order) if settings.shuffle else grid
        return recolour(grid, colours) if settings.recolour else grid

    return augment


def versions(puzzle: Puzzle, settings: Recipe) -> list[list[GridPair]]:
    """The demonstrations, then other versions of them as the settings say: lists of pairs.

    One for each step; two in turn if the mirror alone is on, and one without augmentations.
    """
    augmentations: list[Callable[[Grid], Grid]] = [lambda grid: grid]
    if settings.shuffle or settings.recolour:
        seeds = [seed_of("version", name(puzzle), n) for n in range(1, settings.steps)]
        augmentations += [augmentation(settings, seed) for seed in seeds]
    elif settings.mirror and settings.steps > 1:
        augmentations.append(mirror)
    return [[(f(x), f(y)) for x, y in puzzle.demonstrations] for f in augmentations]


def leave_one_out(pairs: list[Value]) -> list[tuple[list[Value], Value]]:
    """[(the other pairs, one pair), ...]: each demonstration as if it were the test.

    >>> leave_one_out(["a", "b"])
    [(['b'], 'a'), (['a'], 'b')]
    """
    return [(pairs[:i] + pairs[i + 1 :], pair) for i, pair in enumerate(pairs)]
