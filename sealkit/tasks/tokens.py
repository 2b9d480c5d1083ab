"""A text as tokens: normalised, cut up, each with what it counts as. `grading` compares them."""

import html
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

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


def _date(match: re.Match[str]) -> str:
    try:
        day = dates.parse(match[0], dayfirst="." in match[0])
    except (ValueError, OverflowError):
        return match[0]
    return f" {day.day} {dates.parserinfo.MONTHS[day.month - 1][-1]} {day.year} "


def _power_of_ten(match: re.Match[str]) -> str:
    exponent = int(match[2].replace("−", "-"))
    return match[0] if abs(exponent) > 25 else f"{Decimal(match[1] or 1).scaleb(exponent):f}"


RAW: list[
    tuple[Any, Any]
] = [  # what is rewritten before Unicode normalisation, which turns 10⁸ into 108
    (r"(?<=\d)[⁺⁻]?[⁰¹²³⁴-⁹]+", lambda match: "^" + unicodedata.normalize("NFKC", match[0])),
    (r"\d", lambda match: str(unicodedata.digit(match[0], " "))),  # some are newer than Python
    (r"\\[dt]?frac ?\{([^{}]*)\} ?\{([^{}]*)\}", r" \1/\2 "),  # LaTeX
    (r"\\(?:text|math\w\w|boxed|operatorname) ?\{([^{}]*)\}", r"\1"),
    (r"\\[()\[\],;!]|\$(?=\s*[\\/]|\s*$)|\$(?=[^$\n]*[\\^_/][^$\n]*\$)|(?<=[\w}%)] ?)\$(?!\d)", ""),
    (
        rf"\b(?:({NUMBER}) ?(?:[×x*·⋅]|\\times|\\cdot) ?)?10(?:\^|\*\*) ?{{?([-−+]?\d{{1,2}})\b}}?",
        _power_of_ten,
    ),
    (rf"\b({NUMBER})[eE]([-+]?\d{{1,2}})\b", _power_of_ten),
    (r"(?<=\d) ?\((\w|[ivx]{2,4})\)", r"\1"),  # 5(a) is 5a,
    (r"\(([a-z])\)", lambda match: f" {match[1].upper()} "),  # and part (a) is part A
    (r"(?:不是|并非|並非|而非|没有|沒有|不(?=[在叫属屬为為])|ไม่ใช่)(?=\S)", " not "),
    (r"(\w{1,20}?)(?:ではない|じゃない|ではありません|じゃありません)", r" not \1 "),
]
BEFORE: list[tuple[Any, Any]] = [  # what is rewritten before numbers in words become digits
    (r"\b(?:[^\W\d_]{1,2}\.){2,}", lambda found: found[0].replace(".", "") + " "),  # U.S.
    (r"\b([A-Z])\. ?(?=[A-Z]\b)", r"\1"),  # J. K.
    (r"(?<![^.!?:]\s)\bA (?=\w)(?!(?:m[ai][jn]or|flat|sharp|positive|negative)\b)|\ba (?=\w)", ""),
    (r"(?<![\w.])\.(?=\d)", "0."),
    (r"(?i) o'clock\b", ":00"),
    (
        r"(?i)\b(?:(?:12|twelve) )?(noon|midnight)\b",
        lambda m: {"n": "12:00", "m": "0:00"}[m[1][0].lower()],
    ),
    (r"\bv\.? ?(?=\d)|(?i:\bversion) ?(?=\d)", ""),
    (r"n't\b|(?<=\b[Cc]an)not\b|(?i:\b(?:any|every)thing (?:but|except)\b)", " not"),
    (r"\b[lLdD]'(?=\w{3})|(?<!\d)'s\b|'|(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\b(?:\d{4}([-/.])\d\d?\1\d\d?|\d\d?([-/.])\d\d?\2\d{4})\b", _date),
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
AFTER: list[tuple[Any, Any]] = [
    (r"[^\S\n]+", " "),  # more than  5 dollars, of more than $5
    (r"\b(\d\d?) (\d\d?)(?:rd|th)\b", r"\1/\2"),
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
    (r"\b([A-Z][A-Za-z]?|[a-z])-(?=\d)", r"\1"),  # F-16 is F16
    (r"(?<=\d) ?[-:] ?(?=\d)|(?<=\d) (?:to|vs|versus|through|until) (?=\d)", " ~ "),
    (r"\b(\d\d)(\d\d) ~ (?=\d\d\b)", r"\1\2 ~ \1"),
    (r"(?i)\b(?:(?:more|greater|larger|higher) than|over|above|exceed\w*|at least) (?=\d)", " >"),
    (r"(?i)\b(?:(?:less|fewer|lower|smaller) than|under|below|up to|at most) (?=\d)", " <"),
]
RAW, BEFORE, AFTER = (
    [(re.compile(old), new) for old, new in rules] for rules in (RAW, BEFORE, AFTER)
)
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
    key: Any  # the number, or the word's lemma
    offers: tuple[Any, ...] = ()  # what it counts as in a prediction
    accepts: tuple[Any, ...] = ()  # what counts as it in a right answer
    name: bool = False  # begins with a capital letter

    @property
    def wanted(self) -> bool:
        return self.kind in ("number", "word")


def _normalize(text: str) -> str:
    text = text[:LONGEST].encode("utf-8", "replace").decode()  # half a surrogate pair becomes "?"
    text = html.unescape(text)
    for pattern, new in RAW:
        text = pattern.sub(new, text)
    text = unicodedata.normalize("NFKC", re.sub("(?<=\\d)(?=[¼-¾⅐-⅞])", " ", text))
    text = re.sub(r"(?<=[\p{Latin}\p{Greek}])\p{M}+", "", unicodedata.normalize("NFD", text))
    text = unicodedata.normalize("NFC", text).translate(CHARACTERS)
    for pattern, new in BEFORE:
        text = pattern.sub(new, text)
    text = alpha2digit(text, "en", 0)
    for pattern, new in AFTER:
        text = pattern.sub(new, text)
    return text


def tokenize(text: str) -> list[Token]:
    """The tokens of the first 5,000 characters of a text. No text is an error.

    >>> [(token.kind, str(token.key)) for token in tokenize("It was half a mile.")]
    [('filler', 'it'), ('filler', 'be'), ('number', '1/2'), ('mark', '.')]
    """
    text, tokens, position = _normalize(text), [], 0
    while match := LEX.search(text, position):
        position = match.end()
        if match["number"]:
            numerator, _, denominator = match["number"].partition("/")
            unit, length = _unit(match["unit"] or "")
            value = Fraction(numerator) / int(denominator or 1)
            tokens.append(_number(value, match["bound"] or "", unit))
            position = match.end("number") + length
        elif match["word"]:
            tokens.append(_word(match["word"], tokens))
        else:
            tokens.append(Token("mark", match["mark"]))
    return tokens


@lru_cache
def _units() -> pint.UnitRegistry:
    units = pint.UnitRegistry()
    for coin in ("dollar", "euro", "yen", "rupee"):
        units.define(f"{coin} = [{coin}]")
    units.define("cent = 0.01 dollar")
    return units


@lru_cache(4096)
def _unit(text: str) -> tuple[pint.Unit | None, int]:
    """(unit, characters) that a text begins with, or (None, 0)."""
    for phrase in (text, re.match(r"\s?[^\W\d_]*", text)[0]):
        if phrase.strip().lower() in ("", "a", *FILLERS, *NOT):
            continue
        try:
            return _units().parse_units(re.sub("(?<=[a-z])([23])$", r"**\1", phrase)), len(phrase)
        except Exception:  # pint has many errors for what is no unit
            pass
    return None, 0


def _number(value: Fraction, bound: str = "", unit: pint.Unit | None = None) -> Token:
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
    return Token(
        "number",
        value,
        tuple((bound, *key) for key in offers),
        tuple((b, *key) for key in accepts for b in {bound, ""}),
    )


def _word(text: str, before: list[Token]) -> Token:
    word = text.lower()
    if word in ROMAN and before and (len(word) > 1 or text.isupper() and before[-1].name):
        return _number(Fraction(ROMAN.index(word)))
    filler = word in FILLERS and not (len(text) > 1 and text.isupper())  # it, but not IT
    if word in NOT:
        word = "not"
    elif word not in TURN:
        language = "ru" if re.match(r"\p{Cyrillic}", word) else "en"
        word = MONTHS.get(word) or simplemma.lemmatize(word, lang=language).lower()
    offers: tuple[str, ...] = (word,)
    accepts: tuple[str, ...] = (word,)
    if re.fullmatch(r"[A-Za-z]{2}\d*", text):  # CO is not Co; co may be either
        upper, title = word.upper(), word.title()
        if text == upper:
            offers = accepts = (upper,)
        elif text == title:
            offers, accepts = (title,), (title, word)
        else:
            offers = accepts = (word, upper, title)
    return Token("filler" if filler else "word", word, offers, accepts, text[0].isupper())
