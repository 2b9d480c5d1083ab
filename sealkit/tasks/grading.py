r"""Whether an answer is right, without asking a model: a fixed rule, and so a reward that repeats.

An answer and a right answer are **normalised** (Unicode, abbreviations, numbers in words, dates and
times), cut into **tokens** (numbers with sign, bound and unit; words as their lemma; fillers; marks)
and **compared**. The answer has to say

- each number, single letter, word with a digit or symbol, "not", month and direction, and more
  than half of the words of the right answer; or of a name the last word and nothing else (Darwin),
  or all but its class (the Amazon for the Amazon River); of two other words the first (passive for
  passive immunity); of a month with its year the year;

but not behind a "not", on one side of an "or", as one of several candidates, with the numbers in
another order, or beside one name in the place of another. Lemmas are English; in other languages a
word has to be the same. The rule does not know what was asked, nor that two words mean the same.
"""

import unicodedata
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

import pint
import regex as re
import simplemma
from dateutil import parser as dates
from text_to_num import alpha2digit

LONGEST = 5_000  # characters that are read
REACH = 3  # tokens between a "not" or an "or" and what it belongs to
FILLERS, NOT, CLASS, TURN = (
    frozenset(words.split())
    for words in (
        """an the mostly mainly often usually of in on at to for by from with as is was were are be
        been am it its their his her their they he she this that these those which who had has have
        did does do there than also and or but i we you about approximately around nearly almost
        roughly circa ca mr mrs ms dr sir prof degree degrees van von der den de da di du del la le
        les el los las""",
        "not no never neither nor without none nobody nothing hardly nicht kein keine pas non",
        """city town village river lake sea ocean bay island mount mountain valley desert street road
        avenue square bridge park university college school church cathedral hospital museum library
        company corporation party army war battle treaty act law empire republic kingdom state county
        province country union king queen prince princess emperor president pope saint general major
        captain colonel lieutenant chief minister marquis duke count lord lady theory system process
        rainforest forest man woman person people group type part number century decade year""",
        """north south east west northern southern eastern western northeast northwest southeast
        southwest upper lower left right more less most least higher up down above below before after
        early late inner outer internal external increase decrease rise fall high low maximum minimum
        male female positive negative true false first last""",
    )
)
CHARACTERS = str.maketrans(
    dict.fromkeys("’‘`´ʼ", "'") | dict.fromkeys("‐‑‒–−", "-") | dict.fromkeys("—、。，", ",")
    | {"⁄": "/", "&": " and ", "%": " percent ", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d"}
    | {"æ": "ae", "œ": "oe", "ß": "ss", "ı": "i"}
)
MONTHS = {name.lower(): names[-1].lower() for names in dates.parserinfo.MONTHS for name in names}
SCALES = dict(zip("dozen hundred thousand million billion trillion m b mn bn".split(),
                  (12, 100, 10**3, 10**6, 10**9, 10**12, 10**6, 10**9, 10**6, 10**9)))
MONEY = {"$": "dollars", "€": "euros", "£": "pounds", "¥": "yen"}
ROMAN = {
    tens * "x" + ones: Fraction(10 * tens + i)
    for tens in range(4)
    for i, ones in enumerate(("", *"i ii iii iv v vi vii viii ix".split()))
}
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
NUMBER = r"\d{1,30}(?:\.\d{1,30})?"
LEX = re.compile(rf"""
    (?P<bound>[<>])?(?P<number>(?:(?<![\w)%])-)?{NUMBER}(?:/[1-9]\d{{0,9}})?)(?!\.?\w)
        (?P<unit>\s?(?:(?:square|cubic|sq)\s)?[^\W\d_]{{1,20}}
                 (?:(?:\sper\s|/)[^\W\d_]{{1,20}}|[23](?!\w))?)?
    | (?P<word>(?:[^\W_]\p{{M}}*)+(?:\.\d+)*(?:[+\#]+(?!\w)|(?<=\b[A-Z]{{1,2}})-(?!\w))?)
    | (?P<mark>[,;.!?\n/~])""", re.X)


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

    Of a text the first 5,000 characters are read; none is an error. Raises ValueError if there is
    no answer to compare with.
    """
    answers = (answers,) if isinstance(answers, str) else tuple(answers)
    if not any(answer.strip() for answer in answers):
        raise ValueError(
            "This question has no answer to grade against: add one, or remove the question."
        )
    said = _tokens(prediction)
    optional = re.compile(r"\([^)]*\)?")  # what the right answer has in parentheses
    return any(_says(said, _tokens(optional.sub("", a)) or _tokens(a)) for a in answers)


# --- Normalise


def _date(found):
    try:
        day = dates.parse(found[0], dayfirst="." in found[0])
    except (ValueError, OverflowError):
        return found[0]
    return f" {day.day} {dates.parserinfo.MONTHS[day.month - 1][-1]} {day.year} "


def _clock(found):
    return f"{int(found[1]) % 12 + 12 * (found[3] in 'pP')}:{found[2] or '00'}"


BEFORE, AFTER = (  # what is rewritten before and after numbers in words become digits
    [(re.compile(pattern), new) for pattern, new in table]
    for table in (
        (
            (r"\b(?:[^\W\d_]{1,2}\.){2,}", lambda found: found[0].replace(".", "") + " "),  # U.S.
            (r"\b([A-Z])\. ?(?=[A-Z]\b)", r"\1"),  # J. K.
            (r"\b[aA] (?=(?i:half|third|quarter|fifth|dozen|hundred|thousand|[mb]illion)\b)", "one "),
            (r"(?<![^.!?:]\s)\bA (?=\w)(?!(?:m[ai][jn]or|flat|sharp|positive|negative)\b)", ""),
            (r"\ba (?=\w)", ""),
            (r"\bSt\b\.?", "Saint"),
            (r"\b[Nn]o\.? ?(?=\d)", "number "),
            (r"n't\b|(?<=\b[Cc]an)not\b", " not"),
            (r"\b[Nn]o one\b", "nobody"),
            (r"(?i) o'clock", ":00"),
            (r"\b[lLdD]'(?=\w{3})|(?<!\d)'s\b|'", ""),
            (r"(?<=\d),(?=\d{3}(?!\d))", ""),
            (r"\b(?:\d{4}([-/.])\d\d?\1\d\d?|\d\d?([-/.])\d\d?\2\d{4})\b", _date),
            (r"(?i)\bper cent\b", "percent"),
            (r"(?i)\b(?:one )?half(?: one| an)?\b", "0.5"),
            (r"(?i)\bquarter", "fourth"),
            (r"(?i)\b(third|fourth|fifth|sixth|eighth|tenth)s\b", r"\1"),
            (
                r"(?i)([$€£¥]) ?(-?[\d.]+(?: ?(?:thousand|[mb]n?|[mbtr]+illion)\b)?)",
                lambda found: f" {found[2]} {MONEY[found[1]]} ",
            ),
            (
                rf"({NUMBER})[ -]?((?i:dozen|hundred|thousand|[mbtr]+illion)|bn|mn)\b",
                lambda found: format(Decimal(found[1]) * SCALES[found[2].lower()], "f"),
            ),
            (rf"(?<=[^\W\d_])-(?=[^\W\d_])|(?<=\d)(?={UNSPACED})|(?<={UNSPACED})(?=\d)", " "),
        ),
        (
            (r"[^\S\n]+", " "),
            (r"\b(\d\d?) (\d\d?)(?:rd|th)\b", r"\1/\2"),
            (r"\b(\d+)(?:st|nd|rd|th)\b", r"\1"),
            (r"(?i)\b(?:minus|negative) (?=\d)", " -"),
            (r"\b(\d{1,9}) (?:1/2\b|and (?:1 )?0\.5\b)", r"\1.5"),
            (r"\b(\d[\d.]*)(?=[a-zµ]{2,5}\b)", r"\1 "),
            (r"(?i)\b(\d\d?)(?::(\d\d))? ?([ap])m\b", _clock),
            (r"(?i)(\d+) ?bce?\b", r" -\1 "),
            (r"\b(?:AD|CE) ?(?=\d)|(?<=\d) ?(?:AD|CE)\b", ""),
            (r"(?:°|\bdegrees?) ?([CF])(?:elsius|ahrenheit)?\b", r" deg\1"),
            (r"\b([A-Z][A-Za-z]?|[a-z])-(?=\d)", r"\1"),
            (r"\b([A-Za-z]{3,})-?(?=\d+\b)", r"\1 "),
            (r"(?<=\d) ?[-:] ?(?=\d)|(?<=\d) (?:to|vs|versus|through|until) (?=\d)", " ~ "),
            (r"\b(\d\d)(\d\d) ~ (?=\d\d\b)", r"\1\2 ~ \1"),
            (r"(?i)\b(?:(?:more|greater|larger|higher) than|over|above|at least) (?=\d)", " >"),
            (r"(?i)\b(?:(?:less|fewer|lower|smaller) than|under|below|up to|at most) (?=\d)", " <"),
            (r"(?i)[,;.] *(?:or )?(?:maybe|perhaps|possibly)\b", " or "),
        ),
    )
)


def _normal(text):
    text = text[:LONGEST].encode("utf-8", "replace").decode()  # half a surrogate pair becomes "?"
    text = unicodedata.normalize("NFKC", re.sub("(?<=\\d)(?=[¼-¾⅐-⅞])", " ", text))
    text = re.sub(r"(?<=\p{Latin})\p{M}+", "", unicodedata.normalize("NFD", text))
    text = unicodedata.normalize("NFC", text).translate(CHARACTERS)
    for pattern, new in BEFORE:
        text = pattern.sub(new, text)
    text = alpha2digit(text, "en", 0)
    for pattern, new in AFTER:
        text = pattern.sub(new, text)
    return text


# --- Tokens


class Token(NamedTuple):
    kind: str  # number, word, filler or mark
    key: object  # the number, or the word's lemma
    offers: tuple = ()  # what it counts as where it is said
    accepts: tuple = ()  # what counts as it where it is wanted
    name: bool = False  # begins with a capital letter


def _tokens(text):
    text, tokens, at = _normal(text), [], 0
    while found := LEX.search(text, at):
        at = found.end()
        if found["mark"]:
            tokens.append(Token("mark", found["mark"]))
        elif found["word"]:
            tokens.append(_word(found["word"], tokens))
        else:
            above, _, below = found["number"].partition("/")
            phrase = found["unit"] or ""
            unit, word = _unit(phrase), re.match(r"\s?[^\W\d_]*", phrase)[0]
            if unit is None:
                unit, phrase = _unit(word), word
            tokens.append(_number(Fraction(above) / int(below or 1), found["bound"] or "", unit))
            at = found.end("number") + len(phrase) * (unit is not None)
    return tokens


@lru_cache
def _units():
    units = pint.UnitRegistry()
    for coin in ("dollar", "euro", "yen"):
        units.define(f"{coin} = [{coin}]")
    return units


@lru_cache(4096)
def _unit(phrase):
    """The unit that a phrase names, or None."""
    phrase = re.sub(r"(?<=[a-z])([23])$", r"**\1", phrase.strip())
    if not phrase or phrase.lower() in FILLERS | NOT | {"a"}:
        return None
    try:
        return _units().parse_units(phrase)
    except Exception:  # pint has many errors for what is no unit
        return None


def _number(value, bound="", unit=None):
    size, kind = float(value), "dimensionless"
    try:
        if unit is not None:
            base = _units().Quantity(size, unit).to_base_units()
            size, kind = base.magnitude, str(base.units)
    except (ArithmeticError, pint.PintError):
        kind = str(unit)
    same, alone = (f"{size:.6g}", kind), unit is None
    rounded = [(f"about {float(value):.{n}g}", kind) for n in (2, 3) if value >= 10_000]
    offers = [("alone" if alone else "with unit", value), same, *rounded]
    accepts = [("alone", value), same, (f"about {float(value):.3g}", kind)]
    accepts += [("with unit", value)] * alone
    return Token(
        "number",
        value,
        tuple((bound, *key) for key in offers),
        tuple((b, *key) for key in accepts for b in {bound, ""}),
    )


def _word(text, before):
    word = text.lower()
    if word in ROMAN and before and (len(word) > 1 or text.isupper() and before[-1].name):
        return _number(ROMAN[word])
    filler = word in FILLERS and not (len(text) > 1 and text.isupper())  # it, but not IT
    if word in NOT:
        word = "not"
    elif word not in TURN:
        word = MONTHS.get(word) or simplemma.lemmatize(word, lang="en").lower()
    return Token("filler" if filler else "word", word, (word,), (word,), text[0].isupper())


# --- Compare


def _says(said, gold):
    if not any(t.kind in ("word", "number") for t in gold):  # The Who
        return [t.key for t in said] == [t.key for t in gold] != []
    if _glued(said) == _glued(gold) is not None:  # e-mail, email
        return True
    core = [t for t in gold if t.kind != "filler"]
    if len(core) == 2 and core[0].key in MONTHS.values() and not _month_in(said):
        gold = core[1:]
    spots = _spots(said, gold)
    if any(not at and _hard(gold[k]) for k, at in spots.items()):
        return False
    against = (_negated, _either, _listed, _reordered, _replaced)
    return _enough(said, gold, spots) and not any(no(said, gold, spots) for no in against)


def _glued(tokens):
    words = [t.key for t in tokens if t.kind == "word"]
    return None if any(t.kind == "number" for t in tokens) else "".join(words) or None


def _month_in(tokens):
    return any(t.key in MONTHS.values() for t in tokens)


def _spots(said, gold):
    """{position in gold: [positions in said]} of what is wanted: all numbers and words."""
    places, spots = defaultdict(list), {}
    one_end = {j for i, t in enumerate(said) if t.key == "~" for j in (i - 1, i + 1)}
    for i, t in enumerate(said):
        for key in t.offers:
            places[key].append(i)
    for k, t in enumerate(gold):
        if t.kind == "word" and re.search(UNSPACED, t.key):
            spots[k] = [i for i, other in enumerate(said) if t.key in str(other.key)]
        elif t.kind in ("word", "number"):
            spots[k] = sorted({i for key in t.accepts for i in places.get(key, ())})
            if not any(t.key == "~" for t in gold):
                spots[k] = [i for i in spots[k] if i not in one_end]
    return spots


def _hard(t):
    """Whether a token of the right answer has to be said, come what may."""
    if t.kind == "number" or t.key == "not" or not t.key.isalpha() or _month_in([t]):
        return True
    return t.name if len(t.key) == 1 or t.key in ("new", "old") else t.key in TURN


def _enough(said, gold, spots):
    found = {k for k, at in spots.items() if at}
    names = [k for k in spots if gold[k].name and gold[k].key not in CLASS]
    if len(found) > len(spots) / 2:
        return True
    if not found or any(t.key in ("and", "or") for t in gold):
        return False
    if names and any(gold[k].key in CLASS for k in spots.keys() - found):
        return found.issuperset(names)
    if names:
        hits = {i for at in spots.values() for i in at}
        rest = (t for i, t in enumerate(said) if t.kind in ("word", "number") and i not in hits)
        return names[-1] in found and all(t.key in CLASS for t in rest)
    first, *more = spots
    return first in found and gold[first].key not in CLASS and [len(gold[k].key) > 1 for k in more] == [True]


def _negated(said, gold, spots):
    if any(t.key == "not" for t in gold):
        return False
    for i in (i for at in spots.values() for i in at):
        near = takewhile(
            lambda j: said[j].kind != "mark" and said[j].key != "but",
            range(i - 1, max(i - 1 - REACH, -1), -1),
        )
        emphasis = ("only", "just", "merely", "simply")
        if any(said[j].key == "not" and said[j + 1].key not in emphasis for j in near):
            return True
    return False


def _either(said, gold, spots):
    hits = {i for at in spots.values() for i in at}
    for j, t in enumerate(said):
        if t.key in ("or", "/"):
            sides = set(range(j - REACH, j)), set(range(j + 1, j + 1 + REACH))
            if hits <= sides[0] | sides[1] and bool(hits & sides[0]) != bool(hits & sides[1]):
                if not any(t.key in ("or", "/") for t in gold):
                    return all(0 <= k < len(said) for k in (j - 1, j + 1))
    return False


def _reordered(said, gold, spots):
    return any(
        not any(0 < q - p < 5 for p in spots.get(k - 1, ()) for q in spots.get(k + 1, ()))
        for k, t in enumerate(gold)
        if t.key == "~" and {k - 1, k + 1} <= spots.keys()
    )


def _replaced(said, gold, spots):
    order = list(spots)
    hits = {i for at in spots.values() for i in at}
    for n, k in enumerate(order):
        t = gold[k]
        if spots[k] or not (t.name or len(order) < 3):
            continue
        beside = [i - 1 for k in order[n + 1 : n + 2] for i in spots[k]]
        beside += [i + 1 for k in order[max(n - 1, 0) : n] for i in spots[k]]
        for j in set(beside) - hits:
            if 0 <= j < len(said) and said[j].kind in ("word", "number") and said[j].name == t.name:
                if (said[j].key in CLASS) == (t.key in CLASS):
                    return True
    return False


def _listed(said, gold, spots):
    hits = {i for at in spots.values() for i in at}
    numeric = any(gold[k].kind == "number" for k in spots)
    parts, last = [[]], None
    for i, t in enumerate(said):
        if t.kind == "mark" or t.key in ("and", "or") or t.kind == last == "number":
            parts.append([])
        last = t.kind
        if t.kind != "mark" and t.key not in ("and", "or"):
            parts[-1].append(i)
    frame = {_frame(said, part) for part in parts if hits & set(part)} | {()}
    shape = ""
    for part in filter(None, parts):
        content = [i for i in part if said[i].kind != "filler"]
        kind = any(said[i].kind == "number" for i in part)
        if len(content) > 2 or not content or _frame(said, part) not in frame:
            shape += "-"
        else:
            shape += "O" if hits & set(part) else "R" if kind == numeric else "-"
    rivals = max((run.count("R") for run in re.findall("[RO]*O[RO]*", shape)), default=0)
    sentence = any(t.kind == "filler" for t in said)
    return rivals > 2 or not sentence and (rivals > 1 or len(said) - len(hits) > 2 * len(spots) + 2)


def _frame(said, part):
    return tuple(said[i].key for i in part if said[i].kind == "filler" and said[i].key not in ("an", "the"))
