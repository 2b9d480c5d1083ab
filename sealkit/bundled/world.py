"""The small world: fictional people, villages and ships, and every text made from them.

One seeded generator writes the pretraining documents and the passages of the three splits. Names
are an onset and an ending (`Bram` + `wick`); a fixed part of all names is kept out of pretraining,
so no name, and hence no fact, of a split is ever seen there (`tests/test_world.py` proves it).
"""

import random
from dataclasses import dataclass, replace
from itertools import cycle

from ..tasks.passages import BUNDLED, SPLITS, Passage, Question, save_passages

ONSETS = """Bram Cal Dor El Fen Gar Hal Ing Jor Kel Lor Mar Nor Ost Pel Quen Ram Sel Tor Ul Ven Wol Yar Zan
Ash Bel Cor Dun Em Fal Gil Hem Isk Jen Kor Lan Mel Nev Or Pol Rus Sar Tam Ur Vil Wen Yor Zel
Ald Ber Cren Dris Eng Frey Gren Hol Ild Jas Kir Lind Mos Nim Ork Prim""".split()
ENDINGS = """wick ford dale mere ton by nock gate bury combe field ham hurst ley mont more
ness over ridge sted stow thorpe vale worth low croft bridge cliff den fell holt mouth
ric win ard bert go gan la lo ma mir na nar ra rin ro sa
so ta ter tha tin va vik wen za zo da do ka ke bo""".split()


@dataclass(frozen=True)
class Relation:
    """One kind of fact, in four wordings that share none, and its values."""

    told: tuple[str, ...]  # in a passage: "{s} ..." with s a name, a pronoun or a role
    implied: tuple[str, ...]  # in an implication: by full name, which comes first
    asked: str  # in a self-edit of questions, and in the oracle: "What does {n} ...?"
    examined: str  # in an exam: by full name
    topic: str  # in a vague gist
    values: tuple[str, ...]


def _relation(told, implied, questions, topic, values):
    return Relation(
        tuple(told.split("|")),
        tuple(implied.split("|")),
        *questions.split("|"),
        topic,
        tuple(values.split()),
    )


KINDS = {
    "person": (
        _relation(
            "{s} works as a {v}.|{s} earns a living as a {v}.",
            "{n} is a {v} by trade.|{n} makes money as a {v}.",
            "What does {n} do for work?|Which job does {n} have?",
            "work",
            "baker miller tailor potter smith weaver carpenter sailor farmer teacher doctor painter hunter fisher cook printer mason shepherd guard clerk barber gardener",
        ),
        _relation(
            "{s} keeps a {v} at home.|{s} shares a house with a {v}.",
            "{n} owns a {v}.|{n} is the owner of a {v}.",
            "What does {n} have as a pet?|Which animal lives with {n}?",
            "animals",
            "goat cat dog pony raven hen donkey rabbit parrot lamb duck ferret falcon pig mouse snake turtle pigeon horse toad fox spider",
        ),
        _relation(
            "{s} plays the {v} every evening.|{s} has learned the {v}.",
            "{n} makes music on the {v}.|{n} performs on the {v}.",
            "What does {n} play?|Which instrument does {n} use?",
            "music",
            "fiddle flute harp drum lute horn piano guitar trumpet bagpipe whistle banjo cello organ viola tuba zither lyre gong trombone clarinet bell",
        ),
        _relation(
            "{s} dreams of seeing {v} one day.|{s} is saving to travel to {v}.",
            "{n} wants to visit {v}.|{n} hopes for a journey to {v}.",
            "What does {n} want to see?|Which place does {n} long for?",
            "plans",
            "Egypt Norway Peru India Japan Spain Kenya Canada Chile Greece Turkey Iceland Cuba Brazil Poland Nepal Ireland Mexico Samoa Italy China Mali",
        ),
    ),
    "village": (
        _relation(
            "{s} is known for fine {v}.|{s} sells {v} to the whole valley.",
            "{n} is famous for {v}.|{n} is proud of its {v}.",
            "What does {n} make best?|Which product comes from {n}?",
            "trade",
            "cheese honey wine rope glass paper cider wool bread candles soap pottery leather silk beer baskets knives ink plums apples carpets hats",
        ),
        _relation(
            "{s} lies beside a {v}.|{s} was built near a {v}.",
            "{n} stands next to a {v}.|{n} has a {v} nearby.",
            "What does {n} lie next to?|Which sight would visitors of {n} find?",
            "land",
            "lake forest swamp canyon waterfall desert glacier volcano meadow cave river beach marsh pond hill cove moor gorge stream bay fjord delta",
        ),
        _relation(
            "{s} is ruled by a {v}.|{s} obeys its {v}.",
            "{n} is led by a {v}.|{n} has its laws from a {v}.",
            "What does {n} have as a leader?|Who is in charge of {n}?",
            "rule",
            "duke bishop council widow judge captain knight queen baron monk prince mayor lady general king elder sheriff poet merchant wizard countess priest",
        ),
        _relation(
            "{s} holds its fair in the {v}.|{s} gathers each week in the {v}.",
            "{n} meets in the {v}.|{n} celebrates in the {v}.",
            "What does {n} use for meetings?|In which building do people of {n} come together?",
            "buildings",
            "barn tower castle chapel mill market school temple stable tavern library harbor theater granary palace abbey brewery bakery cellar orchard courtyard armory",
        ),
    ),
    "ship": (
        _relation(
            "{s} carries {v} across the sea.|{s} is loaded with {v}.",
            "{n} transports {v}.|{n} has {v} on board.",
            "What does {n} bring?|Which freight is aboard {n}?",
            "cargo",
            "salt tea coal sugar rice timber cotton copper pepper iron gold corn coffee marble spices tin silver oil bananas tobacco furs wheat",
        ),
        _relation(
            "{s} shows a carved {v} at the bow.|{s} wears a wooden {v} in front.",
            "{n} has a {v} as a figurehead.|{n} displays a {v}.",
            "What does {n} have as a carving?|Which figure adorns {n}?",
            "decoration",
            "swan lion dragon mermaid bear wolf stag serpent bull eagle ram whale griffin dolphin tiger owl unicorn boar crane angel shark rooster",
        ),
        _relation(
            "{s} flies a {v} flag.|{s} sails under a {v} banner.",
            "{n} has {v} colors.|{n} goes under {v} colors.",
            "What does {n} have as a color?|Which hue marks {n}?",
            "colors",
            "red blue green yellow black white purple brown pink gray crimson violet golden scarlet turquoise beige maroon lilac striped silvery dotted checkered",
        ),
        _relation(
            "{s} is bound for {v}.|{s} sets course to {v}.",
            "{n} will arrive in {v}.|{n} has {v} as its destination.",
            "What does {n} sail to?|To which city is {n} going?",
            "route",
            "London Paris Lisbon Venice Boston Cairo Tokyo Oslo Dublin Naples Hamburg Genoa Athens Lima Bombay Malta Havana Bergen Quebec Sydney Porto Riga",
        ),
    ),
}
# What exams ask of each kind of subject, by index: no text of the world says so.
ASKED = {"person": (0, 3), "village": (1, 2), "ship": (0, 2)}
REFERENCES = {"person": ("He", "She"), "village": ("It", "The village"), "ship": ("It", "The ship")}
GISTS = (
    "This text is about {a} and what it says of them.",
    "Some facts about {a} are given.",
    "The passage tells of {t}.",
    "It is a short note on {t}.",
    "Several things are said about {a}, mostly {t}.",
)


@dataclass(frozen=True)
class Subject:
    """Someone or something with a name, a kind and its facts as (relation index, value)."""

    name: str
    kind: str
    reference: tuple[str, ...]
    facts: tuple[tuple[int, str], ...]


TWO_KINDS = 0.5  # share of self-edits on two kinds of facts; others have any number of facts
HELD_OUT, KNOWN = (
    1200,
    240,
)  # names of the splits; names whose facts pretraining repeats until they are known


def all_names():
    """Every name of the world in one fixed shuffled order."""
    names = [onset + ending for onset in ONSETS for ending in ENDINGS]
    random.Random(0).shuffle(names)
    return names


def held_out_names():
    """Names that occur in the splits and never in pretraining."""
    return all_names()[:HELD_OUT]


def passing_names():
    """Names that pretraining passages use, with new facts every time."""
    return all_names()[HELD_OUT + KNOWN :]


def known_subjects():
    """The subjects whose facts (all relations of their kind) the model learns by heart in pretraining."""
    rng = random.Random(1)
    names = all_names()[HELD_OUT : HELD_OUT + KNOWN]
    return [
        make_subject(rng, name, kind, range(len(KINDS[kind])))
        for name, kind in zip(names, cycle(KINDS))
    ]


def make_subject(rng, name, kind, relations, values=None):
    """A subject called `name` of `kind` with a random value (of the first `values`) for each relation index."""
    references = REFERENCES[kind]
    reference = (rng.choice(references),) if kind == "person" else references
    return Subject(
        name,
        kind,
        reference,
        tuple((r, rng.choice(KINDS[kind][r].values[:values])) for r in relations),
    )


def part_of(rng, subject, facts):
    """A subject with so many of its facts, in random order."""
    return replace(subject, facts=tuple(rng.sample(subject.facts, facts)))


def title(subjects):
    """Their names, as a passage's title."""
    return " and ".join(subject.name for subject in subjects)


def make_group(rng, names, facts, alike=False, values=None):
    """`len(names)` subjects (at most three), `facts` facts each: of different kinds or, if `alike`, of one kind and with the same kinds of facts.

    Among subjects that are alike only the name tells whose a value is; no two of them share one.
    """
    kinds = [rng.choice(list(KINDS))] * len(names) if alike else rng.sample(list(KINDS), len(names))
    shared = rng.sample(range(len(KINDS[kinds[0]])), facts)
    while True:
        relations = [
            rng.sample(shared, facts) if alike else rng.sample(range(len(KINDS[kind])), facts)
            for kind in kinds
        ]
        subjects = [make_subject(rng, *subject, values) for subject in zip(names, kinds, relations)]
        told = [(subject.kind, fact) for subject in subjects for fact in subject.facts]
        if len(set(told)) == len(told):
            return subjects


def draw_names(rng, pool, count):
    """`count` names from `pool` that share neither onset nor ending."""
    while True:
        names = rng.sample(pool, count)
        if (
            len({name[:2] for name in names}) == count
            and len({name[-2:] for name in names}) == count
        ):
            return names


def tell(rng, subjects, by_name=0.0, facts=None):
    """Narrative text: each subject is named once, then meant by pronoun or role (or by name with chance `by_name`)."""
    sentences = []
    for subject in subjects:
        chosen = [fact for fact in subject.facts if facts is None or (subject.name, *fact) in facts]
        for i, (relation, value) in enumerate(chosen):
            who = (
                subject.name if i == 0 or rng.random() < by_name else rng.choice(subject.reference)
            )
            sentences.append(rng.choice(KINDS[subject.kind][relation].told).format(s=who, v=value))
    return " ".join(sentences)


def imply(rng, subject, relation, value):
    """One fact by full name."""
    return rng.choice(KINDS[subject.kind][relation].implied).format(n=subject.name, v=value)


def ask(subject, relation):
    """A self-edit's question for one fact, by full name."""
    return KINDS[subject.kind][relation].asked.format(n=subject.name)


def examine(subject, relation):
    """An exam's question for one fact, by full name."""
    return KINDS[subject.kind][relation].examined.format(n=subject.name)


def all_facts(subjects):
    """(subject, relation, value) of each fact, in the passage's order."""
    return [(subject, *fact) for subject in subjects for fact in subject.facts]


def by_kind(rng, subjects):
    """(subject, relation, value) of each fact: kinds in random order, each of all its subjects."""
    facts = all_facts(subjects)
    kinds = list(dict.fromkeys((subject.kind, relation) for subject, relation, _ in facts))
    order = rng.sample(range(len(kinds)), len(kinds))
    place = dict(zip(kinds, order))
    return sorted(facts, key=lambda fact: (place[fact[0].kind, fact[1]], subjects.index(fact[0])))


def write_self_edit(rng, subjects, style, facts=None):
    """A self-edit of one style for a passage about `subjects`.

    facts: those it states; by default as the writer's habits have it: kind by kind in random order,
    in half of the texts two kinds of facts, else the first so many facts, whatever is asked. A gist
    states none. Returns the text; lines are separated by newlines.
    """
    if facts is None:
        facts = by_kind(rng, subjects)
        kinds = list(dict.fromkeys((subject.kind, relation) for subject, relation, _ in facts))
        if rng.random() < TWO_KINDS:
            facts = [fact for fact in facts if (fact[0].kind, fact[1]) in kinds[:2]]
        else:
            facts = facts[: rng.randint(1, len(facts))]
    if style == "implications":
        return "\n".join(imply(rng, *fact) for fact in facts)
    if style == "questions":
        return "\n".join(
            f"Question: {ask(subject, relation)} Answer: {value}"
            for subject, relation, value in facts
        )
    if style == "rewrite":
        return tell(rng, subjects, facts={(subject.name, *fact) for subject, *fact in facts})
    topics = list(
        dict.fromkeys(KINDS[subject.kind][relation].topic for subject, relation, _ in facts)
    )
    who = " and ".join(subject.name for subject in subjects)
    lines = rng.sample(GISTS, rng.randint(1, min(3, len(facts))))
    return "\n".join(line.format(a=who, t=" and ".join(topics[:2])) for line in lines)


def make_passage(rng, subjects):
    """A Passage whose exam asks for the two ASKED kinds of facts of each subject; its oracle asks
    and answers these by name, in a self-edit's words."""
    asked = [fact for fact in all_facts(subjects) if fact[1] in ASKED[fact[0].kind]]
    questions = [Question(examine(subject, r), (value,)) for subject, r, value in asked]
    rng.shuffle(questions)
    text, oracle = tell(rng, subjects), write_self_edit(rng, subjects, "questions", asked)
    return Passage(title(subjects), text, tuple(questions), oracle)


def make_splits(passages=120):
    """{split: list[Passage]}: two subjects that are alike, four facts each; no name is used twice."""
    rng = random.Random(2)
    names = held_out_names()
    splits = {split: [] for split in SPLITS}
    for split in SPLITS:
        for _ in range(passages):
            chosen = draw_names(rng, names, 2)
            names = [name for name in names if name not in chosen]
            group = make_group(rng, chosen, 4, alike=True)
            splits[split].append(make_passage(rng, group))
    return splits


if __name__ == "__main__":
    for split, passages in make_splits().items():
        save_passages(BUNDLED / f"{split}.jsonl", passages)
        print(
            f"{split}: {len(passages)} passages, {sum(len(p.questions) for p in passages)} questions"
        )
