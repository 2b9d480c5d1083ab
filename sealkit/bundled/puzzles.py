"""The bundled world of puzzles: rows of six cells, whose rule moves them or maps their colours.

A rule of the first sort says where a cell's colour comes from, whatever the colours are; one of the
second says what becomes of a colour, wherever it stands. So recolouring the demonstrations of the
first, or shuffling the cells of the second, makes more demonstrations of the same rule; the other
way round it makes demonstrations of other rules. Black, 0, is what comes in from outside.
`python -m sealkit.bundled.puzzles` writes the splits as ARC's own JSON; no two share a family.
"""

import json
import random
from pathlib import Path

from ..tasks.puzzles import random_recipe

CELLS, PALETTE, COLOURS = 6, 4, range(1, 10)
MARKED = list(range(1, CELLS + 1))  # a row whose cells all differ
DEMONSTRATIONS, TESTS = 3, 2
SPLITS = {"train": 120, "validation": 120, "test": 120, "neither": 60}
SEED = {"train": 1, "validation": 2, "test": 3, "neither": 4}
FOLDER = Path(__file__).parent


def move(back, fill):
    """The rule that each cell has the colour of the cell `back` to its left; `fill` comes in from
    outside: black, or the first or last cell's colour again (None)."""

    def rule(row):
        places = [i - back for i in range(len(row))]
        inside = [min(max(place, 0), len(row) - 1) for place in places]
        return [row[i] if i == j or fill is None else fill for i, j in zip(inside, places)]

    return rule


def halves(rule):
    """The rule that does to each half of a row what `rule` does to a row."""
    return lambda row: rule(row[: CELLS // 2]) + rule(row[CELLS // 2 :])


def taken(*places):
    """The rule that takes each cell from one of these places; None leaves it black."""
    return lambda row: [0 if place is None else row[place] for place in places]


def fixed(function):
    """A family of one map of colours: its maps, {colour: colour}, for any palette."""
    return lambda rng, palette: {colour: function(colour) for colour in COLOURS}


def cycle(rng, colours):
    """A map that sends each of some colours to the next, and the last to the first."""
    return dict(zip(colours, [*colours[1:], colours[0]]))


def fresh(rng, palette):
    """A map from the palette to colours outside of it."""
    outside = [colour for colour in COLOURS if colour not in palette]
    return dict(zip(palette, rng.sample(outside, len(palette))))


def partly(function, count):
    """A family that maps so many colours of a palette, and leaves the others as they are."""

    def family(rng, palette):
        return dict(zip(palette, palette)) | function(rng, palette[:count])

    return family


SORTS = {"move": "cells move", "map": "colours change"}  # in the words of recipes
KNOWN = "known"  # families of pretraining; those of a split are in no other and not in these
MOVES = {  # families of rules of places
    KNOWN: {
        "right 1": move(1, 0),
        "left 1": move(-1, 0),
        "drag right 2": move(2, None),
        "drag left 2": move(-2, None),
    },
    "train": {
        "right 3": move(3, 0),
        "drag right 3": move(3, None),
        "left half": taken(0, 1, 2, None, None, None),
        "right half": taken(None, None, None, 3, 4, 5),
        "left half twice": taken(0, 1, 2, 0, 1, 2),
        "odd places": taken(None, 1, None, 3, None, 5),
        "ends": taken(0, None, None, None, None, 5),
        "outside": taken(0, 1, None, None, 4, 5),
    },
    "validation": {
        "halves right 1": halves(move(1, 0)),
        "right half twice": taken(3, 4, 5, 3, 4, 5),
        "even places": taken(0, None, 2, None, 4, None),
        "inside": taken(None, 1, 2, 3, 4, None),
    },
    "test": {
        "right 2": move(2, 0),
        "left 2": move(-2, 0),
        "drag right 1": move(1, None),
        "drag left 1": move(-1, None),
    },
}
MAPS = {  # families of rules of colours: (random.Random, palette) -> {colour: colour}
    KNOWN: {
        "next": fixed(lambda colour: colour % 9 + 1),
        "previous": fixed(lambda colour: (colour - 2) % 9 + 1),
        "opposite": fixed(lambda colour: 10 - colour),
    },
    "train": {
        "cycle of three": partly(cycle, 3),
        "two fresh": partly(fresh, 2),
    },
    "validation": {"one fresh": partly(fresh, 1), "three fresh": partly(fresh, 3)},
    "test": {
        "exchange": lambda rng, palette: cycle(rng, palette[:2]) | cycle(rng, palette[2:]),
        "cycle": cycle,
        "fresh": fresh,
    },
}


def new_move(rng):
    """A rule of places drawn anew, none of a family: a shift of a row or of its halves, cells
    blacked out, halves each as they are, black, or the other half, or anything for each cell."""
    named = {tuple(rule(MARKED)) for own in MOVES.values() for rule in own.values()}
    half, fill = CELLS // 2, rng.choice((0, None))
    while True:
        kind = rng.randrange(5)
        if kind == 0:
            rule = move(rng.choice((-4, -3, -2, -1, 1, 2, 3, 4)), fill)
        elif kind == 1:
            rule = halves(move(rng.choice((-2, -1, 1, 2)), fill))
        elif kind == 2:
            rule = taken(*(rng.choice((i, i, None)) for i in range(CELLS)))
        elif kind == 3:
            starts = rng.choices(range(CELLS - half + 1), k=2)
            rule = taken(*(start + i for start in starts for i in range(half)))
        else:
            rule = taken(*(rng.choice((None, *range(CELLS))) for _ in range(CELLS)))
        if tuple(rule(MARKED)) not in named | {tuple(MARKED), (0,) * CELLS}:
            return rule


def new_map(rng, palette):
    """A map of a palette's colours drawn anew, each to itself, to another of them or, in every
    other map, to a fresh one; none of a split's family, which only exchange colours or only bring
    fresh ones."""
    outside = [colour for colour in COLOURS if colour not in palette]
    others = rng.choice((palette, outside))
    while True:
        drawn = {c: rng.choice((c, rng.choice(palette), rng.choice(others))) for c in palette}
        inside = {new in palette for old, new in drawn.items() if new != old}
        if inside and (len(set(drawn.values())) < PALETTE or len(inside) == 2):
            return drawn


def draw_new(rng, pairs):
    """(sort, [(input, output), ...]) of a rule drawn anew."""
    if rng.random() < 0.5:
        sort, rule = "move", new_move(rng)
    else:
        palette = rng.sample(COLOURS, PALETTE)
        map_of = new_map(rng, palette)
        sort, rule = "map", lambda row: [map_of[colour] for colour in row]
    colours = palette if sort == "map" else rng.sample(COLOURS, PALETTE)
    rows = [rng.choices(colours, k=CELLS) for _ in range(pairs)]
    return sort, [(row, rule(row)) for row in rows]


NEITHER = {  # families that both recolouring and shuffling spoil: (row, map of colours) -> row
    "right 1 and map": lambda row, map_of: move(1, 0)([map_of[colour] for colour in row]),
    "sorted": lambda row, map_of: sorted(row),
    "first half, mapped": lambda row, map_of: [map_of[c] for c in row[:3]] + row[3:],
}


def draw_neither(rng, pairs):
    """(family, [(input, output), ...]) of a rule that is neither of places nor of colours."""
    family, palette = rng.choice(list(NEITHER)), rng.sample(COLOURS, PALETTE)
    map_of, rows = cycle(rng, palette), [rng.choices(palette, k=CELLS) for _ in range(pairs)]
    return family, [(row, NEITHER[family](row, map_of)) for row in rows]


def draw_puzzle(rng, families, pairs, tests=0, sort=None):
    """((sort, family), [(input, output), ...]) of a rule: rows, the last `tests` of them for tests.

    Of a rule that moves cells the tests have other colours than the demonstrations; of one that
    maps colours the same, or nobody could know. Without tests every row has its own palette.
    sort: MOVES or MAPS; None for either.
    """
    sort = sort or rng.choice((MOVES, MAPS))
    family = rng.choice(list(sort[families]))
    rule, colours = sort[families][family], rng.sample(COLOURS, len(COLOURS))
    palette, others = colours[:PALETTE], colours[PALETTE : 2 * PALETTE]
    if sort is MAPS:
        map_of, others = rule(rng, palette), palette
    done = []
    for i in range(pairs):
        own = others if i >= pairs - tests else palette
        row = rng.choices(own if tests else rng.sample(COLOURS, PALETTE), k=CELLS)
        done.append((row, rule(row) if sort is MOVES else [map_of[colour] for colour in row]))
    return ("move" if sort is MOVES else "map", family), done


def fair(pairs, tests):
    """Whether the demonstrations show all colours of the tests, or none of them."""
    shown, asked = ({c for x, _ in some for c in x} for some in (pairs[:-tests], pairs[-tests:]))
    return asked <= shown or asked.isdisjoint(shown)


def write_split(split):
    """One split as ARC's combined JSON has it: {name: {"train": [pairs], "test": [pairs]}}."""
    rng, tasks = random.Random(SEED[split]), {}
    while len(tasks) < SPLITS[split]:
        if split == "neither":
            family, pairs = draw_neither(rng, DEMONSTRATIONS + TESTS)
        else:
            sort = (MOVES, MOVES, MAPS)[len(tasks) % 3] if split == "train" else None
            (_, family), pairs = draw_puzzle(rng, split, DEMONSTRATIONS + TESTS, TESTS, sort)
        if fair(pairs, TESTS):
            grids = [{"input": [x], "output": [y]} for x, y in pairs]
            demonstrations, tests = grids[:DEMONSTRATIONS], grids[DEMONSTRATIONS:]
            tasks[f"{family} {len(tasks):03}"] = {"train": demonstrations, "test": tests}
    return tasks


SPOILT = {  # what of a recipe becomes what
    '"mirror"': '"rotate"',
    ": true": ': "yes"',
    ": false": ": 0",
    '"steps": ': '"steps": -',
    '"learning_rate": 0': '"learning_rate": 3',
    '"outputs"': '"inputs"',
    ', "recolour"': ' "recolour"',
    "}": "",
}


def write_recipe(rng, rule=""):
    """(sort, JSON) of a self-edit as pretraining has it, from `random_recipe`.

    One in four is spoilt, in one of SPOILT's ways.
    """
    text = random_recipe(rng, rule)
    if rng.random() < 0.75:
        return "recipe", text
    old = rng.choice([old for old in SPOILT if old in text])
    return "spoilt recipe", text.replace(old, SPOILT[old], 1)


def main():
    """Write the splits beside this file."""
    for split in SPLITS:
        text = ",\n".join(
            f"{json.dumps(k)}: {json.dumps(v)}" for k, v in write_split(split).items()
        )
        (FOLDER / f"puzzles_{split}.json").write_text(f"{{\n{text}\n}}\n", "ascii")


if __name__ == "__main__":
    main()
