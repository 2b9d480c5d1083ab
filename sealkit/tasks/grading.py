"""The offline grader."""

import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import pint
import regex as re
import simplemma
from dateutil import parser as dates
from text_to_num import alpha2digit

LONGEST = 10_000      # characters that are read
RECALL = 0.6          # share of the answer's words that have to be said
REACH = 3             # words between a "not" or "or" and what it belongs to


def _set(words):
    return frozenset(words.split())


STOP = _set("a an the of in on at to for by from with as is was were are be been am it its their "
            "his her they he she this that these those which who had has have did does do there than "
            "also about approximately around nearly almost roughly circa ca mr mrs ms dr sir prof "
            "degree degrees i you we and or but")
NOT = _set("not no never neither nor without none nobody nothing hardly nicht kein keine pas non")
CLASS = _set("city town village river lake sea ocean bay island mount mountain valley desert street "
             "road avenue square bridge park university college school church cathedral hospital "
             "museum library company corporation party army war battle treaty act law empire "
             "republic kingdom state county province country union king queen prince princess "
             "emperor president pope saint general captain duke count lord lady theory system "
             "process rainforest forest man woman person people group type part number century "
             "decade year de la le les el los van von der den di da du del")
TURN = _set("new old north south east west northern southern eastern western northeast northwest "
            "southeast southwest upper lower left right more less most least higher up down above "
            "below before after early late inner outer internal external increase decrease rise "
            "fall high low maximum minimum male female positive negative true false first last")
LETTERS = str.maketrans({"ł": "l", "Ł": "L", "ø": "o", "Ø": "O", "đ": "d", "æ": "ae", "Æ": "Ae",
                         "œ": "oe", "ß": "ss", "ı": "i"})
ROMAN = {tens + ones: str(10 * i + j) for i, tens in enumerate(("", "x", "xx", "xxx"))
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


def _mixed(found):
    return str(float(int(found[1]) + Fraction(int(found[2]), int(found[3]))))


def _time(found):
    return f"{int(found[1]) % 12 + 12 * (found[3] in 'pP')}:{found[2] or '00'}"


BEFORE, AFTER = ([(re.compile(pattern), new) for pattern, new in table] for table in ((
    ("[’‘`´ʼ]", "'"), ("[‐‑‒–−]", "-"), ("—", " , "), ("⁄", "/"), ("&", " and "),
    (r"\b(?:[^\W\d_]{1,2}\.){2,}", lambda found: found[0].replace(".", "") + " "),  # U.S., p.m.
    (r"\b([A-Z])\. ?(?=[A-Z]\b)", r"\1"),                                           # J. K.
    (r"\bSt\b\.?", "Saint"), (r"\b[Nn]o\.? ?(?=\d)", "number "),
    (r"n't\b", " not"), (r"\b([Cc])annot\b", r"\1an not"), (r"\b[Nn]o one\b", "nobody"),
    (r"\b[lLdD]'(?=\w{3})", ""), (r"(?<=\d)'s\b", "s"), (r"'s\b|(?<=s)'(?!\w)", ""),
    (r"(?i) o'clock", ":00"), (r"(?<=\w)'(?=\w)", ""),
    (r"(?<=\d),(?=\d{3}(?!\d))", ""),
    (r"(?i)\b(?:\d{4}([-/.])\d{1,2}\1\d{1,2}|\d{1,2}([-/.])\d{1,2}\2\d{4})\b", _date),
    (r"(?i)\bper ?cent\b|%", " percent "),
    (r"(?i)\ba (?=(?:half|third|quarter|fifth|dozen|hundred|thousand|million|billion)\b)", "one "),
    (r"(?i)\b(?:one )?half(?: an?)?\b", "0.5"), (r"(?i)\bquarter", "fourth"),
    (r"(?i)\b(third|fourth|fifth|sixth|eighth|tenth)s\b", r"\1"),
    (r"(?i)([$€£¥]) ?(-?[\d.]+(?: ?(?:thousand|[mb]n?|[mbtr]+illion)\b)?)",
     lambda found: f" {found[2]} {MONEY[found[1]]} "),
    (rf"({NUMBER})[ -]?((?i:dozen|hundred|thousand|million|billion|trillion)|bn|mn)\b", _scaled),
    (r"(?<=[^\W\d_])-(?=[^\W\d_])", " "),
), (
    (r"[^\S\n]+", " "), (r"\b(\d{1,2}) (\d{1,2})(?:rd|th)\b", r"\1/\2"),
    (r"\b(\d+)(?:st|nd|rd|th)\b", r"\1"), (r"\b(\d{1,9}) (\d)/([1-9])\b", _mixed),
    (r"\b(\d[\d.]*)([a-zµ]{2,5})\b", lambda found: found[0] if _unit(found[2]) is None else f"{found[1]} {found[2]}"),
    (r"(?i)\b(?:minus|negative) (?=\d)", " -"),
    (rf"({NUMBER}) and (?:1 |a )?0\.5\b", lambda found: str(Decimal(found[1]) + Decimal("0.5"))),
    (r"(?i)\b(\d{1,2})(?::(\d\d))? ?([ap])m\b", _time),
    (r"(?i)(\d+) ?bce?\b", r" -\1 "), (r"\b(?:AD|A D|CE) ?(?=\d)|(?<=\d) ?(?:AD|CE)\b", ""),
    (r"(?:°|\bdegrees?) ?([CF])(?:elsius|ahrenheit)?\b", r" deg\1"),
    (r"\b([A-Z][A-Za-z]{0,3}|[a-z])-(?=\d{1,3}\b)", r"\1"), (r"\b([A-Z]{2,3}) (?=\d{1,2}\b)", r"\1"),
    (r"(?<=\d) ?[-:] ?(?=\d)|(?<=\d) (?:to|vs|versus|through|until) (?=\d)", " ~ "),
    (r"\b(\d\d)(\d\d) ~ (?=\d\d\b)", r"\1\2 ~ \1"),
    (r"(?i)\b(?:more|greater|larger|higher|over|above|exceeding|at least|(?:no|not) (?:less|fewer))"
     r"(?: than)? (?=\d)", " > "),
    (r"(?i)\b(?:less|fewer|lower|smaller|under|below|up to|at most|(?:no|not) more)"
     r"(?: than)? (?=\d)", " < "),
    (r"(?i)[,;.] *(?:or )?(?:maybe|perhaps|possibly)\b", " or "),
)))
LEX = re.compile(rf"""
    (?P<number>(?:(?<![\w)%])-)?{NUMBER}(?:/\d+)?)(?!\.?[\w])
    (?P<unit>\s?(?:(?:square|cubic|sq)\ )?[^\W\d_]{{1,20}}(?:(?:\ per\ |/)[^\W\d_]{{1,20}}|[23](?!\w))?)?
    | (?P<word>(?:[^\W_]\p{{M}}*)+(?:\.\d+)*(?:[+\#]+(?!\w)|(?<=\b[A-Z])-(?!\w)|(?<=\b[A-Z][A-Z])-(?!\w))?)
    | (?P<mark>[,;.!?\n/~<>])""", re.X)
class Token(NamedTuple):
    kind: str              # number, word or mark
    key: object
    offers: tuple = ()
    accepts: tuple = ()
    name: bool = False


@lru_cache
def _units():
    units = pint.UnitRegistry()
    for coin in ("dollar", "euro", "yen"):
        units.define(f"{coin} = [{coin}]")
    return units


@lru_cache(4096)
def _unit(text):
    """The pint unit of a phrase, or None."""
    text = re.sub(r"(?<=[a-z])([23])$", r"**\1", text.strip())
    if text.lower() in STOP or text in NOT:
        return None
    try:
        return _units().parse_units(text)
    except Exception:
        return None


def grade(prediction, answers):
    answers = (answers,) if isinstance(answers, str) else tuple(answers)
    if not any(answer.strip() for answer in answers):
        raise ValueError("This question has no answer to grade against: add one, or remove the question.")
    said = _tokens(prediction)
    return any(_says(said, _tokens(re.sub(r"\([^)]*\)?", "", answer)) or _tokens(answer)) for answer in answers if answer.strip())


def _normal(text):
    text = text[:LONGEST].encode("utf-8", "replace").decode().replace("\0", " ")
    text = unicodedata.normalize("NFKC", re.sub("(?<=\\d)(?=[¼-¾⅐-⅞])", " ", text))
    text = re.sub(r"(?<=\p{Latin})\p{M}+", "", unicodedata.normalize("NFD", text))
    text = unicodedata.normalize("NFC", text).translate(LETTERS)
    text = re.sub(rf"({UNSPACED})", r" \1 ", text)
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
            token, end = _number(found)
            at = end
            tokens.append(token)
        else:
            tokens.append(_word(found["word"], tokens, text[at:]))
    return tokens


def _number(found):
    value = Fraction(found["number"]) if not found["number"].endswith("/0") else Fraction(0)
    for phrase in (found["unit"], found["unit"] and re.match(r"\s?[^\W\d_]+", found["unit"])[0]):
        if phrase and (unit := _unit(phrase)) is not None:
            base = _units().Quantity(float(value), unit).to_base_units()
            base = ("base", float(f"{base.magnitude:.6g}"), str(base.units))
            return Token("number", value, (("any", value), base), (("bare", value), base)), found.start("unit") + len(phrase)
    base = ("base", float(f"{float(value):.6g}"), "dimensionless")
    return Token("number", value, (("any", value), ("bare", value), base), (("any", value), base)), found.end("number")


def _word(text, before, rest):
    word = text.lower()
    if word in ROMAN and before and (len(word) > 1 or text.isupper() and before[-1].name):
        value = Fraction(ROMAN[word])
        return Token("number", value, (("any", value), ("bare", value)), (("any", value),))
    if word == "a" and (text == "A" and before or not re.match(r"\s+\w", rest)):
        word = "A"                      # the letter, not the article
    elif word in NOT:
        word = "not"
    elif word not in TURN:
        word = MONTHS.get(word) or simplemma.lemmatize(word, lang="en").lower()
    key = ("word", word)
    return Token("word", word, (key,), (key,), text[0].isupper())


def _content(tokens):
    return [t for t in tokens if t.kind == "number" or t.kind == "word" and t.key not in STOP]


def _hard(t):
    return t.kind == "number" or t.key in TURN or t.key == "not" or len(t.key) < 3 or t.key in MONTHS.values() or not t.key.isalpha()


def _says(said, gold):
    wanted = _content(gold)
    if all(t.kind == "word" for t in wanted) and all(t.kind != "number" for t in said):
        if "".join(t.key for t in wanted or gold) == "".join(t.key for t in _content(said) or said):
            return True
    index = {}
    for i, t in enumerate(said):
        for key in t.offers:
            index.setdefault(key, []).append(i)
    at = [sorted({i for key in t.accepts for i in index.get(key, ())}) for t in wanted]
    if not wanted or any(_hard(t) and not a for t, a in zip(wanted, at)):
        return False
    return _enough(said, wanted, at) and not any(veto(said, gold, wanted, at) for veto in VETOES)


def _enough(said, wanted, at):
    hits = [bool(a) for a in at]
    if sum(hits) >= RECALL * len(wanted):
        return True
    names = [i for i, t in enumerate(wanted) if t.name and t.key not in CLASS]
    if names:
        class_missing = any(t.key in CLASS and not h for t, h in zip(wanted, hits))
        if all(hits[i] for i in (names if class_missing else names[-1:])):
            return class_missing or all(any(i in a for a in at) or t.key in CLASS for i, t in enumerate(said) if t in _content(said))
        return False
    return len(wanted) == 2 and hits[0] and wanted[0].key not in CLASS


def _negated(said, gold, wanted, at):
    if any(t.key == "not" for t in gold):
        return False
    for i in {i for a in at for i in a}:
        for j in range(i - 1, max(i - 1 - REACH, -1), -1):
            if said[j].kind == "mark" or said[j].key == "but":
                break
            if said[j].key == "not" and said[j + 1].key not in ("only", "just", "merely", "simply"):
                return True
    return False


def _either(said, gold, wanted, at):
    if any(t.key in ("or", "/") for t in gold):
        return False
    hits = {i for a in at for i in a}
    for j, t in enumerate(said):
        if t.key in ("or", "/"):
            left, right = range(max(0, j - REACH), j), range(j + 1, min(len(said), j + 1 + REACH))
            if (hits & {*left} and set(right) - hits) or (hits & {*right} and set(left) - hits):
                return True
    return False


def _bounds(said, gold, wanted, at):
    for i, t in enumerate(gold):
        if t.kind == "number":
            a = at[[w is t for w in wanted].index(True)]
            bound = gold[i - 1].key if i and gold[i - 1].key in "<>" else ""
            if all((said[j - 1].key if j and said[j - 1].key in ("<", ">") else "") not in ("", bound) for j in a):
                return True
    return False


def _order(said, gold, wanted, at):
    spots = {id(t): a for t, a in zip(wanted, at)}
    for i, t in enumerate(gold):
        if t.key == "~" and 0 < i < len(gold) - 1:
            if not any(0 < q - p < 5 for p in spots.get(id(gold[i - 1]), ()) for q in spots.get(id(gold[i + 1]), ())):
                return True
    return False


def _replaced(said, gold, wanted, at):
    hits = {i for a in at for i in a}
    for k, a in enumerate(at):
        if a:
            continue
        for n, step in ((k + 1, -1), (k - 1, 1)):
            if 0 <= n < len(wanted):
                for i in at[n]:
                    j = i + step
                    if 0 <= j < len(said) and j not in hits and said[j].kind != "mark" and said[j].key not in STOP:
                        if (said[j].key in CLASS) == (wanted[k].key in CLASS) and said[j].name == wanted[k].name:
                            return True
    return False


def _listed(said, gold, wanted, at):
    hits, parts, last = {i for a in at for i in a}, [[]], None
    for i, t in enumerate(said):
        if t.kind == "mark" and t.key not in "<>" or t.key in ("and", "or") or t.kind == "number" == last:
            parts.append([])
        last = t.kind
        if t.kind == "number" or t.kind == "word" and t.key not in STOP:
            parts[-1].append(i)
    numeric = any(t.kind == "number" for t in wanted)
    rivals = [p for p in parts if 0 < len(p) <= 2 and not hits & set(p) and any(said[i].kind == "number" for i in p) == numeric]
    sentence = any(t.key in STOP for t in said)
    return len(rivals) > 2 or not sentence and (len(rivals) > 1 or max(len(p) - len(hits & set(p)) for p in parts) > 3)


VETOES = [_negated, _either, _bounds, _order, _replaced, _listed]
