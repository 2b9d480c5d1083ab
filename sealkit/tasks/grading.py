"""The offline grader."""

import re
import unicodedata

_WORDS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_ORDINALS = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth"
_NUMBERS = {w: str(i) for group in (_WORDS, _ORDINALS) for i, w in enumerate(group.split())} | {
    w: str(10 * i) for i, w in enumerate(_TENS.split(), 2)
}
_STOP_WORDS = set(
    "a an the of in on at to for and or by from with as is was were are be been it its their his her they he she "
    "this that these which who about approximately around over nearly almost roughly".split()
)
RECALL = 0.6  # share of the gold answer's words that must be said
SHORT = 3  # so few words count as a partial name if all of them are gold words
STEM, STEM_SHARE = 4, 0.75


def grade(prediction, answers):
    """Whether `prediction` (str) says one of the right `answers` (a str, or several): a fixed
    offline rule, bool.

    Words are lower-cased, without accents, articles, hedges and punctuation; numbers in words
    become digits; what the gold answer has in parentheses is optional. Two words are the same if
    they share their first letters (at least 4, and three quarters of the shorter); two numbers, if
    they are equal or one rounds to the other. Right means: every number of the gold answer is
    there, and at least 60% of its words are or the prediction is a part of it of at most 3 words (a
    surname, "Japan" for "Japanese cars"). `tests/test_exam.py` measures how often GPT-4.1 agrees.
    Raises ValueError if there is no answer.
    """
    answers = (answers,) if isinstance(answers, str) else tuple(answers)
    if not any(answer.strip() for answer in answers):
        raise ValueError(
            "This question has no answer to grade against: add one, or remove the question."
        )
    return any(_says(prediction, answer) for answer in answers if answer.strip())


def _says(prediction, gold):
    said, wanted = _words(prediction), _words(re.sub(r"\([^)]*\)?", "", gold)) or _words(gold)
    if not wanted:
        return gold.strip().lower() in prediction.lower()
    hits = [any(_same(word, other) for other in said) for word in wanted]
    if any(word[0].isdigit() and not hit for word, hit in zip(wanted, hits)):
        return False
    partial = 0 < len(said) <= SHORT and all(
        any(_same(word, other) for word in wanted) for other in said
    )
    return partial or sum(hits) >= RECALL * len(wanted)


def _words(text):
    """The distinct content words and numbers of a text, normalised, in order."""
    text = "".join(
        c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c)
    )
    text = re.sub(r"(?<=\d),(?=\d)|'s\b", "", text)
    text = re.sub(r"(\d+)(?:st|nd|rd|th|s)\b", r"\1", text)
    words = (_NUMBERS.get(word, word) for word in re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+", text))
    return list(dict.fromkeys(word for word in words if word not in _STOP_WORDS))


def _same(wanted, said):
    if wanted == said or not (wanted[0].isalpha() and said[0].isalpha()):
        return wanted == said or (
            "." in said and wanted.isdigit() and round(float(said)) == int(wanted)
        )
    shared = next(
        (i for i, (x, y) in enumerate(zip(wanted, said)) if x != y), min(len(wanted), len(said))
    )
    return shared >= STEM and shared >= STEM_SHARE * min(len(wanted), len(said))
