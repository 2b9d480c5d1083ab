"""Puzzles and their recipes: augmentations, the schema and 10,000 texts, ARC's files, the arms."""

import json
import random
import re
import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from conftest import PAPER
from matplotlib import pyplot
from test_notebooks import read

import sealkit
from sealkit import inner_loop
from sealkit.bundled import pretrain_puzzles
from sealkit.bundled import puzzles as world
from sealkit.cli.main import Log, load_inputs, main, parse_arguments
from sealkit.lora import fork
from sealkit.models.text import encode
from sealkit.tasks import few_shot, puzzles
from sealkit.tasks.puzzles import BUNDLED_CONFIG, Puzzle, Recipe, load_puzzles, read_recipe

PLAIN = {"mirror": False, "shuffle": False, "recolour": False, "loss": "outputs"}
GOOD = PLAIN | {"learning_rate": 0.003, "steps": 5}


@pytest.fixture(scope="module")
def test_split():
    return load_puzzles("bundled", "test")


@pytest.fixture(scope="module")
def solver():
    return few_shot.load_policy("bundled")


# the world


def split_path(split):
    return world.FOLDER / f"puzzles_{split}.json"


def test_splits_are_what_the_generator_writes_each_of_families_of_its_own():
    families = {world.KNOWN: {*world.MOVES[world.KNOWN], *world.MAPS[world.KNOWN]}}
    for split in world.SPLITS:
        path = split_path(split)
        assert json.loads(path.read_text()) == json.loads(json.dumps(world.write_split(split)))
        found = {puzzle.title.rsplit(" ", 1)[0] for puzzle in load_puzzles(path)}
        both = split != "neither"
        assert found == ({*world.MOVES[split], *world.MAPS[split]} if both else {*world.NEITHER})
        families[split] = found
    assert len(set().union(*families.values())) == sum(map(len, families.values()))


def test_no_two_rules_are_one_and_pretraining_knows_its_own_alone():
    """Moves of different families differ on a row of six colours; so do the maps of pretraining."""
    row, rng = [1, 2, 3, 4, 5, 6], random.Random(0)
    moves = [tuple(rule(row)) for own in world.MOVES.values() for rule in own.values()]
    assert len(set(moves)) == len(moves)
    drawn = {world.draw_puzzle(rng, world.KNOWN, 4)[0] for _ in range(200)}
    sorts = {"move": world.MOVES, "map": world.MAPS}
    assert drawn == {(sort, one) for sort in sorts for one in sorts[sort][world.KNOWN]}


def test_rules_drawn_anew_are_of_no_family():
    rng, row = random.Random(0), list(range(1, 7))
    named = {tuple(rule(row)) for own in world.MOVES.values() for rule in own.values()}
    for _ in range(500):
        moved = tuple(world.new_move(rng)(row))
        assert moved not in named and moved not in (tuple(row), (0,) * 6)
        map_of = world.new_map(rng, row[:4])
        changed = {old: new for old, new in map_of.items() if old != new}
        assert changed and set(map_of) == set(row[:4]) and 0 not in map_of.values()
        if len(set(map_of.values())) == 4:  # else two colours become one, as in no family
            fresh = {new in row[:4] for new in changed.values()}
            assert fresh == {True, False}, "families only exchange colours, or only bring new ones"


def test_pretraining_says_the_sort_of_a_rule_in_words_and_never_which_recipe_fits():
    """Under puzzles of either sort recipes are equally often of each kind."""
    rng, shares, said = random.Random(0), {}, {"sort": [], "recipe": []}
    for n in range(6000):
        kind, parts = (pretrain_puzzles.write_text if n % 2 else pretrain_puzzles.write_sort)(rng)
        (shown, _), (text, _), *_ = parts
        rows = [[row.split() for row in line.split(" -> ")] for line in shown.splitlines()[:3]]
        cells = {pair for x, y in rows for pair in zip(x, y)}
        changes = len(dict(cells)) == len(cells)  # some few moves look like that by chance
        if kind == "recipe":
            recipe = json.loads(text)
            on = [flag for flag in puzzles.FLAGS if recipe[flag]]
            assert len(on) <= 1
            shares.setdefault(recipe["rule"], []).extend(on or [None])
            said[kind].append(recipe["rule"] == world.SORTS["map" if changes else "move"])
        if kind == "sort":
            said[kind].append(text == ("colours" if changes else "cells"))
    assert all(sum(own) / len(own) > 0.98 for own in said.values())
    assert set(shares) == set(world.SORTS.values())
    for own in shares.values():
        assert all(abs(own.count(flag) / len(own) - 0.25) < 0.05 for flag in (None, *puzzles.FLAGS))


def test_rules_of_neither_sort_are_spoilt_by_every_augmentation():
    """On a row of all colours of a map, some conjugate of the rule is another rule."""
    rng, row = random.Random(0), [3, 1, 4, 2, 1, 3]
    map_of = world.cycle(rng, [1, 2, 3, 4])
    colours = [0, 4, 3, 2, 1, *range(5, 10)]
    for rule in world.NEITHER.values():
        x, y = (tuple(row),), (tuple(rule(row, map_of)),)
        for change in (
            lambda grid: puzzles.recolour(grid, colours),
            lambda grid: puzzles.shuffle(grid, 2),
            puzzles.mirror,
        ):
            assert change(y)[0] != tuple(rule(list(change(x)[0]), map_of))


def test_no_puzzle_is_in_two_splits():
    every = [puzzle for split in world.SPLITS for puzzle in load_puzzles(split_path(split))]
    assert len({puzzles.name(puzzle)[1] for puzzle in every}) == len(every) == 420


def test_the_demonstrations_show_what_the_tests_ask(test_split):
    for puzzle in test_split:
        shown, asked = (
            {(a, b) for x, y in pairs for a, b in zip(x[0], y[0])}
            for pairs in (puzzle.demonstrations, puzzle.tests)
        )
        if puzzle.title.rsplit(" ", 1)[0] in world.MOVES["test"]:
            assert {a for a, _ in shown}.isdisjoint(a for a, _ in asked)
        else:
            assert asked <= shown and len(dict(shown)) == len(shown)


def test_recipes_of_pretraining_are_of_every_kind_equally_often():
    rng, counts, spoilt = random.Random(0), {}, 0
    for _ in range(8000):
        kind, text = world.write_recipe(rng)
        if kind != "recipe":
            spoilt += 1
            with pytest.raises(puzzles.InvalidRecipe):
                read_recipe(text)
            continue
        for key, value in json.loads(text).items():
            counts[key, value] = counts.get((key, value), 0) + 1
    total = 8000 - spoilt
    assert abs(spoilt / 8000 - 0.25) < 0.02
    for (key, value), count in counts.items():
        kinds = sum(other == key for other, _ in counts)
        share = (0.25 if value else 0.75) if key in puzzles.FLAGS else 1 / kinds
        assert abs(count / total - share) < 0.03, (key, count)


# augmentations


def random_grid(rng):
    height, width = rng.randint(1, 5), rng.randint(1, 7)
    return tuple(tuple(rng.choices(range(10), k=width)) for _ in range(height))


def test_each_augmentation_can_be_undone():
    rng = random.Random(0)
    for _ in range(200):
        grid, colours, order = random_grid(rng), puzzles.draw_colours(rng), rng.random()
        back = [colours.index(colour) for colour in range(10)]
        assert puzzles.mirror(puzzles.mirror(grid)) == grid
        assert puzzles.recolour(puzzles.recolour(grid, colours), back) == grid
        assert sorted(colours) == list(range(10)) and colours[0] == 0
        mixed = puzzles.shuffle(grid, order)
        assert sorted(zip(*mixed)) == sorted(zip(*grid))
        place = puzzles.shuffle((tuple(range(len(grid[0]))),), order)[0]
        assert tuple(tuple(row[i] for i in place) for row in grid) == mixed


def test_an_augmentation_conjugates_the_rule():
    """Recoloured, "right 2" is the same rule; mirrored, "left 2". Shuffled, a map is the same."""
    rng = random.Random(1)
    right, left, *_ = world.MOVES["test"].values()
    for _ in range(100):
        row, colours, order = (
            rng.choices(range(1, 10), k=6),
            puzzles.draw_colours(rng),
            rng.random(),
        )
        x, y = (tuple(row),), (tuple(right(row)),)
        painted, seen = puzzles.recolour(x, colours), puzzles.mirror(x)
        assert puzzles.recolour(y, colours) == (tuple(right(list(painted[0]))),)
        assert puzzles.mirror(y) == (tuple(left(list(seen[0]))),)
        mapped = puzzles.recolour(x, colours)
        mixed = puzzles.recolour(puzzles.shuffle(x, order), colours)
        assert puzzles.shuffle(mapped, order) == mixed


@pytest.mark.parametrize(
    "flags, count",
    [((), 1), (("mirror",), 2), (("recolour",), 5), (("mirror", "shuffle", "recolour"), 5)],
)
def test_versions_begin_with_the_demonstrations_and_are_the_same_each_time(
    test_split, flags, count
):
    settings = Recipe(**GOOD | dict.fromkeys(flags, True))
    first, *others = done = puzzles.versions(test_split[0], settings)
    assert first == list(test_split[0].demonstrations) and len(done) == count
    assert all(len(other) == len(first) for other in others)
    assert done == puzzles.versions(test_split[0], settings)
    assert len({str(pairs) for pairs in done}) == count


def test_leave_one_out_shows_all_others_and_never_the_answer(test_split):
    pairs = list(test_split[0].demonstrations)
    tasks = puzzles.leave_one_out(pairs)
    assert [one for _, one in tasks] == pairs
    assert all(sorted([*others, one]) == sorted(pairs) for others, one in tasks)
    in_view = replace(BUNDLED_CONFIG, prompts=replace(BUNDLED_CONFIG.prompts, in_view=True))
    lesson = puzzles.lesson(test_split[0], json.dumps(GOOD), in_view)
    for text, start, (x, y) in zip(lesson.texts, lesson.starts, pairs):
        assert text.count("->") == 3 and text.startswith(start)
        assert text.removeprefix(start) == f" {puzzles.line(y)}"
        assert start.endswith(f"{puzzles.line(x)} ->")


# recipes


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"rotate": True}, "rotate: Extra inputs are not permitted"),
        ({"mirror": "yes"}, "mirror: Input should be a valid boolean"),
        ({"mirror": 1}, "mirror: Input should be a valid boolean"),
        ({"loss": "inputs"}, "loss: Input should be 'outputs' or 'all'"),
        ({"learning_rate": -0.1}, "learning_rate: Input should be greater than 0"),
        ({"learning_rate": 3.0}, "learning_rate: Input should be less than or equal to 0.1"),
        ({"learning_rate": float("nan")}, "learning_rate: Input should be a finite number"),
        ({"learning_rate": float("inf")}, "learning_rate: Input should be a finite number"),
        ({"learning_rate": "0.003"}, "learning_rate: Input should be a valid number"),
        ({"steps": -5}, "steps: Input should be greater than or equal to 1"),
        ({"steps": 10**30}, "steps: Input should be less than or equal to 100"),
        ({"steps": 5.0}, "steps: Input should be a valid integer"),
        ({"steps": 100, "recolour": True}, "over the budget"),
    ],
)
def test_a_bad_recipe_is_refused_with_its_reason(test_split, change, reason):
    lesson = puzzles.lesson(test_split[0], json.dumps(GOOD | change), BUNDLED_CONFIG)
    assert reason in lesson.reason and not lesson.texts and not lesson.steps
    assert "\n" not in lesson.reason


def fuzzed(rng):
    """A text that a model might write: a good recipe spoilt, a piece of one, or noise."""
    pieces = '{}[]":,.0123456789-+eE \n\t\\', "NaN", "Infinity", "null", "true", "1e999", "\ud800"
    text = puzzles.random_recipe(rng)
    for _ in range(rng.randint(0, 6)):
        at, length = rng.randrange(len(text) + 1), rng.choice((0, 1, 2, 9))
        new = rng.choice(
            (rng.choice(pieces[0]), rng.choice(pieces[1:]), chr(rng.randrange(0x10000)))
        )
        text = text[:at] + new + text[at + length :]
    kind = rng.random()
    if kind < 0.05:
        return "".join(chr(rng.randrange(0x10000)) for _ in range(rng.randint(1, 99)))
    if kind < 0.1:
        return rng.choice(("[", '{"a":', "9")) * rng.choice((10, 5000, 20000))
    return text


def test_of_ten_thousand_texts_none_raises_or_exceeds_the_budget(test_split):
    rng, valid, start = random.Random(0), 0, time.time()
    for n in range(10_000):
        edit = fuzzed(rng)
        lesson = puzzles.lesson(test_split[n % 120], edit, BUNDLED_CONFIG)
        if lesson.reason:
            assert not lesson.texts and "\n" not in lesson.reason and len(lesson.reason) < 300
        elif edit:
            valid += 1
            settings = Recipe.model_validate(json.loads(edit))
            assert (lesson.steps, lesson.learning_rate) == (settings.steps, settings.learning_rate)
            steps = [lesson.part(step).texts for step in range(lesson.steps)]
            cells = sum(len(re.findall(r"\d", text)) for texts in steps for text in texts)
            assert cells <= BUNDLED_CONFIG.prompts.budget and 0 < lesson.learning_rate <= 0.1
    assert 1000 < valid < 9000 and time.time() - start < 120


def test_invalid_recipes_earn_nothing_and_cost_nothing(solver, test_split):
    pairs = [(test_split[0], "{"), (test_split[0], json.dumps(GOOD)), (test_split[1], "no")]
    first, good, last = inner_loop.run_trials(solver, puzzles, pairs)
    for trial in (first, last):
        assert trial.reward == 0 and trial.reason.startswith("no recipe") and not trial.losses
    assert len(good.losses) == 5 and not good.reason
    (alone,) = inner_loop.run_trials(solver, puzzles, pairs[1:2])
    assert alone.losses == pytest.approx(good.losses, abs=1e-4)


def test_the_loss_is_on_the_outputs_where_the_recipe_says_so(solver, test_split):
    """Of a row of six, the arrow and six more cells: the last six and the end token."""
    for loss, learned in {"outputs": 7, "all": 14}.items():
        lesson = puzzles.lesson(test_split[0], json.dumps(GOOD | {"loss": loss}), BUNDLED_CONFIG)
        lesson = lesson.part(0)
        ids = inner_loop.pack(solver, lesson.texts)[0]
        skipped = inner_loop.prompt_mask(solver, lesson)
        assert len(ids) == 3 * 15
        rest = torch.tensor(ids).view(3, 15)[:, 1:].numel()  # nothing predicts a first token
        assert (rest if not len(skipped) else int((~skipped).sum())) == 3 * learned


@pytest.mark.parametrize("loss", ["outputs", "all"])
def test_the_first_loss_is_that_of_these_tokens_alone(solver, test_split, loss):
    """Of plain transformers on each text by itself, whose labels leave the rest out."""
    lesson = puzzles.lesson(test_split[0], json.dumps(GOOD | {"loss": loss}), BUNDLED_CONFIG)
    tokenizer, total, count = solver.tokenizer, 0.0, 0
    for text in lesson.texts:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        labels = ids.clone()
        labels[:, : 8 if loss == "outputs" else 1] = -100  # <s>, six cells and the arrow
        learned = (labels != -100).sum().item()
        with torch.no_grad():
            total += learned * solver.model(ids, labels=labels).loss.item()
        count += learned
    (losses,), _ = inner_loop.sft(solver, fork(solver.model, 1), [lesson])
    assert losses[0] == pytest.approx(total / count, abs=1e-4)


def test_a_trial_learns_its_demonstrations(solver, test_split):
    (trial,) = inner_loop.run_trials(solver, puzzles, [(test_split[0], json.dumps(GOOD))])
    assert trial.losses[-1] < trial.losses[0] / 2


def test_each_step_trains_on_a_version_of_its_own(solver, test_split, monkeypatch):
    """The demonstrations as they are, then recoloured ones, each three texts, and none twice."""
    lesson = puzzles.lesson(test_split[0], json.dumps(GOOD | {"recolour": True}), BUNDLED_CONFIG)
    seen, batch_of = [], inner_loop.make_batch

    def noted(policy, lessons):
        seen.append([one.texts for one in lessons])
        return batch_of(policy, lessons)

    monkeypatch.setattr(inner_loop, "make_batch", noted)
    plain = puzzles.lesson(test_split[0], json.dumps(GOOD), BUNDLED_CONFIG)
    inner_loop.sft(solver, fork(solver.model, 2), [lesson, plain])
    first, others = zip(*seen)
    assert [len(texts) for texts in first] == [3] * 5 and sum(first, []) == lesson.texts
    assert first[0] == plain.texts and set(map(tuple, others)) == {tuple(plain.texts)}
    seen.clear()
    inner_loop.sft(solver, fork(solver.model, 1), [plain])
    assert len(seen) == 1  # what stays the same is made once


# rewards and prompts


def test_reward_is_the_share_of_grids_right_in_every_cell():
    puzzle = Puzzle("p", (), ((((1, 2),), ((2, 1),)), (((1,), (2,)), ((3,), (4,)))))
    assert puzzles.reward(puzzle, ["2 1", "3 / 4"]) == 1
    assert puzzles.reward(puzzle, ["2  1 ", "3 4"]) == 0.5
    assert puzzles.reward(puzzle, ["2 1 1", ""]) == 0
    assert puzzles.reward(puzzle, ["2 1", "3 / 4 / "]) == 0.5
    assert puzzles.reward(puzzle, ["2 ¹", "9" * 5000]) == 0
    with pytest.raises(ValueError, match="'p' has no solutions"):
        puzzles.reward(replace(puzzle, tests=()), [])


def test_views_are_seen_back_and_the_most_win():
    rng, many = (
        random.Random(2),
        replace(BUNDLED_CONFIG, prompts=replace(BUNDLED_CONFIG.prompts, views=5)),
    )
    for _ in range(50):
        grid = random_grid(rng)
        for number in range(7):
            see, back = puzzles.view(number)
            assert back(see(grid)) == grid
        seen = [puzzles.line(puzzles.view(number)[0](grid)) for number in range(5)]
        wrong = puzzles.line(((1, 2, 3, 4),))
        assert puzzles.vote(seen) == puzzles.vote([wrong, "?", *seen[2:]]) == puzzles.line(grid)
        assert puzzles.vote([wrong, "", "1 / 2 3", "- 5"]) == wrong
        assert puzzles.vote(["?", "?", "?", *seen[3:4]]) == puzzles.line(grid)  # they have no vote
        task = Puzzle("p", (), ((grid, grid), (((5, 6),), ((5, 6),))))
        asked = puzzles.questions(task, many)
        assert len(asked) == 10
        assert puzzles.reward(task, [text.removesuffix(" ->") for text in asked]) == 1


def test_prompts_never_show_a_solution(test_split):
    for puzzle in test_split[:20]:
        texts = [puzzles.prompt(puzzle, BUNDLED_CONFIG)]
        for in_context in (False, True):
            texts += puzzles.questions(puzzle, BUNDLED_CONFIG, in_context)
        for _, y in puzzle.tests:
            hidden = puzzles.line(y)
            given = {puzzles.line(out) for _, out in puzzle.demonstrations}
            assert hidden in given or not any(f"-> {hidden}" in text for text in texts)


def test_a_real_tokenizers_recipe_formats_grids_with_demonstrations_in_view(loaded):
    config = puzzles.config_for(loaded[1])
    assert (
        config is puzzles.GENERAL_CONFIG
        and puzzles.config_for(few_shot.load_policy().tokenizer) is BUNDLED_CONFIG
    )
    puzzle = Puzzle("p", ((((1, 2), (3, 4)), ((4, 3),)),), ((((5, 6), (7, 8)), ((8,),)),))
    (asked,) = puzzles.questions(puzzle, config)
    assert asked.endswith("\n1 2 / 3 4 -> 4 3\n5 6 / 7 8 ->")
    assert puzzles.prompt(puzzle, config).endswith("-> 4 3\nRecipe:")


@pytest.mark.parametrize("part, count", [("training", 12), ("evaluation", 10)])
def test_the_papers_own_tasks_of_arc(loaded, part, count):
    """22 real tasks: read, augmented, formatted for a real tokenizer, graded."""
    short = "training" if part == "training" else "eval"
    path = PAPER / "arc" / f"arc-agi_{part}_challenges_filtered_1B_{short}_set.json"
    if not path.is_file():
        pytest.skip(f"the paper's data file arc/{path.name} is not beside this checkout")
    tasks = load_puzzles(path)
    assert len(tasks) == count
    flags = dict.fromkeys(puzzles.FLAGS, True)
    settings = Recipe(**flags, loss="outputs", learning_rate=1e-4, steps=1)
    for task in tasks:
        assert puzzles.reward(task, [puzzles.line(y) for _, y in task.tests]) == 1
        lesson = puzzles.lesson_of(
            task, settings, replace(puzzles.GENERAL_CONFIG.prompts, budget=10**9)
        )
        assert len(lesson.texts) == len(task.demonstrations) == lesson.per_step
        assert all(text.startswith(start) for text, start in zip(lesson.texts, lesson.starts))
        (prompt, *_) = puzzles.questions(task, puzzles.GENERAL_CONFIG)
        ids = loaded[1](prompt)["input_ids"]
        assert loaded[1].decode(ids, skip_special_tokens=True) == prompt


@pytest.mark.parametrize("part", ["training", "evaluation"])
def test_notebook_6_draws_the_papers_own_tasks(part):
    """Its `draw_task`, on each of 22 real tasks: every demonstration, and three versions."""
    short = "training" if part == "training" else "eval"
    path = PAPER / "arc" / f"arc-agi_{part}_challenges_filtered_1B_{short}_set.json"
    if not path.is_file():
        pytest.skip(f"the paper's data file arc/{path.name} is not beside this checkout")
    cells = {cell.id: cell.source for cell in read("06_few_shot_puzzles").cells}
    names: dict = {}
    pyplot.switch_backend("Agg")
    for place in ("cell-03", "imports", "colours-of-cells", "cell-06", "cell-12", "arc-draw"):
        exec(cells[place], names)
    for task in load_puzzles(path):
        pairs = [*task.demonstrations, *[None] * 3]
        grid = pyplot.subplots(2, len(pairs))[1]
        names["draw_task"](task, grid)
        axes = list(grid.flat)
        for pair, *column in zip(pairs, axes[: len(pairs)], axes[len(pairs) :]):
            drawn = [tuple(map(tuple, ax.images[0].get_array().tolist())) for ax in column]
            assert pair is None or drawn == list(pair)
        mirrored = axes[len(task.demonstrations)].images[0].get_array().tolist()
        assert mirrored == [list(row[::-1]) for row in task.demonstrations[0][0]]
        pyplot.close("all")


# the model


def test_pretraining_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path, monkeypatch):
    few = dict.fromkeys(pretrain_puzzles.BATCH, 2)
    monkeypatch.setattr(pretrain_puzzles, "BATCH", few)
    tokenizer = pretrain_puzzles.train_tokenizer()

    def fresh():
        model = pretrain_puzzles.new_model(tokenizer)
        return pretrain_puzzles.PuzzleTraining(model, tokenizer)

    whole, broken, resumed = fresh(), fresh(), fresh()
    for _ in range(4):
        whole.take_step()
    for _ in range(2):
        broken.take_step()
    broken.save(tmp_path / "checkpoint.safetensors")
    resumed.load(tmp_path / "checkpoint.safetensors")
    for _ in range(2):
        resumed.take_step()
    assert (resumed.step, resumed.tokens, resumed.seen) == (whole.step, whole.tokens, whole.seen)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters()):
        assert torch.equal(one, other)


def test_the_model_says_the_sort_of_held_out_families(solver):
    """Of validation's rules of places and of colours, each in three of four at least."""
    items = load_puzzles("bundled", "validation")
    prompts = [puzzles.prompt(p, BUNDLED_CONFIG) + ' {"rule": "' for p in items]
    said = solver.write(prompts, max_new_tokens=2)
    for families, sort in ((world.MOVES, "move"), (world.MAPS, "map")):
        own = [
            w for p, w in zip(items, said) if p.title.rsplit(" ", 1)[0] in families["validation"]
        ]
        assert own.count(world.SORTS[sort]) / len(own) >= 0.75


# the arms


def few_recipes(monkeypatch):
    """A grid of one pace: a recipe for each augmentation."""
    pace = puzzles.RATES[-1], puzzles.STEPS[0]
    few = {key: edit for key, edit in few_shot.GRID.items() if key[1:] == pace}
    monkeypatch.setattr(few_shot, "GRID", few)


def test_a_small_run_of_all_arms(solver, test_split, monkeypatch):
    few_recipes(monkeypatch)
    train, start = load_puzzles("bundled", "train", 2), solver.weights()
    table = few_shot.compare_recipes(solver, train, test_split[:2], {"before RL": start})
    assert list(table.scores) == [
        "in context, no training",
        "random valid recipe",
        "before RL",
        "before RL, 5 views vote",
        "best fixed recipe",
        "oracle (best of the grid)",
    ]
    invalid, grid, fixed, *rights = table.notes
    assert all(re.match("Solved by [a-z]+ alone: [12], before RL", line) for line in rights)
    assert re.fullmatch(r"Invalid recipes, before RL: \d+%", invalid)
    assert re.fullmatch(r"Each .*: none .*, mirror .*, shuffle .*, recolour \d+\.\d%", grid)
    assert fixed.partition(": ")[2] in few_shot.GRID.values()
    best = table.scores["oracle (best of the grid)"]
    assert all(a >= b for a, b in zip(best, table.scores["best fixed recipe"]))
    assert all(torch.equal(a, b) for a, b in zip(start.values(), solver.weights().values()))


@dataclass(frozen=True)
class Table:
    """Arms whose trials earn what a table says: {recipe: a reward for each item}."""

    items: tuple
    table: dict
    tried: list = field(default_factory=list)

    def evaluate(self, arm, edits, title=None):
        self.tried.append((edits[0], self.items))
        return [SimpleNamespace(reward=self.table[edits[0]][item]) for item in self.items]


def test_the_oracle_is_the_best_of_the_grid_and_tries_what_is_not_solved():
    rng = random.Random(0)
    table = {edit: rng.choices((0, 0.5, 1), k=30) for edit in "abcdef"}
    arms = Table(tuple(range(30)), table)
    first = tuple(table["a"])
    found = few_shot.best_of(arms, "bcdef", first)
    assert found == tuple(max(column) for column in zip(*table.values()))
    for edit, items in arms.tried:
        before = "abcdef"[: "abcdef".index(edit)]
        assert items == [i for i in range(30) if all(table[e][i] < 1 for e in before)]
    assert few_shot.best_of(arms, "bc", (1.0,) * 30) == (1.0,) * 30


def test_the_best_fixed_recipe_is_chosen_on_all_training_puzzles(monkeypatch):
    """Among those that are best on the first fifth: "d" is best there, "b" on all."""
    table = {"a": [0] * 10, "b": [1, 0.5] + [1] * 8, "c": [0.5] * 10, "d": [1, 1] + [0] * 8}
    grid = {("shuffle", 0.003, n): edit for n, edit in enumerate(table)}
    monkeypatch.setattr(few_shot, "GRID", grid)
    monkeypatch.setattr(few_shot, "BEST", 2)
    arms = Table(tuple(range(10)), table)
    assert few_shot.best_fixed(arms) == ("shuffle", 0.003, 1)
    assert [items for edit, items in arms.tried if edit in "ac"] == [(0, 1)] * 2


def test_right_augmentations_are_counted_where_one_alone_solves():
    earned = {None: (0, 0, 1), "shuffle": (1, 0.5, 1), "recolour": (0, 1, 0), "mirror": (0, 0, 0)}
    edits = [puzzles.recipe_text("shuffle"), puzzles.recipe_text("mirror"), "{"]
    lines = few_shot.right_augmentations("SEAL", [None] * 3, edits, earned)
    assert lines == [
        "Solved by shuffle alone: 1, SEAL shuffle for 1",
        "Solved by recolour alone: 1, SEAL recolour for 0",
    ]


def test_every_recipe_of_the_grid_is_valid_everywhere(test_split):
    for puzzle in [*test_split, *load_puzzles("bundled", "train")]:
        assert not any(
            few_shot.invalid_reason(puzzle, edit, BUNDLED_CONFIG) for edit in few_shot.GRID.values()
        )


def test_random_recipes_are_valid_and_change_with_the_seed(test_split):
    one, two = (few_shot.random_recipes(test_split, BUNDLED_CONFIG, seed) for seed in (0, 1))
    assert one != two and one == few_shot.random_recipes(test_split, BUNDLED_CONFIG, 0)
    assert not any(few_shot.invalid_reason(*pair, BUNDLED_CONFIG) for pair in zip(test_split, one))


def test_the_bundled_model_is_small_and_wholly_in_4_bits(solver):
    size = sum(path.stat().st_size for path in sealkit.models.choice.PUZZLE_MODEL.iterdir())
    assert size < 8e6
    assert sealkit.loading.weight_bytes(solver.model.get_base_model())[0] < size


def test_the_command_runs_puzzles_and_leaves_its_record(tmp_path, capsys, monkeypatch):
    few_recipes(monkeypatch)
    sizes = ["--passages", "2", "--self-edits", "1", "--iterations", "1", "--held-out", "2"]
    output = ["--output", str(tmp_path / "run")]
    assert not main(["--task", "puzzles", *sizes, *output])
    told = capsys.readouterr().out
    for part in (
        "2 of other families",
        "puzzle only",
        "Invalid recipes, self-edits before RL",
        "best fixed",
        "points   95% interval, paired by puzzle",
    ):
        assert part in told
    assert "(ReSTEM): 2 puzzles" in (tmp_path / "run" / "log.txt").read_text("utf-8")
    found = json.loads((tmp_path / "run" / "results.json").read_text())
    assert "after iteration 1" in found["accuracy"] and len(found["notes"]) >= 4
    assert not main(["show", output[1]])
    shown = capsys.readouterr().out
    assert shown.partition("\niter")[2].rpartition("\nOpen")[0].replace("\n\n\n", "\n\n") in told
    assert "--task puzzles" in shown
    assert main(["--task", "puzzles", "--passages", "3", *sizes[2:], *output]) == 2
    assert "other settings" in capsys.readouterr().err


def test_answers_have_room_for_the_outputs_of_the_puzzles_at_hand(solver):
    """A 3×3 grid could not be answered in 8 tokens, so that every arm had 0%."""
    grids = [tuple(tuple((n + i + j) % 10 for j in range(3)) for i in range(3)) for n in range(4)]
    pairs = tuple((grid, grid) for grid in grids)
    square = Puzzle("square", pairs[:3], pairs[3:])
    with pytest.raises(ValueError, match="an output of 9 cells, and answers end after 8 tokens"):
        inner_loop.run_trials(solver, puzzles, [(square, "")])
    config = puzzles.with_room(BUNDLED_CONFIG, solver.tokenizer, [square])
    text = puzzles.line(grids[3])
    ids = encode(solver.tokenizer, [f" {text}"])[0][1:]
    assert solver.tokenizer.decode(ids).strip() == text, "the tokenizer can write it"
    assert config.answer_tokens == len(ids) + 1, "and the end of the line"
    roomy = replace(solver, config=replace(config, steps=25))
    (trial,) = inner_loop.run_trials(roomy, puzzles, [(square, "")])
    assert len(encode(solver.tokenizer, trial.answers)[0]) > 1 + 8, "it goes on to the third row"
    rows = load_puzzles("bundled", "test", 3)
    assert puzzles.with_room(BUNDLED_CONFIG, solver.tokenizer, rows) == BUNDLED_CONFIG


def test_the_command_gives_answers_that_room(tmp_path):
    pairs = [{"input": [[n, 0, 0]] * 3, "output": [[0, n, 0]] * 3} for n in range(5)]
    tasks = {f"t{n}": {"train": pairs[n : n + 1], "test": pairs[4:]} for n in range(4)}
    (tmp_path / "arc.json").write_text(json.dumps(tasks))
    words = ["--task", "puzzles", "--data", str(tmp_path / "arc.json")]
    log = Log(verbose=False)
    policy, train, test = load_inputs(parse_arguments(words), log)
    said = f"The longest output takes {policy.config.answer_tokens} tokens, and answers may"
    assert said in "\n".join(log.messages)
    assert policy.config.answer_tokens > BUNDLED_CONFIG.answer_tokens == 8
    assert all(puzzles.lesson(puzzle, "", policy.config).texts for puzzle in (*train, *test))
