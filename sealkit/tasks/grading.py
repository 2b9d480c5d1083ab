r"""Whether an answer is right, by a fixed rule: a reward that is the same today and tomorrow.

Said and right answer become **tokens** (`tokens`: numbers with sign, bound and unit; words as their
lemma; fillers; marks), and are **compared**. Right is what says

1. every number, single letter, word with a digit or symbol, "not", month and direction of the right
   answer, and more than half of its words;
2. or of a name the last word and nothing else (Darwin), or all but its class (the Amazon, for the
   Amazon River); of words joined by a filler the first (antigen, for an antigen from a pathogen);
   of a month with its year the year;
3. unless what was found stands behind a "not", on one side of an "or" or among several candidates,
   has its numbers in another order, or is part of another name.

Lemmas are English; in other languages a word has to be the same. The rule knows neither what was
asked nor that two words mean the same; `tests/test_grading.py` measures how often GPT-4.1 differs.
"""

from collections import defaultdict
from typing import NamedTuple

import regex as re

from .tokens import MONTHS, TURN, UNSPACED, tokenize

# Words for the class of a name: those that may be left out, and those that alone say nothing either
CLASS = """river lake sea ocean bay island mount mountain valley desert rainforest forest university
college school hospital museum library company corporation king queen prince princess emperor
president pope saint general major captain colonel lieutenant chief minister marquis duke count lord
lady""".split()


COMMON = (
    """city town village street road avenue square bridge park church cathedral party army war
battle treaty act law empire republic kingdom state county province country union theory system
process man woman person people group type part number century decade year""".split()
    + CLASS
)


FIRST = "new old great san santa los las cape port fort east west north south".split()
EMPHASIS = dict.fromkeys("but only just merely simply".split(), "b")  # not only


def grade(prediction, answers):
    """Whether `prediction` (str) says one of the right `answers` (a str, or several): bool.

    >>> grade("It opened on 4 July 1976.", "July 4, 1976"), grade("July 5, 1976", "July 4, 1976")
    (True, False)
    >>> grade("twenty-five kilometres", "25 km"), grade("25 miles", ("25 km", "15.5 miles"))
    (True, False)
    >>> grade("Darwin", "Charles Darwin"), grade("Emma Darwin", "Charles Darwin")
    (True, False)
    >>> grade("It was never approved", "approved"), grade("Oslo or Rome", "Rome")
    (False, False)

    Of a text the first 5,000 characters are read; none is an error. What an answer has in
    parentheses is optional. Raises ValueError if there is no answer to compare with.
    """
    answers = (answers,) if isinstance(answers, str) else tuple(answers)
    if not any(answer.strip() for answer in answers):
        raise ValueError(
            "This question has no answer to grade against: add one, or remove the question."
        )
    said = tokenize(prediction)
    golds = (tokenize(re.sub(r"\([^)]*\)?", "", a)) or tokenize(a) for a in answers)
    return any(_says(said, gold) for gold in golds)


class Match(NamedTuple):
    """Where the tokens of a right answer are said."""

    said: list  # of tokens
    gold: list  # the right answer's tokens
    spots: dict  # {position in gold: [positions in said]} of its numbers and words
    found: list  # positions in gold that are said somewhere
    hits: set  # positions in said


def _says(said, gold):
    if not any(t.wanted for t in gold):  # The Who
        bare_said, bare_gold = ([t.key for t in ts if t.kind != "mark"] for ts in (said, gold))
        return bare_said == bare_gold != []
    if _glued(said) == _glued(gold) is not None:  # e-mail, email
        return True
    core = [t for t in gold if t.kind != "filler"]
    if len(core) == 2 and _month(core[0]) and not any(map(_month, said)):
        gold = core[1:]
    spots = _spots(said, gold)
    found = [k for k, at in spots.items() if at]
    m = Match(said, gold, spots, found, {i for at in spots.values() for i in at})
    if any(_hard(gold[k]) for k in spots.keys() - found) or not (_most(m) or _part(m)):
        return False
    return not any(objection(m) for objection in (_doubtful, _listed, _reordered, _another))


def _glued(tokens):
    words = [t.key for t in tokens if t.kind == "word"]
    return None if any(t.kind == "number" for t in tokens) else "".join(words) or None


def _month(token):
    return token.key in MONTHS.values()


def _hard(token):
    """Whether a token of the right answer has to be said, come what may."""
    key = token.key
    if token.kind == "number" or key == "not" or not key.isalpha() or _month(token):
        return True
    return token.name if len(key) == 1 or key in FIRST else key in TURN


def _spots(said, gold):
    places, spots = defaultdict(list), {}
    for i, t in enumerate(said):
        for key in t.offers:
            places[key] += [i][: len(places[key]) < 100]  # linear, whatever is repeated
    ends = {j for i, t in enumerate(said) if t.key == "~" for j in (i - 1, i + 1)}
    ends -= (
        ends if any(t.key == "~" for t in gold) else set()
    )  # one end of a range is not the number
    for k, t in enumerate(gold):
        if t.wanted:
            spots[k] = sorted({i for key in t.accepts for i in places.get(key, ())} - ends)
        if t.kind == "word" and not spots[k] and len(t.key) > 1 and re.search(UNSPACED, t.key):
            spots[k] = [i for i, other in enumerate(said) if t.key in str(other.key)]
    return spots


def _most(m):
    """Whether more than half is said, and something of each member of a list of short ones."""
    members = [[]]
    for k, t in enumerate(m.gold):
        if t.kind == "mark" or t.key == "and":
            members.append([])
        elif t.wanted:
            members[-1].append(k)
    several = any(t.key == "and" for t in m.gold) and max(map(len, members)) < 3
    each = all(set(member) & set(m.found) for member in members if member)
    return len(m.found) > len(m.spots) / 2 and (each or not several)


def _part(m):
    """Whether what is said is enough of a name, or the first word of a phrase."""
    if not m.found or any(t.key in ("and", "or") for t in m.gold):
        return False
    names = [k for k in m.spots if m.gold[k].name and m.gold[k].key not in CLASS]
    if names and any(m.gold[k].key in CLASS for k in m.spots.keys() - m.found):
        return set(names) <= set(m.found)
    if names:
        rest = (t.key for i, t in enumerate(m.said) if t.wanted and i not in m.hits)
        last = m.gold[names[-1]].key
        telling = names[-1] in m.found and last not in COMMON and len(last) > 1
        return telling and all(key in CLASS for key in rest)
    (first, *_), last = m.spots, max(m.spots)
    return (
        len(m.spots) == 2
        and m.found == [first]
        and last > first + 1
        and m.gold[first].key not in COMMON
    )


def _shape(m):
    """What is said with one character a token: H found, w word, n number, f filler, N "not", ..."""
    codes = {"and": "&", "or": "/", "not": "N"} | EMPHASIS
    kinds = {"word": "w", "number": "n", "filler": "f"}
    said = enumerate(m.said)
    return "".join(
        "H" if i in m.hits else codes.get(t.key) or kinds.get(t.kind) or t.key for i, t in said
    )


def _doubtful(m):
    """Whether what was found stands behind a "not" or on one side of an "or"."""
    asked, shape = {t.key for t in m.gold}, _shape(m)
    if "not" not in asked and re.search("N[wnf&/]{0,2}H", shape):
        return True
    one_side = r"(?s)[^H]*(H[Hf,?!(]*/[f,]*[wnN]|[wnN][f,?!]*/[f,]*H[Hf]*)[^H]*"
    if not asked & {"or", "/"} and re.fullmatch(one_side, shape):
        return True
    return len(m.gold) == 1 and {"yes", "not"} <= {t.key for t in m.said}


def _listed(m):
    """Whether what was found is one of several short items, of words or of numbers."""
    shape, numeric = _shape(m), any(t.kind == "number" for t in m.gold)
    shape = shape.translate(str.maketrans("wn", "xw" if numeric else "wx"))
    items = re.split(r"[^wxfHbN]+" + r"|(?<=[wH])(?=[wH])" * numeric, shape)
    kinds = ("-" if not re.fullmatch("f{0,2}[wH]{1,2}", i) else "HR"["H" not in i] for i in items)
    rivals = max((run.count("R") for run in re.findall("[RH]*H[RH]*", "".join(kinds))), default=0)
    if "f" in shape:  # a sentence
        return rivals > 1
    pair = "&" in shape and not any(t.key == "and" for t in m.gold)
    return rivals > (not pair) or shape.count("w") > len(m.gold) + 2


def _reordered(m):
    """Whether numbers that are joined (3-1, 1914-18) are said in no such order."""
    joined = (k for k, t in enumerate(m.gold) if t.key == "~" and {k - 1, k + 1} <= m.spots.keys())
    return any(
        not any(0 < q - p < 5 for p in m.spots[k - 1] for q in m.spots[k + 1]) for k in joined
    )


def _another(m):
    """Whether a name has one word replaced by another (Emma Darwin), or a bare name goes on."""
    order = list(m.spots)
    first, last = m.spots[order[0]], m.spots[order[-1]]
    if all(m.gold[k].name for k in order) and not any(t.kind == "filler" for t in m.said):
        after = (m.said[i + 1] for i in last if i + 1 < len(m.said) and i + 1 not in m.hits)
        if any(t.wanted and t.name and t.key not in COMMON for t in after):
            return True  # Martin Luther King, for Martin Luther
        if any(m.said[i - 1].key in FIRST for i in first if i and i - 1 not in m.hits):
            return True  # North Korea, for Korea
    for n, k in enumerate(order):
        beside = {i - 1 for after in order[n + 1 : n + 2] for i in m.spots[after]}
        beside |= {i + 1 for before in order[n - 1 : n] for i in m.spots[before]}
        alike = (m.gold[k].name, m.gold[k].key in COMMON)
        for t in (m.said[j] for j in beside - m.hits if 0 <= j < len(m.said)):
            if not m.spots[k] and (alike[0] or len(order) < 3) and t.wanted:
                if alike == (t.name, t.key in COMMON):
                    return True
    return False
