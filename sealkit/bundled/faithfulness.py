"""Whose fact is it? python -m sealkit.bundled.faithfulness [--run FOLDER]

Reads the texts of the bundled world back into (name, kind of fact, value), and counts how many statements of a self-edit
are the passage's own, name and value both, how many give a value of it to a wrong name (another subject's, or one
that nobody has), and how many wrong answers give a value of another subject.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

from ..evaluation import bootstrap_interval
from ..exam import accuracy, answer_questions, grade
from ..passages import SPLITS, load_passages
from ..prompts import BUNDLED
from ..self_edits import generate_self_edits
from .world import GISTS, KINDS, REFERENCES

_PRONOUNS = {reference for references in REFERENCES.values() for reference in references}


def _pattern(wording):
    """A wording as a regular expression with the groups `who` and, if it states one, `value`."""
    who, value = rf"(?P<who>{'|'.join(sorted(_PRONOUNS, reverse=True))}|\w+)", r"(?P<value>\w+)"
    return re.compile(re.escape(wording).replace(r"\{s\}", who).replace(r"\{n\}", who).replace(r"\{v\}", value))


_TOLD, _STATED, _EXAMINED = {}, {}, {}  # {pattern: (kind of subject, index of the kind of fact)}
for _kind, _relations in KINDS.items():
    for _index, _relation in enumerate(_relations):
        for _wording in _relation.told:
            _TOLD[_pattern(_wording)] = _kind, _index
        for _wording in (*_relation.implied, f"Question: {_relation.asked} Answer: {{v}}"):
            _STATED[_pattern(_wording)] = _kind, _index
        _EXAMINED[_pattern(_relation.examined)] = _kind, _index
_VAGUE = [re.compile(re.escape(gist).replace(r"\{a\}", ".+").replace(r"\{t\}", ".+")) for gist in GISTS]


def read(patterns, text):
    """(match, (kind of subject, index of the kind of fact)) of a text that is one of the patterns, or (None, None)."""
    return next(((match, fact) for pattern, fact in patterns.items() if (match := pattern.fullmatch(text))), (None, None))


def statements(text):
    """What a passage or a self-edit states: (name, (kind of subject, index of the kind of fact), value) for each sentence or question.

    A pronoun or a role means the subject named last. A sentence that the world does not know is None; a gist's states nothing.
    """
    found, name = [], None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    for sentence in (s for line in lines for s in ([line] if line.startswith("Question:") else re.split(r"(?<=\.) ", line))):
        if any(gist.fullmatch(sentence) for gist in _VAGUE):
            continue
        match, fact = read(_TOLD | _STATED, sentence)
        if match and match["who"] not in _PRONOUNS:
            name = match["who"]
        found.append((name, fact, match["value"]) if match else None)
    return found


def faithful(edit, passage):
    """(how many statements of a self-edit have name and value both from the passage, how many give a value of it to the wrong name, all)."""
    facts, stated = set(statements(passage.text)), statements(edit)
    values = {(fact, value) for _, fact, value in filter(None, facts)}
    right = sum(statement in facts for statement in stated)
    return right, sum(statement is not None and statement not in facts and statement[1:] in values for statement in stated), len(stated)


def alike(passage):
    """Whether all subjects of a passage have the same kinds of facts, so that only a name tells whose a value is."""
    kinds = defaultdict(set)
    for name, fact, _ in statements(passage.text):
        kinds[name].add(fact)
    return len({frozenset(facts) for facts in kinds.values()}) == 1


def mixed_up(answers, passage):
    """Share of a passage's questions answered with the value that another of its subjects has there."""
    facts = statements(passage.text)
    wrong = 0
    for answer, question in zip(answers, passage.questions, strict=True):
        match, asked = read(_EXAMINED, question.question)
        others = [value for name, fact, value in facts if fact == asked and name != match["who"]]
        wrong += bool(others) and not grade(answer, question.answers) and grade(answer, others)
    return wrong / len(passage.questions)


def table(rows):
    """{label: [(right, swapped, all) for each self-edit]} as lines of text: self-edits, statements, shares."""
    lines = [f"{'':<24} self-edits  statements  name and value right   value right, wrong name"]
    for label, counts in rows.items():
        right, swapped, total = map(sum, zip(*counts))
        shares = (f"{right / total:.1%}", f"{swapped / total:.1%}") if total else ("-", "-")
        lines.append(f"{label:<24} {len(counts):>10}  {total / len(counts):>10.1f}  {shares[0]:>20}  {shares[1]:>23}")
    return "\n".join(lines)


def style_of(edit):
    """Which habit a self-edit has: that of its first line."""
    first = edit.split("\n")[0]
    if any(gist.fullmatch(first) for gist in _VAGUE):
        return "gist"
    if first.startswith("Question:"):
        return "questions"
    return "implications" if read(_STATED, first)[0] else "rewrite"


def main(arguments=None):
    """Print the shares: for each style of prompt, or for each iteration and style of a run."""
    parser = argparse.ArgumentParser(prog="python -m sealkit.bundled.faithfulness", description="How faithful self-edits of the bundled world are.")
    parser.add_argument("--run", type=Path, help="a run's folder: its self-edits by iteration and style, instead of new ones by style of prompt")
    parser.add_argument("--model", type=Path, help="a model's folder (default: the bundled model)")
    parser.add_argument("--passages", type=int, default=120, help="of the test split (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    rows = defaultdict(list)
    if args.run:
        passages = {passage.title: passage for split in SPLITS for passage in load_passages("bundled", split)}
        for line in (args.run / "self_edits.jsonl").read_text(encoding="ascii").splitlines():
            row = json.loads(line)
            counts = faithful(row["self_edit"], passages[row["title"]])
            for label in ("all", style_of(row["self_edit"])):
                rows[f"iteration {row['iteration']}, {label}"].append(counts)
        print(table(dict(sorted(rows.items()))))
        return
    from .. import load_quantized  # here, since reading a run needs no model

    passages = load_passages("bundled", "test", args.passages)
    model, tokenizer = load_quantized(args.model and str(args.model))
    for shown, label in ((True, "in context"), (False, "closed book")):
        answers = answer_questions(model, tokenizer, passages, in_context=shown)
        for kind, like in (("alike", True), ("of different kinds", False)):
            pairs = [(a, p) for a, p in zip(answers, passages) if alike(p) == like]
            mean, low, high = (f"{100 * x:.1f}" for x in bootstrap_interval([accuracy(*pair) for pair in pairs]))
            swapped = sum(mixed_up(*pair) for pair in pairs) / len(pairs)
            print(f"{label}, {len(pairs)} passages with subjects {kind}: {mean}% right [{low}, {high}], {swapped:.1%} another subject's value")
    for style in (*BUNDLED.styles, None):
        edits = generate_self_edits(model, tokenizer, passages, 1, (args.seed, "faithfulness"), style)
        rows[style or "Notes: (its own choice)"] = [faithful(edit, passage) for (edit,), passage in zip(edits, passages)]
    print(table(rows))


if __name__ == "__main__":
    main()
