"""A passage, read and not remembered; a self-edit's text becomes clean training sequences."""

import random
import re

import pytest

import sealkit
from sealkit.bundled import world
from sealkit.tasks import knowledge
from sealkit.tasks.knowledge import BUNDLED_CONFIG, GENERAL_CONFIG, lesson, questions, reward

PASSAGE = sealkit.Passage("T", "A text.", ())


@pytest.mark.parametrize(
    "edit, lines",
    [
        ("", []),
        ("  \n \n", []),
        (
            "1. One thing.\n2) Another.\n- A third.\n• A fourth.",
            ["One thing.", "Another.", "A third.", "A fourth."],
        ),
        ("Here are some implications:\n1. One thing.", ["One thing."]),
        ("The same.\nThe same.", ["The same."]),
        ("Question: Who?\nAnswer: Ann.", ["Question: Who? Answer: Ann."]),
        (
            "1. Question: Who?\n   Answer: Ann.\n\n2. Question: When?\nAnswer: 1990",
            ["Question: Who? Answer: Ann.", "Question: When? Answer: 1990"],
        ),
        ("1990 was the year.\n3.5 km is far.", ["1990 was the year.", "3.5 km is far."]),
        ("---\n***", []),
        (
            "Sure! Here you go.\nImplication 1: A.\n[2] B.\n(c) C.\n## D\n1.Ends so.",
            ["A.", "B.", "C.", "D", "Ends so."],
        ),
        (
            "Let's think step by step.\nHere are some implications of the text.\n"
            "1. **One:** two __three__",
            ["One: two three"],
        ),
        ("A. Lincoln\n21.6% of it\n1. 2. Both", ["A. Lincoln", "21.6% of it", "Both"]),
    ],
)
def test_training_sequences(edit, lines):
    assert sealkit.training_sequences(edit, PASSAGE) == ["T\nA text.", *lines]


def test_all_real_self_edits_give_clean_sequences(paper):
    """Each teaches something; no mark of a list is left, no word of a content line is lost."""
    mark = r"\s*([(\[]?\d{1,3}[.):\]](\s|[A-Z])|\(?[a-z][.)]\s|[-*•–>#]|implication \d)"
    number = r"^\s*([(\[]?\d{1,3}[.)\]]|[a-z]\.|Implication \d+:)\s*"
    rows = paper("restem_round1.jsonl")
    written = [(row, completion["text"]) for row in rows for completion in row["completions"]]
    assert len(written) == 250
    left_out = set()
    for row, text in written:
        passage = sealkit.Passage(row["title"], row["context"], ())
        first, *lines = sealkit.training_sequences(text, passage)
        assert first.endswith(row["context"].strip()) and lines
        for line in lines:
            assert not re.match(mark, line, re.I), line
            assert "**" not in line and not line.endswith(":")
            assert not re.match(r"sure|certainly[,!]|let's|here (is|are)|here's", line, re.I), line
        kept = set(re.findall(r"\w+", " ".join(lines)))
        for line in filter(str.strip, text.split("\n")):
            if not set(re.findall(r"\w+", re.sub(number, "", line))) <= kept:
                left_out.add(line.strip())
    assert all(line.endswith(":") or line.startswith(("Let's ", "Sure! ")) for line in left_out)
    assert 10 <= len(left_out) <= 30  # "Implications:", "Let's read the following passage and ..."


def test_a_lesson_has_the_recipes_pace_and_without_a_self_edit_the_passage_alone():
    for config in (BUNDLED_CONFIG, GENERAL_CONFIG):
        taught = lesson(PASSAGE, "1. A fact.", config)
        assert taught.texts == ["T\nA text.", "A fact."]
        assert (taught.steps, taught.learning_rate) == (config.steps, config.learning_rate)
        assert lesson(PASSAGE, "", config).texts == ["T\nA text."]


def test_an_exam_shows_the_passage_only_if_it_is_asked_to(validation):
    passage = validation[0]
    for config in (BUNDLED_CONFIG, GENERAL_CONFIG):
        for in_context in (False, True):
            prompts = questions(passage, config, in_context)
            assert len(prompts) == len(passage.questions)
            for prompt, question in zip(prompts, passage.questions):
                assert prompt.endswith(f"Question: {question.question} Answer:")
                assert (passage.text in prompt) == in_context


def test_the_reward_is_the_share_of_right_answers(validation):
    passage = validation[0]
    gold = [question.answers[0] for question in passage.questions]
    assert reward(passage, gold) == 1
    assert reward(passage, ["nothing of it", *gold[1:]]) == (len(gold) - 1) / len(gold)
    with pytest.raises(ValueError, match="has no questions: without an exam there is no reward"):
        reward(PASSAGE, [])


def test_the_bundled_world_is_graded_by_exact_match_and_real_text_by_the_rule(validation):
    passage = validation[0]
    said = [f"It is the {question.answers[0]}." for question in passage.questions]
    graded = [reward(passage, said, config) for config in (BUNDLED_CONFIG, GENERAL_CONFIG, None)]
    assert graded == [0, 1, 1]
    gold = [question.answers[0] for question in passage.questions]
    assert reward(passage, gold, BUNDLED_CONFIG) == 1


def test_reads_in_context_and_knows_nothing_without(loaded, validation):
    passages, mean = validation[:40], {}
    for shown in (True, False):
        answers = sealkit.answer_questions(*loaded, passages, shown)
        mean[shown] = sum(map(reward, passages, answers)) / len(passages)
    assert mean[True] >= 0.95 and mean[False] <= 0.10
    assert sealkit.answer_questions(*loaded, passages[3]) == answers[3]


def test_answers_what_pretraining_taught(loaded):
    rng = random.Random(0)
    known = [world.make_passage(rng, [subject]) for subject in world.known_subjects()[:40]]
    answers = sealkit.answer_questions(*loaded, known)
    assert sum(map(reward, known, answers)) / len(known) >= 0.9


def test_what_tells_passages_apart_is_their_text_too():
    assert (
        knowledge.name(PASSAGE)
        == ("T", "A text.")
        != knowledge.name(sealkit.Passage("T", "Another text.", ()))
    )
