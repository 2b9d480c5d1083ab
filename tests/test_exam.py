"""Answers closed book and in context."""

import pytest

import sealkit
from sealkit.exam import accuracy


def test_a_passage_without_questions_is_an_error():
    with pytest.raises(ValueError, match="has no questions"):
        accuracy([], sealkit.Passage("T", "x", ()))


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
