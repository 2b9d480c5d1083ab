r"""Whether an answer is right, without asking a model: a fixed rule, the reward of reinforcement learning.

An answer and a right answer are **normalised** (Unicode, apostrophes, abbreviations, numbers in
words, dates, times), cut into **tokens** (numbers with sign, bound and unit; words as their
lemma; fillers; marks) and **compared**:

- Every number, single letter, word with a digit or symbol, "not", month and word of direction
  of the right answer is said, and at least 60% of its words.
- Of a name, the last word is enough where nothing else is said (Darwin), or all but the words
  for its class (the Amazon for the Amazon River); of two words that are no name, the first
  (passive for passive immunity); of a date, the year.
- But what was found does not count behind a "not", on one side of an "or", in a list of
  candidates, in another order of numbers, or beside a name in the place of one that is missing.

Lemmas are English; in other languages words have to be the same. What the rule can't know: that
two names mean the same, what follows from what is said, or what was asked.
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

LONGEST = 5_000       # characters that are read
RECALL = 0.6          # share of the right answer's words that have to be said
REACH = 3             # words between a "not" or an "or" and what it belongs to
RIVALS = 2            # further candidates beside the right one that make a list in a sentence

FILLERS, NOT, CLASS, TURN = (frozenset(words.split()) for words in (
    "an the of in on at to for by from with as is was were are be been am it its their his her they "
    "he she this that these those which who had has have did does do there than also and or but i we "
    "you about approximately around nearly almost roughly circa ca mr mrs ms dr sir prof degree "
    "degrees van von der den de la le les el los las di da du del",
    "not no never neither nor without none nobody nothing hardly nicht kein keine pas non",
    "city town village river lake sea ocean bay island mount mountain valley desert street road "
    "avenue square bridge park university college school church cathedral hospital museum library "
    "company corporation party army war battle treaty act law empire republic kingdom state county "
    "province country union king queen prince princess emperor president pope saint general captain "
    "major colonel lieutenant chief minister marquis duke count lord lady theory system process "
    "rainforest forest man woman person people group type part number century decade year",
    "north south east west northern southern eastern western northeast northwest southeast southwest "
    "upper lower left right more less most least higher up down above below before after early late "
    "inner outer internal external increase decrease rise fall high low maximum "
    "minimum male female positive negative true false first last",
))
LETTERS = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "æ": "ae", "œ": "oe",
                         "ß": "ss", "ı": "i"})
ROMAN = {tens + ones: Fraction(10 * i + j) for i, tens in enumerate(("", "x", "xx", "xxx"))
         for j, ones in enumerate(("", *"i ii iii iv v vi vii viii ix".split())) if tens + ones}
SCALES = dict(dozen=12, hundred=100, thousand=10**3, million=10**6, mn=10**6, m=10**6,
              billion=10**9, bn=10**9, b=10**9, trillion=10**12)
MONTHS = {name.lower(): names[-1].lower() for names in dates.parserinfo.MONTHS for name in names}
MONEY = {"$": "dollars", "€": "euros", "£": "pounds", "¥": "yen"}
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
NUMBER = r"\d{1,30}(?:\.\d{1,30})?"


def _scaled(found):
    return format(Decimal(found[1]) * SCALES[found[2].lower()], "f")


def _date(found):
    try:
        day = dates.parse(found[0], dayfirst="." in found[0])
    except (ValueError, OverflowError):
        return found[0]
    return f" {day.day} {dates.parserinfo.MONTHS[day.month - 1][-1]} {day.year} "


# What is rewritten before and after numbers in words become digits
BEFORE, AFTER = ([(re.compile(pattern), new) for pattern, new in table] for table in ((
    ("[’‘`´ʼ]", "'"), ("[‐‑‒–−]", "-"), ("—", " , "), ("⁄", "/"), ("&", " and "), ("[、。，]", ","),
    (r"\b(?:[^\W\d_]{1,2}\.){2,}", lambda found: found[0].replace(".", "") + " "),  # U.S., p.m.
    (r"\b([A-Z])\. ?(?=[A-Z]\b)", r"\1"),                                           # J. K.
    (r"\b[aA] (?=(?i:half|third|quarter|fifth|dozen|hundred|thousand|million|billion)\b)", "one "),
    (r"(?<![^.!?:]\s)\bA (?=\w)(?!(?i:minor|major|flat|sharp|positive|negative)\b)|\ba (?=\w)", ""),
    (r"\bSt\b\.?", "Saint"), (r"\b[Nn]o\.? ?(?=\d)", "number "),
    (r"n't\b", " not"), (r"\b([Cc])annot\b", r"\1an not"), (r"\b[Nn]o one\b", "nobody"),
    (r"\b[lLdD]'(?=\w{3})", ""), (r"(?<=\d)'s\b", "s"), (r"'s\b|(?<=s)'(?!\w)", ""),
    (r"(?i) o'clock", ":00"), (r"(?<=\w)'(?=\w)", ""), (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"\b(?:\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2\d{4})\b", _date),
    (r"(?i)\bper ?cent\b|%", " percent "), (r"(?i)\b(?:one )?half(?: one| an)?\b", "0.5"),
    (r"(?i)\bquarter", "fourth"), (r"(?i)\b(third|fourth|fifth|sixth|eighth|tenth)s\b", r"\1"),
    (r"(?i)([$€£¥]) ?(-?[\d.]+(?: ?(?:thousand|[mb]n?|[mbtr]+illion)\b)?)",
     lambda found: f" {found[2]} {MONEY[found[1]]} "),
    (rf"({NUMBER})[ -]?((?i:dozen|hundred|thousand|million|billion|trillion)|bn|mn)\b", _scaled),
    (r"(?<=[^\W\d_])-(?=[^\W\d_])", " "), (rf"(?<=\d)(?={UNSPACED})|(?<={UNSPACED})(?=\d)", " "),
), (
    (r"[^\S\n]+", " "), (r"\b(\d{1,2}) (\d{1,2})(?:rd|th)\b", r"\1/\2"),
    (r"\b(\d+)(?:st|nd|rd|th)\b", r"\1"), (r"(?i)\b(?:minus|negative) (?=\d)", " -"),
    (r"\b(\d{1,9}) (\d)/([1-9])\b", lambda found: str(int(found[1]) + int(found[2]) / int(found[3]))),
    (r"\b(\d{1,9}) and (?:1 |a )?0\.5\b", r"\1.5"),
    (r"\b(\d[\d.]*)([a-zµ]{2,5})\b", lambda found: f"{found[1]} {found[2]}" if _unit(found[2]) else found[0]),
    (r"(?i)\b(\d{1,2})(?::(\d\d))? ?([ap])m\b",
     lambda found: f"{int(found[1]) % 12 + 12 * (found[3] in 'pP')}:{found[2] or '00'}"),
    (r"(?i)(\d+) ?bce?\b", r" -\1 "), (r"\b(?:AD|CE) ?(?=\d)|(?<=\d) ?(?:AD|CE)\b", ""),
    (r"(?:°|\bdegrees?) ?([CF])(?:elsius|ahrenheit)?\b", r" deg\1"),
    (r"\b([A-Z][A-Za-z]?|[a-z])-(?=\d)", r"\1"), (r"\b([A-Za-z]{3,})-?(?=\d+\b)", r"\1 "),
    (r"(?<=\d) ?[-:] ?(?=\d)|(?<=\d) (?:to|vs|versus|through|until) (?=\d)", " ~ "),
    (r"\b(\d\d)(\d\d) ~ (?=\d\d\b)", r"\1\2 ~ \1"),
    (r"(?i)\b(?:more|greater|larger|higher|over|above|exceeding|at least|(?:no|not) (?:less|fewer))"
     r"(?: than)? (?=\d)", " >"),
    (r"(?i)\b(?:less|fewer|lower|smaller|under|below|up to|at most|(?:no|not) more)"
     r"(?: than)? (?=\d)", " <"),
    (r"(?i)[,;.] *(?:or )?(?:maybe|perhaps|possibly)\b", " or "),
)))
LEX = re.compile(rf"""
    (?P<bound>[<>])?(?P<number>(?:(?<![\w)%])-)?{NUMBER}(?:/[1-9]\d{{0,9}})?)(?!\.?\w)
        (?P<unit>\s?(?:(?:square|cubic|sq)\s)?[^\W\d_]{{1,20}}
                 (?:(?:\sper\s|/)[^\W\d_]{{1,20}}|[23](?!\w))?)?
    | (?P<word>(?:[^\W_]\p{{M}}*)+(?:\.\d+)*(?:[+\#]+(?!\w)|(?<=\b[A-Z]{{1,2}})-(?!\w))?)
    | (?P<mark>[,;.!?\n/~])""", re.X)


class Token(NamedTuple):
    kind: str                # number, word, filler or mark
    key: object              # the number, or the word's lemma
    offers: tuple = ()       # what it counts as where it is said,
    accepts: tuple = ()      # and what counts as it where it is wanted
    name: bool = False       # begins with a capital letter


def grade(prediction, answers):
    """Whether `prediction` (str) says one of the right `answers` (a str, or several), by the rule above: bool.

    >>> grade("It opened on 4 July 1976.", "July 4, 1976"), grade("July 5, 1976", "July 4, 1976")
    (True, False)
    >>> grade("twenty-five kilometres", "25 km"), grade("25 miles", "25 km")
    (True, False)
    >>> grade("Darwin", "Charles Darwin"), grade("Emma Darwin", "Charles Darwin")
    (True, False)
    >>> grade("never approved", "approved"), grade("Oslo or Rome", ("Rome", "Roma"))
    (False, False)

    Never fails on a text, of which the first 5,000 characters are read. Raises ValueError if there
    is no answer.
    """
    answers = (answers,) if isinstance(answers, str) else tuple(answers)
    if not any(answer.strip() for answer in answers):
        raise ValueError(
            "This question has no answer to grade against: add one, or remove the question.")
    said = _tokens(prediction)
    golds = (_tokens(re.sub(r"\([^)]*\)?", "", answer)) or _tokens(answer) for answer in answers)
    return any(_says(said, gold) for gold in golds)


def _normal(text):
    text = text[:LONGEST].encode("utf-8", "replace").decode()
    text = unicodedata.normalize("NFKC", re.sub("(?<=\\d)(?=[¼-¾⅐-⅞])", " ", text))
    text = re.sub(r"(?<=\p{Latin})\p{M}+", "", unicodedata.normalize("NFD", text))
    text = unicodedata.normalize("NFC", text).translate(LETTERS)
    for pattern, new in BEFORE:
        text = pattern.sub(new, text)
    text = alpha2digit(text, "en", 0)
    for pattern, new in AFTER:
        text = pattern.sub(new, text)
    return text


def _tokens(text):
    text, tokens, at = _normal(text), [], 0
    while found := LEX.search(text, at):
        at = found.end()
        if found["mark"]:
            tokens.append(Token("mark", found["mark"]))
        elif found["number"]:
            phrases = (found["unit"], re.match(r"\s?[^\W\d_]*", found["unit"])[0]) if found["unit"] else ()
            unit = next((phrase for phrase in phrases if _unit(phrase)), "")
            above, _, below = found["number"].partition("/")
            value = Fraction(above) / int(below or 1)
            tokens.append(_number(value, found["bound"] or "", _unit(unit)))
            at = found.end("number") + len(unit)
        else:
            tokens.append(_word(found["word"], tokens))
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
    except Exception:       # pint has many errors for what it can't read
        return None


def _number(value, bound="", unit=None):
    base, kind = float(value), "dimensionless"
    if unit is not None:
        try:
            quantity = _units().Quantity(base, unit).to_base_units()
            base, kind = quantity.magnitude, str(quantity.units)
        except (ArithmeticError, pint.PintError):
            kind = str(unit)
    alone = unit is None
    offers = [("bare" if alone else "with unit", value), (f"{base:.6g}", kind)]
    offers += [(f"about {float(value):.{digits}g}", unit) for digits in (2, 3) if value >= 10_000]
    accepts = [("bare", value), (f"{base:.6g}", kind), (f"about {float(value):.3g}", unit)]
    accepts += [("with unit", value)] * alone
    return Token("number", value, tuple((bound, key) for key in offers),
                 tuple((b, key) for key in accepts for b in {bound, ""}))


def _word(text, before):
    word = text.lower()
    if word in ROMAN and before and (len(word) > 1 or text.isupper() and before[-1].name):
        return _number(ROMAN[word])
    if word in NOT:
        word = "not"
    elif word not in TURN:
        word = MONTHS.get(word) or simplemma.lemmatize(word, lang="en").lower()
    filler = text.lower() in FILLERS and not (len(text) > 1 and text.isupper())
    return Token("filler" if filler else "word", word, (word,), (word,), text[0].isupper())


def _hard(t):
    """Whether a token of the right answer has to be said, come what may."""
    if t.kind == "number" or t.key == "not" or not t.key.isalpha() or t.key in MONTHS.values():
        return True
    return t.name if len(t.key) == 1 or t.key in ("new", "old") else t.key in TURN


class Match(NamedTuple):
    """Where the tokens that are wanted of a right answer are said."""

    said: list
    gold: list
    spots: dict      # position in gold: positions in said

    @property
    def hits(self):
        return {i for at in self.spots.values() for i in at}

    def content(self, tokens):
        return [i for i, t in enumerate(tokens) if t.kind in ("number", "word")]


def _says(said, gold):
    if not {"mark", "word", "number"} & {t.kind for t in gold}:       # The Who, It
        return [t.key for t in said] == [t.key for t in gold] != []
    if _glued(said) == _glued(gold) is not None:
        return True
    if not any(t.key in MONTHS.values() for t in said):     # a year for a date
        if any(t.key in MONTHS.values() for t in gold) and any(t.kind == "number" and t.key > 31 for t in gold):
            gold = [t for t in gold if t.key not in MONTHS.values() and not (t.kind == "number" and t.key < 32)]
    places = defaultdict(list)
    for i, t in enumerate(said):
        for key in t.offers:
            places[key].append(i)
    spots = {k: sorted({i for key in t.accepts for i in places.get(key, ())})
             for k, t in enumerate(gold) if t.kind in ("number", "word")}
    for k in spots:
        if gold[k].kind == "word" and re.search(UNSPACED, gold[k].key):
            spots[k] = [i for i, t in enumerate(said) if t.kind == "word" and gold[k].key in t.key]
    if not spots or any(_hard(gold[k]) and not at for k, at in spots.items()):
        return False
    m = Match(said, gold, spots)
    return _enough(m) and not (_negated(m) or _either(m) or _listed(m) or _reordered(m) or _replaced(m))


def _glued(tokens):
    if any(t.kind == "number" for t in tokens):
        return None
    return "".join(t.key for t in tokens if t.kind == "word") or None


def _enough(m):
    found = [k for k, at in m.spots.items() if at]
    missing = [k for k, at in m.spots.items() if not at]
    if len(found) >= RECALL * len(m.spots):
        return True
    if any(t.key in ("and", "or") for t in m.gold) or not found:
        return False
    names = [k for k in m.spots if m.gold[k].name and m.gold[k].key not in CLASS]
    if names and any(m.gold[k].key in CLASS for k in missing):
        return set(names) <= set(found)
    if names:
        rest = {i for i in m.content(m.said) if m.said[i].key not in CLASS} - m.hits
        return names[-1] in found and not rest
    first, *more = m.spots
    return len(more) == 1 and first in found and m.gold[first].key not in CLASS and len(m.gold[more[0]].key) > 1


def _negated(m):
    if any(t.key == "not" for t in m.gold):
        return False
    for i in m.hits:
        for j in range(i - 1, max(i - 1 - REACH, -1), -1):
            if m.said[j].kind == "mark" or m.said[j].key == "but":
                break
            if m.said[j].key == "not" and m.said[j + 1].key not in ("only", "just", "merely", "simply"):
                return True
    return False


def _either(m):
    if any(t.key in ("or", "/") for t in m.gold):
        return False
    for j, t in enumerate(m.said):
        if t.key in ("or", "/"):
            left, right = _near(m.said, j, -1), _near(m.said, j, 1)
            if m.hits <= left | right and left and right and bool(m.hits & left) != bool(m.hits & right):
                return True
    return False


def _near(said, j, step):
    near, i = set(), j + step
    while 0 <= i < len(said) and len(near) < REACH:
        if said[i].kind == "mark" and not (i == j + step and said[i].key == ","):
            break
        if said[i].kind != "mark":
            near.add(i)
        i += step
    return near


def _reordered(m):
    for k, t in enumerate(m.gold):
        if t.key == "~" and 0 < k < len(m.gold) - 1:
            if not any(0 < q - p < 5 for p in m.spots.get(k - 1, ()) for q in m.spots.get(k + 1, ())):
                return True
    return False


def _replaced(m):
    order = list(m.spots)
    for n, k in enumerate(order):
        t = m.gold[k]
        if m.spots[k] or not (t.name or len(order) < 3):
            continue
        for other, step in ((n + 1, -1), (n - 1, 1)):
            for i in m.spots[order[other]] if 0 <= other < len(order) else ():
                j = i + step
                if 0 <= j < len(m.said) and j not in m.hits and m.said[j].kind in ("word", "number"):
                    if (m.said[j].key in CLASS) == (t.key in CLASS) and m.said[j].name == t.name:
                        return True
    return False


def _listed(m):
    parts, last = [[]], None
    for i, t in enumerate(m.said):
        if t.kind == "mark" or t.key in ("and", "or") or t.kind == "number" == last:
            parts.append([])
        last = t.kind
        if t.kind != "mark" and t.key not in ("and", "or"):
            parts[-1].append(i)
    hits = m.hits
    numeric = any(m.gold[k].kind == "number" for k in m.spots)
    frames = [tuple(m.said[i].key for i in p if m.said[i].kind == "filler" and m.said[i].key not in ("an", "the")) for p in parts]
    frame = {f for f, p in zip(frames, parts) if hits & set(p)} | {()}
    shape = ""
    for p, f in zip(parts, frames):
        content = [i for i in p if m.said[i].kind != "filler"]
        own = hits & set(p)
        if not p:
            continue
        small = 0 < len(content) <= 2 and f in frame
        numbers = any(m.said[i].kind == "number" for i in p)
        shape += "O" if small and own else "R" if small and numbers == numeric else "-"
    run = max((part.count("R") for part in re.findall("[RO]*O[RO]*", shape)), default=0)
    sentence = any(t.kind == "filler" for t in m.said)
    extra = max(len(p) - len(hits & set(p)) for p in parts)
    return run > RIVALS or not sentence and (run > 1 or extra > 3)
