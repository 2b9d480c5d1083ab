"""The bundled world: splits that pretraining never saw, subjects told apart by name alone, exams in
words of their own."""

import random
import re
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import sealkit
from sealkit.bundled import pretrain, world
from sealkit.bundled.faithfulness import by_coverage, faithful, mixed_up, statements
from sealkit.bundled.tokenizer import train_tokenizer
from sealkit.models.choice import BUNDLED_MODEL
from sealkit.tasks import knowledge

TOKENIZER = AutoTokenizer.from_pretrained(BUNDLED_MODEL)


def test_splits_are_what_the_generator_makes():
    for split, passages in world.make_splits().items():
        assert passages == sealkit.load_passages("bundled", split)


def drawn(steps, seed=3):
    """The documents of these steps of pretraining."""
    known, passing = world.known_subjects(), world.passing_names()
    return list(
        chain.from_iterable(
            pretrain.documents(TOKENIZER, step, known, passing, seed) for step in steps
        )
    )


def test_names_of_the_splits_never_occur_in_pretraining():
    held_out = set(world.held_out_names())
    titles = [p.title for split in world.SPLITS for p in sealkit.load_passages("bundled", split)]
    used = [name for title in titles for name in title.split(" and ")]
    assert set(used) <= held_out and len(set(used)) == len(used)
    assert not held_out & set(world.passing_names()) and not held_out & {
        s.name for s in world.known_subjects()
    }
    text = " ".join(TOKENIZER.decode(ids) for _, ids, _ in drawn(range(0, pretrain.STEPS, 10)))
    assert not held_out & set(text.replace(".", " ").replace("?", " ").split())
    assert (
        len(set(world.passing_names()) & set(text.replace(".", " ").replace("?", " ").split()))
        > 1000
    )


def test_styles_are_equally_common_in_pretraining():
    count = Counter(
        kind for kind, _, _ in drawn(range(pretrain.STEPS - 1500, pretrain.STEPS), seed=4)
    )
    styles = [count[style] for style in ("implications", "questions", "rewrite", "gist")]
    expected = sum(styles) / 4
    assert (
        expected > 500 and sum((n - expected) ** 2 / expected for n in styles) < 16.3
    )  # chi-square, 3 degrees of freedom, p = 0.001


def test_exams_share_no_wording_with_self_edits_or_passages():
    """Not even a word, but names, values and words without content."""
    plain = set("a at by do does for from has have her his in is it its me of on one the".split())
    plain |= set("to which what who does will with".split())

    def words(text):
        return set(re.findall(r"[a-z]+", re.sub(r"{\w}", "", text.lower()))) - plain

    relations = [relation for relations in world.KINDS.values() for relation in relations]
    for r in relations:
        assert not words(r.examined) & words(" ".join([r.asked, *r.implied])), r.examined
    wordings = [w for r in relations for w in (*r.told, *r.implied, r.asked, r.examined)]
    assert len(set(wordings)) == len(wordings)
    for passage in sealkit.load_passages("bundled", "test"):
        assert not any(question.question in passage.oracle for question in passage.questions)


def test_exams_ask_two_kinds_of_facts_of_each_subject_and_passages_tell_four():
    for passage in chain.from_iterable(world.make_splits().values()):
        told, asked = statements(passage.text), set(statements(passage.oracle))
        assert len(set(told)) == 8 and len(passage.questions) == 4 and asked < set(told)
        assert asked == {fact for fact in told if fact[1][1] in world.ASKED[fact[1][0]]}
        answers = sorted(question.answers[0] for question in passage.questions)
        assert answers == sorted(value for _, _, value in asked)


def test_known_facts_are_told_in_all_wordings_about_equally_often():
    rng, known, count = random.Random(5), world.known_subjects(), Counter()
    for _ in range(8000):
        kind, parts = pretrain.write_known(rng, known)
        text = "".join(text for text, _ in parts)
        if kind == "known question":
            kind = (
                "asked"
                if any(
                    re.match(re.escape(f"Question: {r.asked}").replace(r"\{n\}", r"\w+"), text)
                    for k in world.KINDS.values()
                    for r in k
                )
                else "examined"
            )
        count[kind] += len(statements(text.split("\n")[1])) if kind == "known passage" else 1
    assert set(count) == {"known passage", "known fact", "asked", "examined"} and max(
        count.values()
    ) < 1.25 * min(count.values())


def test_only_names_tell_the_subjects_of_a_passage_apart():
    for passage in chain.from_iterable(world.make_splits().values()):
        facts = statements(passage.text)
        first, second = ({fact for who, fact, _ in facts if who == name} for name in names(passage))
        assert first == second and len(first) == 4 and len({value for *_, value in facts}) == 8


def names(passage):
    return passage.title.split(" and ")


def test_faithfulness_knows_right_swapped_and_made_up_statements():
    rng = random.Random(6)
    subjects = world.make_group(rng, world.draw_names(rng, world.passing_names(), 2), 4, alike=True)
    passage, first, second = world.make_passage(rng, subjects), subjects[0].name, subjects[1].name
    for style in ("implications", "questions", "rewrite"):
        edit = world.write_self_edit(rng, subjects, style, world.all_facts(subjects))
        assert faithful(edit, passage) == (8, 0, 8) and knowledge.style(passage, edit) == style
        swapped = edit.replace(first, "X").replace(second, first).replace("X", second)
        assert faithful(swapped, passage) == (0, 8, 8)
    gist = world.write_self_edit(rng, subjects, "gist")
    assert faithful(gist, passage) == (0, 0, 0) and knowledge.style(passage, gist) == "gist"
    assert faithful(f"{first} sings.\n{passage.text}", passage) == (8, 0, 9)
    right = [question.answers[0] for question in passage.questions]
    values = {fact[1:]: fact[0] for fact in statements(passage.oracle)}
    other = [  # of the same kind, of the other subject
        next(v for (k, v), name in values.items() if v != answer and (k, answer) in values)
        for answer in right
    ]
    assert mixed_up(right, passage) == 0 == mixed_up(["no idea"] * 4, passage)
    assert mixed_up(other, passage) == 1


def test_questions_are_told_apart_by_what_a_self_edit_states():
    rng = random.Random(7)
    subjects = world.make_group(rng, world.draw_names(rng, world.passing_names(), 2), 4, alike=True)
    passage = world.make_passage(rng, subjects)
    for style in ("implications", "questions", "rewrite"):
        edit = world.write_self_edit(rng, subjects, style, world.all_facts(subjects)[:4])
        answers = ["no idea"] + [question.answers[0] for question in passage.questions[1:]]
        pairs = by_coverage(edit, answers, passage)
        assert sum(told for told, _ in pairs) == 2 and [hit for _, hit in pairs] == [0, 1, 1, 1]
        stated = [question.answers[0] in edit for question in passage.questions]
        assert [told for told, _ in pairs] == stated  # no value stands twice in these


def test_the_writers_habits_are_independent_of_what_exams_ask():
    """Any pair of kinds as often as another; never a fact twice; one fact to all of them."""
    rng, pairs, lengths = random.Random(0), Counter(), Counter()
    for _ in range(4000):
        group = world.make_group(rng, world.draw_names(rng, world.passing_names(), 2), 4, True)
        facts = statements(world.write_self_edit(rng, group, "implications"))
        assert len(set(facts)) == len(facts)
        lengths[len(facts)] += 1
        if len(facts) == 4:
            pairs[frozenset(kind for _, (_, kind), _ in facts)] += 1
    expected = sum(pairs.values()) / 6
    assert len(pairs) == 6 and expected > 200
    assert sum((n - expected) ** 2 / expected for n in pairs.values()) < 20.5  # p = 0.001, 5 df
    assert set(lengths) == set(range(1, 9)) and lengths[4] > 1500 and min(lengths.values()) > 150


def test_gists_state_nothing():
    rng = random.Random(0)
    subjects = world.make_group(rng, world.draw_names(rng, world.passing_names(), 2), 4)
    values = [value for subject in subjects for _, value in subject.facts]
    gists = [world.write_self_edit(rng, subjects, "gist") for _ in range(50)]
    assert not any(value in gist for gist in gists for value in values)


def test_rewrites_use_pronouns_and_implications_names():
    rng = random.Random(1)
    subjects = world.make_group(rng, world.draw_names(rng, world.passing_names(), 2), 3)
    rewrite, implications = (
        world.write_self_edit(rng, subjects, style, world.all_facts(subjects))
        for style in ("rewrite", "implications")
    )
    assert all(rewrite.count(s.name) == 1 and implications.count(s.name) == 3 for s in subjects)


def test_the_committed_tokenizer_is_the_one_the_command_trains():
    assert train_tokenizer().get_vocab() == TOKENIZER.get_vocab() and 1000 <= len(TOKENIZER) <= 2048
    assert TOKENIZER.unk_token is None


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_round_trips(text):
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


def test_a_name_is_its_onset_and_its_ending():
    names = world.all_names()
    lengths = [len(ids) for ids in TOKENIZER(names, add_special_tokens=False)["input_ids"]]
    assert sum(length == 2 for length in lengths) >= 0.999 * len(names)


def test_every_word_of_the_world_is_one_token():
    for word in "Question baker Egypt fiddle London celebrates leader".split():
        assert len(TOKENIZER(word, add_special_tokens=False)["input_ids"]) == 1


def test_a_new_model_looks_back_from_the_start():
    model = pretrain.new_model(TOKENIZER)
    model.set_attn_implementation("eager")
    ids = TOKENIZER("Bramwick keeps a goat at home. Calford owns a dog.", return_tensors="pt")[
        "input_ids"
    ]
    attention = model(ids, output_attentions=True).attentions[0][0]
    for head, back in enumerate(pretrain.PREVIOUS):
        assert attention[head].diagonal(-back)[2:].mean() > 0.75


@pytest.fixture
def short(monkeypatch):
    """Stages of a few steps, and a checkpoint at every step."""
    monkeypatch.setattr(pretrain, "ENDS", [4, 8, 12])
    monkeypatch.setattr(pretrain, "STEPS", 12)
    monkeypatch.setattr(pretrain, "CHECKPOINT_SECONDS", 0)


def begun(seed=0):
    return pretrain.Training(pretrain.new_model(TOKENIZER, seed), TOKENIZER)


def without_time(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_pretraining_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(short, tmp_path):
    whole, stopped, resumed = begun(), begun(), begun(seed=1)
    rows = without_time(pretrain.train(whole, log_every=5, steps=12))
    path = tmp_path / "checkpoint.pt"
    for _ in zip(range(1), pretrain.train(stopped, log_every=5, steps=12, checkpoint=path)):
        pass  # left in the midst of the training, as if killed
    resumed.load(path)
    assert 0 < resumed.step < 12
    list(pretrain.train(resumed, log_every=5, steps=12))
    assert without_time(resumed.log) == rows
    pairs = zip(whole.model.parameters(), resumed.model.parameters())
    assert all((a == b).all() for a, b in pairs)
    assert [row["step"] for row in rows] == [5, 10, 12] and rows[0]["stage"] == 2
    whole.seed = 1
    with pytest.raises(ValueError, match="seed 0"):
        whole.load(path)


def test_pairs_are_learned_within_some_hundred_steps():
    rows = list(pretrain.train(begun(), steps=200))
    assert rows[0]["pairs"]["accuracy"] < 0.5 < rows[-1]["pairs"]["accuracy"]


def test_names_that_were_said_count():
    parts = [("Bramwick dog.", 0.0), (" Bramwick", 0.0), (" dog", 1.0), ("? Bramwick", 0.1)]
    counted = pretrain.count_names(parts, ["Bramwick"])
    assert counted[0] == parts[0] and counted[1:] == [
        (" ", 0.0),
        ("Bramwick", 0.5),
        (" dog", 1.0),
        ("? ", 0.1),
        ("Bramwick", 0.5),
    ]
