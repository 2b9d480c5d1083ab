"""A text as tokens: normalised, cut up, each with what it counts as. `grading` compares them."""

import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pint
import regex as re
import simplemma
from dateutil import parser as dates
from text_to_num import alpha2digit

LONGEST = 5_000  # characters that are read
FILLERS = """an the mostly mainly often usually of in on at to for by from with as is was were are
be been am it its their his her their they he she this that these those which who had has have
did does
do there than also i we you about approximately around nearly almost roughly circa ca mr mrs ms dr
sir prof degree degrees van von der den de da di du del la le les el and or but only just merely
simply""".split()


NOT = """not no never neither nor without none nobody nothing hardly nicht kein keine pas non не
нет""".split()


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
MONEY = {"$": "dollars", "€": "euros", "£": "pounds", "¥": "yen", "₹": "rupees"}
SCALES = dict(hundred=100, thousand=10**3, million=10**6, billion=10**9, trillion=10**12)
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
    (r"(?<![\w.])\.(?=\d)", "0."),
    (r"(?i) o'clock\b", ":00"),
    (r"\b[Nn]o\.? ?(?=\d)", "number "),
    (r"n't\b|(?<=\b[Cc]an)not\b", " not"),
    (r"(?i)\bno one\b", "nobody"),
    (r"\b[lLdD]'(?=\w{3})|(?<!\d)'s\b|'|(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\b(?:\d{4}([-/.])\d\d?\1\d\d?|\d\d?([-/.])\d\d?\2\d{4})\b", _date),
    (r"(?i)\bper cent\b", "percent"),
    (r"(?i)\b(?:one )?half(?: one| an)?\b", "0.5"),
    (r"(?i)\bquarter", "fourth"),
    (r"(?i)\b(third|fourth|fifth|sixth|eighth|tenth)s\b", r"\1"),
    (r"(?i)(\p{Sc} ?-?[\d.]+ ?[mb])n?\b", r"\1illion"),
    (r"([$€£¥₹]) ?(-?[\d.]+(?: ?\w*(?:illion|thousand)\b)?)", lambda m: f" {m[2]} {MONEY[m[1]]} "),
    (
        rf"(?i)({NUMBER})[ -]?(hundred|thousand|(?:m|b|tr)illion)\b",
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
    (r"\b(\d{1,9}) dozen\b", lambda found: str(12 * int(found[1]))),
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
    (r"(?i)\b(?:(?:more|greater|larger|higher) than|over|above|exceed\w*|at least) (?=\d)", " >"),
    (r"(?i)\b(?:(?:less|fewer|lower|smaller) than|under|below|up to|at most) (?=\d)", " <"),
    (r"(?i)[,;.] *(?:or )?(?:maybe|perhaps|possibly)\b", " or "),
]


BEFORE, AFTER = ([(re.compile(old), new) for old, new in some] for some in (BEFORE, AFTER))
LEX = re.compile(
    rf"""(?P<bound>[<>])?(?P<number>(?:(?<![\w)%])-)?{NUMBER}(?:/[1-9]\d{{0,9}})?)(?!\.?\w)
           (?P<unit>\s?(?:(?:square|cubic|sq)\s)?[^\W\d_]{{1,20}}
                    (?:(?:\sper\s|/)[^\W\d_]{{1,20}}|[23](?!\w))?)?
       | (?P<word>(?:[^\W_]\p{{M}}*)+(?:\.\d+)*(?:[+\#]+(?!\w)|(?<=\b[A-Z]{{1,2}})-(?!\w))?)
       | (?P<mark>[,;.!?\n/~|()])""",
    re.X,
)


class Token(NamedTuple):
    """A number, a word or a mark of a text."""

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
    text = re.sub(r"(?<=[\p{Latin}\p{Greek}])\p{M}+", "", unicodedata.normalize("NFD", text))
    text = unicodedata.normalize("NFC", text).translate(CHARACTERS)
    for pattern, new in BEFORE:
        text = pattern.sub(new, text)
    text = alpha2digit(text, "en", 0)
    for pattern, new in AFTER:
        text = pattern.sub(new, text)
    return text


def tokenize(text):
    """The tokens of a text (str), list[Token], of its first 5,000 characters."""
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
    for coin in ("dollar", "euro", "yen", "rupee"):
        units.define(f"{coin} = [{coin}]")
    units.define("cent = 0.01 dollar")
    return units


@lru_cache(4096)
def _unit(text):
    """(unit, characters) that a text begins with, or (None, 0)."""
    for phrase in (text, re.match(r"\s?[^\W\d_]*", text)[0]):
        if phrase.strip().lower() in ("", "a", *FILLERS, *NOT):
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
            with np.errstate(over="ignore"):
                base = _units().Quantity(size, unit).to_base_units()
            size, kind = base.magnitude, str(base.units)
    except (ArithmeticError, pint.PintError):  # for some logarithmic units
        kind = str(unit)
    same = (str(value) if alone and value.denominator == 1 else f"{size:.12g}", kind)
    rounded = [(f"about {float(value):.{digits}g}", kind) for digits in (2, 3)]
    offers = [same, ("alone" if alone else "with unit", value), *rounded * (value >= 10_000)]
    accepts = [same, ("alone", value), (f"about {float(value):.3g}", kind)]
    accepts += [("with unit", value)] * alone
    said = tuple((bound, *key) for key in offers)
    return Token("number", value, said, tuple((b, *key) for key in accepts for b in {bound, ""}))


def _word(text, before):
    word = text.lower()
    if word in ROMAN and before and (len(word) > 1 or text.isupper() and before[-1].name):
        return _number(Fraction(ROMAN.index(word)))
    filler = word in FILLERS and not (len(text) > 1 and text.isupper())  # it, but not IT
    if word in NOT:
        word = "not"
    elif word not in TURN:
        word = MONTHS.get(word) or simplemma.lemmatize(word, lang="en").lower()
    return Token("filler" if filler else "word", word, (word,), (word,), text[0].isupper())
