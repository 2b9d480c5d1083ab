r"""Whether an answer is right, by a fixed rule: the reward, so the same today and tomorrow.

A text is **normalised** (Unicode, abbreviations, numbers in words, dates, times), cut into **tokens**
(numbers with sign, bound and unit; words as their lemma; fillers; marks) and **compared**. Right is
what says

- every number, single letter, word with a digit or symbol, "not", month and direction of the right
  answer, and more than half of its words;
- or of a name the last word and nothing else (Darwin), or all but its class (the Amazon for the
  Amazon River); of two other words the first (passive for passive immunity); of a month its year;
- but not behind a "not", on one side of an "or", among several candidates, with numbers in another
  order, or beside one name in the place of another.

Lemmas are English; in other languages a word has to be the same. The rule knows neither the question
nor that two words mean the same: `tests/test_grading.py` measures how often GPT-4.1 judges otherwise.
"""

import unicodedata
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import pint
import regex as re
import simplemma
from dateutil import parser as dates
from text_to_num import alpha2digit

LONGEST = 5_000  # characters that are read
FILLERS = """an the mostly mainly often usually of in on at to for by from with as is was were are be
been am it its their his her their they he she this that these those which who had has have did does
do there than also i we you about approximately around nearly almost roughly circa ca mr mrs ms dr
sir prof degree degrees van von der den de da di du del la le les el los las""".split()
NOT = "not no never neither nor without none nobody nothing hardly nicht kein keine pas non".split()
BREAKS = dict.fromkeys("but only just merely simply".split(), "b") | {"and": "&", "or": "/"}
CLASS = """city town village river lake sea ocean bay island mount mountain valley desert street road
avenue square bridge park university college school church cathedral hospital museum library company
corporation party army war battle treaty act law empire republic kingdom state county province country
union king queen prince princess emperor president pope saint general major captain colonel lieutenant
chief minister marquis duke count lord lady theory system process rainforest forest man woman person
people group type part number century decade year""".split()
TURN = """north south east west northern southern eastern western northeast northwest southeast
southwest upper lower left right more less most least higher up down above below before after early
late inner outer internal external increase decrease rise fall high low maximum minimum male female
positive negative true false first last""".split()
CHARACTERS = str.maketrans(
    {"⁄": "/", "&": " and ", "%": " percent ", "ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d"}
    | {"æ": "ae", "œ": "oe", "ß": "ss", "ı": "i"}
    | {c: plain for plain, odd in (("'", "’‘`´ʼ"), ("-", "‐‑‒–−"), (",", "—、。，")) for c in odd}
)
MONTHS = {name.lower(): names[-1].lower() for names in dates.parserinfo.MONTHS for name in names}
MONEY = {"$": "dollars", "€": "euros", "£": "pounds", "¥": "yen"}
SCALES = dict(dozen=12, hundred=100, thousand=10**3, million=10**6, billion=10**9, trillion=10**12)
ROMAN = "0 i ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx xxi".split()
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
NUMBER = r"\d{1,30}(?:\.\d{1,30})?"


def _date(found):
    try:
        day = dates.parse(found[0], dayfirst="." in found[0])
    except (ValueError, OverflowError):
        return found[0]
    return f" {day.day} {dates.parserinfo.MONTHS[day.month - 1][-1]} {day.year} "


BEFORE = [  # what is rewritten before numbers in words become digits
    (r"\b(?:[^\W\d_]{1,2}\.){2,}", lambda found: found[0].replace(".", "") + " "),  # U.S.
    (r"\b([A-Z])\. ?(?=[A-Z]\b)", r"\1"),  # J. K.
    (r"\b[aA] (?=(?i:half|third|quarter|fifth|dozen|hundred|thousand|\w+illion)\b)", "one "),
    (r"(?<![^.!?:]\s)\bA (?=\w)(?!(?:m[ai][jn]or|flat|sharp|positive|negative)\b)|\ba (?=\w)", ""),
    (r"\bSt\b\.?", "Saint"),
    (r"\b[Nn]o\.? ?(?=\d)", "number "),
    (r"n't\b|(?<=\b[Cc]an)not\b", " not"),
    (r"(?i)\bno one\b", "nobody"),
    (r"\b[lLdD]'(?=\w{3})|(?<!\d)'s\b|'|(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\b(?:\d{4}([-/.])\d\d?\1\d\d?|\d\d?([-/.])\d\d?\2\d{4})\b", _date),
    (r"(?i)\bper cent\b", "percent"),
    (r"(?i)\b(?:one )?half(?: one| an)?\b", "0.5"),
    (r"(?i)\bquarter", "fourth"),
    (r"(?i)\b(third|fourth|fifth|sixth|eighth|tenth)s\b", r"\1"),
    (r"(?i)([$€£¥] ?-?[\d.]+ ?)m(?:n|illion)?\b", r"\1million"),
    (r"(?i)([$€£¥] ?-?[\d.]+ ?)b(?:n|illion)?\b", r"\1billion"),
    (r"([$€£¥]) ?(-?[\d.]+(?: ?\w*(?:illion|thousand)\b)?)", lambda m: f" {m[2]} {MONEY[m[1]]} "),
    (
        rf"(?i)({NUMBER})[ -]?(dozen|hundred|thousand|[mbtr]+illion)\b",
        lambda found: format(Decimal(found[1]) * SCALES[found[2].lower()], "f"),
    ),
    (rf"(?<=[^\W\d_])-(?=[^\W\d_])|(?<=\d)(?={UNSPACED})|(?<={UNSPACED})(?=\d)", " "),
]
AFTER = [
    (r"[^\S\n]+", " "),
    (r"\b(\d\d?) (\d\d?)(?:rd|th)\b", r"\1/\2"),
    (r"\b(\d+)(?:st|nd|rd|th)\b", r"\1"),
    (r"(?i)\b(?:minus|negative) (?=\d)", " -"),
    (r"\b(\d{1,9}) (?:1/2\b|and (?:1 )?0\.5\b)", r"\1.5"),
    (r"\b(\d[\d.]*)(?=[a-zµ]{2,5}\b)", r"\1 "),  # 250ml
    (
        r"(?i)\b(\d\d?)(?::(\d\d))? ?([ap])m\b",
        lambda found: f"{int(found[1]) % 12 + 12 * (found[3] in 'pP')}:{found[2] or '00'}",
    ),
    (r"(?i)(\d+) ?bce?\b", r" -\1 "),
    (r"\b(?:AD|CE) ?(?=\d)|(?<=\d) ?(?:AD|CE)\b", ""),
    (r"(?:°|\bdegrees?) ?([CF])(?:elsius|ahrenheit)?\b", r" deg\1"),
    (r"\b([A-Z][A-Za-z]?|[a-z])-(?=\d)", r"\1"),  # F-16 is F16,
    (r"\b([A-Za-z]{3,})-?(?=\d+\b)", r"\1 "),  # and GPT-4 is GPT 4
    (r"(?<=\d) ?[-:] ?(?=\d)|(?<=\d) (?:to|vs|versus|through|until) (?=\d)", " ~ "),
    (r"\b(\d\d)(\d\d) ~ (?=\d\d\b)", r"\1\2 ~ \1"),
    (r"(?i)\b(?:(?:more|greater|larger|higher) than|over|above|at least) (?=\d)", " >"),
    (r"(?i)\b(?:(?:less|fewer|lower|smaller) than|under|below|up to|at most) (?=\d)", " <"),
    (r"(?i)[,;.] *(?:or )?(?:maybe|perhaps|possibly)\b", " or "),
]
LEX = re.compile(
    rf"""(?P<bound>[<>])?(?P<number>(?:(?<![\w)%])-)?{NUMBER}(?:/[1-9]\d{{0,9}})?)(?!\.?\w)
           (?P<unit>\s?(?:(?:square|cubic|sq)\s)?[^\W\d_]{{1,20}}
                    (?:(?:\sper\s|/)[^\W\d_]{{1,20}}|[23](?!\w))?)?
       | (?P<word>(?:[^\W_]\p{{M}}*)+(?:\.\d+)*(?:[+\#]+(?!\w)|(?<=\b[A-Z]{{1,2}})-(?!\w))?)
       | (?P<mark>[,;.!?\n/~])""",
    re.X,
)


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

    Of a text the first 5,000 characters are read; none is an error. What an answer has in parentheses
    is optional. Raises ValueError if there is no answer to compare with.
    """
    answers = (answers,) if isinstance(answers, str) else tuple(answers)
    if not any(answer.strip() for answer in answers):
        raise ValueError(
            "This question has no answer to grade against: add one, or remove the question."
        )
    said = _tokens(prediction)
    return any(
        _says(said, _tokens(re.sub(r"\([^)]*\)?", "", answer)) or _tokens(answer))
        for answer in answers
    )


class Token(NamedTuple):
    kind: str  # number, word, filler or mark
    key: object  # the number, or the word's lemma
    offers: tuple = ()  # what it counts as where it is said
    accepts: tuple = ()  # what counts as it where it is wanted
    name: bool = False  # begins with a capital letter

    @property
    def wanted(self):
        return self.kind in ("number", "word")


def _normal(text):
    text = text[:LONGEST].encode("utf-8", "replace").decode()  # half a surrogate pair becomes "?"
    text = unicodedata.normalize("NFKC", re.sub("(?<=\\d)(?=[¼-¾⅐-⅞])", " ", text))
    text = re.sub(r"(?<=\p{Latin})\p{M}+", "", unicodedata.normalize("NFD", text))
    text = unicodedata.normalize("NFC", text).translate(CHARACTERS)
    for pattern, new in BEFORE:
        text = re.sub(pattern, new, text)
    text = alpha2digit(text, "en", 0)
    for pattern, new in AFTER:
        text = re.sub(pattern, new, text)
    return text


def _tokens(text):
    text, tokens, at = _normal(text), [], 0
    while found := LEX.search(text, at):
        at = found.end()
        if found["number"]:
            above, _, below = found["number"].partition("/")
            unit, length = _unit(found["unit"] or "")
            tokens.append(_number(Fraction(above) / int(below or 1), found["bound"] or "", unit))
            at = found.end("number") + length
        elif found["word"]:
            tokens.append(_word(found["word"], tokens))
        else:
            tokens.append(Token("mark", found["mark"]))
    return tokens


@lru_cache
def _units():
    units = pint.UnitRegistry()
    for coin in ("dollar", "euro", "yen"):
        units.define(f"{coin} = [{coin}]")
    return units


@lru_cache(4096)
def _unit(text):
    """(unit, characters) that a text begins with, or (None, 0)."""
    for phrase in (text, re.match(r"\s?[^\W\d_]*", text)[0]):
        if phrase.strip().lower() in ("", "a", *FILLERS, *NOT, *BREAKS):
            continue
        try:
            return _units().parse_units(re.sub("(?<=[a-z])([23])$", r"**\1", phrase)), len(phrase)
        except Exception:  # pint has many errors for what is no unit
            pass
    return None, 0


def _number(value, bound="", unit=None):
    size, kind, alone = float(value), "dimensionless", unit is None
    try:
        if not alone:
            base = _units().Quantity(size, unit).to_base_units()
            size, kind = base.magnitude, str(base.units)
    except (ArithmeticError, pint.PintError):
        kind = str(unit)
    offers = [(f"{size:.6g}", kind), ("alone" if alone else "with unit", value)]
    offers += [(f"about {float(value):.{n}g}", kind) for n in (2, 3) if value >= 10_000]
    accepts = [(f"{size:.6g}", kind), (f"about {float(value):.3g}", kind), ("alone", value)]
    accepts += [("with unit", value)] * alone
    said = tuple((bound, *key) for key in offers)
    return Token("number", value, said, tuple((b, *key) for key in accepts for b in {bound, ""}))


def _word(text, before):
    word = text.lower()
    if word in ROMAN and before and (len(word) > 1 or text.isupper() and before[-1].name):
        return _number(Fraction(ROMAN.index(word)))
    filler = word in FILLERS or word in BREAKS
    if word in NOT:
        word = "not"
    elif word not in TURN:
        word = MONTHS.get(word) or simplemma.lemmatize(word, lang="en").lower()
    kind = "filler" if filler and not (len(text) > 1 and text.isupper()) else "word"  # it, IT
    return Token(kind, word, (word,), (word,), text[0].isupper())


def _says(said, gold):
    if not any(t.wanted for t in gold):  # The Who
        return [t.key for t in said] == [t.key for t in gold] != []
    if _glued(said) == _glued(gold) is not None:  # e-mail, email
        return True
    core = [t for t in gold if t.kind != "filler"]
    if len(core) == 2 and _month(core[0]) and not any(map(_month, said)):
        gold = core[1:]
    spots = _spots(said, gold)
    if any(not at and _hard(gold[k]) for k, at in spots.items()):
        return False
    hits = {i for at in spots.values() for i in at}
    return (
        _enough(said, gold, spots, hits)
        and not _doubtful(said, gold, hits)
        and not _reordered(gold, spots)
        and not _replaced(said, gold, spots, hits)
    )


def _glued(tokens):
    words = [t.key for t in tokens if t.kind == "word"]
    return None if any(t.kind == "number" for t in tokens) else "".join(words) or None


def _month(t):
    return t.key in MONTHS.values()


def _hard(t):
    """Whether a token of the right answer has to be said, come what may."""
    if t.kind == "number" or t.key == "not" or not t.key.isalpha() or _month(t):
        return True
    return t.name if len(t.key) == 1 or t.key in ("new", "old") else t.key in TURN


def _spots(said, gold):
    """{position in gold: [positions in said]} of its numbers and words."""
    places, spots = defaultdict(list), {}
    for i, t in enumerate(said):
        for key in t.offers:
            places[key].append(i)
    ends = {j for i, t in enumerate(said) if t.key == "~" for j in (i - 1, i + 1)}
    ends = () if any(t.key == "~" for t in gold) else ends  # of a range, and no range is wanted
    for k, t in enumerate(gold):
        if t.kind == "word" and re.search(UNSPACED, t.key):
            spots[k] = [i for i, other in enumerate(said) if t.key in str(other.key)]
        elif t.wanted:
            spots[k] = sorted(
                {i for key in t.accepts for i in places.get(key, ())}.difference(ends)
            )
    return spots


def _enough(said, gold, spots, hits):
    found = {k for k, at in spots.items() if at}
    names = [k for k in spots if gold[k].name and gold[k].key not in CLASS]
    if len(found) > len(spots) / 2 or not found or any(t.key in ("and", "or") for t in gold):
        return len(found) > len(spots) / 2
    if any(gold[k].key in CLASS for k in spots.keys() - found) and names:
        return found.issuperset(names)
    if names:
        rest = (t for i, t in enumerate(said) if t.wanted and i not in hits)
        return names[-1] in found and all(t.key in CLASS for t in rest)
    first, last = min(spots), max(spots)
    named = gold[first].key not in CLASS and not _hard(gold[last])
    return len(spots) == 2 and first in found and named


def _doubtful(said, gold, hits):
    """Whether what was found stands behind a "not", on one side of an "or", or in a list.

    Asked of the answer's shape, one character a token: H found, w other (x of another kind), f filler.
    """
    asked = {t.key for t in gold}
    numeric = "number" in {t.kind for t in gold}
    kinds = {"word": "wx"[numeric], "number": "xw"[numeric], "filler": "f"}
    shape = "".join(
        "H"
        if i in hits
        else BREAKS.get(t.key) or "N" * (t.key == "not") or kinds.get(t.kind) or t.key
        for i, t in enumerate(said)
    )
    if "not" not in asked and re.search("N[wxf&/]{0,2}H", shape):
        return True
    if not asked & {"or", "/"} and re.fullmatch(
        r"(?s)[^H]*(?:H[Hf,]*/[f,]*[wxN]|[wxN][f,]*/[f,]*H[Hf]*)[^H]*", shape
    ):
        return True
    parts = re.split(r"[^wxfHbN]+|(?<=[wH])(?=[wH])" if numeric else "[^wxfHbN]+", shape)
    item = re.compile("f{0,2}[wH]{1,2}")
    items = "".join("-" if not item.fullmatch(part) else "HR"["H" not in part] for part in parts)
    rivals = max((run.count("R") for run in re.findall("[RH]*H[RH]*", items)), default=0)
    if "f" in shape:
        return rivals > 2
    return rivals > ("&" not in shape or "and" in asked) or shape.count("w") > len(gold) + 2


def _reordered(gold, spots):
    return any(
        not any(0 < q - p < 5 for p in spots[k - 1] for q in spots[k + 1])
        for k, t in enumerate(gold)
        if t.key == "~" and {k - 1, k + 1} <= spots.keys()
    )


def _replaced(said, gold, spots, hits):
    """Whether a name, or one of two words, is missing and another stands in its place."""
    order = list(spots)
    for n, k in enumerate(order):
        if spots[k] or not (gold[k].name or len(order) < 3):
            continue
        beside = {i - 1 for after in order[n + 1 : n + 2] for i in spots[after]}
        beside |= {i + 1 for before in order[max(n - 1, 0) : n] for i in spots[before]}
        for t in (said[j] for j in beside - hits if 0 <= j < len(said)):
            if t.wanted and t.name == gold[k].name and (t.key in CLASS) == (gold[k].key in CLASS):
                return True
    return False
