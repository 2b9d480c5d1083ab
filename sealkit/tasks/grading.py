r"""Whether an answer is right, by a fixed rule: the same text earns the same reward every time.

Prediction and right answer become **tokens** (numbers with sign, bound and unit; words as their
lemma; fillers; marks). The prediction is right if it has

1. every number, single letter, word with a digit or symbol, "not", month and direction of the right
   answer, and more than half of its words (of several, those in small letters by their stem);
2. or, of a name, the last word and nothing else (Darwin), or all but its class (the Amazon, for the
   Amazon River); of words joined by a filler the first (antigen, for an antigen from a pathogen);
   of a month with its year the year;
3. unless it is degenerate (repeated words, a hedge, "I don't know", a question), or its match is
   behind a "not", on one side of an "or" or among several candidates, has its numbers or the two
   sides of a relation in another order, or is part of another name.

An answer that goes on with another question is judged by its first line and first sentence. Lemmas
are English and Russian; in other languages a word has to be the same. The rule knows neither what
was asked nor that two words mean the same; `tests/test_grading.py` measures how often GPT-4.1
differs.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from os.path import commonprefix
from typing import NamedTuple

import regex as re

from .tokens import LONGEST, MONTHS, TURN, UNSPACED, Token, tokenize

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
HEDGE = re.compile(  # says that the answer is not known, or takes it back
    r"(?i)\b(?:(?:do|does|did|is|was|are|ca|could)n['’]?t|(?:can)?not) (?:be )?(?:\w+ly )?"
    r"(?:sure|certain|clear|know|say|tell|answer|remember|recall|decide|known|given|stated|"
    r"specified|mention|mentioned|provided|determined)\b|"
    r"\b(?:un(?:sure|clear|certain|known|able)|nobody knows|who knows|dunno|idk|sorry|it depends|"
    r"no (?:idea|clue|answer|information|way of)|(?:hard|difficult|impossible) to \w+|forg[eo]t|"
    r"guess(?:es|ing)?|maybe|perhaps|possibly|may or may not|might not|(?:might|could|may) "
    r"(?:well |\w+ly )?be|is (?:wrong|false|incorrect|disputed))\b|[.,;] no,? (?:wait|it)\b"
)
QUESTION = re.compile(  # "Question: What? Answer: It." asks nothing
    r"(?i)[?？؟](?!\W*answer\b)|\n\W*q(?:uestion)?\b|(?-i:[.!\n]\s*(?:What|Which|Who|How)\s)"
)
SENTENCE = re.compile(r"(?<=[\p{Ll}\d]{2}[.!?])\s+(?=[\p{Lu}])")


def exact_match(prediction: str, answers: str | Iterable[str]) -> bool:
    """Whether `prediction` is one of `answers`, up to case, punctuation and articles.

    SQuAD's normalized exact match (https://arxiv.org/abs/1606.05250), for a world whose answers
    have one wording. Raises ValueError if there is no answer to compare with.

    >>> exact_match("The clarinet.", "clarinet"), exact_match("a clarinet or two", "clarinet")
    (True, False)
    """

    def normalize(text: str) -> list[str]:
        words = re.sub(r"[^\w\s]", "", text.lower()).split()
        return [word for word in words if word not in ("a", "an", "the")]

    return normalize(prediction) in map(normalize, _visible(answers))


def grade(prediction: str, answers: str | Iterable[str]) -> bool:
    """Whether `prediction` gives one of the right `answers` (one, or several).

    >>> grade("It opened on 4 July 1976.", "July 4, 1976"), grade("July 5, 1976", "July 4, 1976")
    (True, False)
    >>> grade("twenty-five kilometres", "25 km"), grade("25 miles", ("25 km", "15.5 miles"))
    (True, False)
    >>> grade("Darwin", "Charles Darwin"), grade("Emma Darwin", "Charles Darwin")
    (True, False)
    >>> grade("It was never approved", "approved"), grade("Oslo or Rome", "Rome")
    (False, False)
    >>> grade("Dublin\\nWhat is the capital of Peru?", "Dublin"), grade("Dublin " * 16, "Dublin")
    (True, False)

    Of a text the first 5,000 characters are read; none is an error. What an answer has in
    parentheses is optional. Raises ValueError if there is no answer to compare with.
    """
    answers = _visible(answers)
    prediction = prediction[:LONGEST]
    rambles, hedges = QUESTION.search(prediction), HEDGE.search(prediction)
    if rambles:
        prediction = SENTENCE.split(prediction.strip().partition("\n")[0])[0]
    tokens = tokenize(prediction)
    for answer in answers:
        optional = r"(?<!\w)\((?!\s*\w\s*\))[^)]*\)?"
        gold = tokenize(re.sub(optional, "", answer)) or tokenize(answer)
        if hedges and not HEDGE.search(answer) or rambles and not _bare(tokens, gold):
            continue
        if not _repetitive(tokens, gold) and _says(tokens, gold):
            return True
    return False


def _visible(answers: str | Iterable[str]) -> list[str]:
    visible = [a for a in ([answers] if isinstance(answers, str) else answers) if a.strip()]
    if not visible:
        reason = "This question has no answer to grade against"
        raise ValueError(f"{reason}: add one, or remove the question.")
    return visible


def _bare(tokens: list[Token], gold: list[Token]) -> bool:
    """Whether a prediction has no words but the right answer's (and fillers, unless it asks)."""
    accepted = {key for token in gold for key in token.accepts}
    asks = any(token.key == "?" for token in tokens)
    words = (token for token in tokens if token.wanted or asks and token.kind == "filler")
    return all(accepted & set(token.offers) for token in words)


def _repetitive(tokens: list[Token], gold: list[Token]) -> bool:
    """Whether a prediction is longer than the right answer and most of it are repetitions."""
    words, golds = ([t.key for t in ts if t.kind != "mark"][:12] for ts in (tokens, gold))
    return 2 * len(set(words)) < len(words) > len(golds)


class Match(NamedTuple):
    """Where the tokens of a right answer stand in a prediction."""

    prediction: list[Token]
    gold: list[Token]  # the right answer
    spots: dict[int, list[int]]  # {position in gold: positions in prediction} of numbers and words
    matched: list[int]  # positions in gold that the prediction has
    hits: set[int]  # positions in prediction


def _says(prediction: list[Token], gold: list[Token]) -> bool:
    if not any(token.wanted for token in gold):  # The Who
        bare, bare_gold = ([t.key for t in ts if t.kind != "mark"] for ts in (prediction, gold))
        return bare == bare_gold != []
    if _glued(prediction) & _glued(gold):  # e-mail, email
        return True
    core = [token for token in gold if token.kind != "filler"]
    if len(core) == 2 and _month(core[0]) and not any(map(_month, prediction)):
        gold = core[1:]
    spots = _spots(prediction, gold)
    matched = [k for k, at in spots.items() if at]
    m = Match(prediction, gold, spots, matched, {i for at in spots.values() for i in at})
    if any(_hard(gold[k]) for k in spots.keys() - matched) or not (_most(m) or _part(m)):
        return False
    objections = (_doubtful, _listed, _reordered, _reversed, _another)
    return not any(objection(m) for objection in objections)


def _glued(tokens: list[Token]) -> set[str]:
    """The words of a text written as one, in each of their cases; none where there is a number."""
    if any(token.kind == "number" for token in tokens):
        return set()
    words = [token for token in tokens if token.kind == "word"]
    if len(words) == 1:
        return set(words[0].offers)
    return {"".join(token.key for token in words)} - {""}


def _month(token: Token) -> bool:
    return token.key in MONTHS.values()


def _hard(token: Token) -> bool:
    """Whether a prediction needs this token of the right answer in any case."""
    key = token.key
    if token.kind == "number" or key == "not" or not key.isalpha() or _month(token):
        return True
    return token.name if len(key) == 1 or key in FIRST else key in TURN


def _spots(prediction: list[Token], gold: list[Token]) -> dict[int, list[int]]:
    places: dict[Hashable, list[int]] = defaultdict(list)
    spots: dict[int, list[int]] = {}
    for i, token in enumerate(prediction):
        for key in token.offers:
            places[key] += [i][: len(places[key]) < 100]  # linear, whatever is repeated
    several = sum(token.wanted for token in gold) > 1
    ends = {j for i, t in enumerate(prediction) if t.key == "~" for j in (i - 1, i + 1)}
    if any(token.key == "~" for token in gold):
        ends = set()  # else one end of a range is not the number
    for k, token in enumerate(gold):
        if token.wanted:
            spots[k] = sorted({i for key in token.accepts for i in places.get(key, ())} - ends)
        if token.kind == "word" and not spots[k] and len(token.key) > 1:
            if re.search(UNSPACED, token.key):
                spots[k] = [i for i, t in enumerate(prediction) if token.key in str(t.key)]
            elif several and not token.name and not _hard(token):
                spots[k] = [i for i, t in enumerate(prediction) if _same_stem(token.key, t.key)]
    return spots


def _same_stem(a: str, b: object) -> bool:
    """Whether two words begin alike: hydroelectric and hydroelectricity."""
    return isinstance(b, str) and len(commonprefix((a, b))) >= max(5, len(a) / 2, len(b) / 2)


def _most(m: Match) -> bool:
    """Whether more than half is said, and something of each member of a list of short ones."""
    members: list[list[int]] = [[]]
    for k, token in enumerate(m.gold):
        if token.kind == "mark" or token.key == "and":
            members.append([])
        elif token.wanted:
            members[-1].append(k)
    several = any(token.key == "and" for token in m.gold) and max(map(len, members)) < 3
    each = all(set(member) & set(m.matched) for member in members if member)
    return len(m.matched) > len(m.spots) / 2 and (each or not several)


def _part(m: Match) -> bool:
    """Whether what is said is enough of a name, or the first word of a phrase."""
    if not m.matched or any(token.key in ("and", "or") for token in m.gold):
        return False
    names = [k for k in m.spots if m.gold[k].name and m.gold[k].key not in CLASS]
    if names and any(m.gold[k].key in CLASS for k in m.spots.keys() - m.matched):
        return set(names) <= set(m.matched)
    if names:
        rest = (t.key for i, t in enumerate(m.prediction) if t.wanted and i not in m.hits)
        last = m.gold[names[-1]].key
        telling = names[-1] in m.matched and last not in COMMON and len(last) > 1
        return telling and all(key in CLASS for key in rest)
    first, last = min(m.spots), max(m.spots)
    joined = len(m.spots) == 2 and m.matched == [first] and last > first + 1
    return joined and m.gold[first].key not in COMMON


def _shape(m: Match) -> str:
    """The prediction, a character a token: H match, w word, n number, f filler, N "not", ..."""
    codes = {"and": "&", "or": "/", "not": "N"} | EMPHASIS
    kinds = {"word": "w", "number": "n", "filler": "f"}
    return "".join(
        "H" if i in m.hits else codes.get(t.key) or kinds.get(t.kind) or t.key
        for i, t in enumerate(m.prediction)
    )


def _doubtful(m: Match) -> bool:
    """Whether the match stands behind a "not" or on one side of an "or"."""
    wanted, shape = {token.key for token in m.gold}, _shape(m)
    if "not" not in wanted and re.search("N[wnf&/]{0,2}H", shape):
        return True
    one_side = r"(?s)[^H]*(H[Hf,?!(]*/[f,]*[wnN]|[wnN][f,?!]*/[f,]*H[Hf]*)[^H]*"
    if not wanted & {"or", "/"} and re.fullmatch(one_side, shape):
        return True
    both = {"yes", "not"} <= {token.key for token in m.prediction}
    return len(m.gold) == 1 and (both or "HH" in shape)  # not no


def _listed(m: Match) -> bool:
    """Whether the match is one of several short items, of words or of numbers."""
    shape, numeric = _shape(m), any(token.kind == "number" for token in m.gold)
    shape = shape.translate(str.maketrans("wn", "xw" if numeric else "wx"))
    items = re.split(r"[^wxfHbN]+" + r"|(?<=[wH])(?=[wH])" * numeric, shape)
    kinds = ("-" if not re.fullmatch("f{0,2}[wH]{1,2}", i) else "HR"["H" not in i] for i in items)
    rivals = max((run.count("R") for run in re.findall("[RH]*H[RH]*", "".join(kinds))), default=0)
    if "f" in shape:  # a sentence
        return rivals > 1
    pair = "&" in shape and not any(token.key == "and" for token in m.gold)
    words = shape.count("w") > len(m.gold) + 2 or re.search(r"([.,;\n]x){4}", shape)
    return rivals > (not pair) or bool(words)


def _reordered(m: Match) -> bool:
    """Whether numbers that are joined (3-1, 1914-18) are said in another order."""
    joined = (k for k, t in enumerate(m.gold) if t.key == "~" and {k - 1, k + 1} <= m.spots.keys())
    return any(
        not any(0 < q - p < 5 for p in m.spots[k - 1] for q in m.spots[k + 1]) for k in joined
    )


def _reversed(m: Match) -> bool:
    """Whether a relation is turned round (B taught A, for A taught B), and not by the passive."""
    first, *between, last = m.spots if len(m.spots) > 2 else (0, 0)
    if not between or len(between) > 3 or len(m.matched) < len(m.spots):
        return False
    if any(t.kind in ("mark", "number") or t.key in ("and", "or") for t in m.gold):
        return False
    passive = [any(t.key == "by" for t in tokens) for tokens in (m.prediction, m.gold)]
    turned = max(m.spots[last]) < min(i for k in between for i in m.spots[k])
    turned &= max(i for k in between for i in m.spots[k]) < min(m.spots[first])
    return turned and passive[0] == passive[1]


def _another(m: Match) -> bool:
    """Whether a name has one word replaced by another (Emma Darwin), or a bare name goes on."""
    order = list(m.spots)
    first, last = m.spots[order[0]], m.spots[order[-1]]
    after = [i + 1 for i in last if i + 1 < len(m.prediction) and i + 1 not in m.hits]
    if all(m.gold[k].name for k in order) and all(t.kind != "filler" for t in m.prediction):
        following = (m.prediction[i] for i in after)
        if any(t.wanted and t.name and t.key not in COMMON for t in following):
            return True  # Martin Luther King, for Martin Luther
        if any(m.prediction[i - 1].key in FIRST for i in first if i and i - 1 not in m.hits):
            return True  # North Korea, for Korea
    for n, k in enumerate(order):
        if m.spots[k] or not (m.gold[k].name or len(order) < 3):
            continue
        beside = {i - 1 for neighbour in order[n + 1 : n + 2] for i in m.spots[neighbour]}
        beside |= {i + 1 for neighbour in order[n - 1 : n] for i in m.spots[neighbour]}
        alike = (m.gold[k].name, m.gold[k].key in COMMON)
        rivals = (m.prediction[j] for j in beside - m.hits if 0 <= j < len(m.prediction))
        if any(t.wanted and alike == (t.name, t.key in COMMON) for t in rivals):
            return True
    return False
