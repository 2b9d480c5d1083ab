"""The offline grader, alone and against GPT-4.1's verdicts; closed book and in context."""

import pytest

import sealkit
from sealkit.exam import accuracy


@pytest.mark.parametrize("prediction, answers, right", [
    ("baker", "baker", True),
    ("A baker.", ("smith", "baker"), True),
    ("She is a smith", "baker", False),
    ("", "baker", False),
    ("Montcalm", "Louis-Joseph de Montcalm", True),
    ("twenty", "20", True),
    ("It has 1,200 people", "1200", True),
    ("1200", "1,201", False),
    ("in 1985", "1986", False),
    ("Japan", "Japanese imports", True),
    ("the 14th century", "14 century", True),
    ("$170.4 billion", "$170 billion", True),
    ("1986", "1985.6", False),
    ("terra preta", "Terra preta (black earth)", True),
    ("Fréderic Chopin", "Frederic Chopin", True),
    ("prince", "priest", False),
    ("the", "the", True),
])
def test_grade(prediction, answers, right):
    assert sealkit.grade(prediction, answers) is right


def test_a_question_without_answer_is_an_error():
    for answers in ("", (), (" ",)):
        with pytest.raises(ValueError, match="no answer to grade against"):
            sealkit.grade("x", answers)
    with pytest.raises(ValueError, match="has no questions"):
        accuracy([], sealkit.Passage("T", "x", ()))


def test_values_of_the_world_are_never_taken_for_each_other():
    from sealkit.bundled.world import KINDS

    for relation in (relation for relations in KINDS.values() for relation in relations):
        for a in relation.values:
            assert [b for b in relation.values if sealkit.grade(a, b)] == [a]


def test_agreement_with_gpt_4_1(paper, capsys):
    rows = paper("verdicts.jsonl")
    ours = [sealkit.grade(row["prediction"], row["gold"]) for row in rows]
    theirs = [row["correct"] for row in rows]
    agreement = sum(a == b for a, b in zip(ours, theirs)) / len(rows)
    p, q = sum(ours) / len(rows), sum(theirs) / len(rows)
    chance = p * q + (1 - p) * (1 - q)
    kappa = (agreement - chance) / (1 - chance)
    contains = sum((row["gold"].lower() in row["prediction"].lower()) == row["correct"] for row in rows) / len(rows)
    with capsys.disabled():
        print(f"\ngrader against GPT-4.1 on {len(rows)} verdicts: agreement {agreement:.1%}, Cohen's kappa {kappa:.2f}; plain 'contains' {contains:.1%}")
    assert agreement >= 0.90 and kappa >= 0.79


def test_reads_in_context_and_knows_nothing_without(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    passages = validation[:40]
    mean = {
        shown: sum(map(accuracy, sealkit.answer_questions(model, tokenizer, passages, shown), passages)) / 40 for shown in (True, False)
    }
    assert mean[True] >= 0.95 and mean[False] <= 0.10


def test_answers_what_pretraining_taught(model_and_tokenizer):
    import random

    from sealkit.bundled import world

    model, tokenizer = model_and_tokenizer
    rng = random.Random(0)
    known = [world.make_passage(rng, [subject]) for subject in world.known_subjects()[:40]]
    assert sum(map(accuracy, sealkit.answer_questions(model, tokenizer, known), known)) / 40 >= 0.9
