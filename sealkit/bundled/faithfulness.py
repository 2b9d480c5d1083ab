"""Whose fact is it? python -m sealkit.bundled.faithfulness [--run FOLDER]

Reads the texts of the bundled world back into (name, kind of fact, value), and counts how many
statements of a self-edit are the passage's own, name and value both, how many give a value of it to
a wrong name (another subject's, or one that nobody has), how many are of a kind that exams ask, and
how many were made before; and how many answers are the value of another subject.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

from ..api import answer_questions, generate_self_edits
from ..evaluation import bootstrap_interval
from ..loading import load_quantized
from ..tasks import knowledge
from ..tasks.grading import exact_match
from ..tasks.passages import load_passages
from .world import ASKED, GISTS, KINDS, REFERENCES

PRONOUNS = {reference for references in REFERENCES.values() for reference in references}


def pattern(wording):
    """A wording as a regular expression with the groups `who` and, if it states one, `value`."""
    who = rf"(?P<who>{'|'.join(sorted(PRONOUNS, reverse=True))}|\w+)"
    wording = re.escape(wording).replace(r"\{v\}", r"(?P<value>\w+)")
    return re.compile(wording.replace(r"\{s\}", who).replace(r"\{n\}", who))


STATED, EXAMINED = {}, {}  # {pattern: (kind of subject, index of the kind of fact)}
for kind, relations in KINDS.items():
    for index, relation in enumerate(relations):
        asked = f"Question: {relation.asked} Answer: {{v}}"
        for wording in (*relation.told, *relation.implied, asked):
            STATED[pattern(wording)] = kind, index
        EXAMINED[pattern(relation.examined)] = kind, index
VAGUE = [re.compile(re.sub(r"\\{\w\\}", ".+", re.escape(gist))) for gist in GISTS]


def read(patterns, text):
    """(match, (kind of subject, index of the kind of fact)) of a text that is one of the patterns,
    or (None, None)."""
    found = ((pattern.fullmatch(text), fact) for pattern, fact in patterns.items())
    return next(((match, fact) for match, fact in found if match), (None, None))


def statements(text):
    """What a passage or a self-edit states: for each sentence or question (name, (kind of subject,
    index of the kind of fact), value).

    A pronoun or a role means the subject named last. A sentence that the world does not know is
    None; a gist's states nothing.

    >>> statements("Bramwick owns a cat.")
    [('Bramwick', ('person', 1), 'cat')]
    """
    found, name = [], None
    for line in filter(None, map(str.strip, text.split("\n"))):
        sentences = [line] if line.startswith("Question:") else re.split(r"(?<=\.) ", line)
        for sentence in sentences:
            if any(gist.fullmatch(sentence) for gist in VAGUE):
                continue
            match, fact = read(STATED, sentence)
            if match and match["who"] not in PRONOUNS:
                name = match["who"]
            found.append((name, fact, match["value"]) if match else None)
    return found


def faithful(edit, passage):
    """Of a self-edit's statements: (how many have name and value both from the passage, how many
    give a value of it to the wrong name, all)."""
    facts, stated = set(statements(passage.text)), statements(edit)
    values = {(fact, value) for _, fact, value in filter(None, facts)}
    wrong = [one for one in stated if one and one not in facts and one[1:] in values]
    return sum(one in facts for one in stated), len(wrong), len(stated)


def focus(edit):
    """Of a self-edit's statements: (how many are of a kind that exams ask, how many repeat one).

    >>> focus("Bramwick is a baker by trade.\\nBramwick owns a cat.\\nBramwick owns a cat.")
    (1, 1)
    """
    stated = statements(edit)
    asked = sum(fact[1] in ASKED[fact[0]] for _, fact, _ in filter(None, stated))
    return asked, len(stated) - len(set(stated))


def tally(edit, passage):
    """A row of `table` for one self-edit: what `faithful` counts, then what `focus` does."""
    return faithful(edit, passage) + focus(edit)


def mixed_up(answers, passage):
    """Share of a passage's questions answered with what another of its subjects has there."""
    facts, wrong = statements(passage.text), 0
    for answer, question in zip(answers, passage.questions, strict=True):
        match, asked = read(EXAMINED, question.question)
        others = [value for name, fact, value in facts if fact == asked and name != match["who"]]
        if others and not exact_match(answer, question.answers):
            wrong += exact_match(answer, others)
    return wrong / len(passage.questions)


def by_coverage(edit, answers, passage):
    """[(whether a self-edit states what a question asks, whether its answer was right), ...]."""
    stated, pairs = statements(edit), []
    for answer, question in zip(answers, passage.questions, strict=True):
        match, asked = read(EXAMINED, question.question)
        told = (match["who"], asked, question.answers[0]) in stated
        pairs.append((told, exact_match(answer, question.answers)))
    return pairs


def table(rows):
    """{label: [(right, wrong name, all, asked, repeated) for each self-edit]} as lines of text."""
    width = max(map(len, rows))
    head = f"{'':<{width}} self-edits  statements   right  wrong name   asked  repeated"
    lines = [head]
    for label, counts in rows.items():
        right, swapped, total, asked, repeated = map(sum, zip(*counts))
        shares = [count / max(total, 1) for count in (right, swapped, asked, repeated)]
        cells = "{:>8.1%}{:>12.1%}{:>8.1%}{:>10.1%}".format(*shares) if total else "-"
        lines.append(f"{label:<{width}} {len(counts):>10}{total / len(counts):>12.1f}{cells}")
    return "\n".join(lines)


def percent(values):
    """Mean of shares with its 95% interval, as text."""
    mean, low, high = (100 * value for value in bootstrap_interval(values))
    return f"{mean:.1f}% [{low:.1f}, {high:.1f}]"


def of_run(folder):
    """Print what the journals of a run in `folder` hold: faithfulness of its self-edits by
    iteration and style, right answers to what a self-edit states and to what it leaves out, and for
    each arm the share of answers that are another subject's value."""
    rows, arms, right = defaultdict(list), defaultdict(list), defaultdict(list)
    passages = {split: load_passages("bundled", split) for split in ("train", "test")}
    lines = (path.read_text("utf-8").splitlines() for path in sorted(folder.glob("journal*")))
    for entry in map(json.loads, (line for own in lines for line in own)):
        (what, where, *_), last, value = entry["key"], entry["key"][-1], entry["value"]
        if what == "self-edit":
            passage = passages["train"][entry["key"][2]]
            counts = tally(value, passage)
            for label in ("all", knowledge.style(passage, value)):
                rows[f"iteration {where}, {label}"].append(counts)
        elif what == "trial" and last is not None:
            passage = passages["train"][entry["key"][2]]
            for told, hit in by_coverage(value["self_edit"], value["answers"], passage):
                right[f"iteration {where}", told].append(hit)
        elif what == "text":
            rows[f"held out: {where}"].append(tally(value, passages["test"][entry["key"][3]]))
        elif what == "arm" and isinstance(value, dict):
            arms[where].append(mixed_up(value["answers"], passages["test"][last]))
    print(table(rows))
    for (when, told), hits in right.items():
        label = "stated" if told else "left out"
        print(f"{when}, {label} by the self-edit: {sum(hits) / len(hits):.1%} of {len(hits)} right")
    for arm, shares in arms.items():
        print(f"{arm}: another subject's value {percent(shares)}")


def of_model(name, count, seed):
    """Print how well a model reads passages, and how faithfully it writes in each style."""
    passages, (model, tokenizer) = load_passages("bundled", "test", count), load_quantized(name)
    for shown, label in ((True, "in context"), (False, "closed book")):
        answers = answer_questions(model, tokenizer, passages, in_context=shown)
        pairs = list(zip(passages, answers))
        right = percent([knowledge.reward(*pair, knowledge.BUNDLED_CONFIG) for pair in pairs])
        swapped = percent([mixed_up(answers, passage) for passage, answers in pairs])
        print(f"{label}: {right} right, another subject's value {swapped}")
    rows = {}
    for style in (*knowledge.BUNDLED_CONFIG.prompts.styles, None):
        label, drawn = style or "its own choice", (seed, "faithfulness")
        edits = generate_self_edits(model, tokenizer, passages, 1, drawn, style)
        rows[label] = [tally(edit, passage) for (edit,), passage in zip(edits, passages)]
    print(table(rows))


def main(arguments=None):
    """Print the shares: for each style of prompt, or for each iteration and style of a run."""
    parser = argparse.ArgumentParser("python -m sealkit.bundled.faithfulness", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--run", type=Path, help="a run's folder, instead of new self-edits")
    parser.add_argument("--model", default="bundled", help="a model's folder (default: bundled)")
    parser.add_argument("--passages", type=int, default=120, help="of the test split")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    of_run(args.run) if args.run else of_model(args.model, args.passages, args.seed)


if __name__ == "__main__":
    main()
