"""The bundled world: splits that pretraining never saw, styles in equal shares, a tokenizer that
loses nothing."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import sealkit
from sealkit.bundled import world
from sealkit.bundled.pretrain import documents, new_model, train
from sealkit.bundled.tokenizer import train_tokenizer
from sealkit.loading import BUNDLED_MODEL

TOKENIZER = AutoTokenizer.from_pretrained(BUNDLED_MODEL)


def test_splits_are_what_the_generator_makes():
    for split, passages in world.make_splits().items():
        assert passages == sealkit.load_passages("bundled", split)


def test_names_of_the_splits_never_occur_in_pretraining():
    held_out = set(world.held_out_names())
    titles = [p.title for split in world.SPLITS for p in sealkit.load_passages("bundled", split)]
    used = [name for title in titles for name in title.split(" and ")]
    assert set(used) <= held_out and len(set(used)) == len(used)
    assert not held_out & set(world.passing_names()) and not held_out & {
        s.name for s in world.known_subjects()
    }
    stream = documents(TOKENIZER, lambda: 0.5, seed=3)
    text = " ".join(
        TOKENIZER.decode(ids)
        for kind, ids, _ in (next(stream) for _ in range(4000))
        if kind != "copying"
    )
    assert not held_out & set(text.replace(".", " ").replace("?", " ").split())
    assert (
        len(set(world.passing_names()) & set(text.replace(".", " ").replace("?", " ").split()))
        > 1000
    )


def test_styles_are_equally_common_in_pretraining():
    stream = documents(TOKENIZER, lambda: 0.5, seed=4)
    count = Counter(kind for kind, _, _ in (next(stream) for _ in range(8000)))
    styles = [count[style] for style in ("implications", "questions", "rewrite", "gist")]
    expected = sum(styles) / 4
    assert (
        sum((n - expected) ** 2 / expected for n in styles) < 16.3
    )  # chi-square, 3 degrees of freedom, p = 0.001


def test_self_edits_cover_one_to_all_facts_in_every_style():
    rng = random.Random(0)
    subjects = world.make_group(rng, world.draw_names(rng, world.passing_names(), 2), 3)
    values = [value for subject in subjects for _, value in subject.facts]
    for style in ("implications", "questions", "rewrite"):
        edits = [world.write_self_edit(rng, subjects, style) for _ in range(600)]
        covered = Counter(sum(value in edit for value in values) for edit in edits)
        assert set(covered) == set(range(1, 7)) and min(covered.values()) > 60
    assert all(
        not any(value in world.write_self_edit(rng, subjects, "gist") for value in values)
        for _ in range(50)
    )


def test_rewrites_use_pronouns_and_implications_names():
    rng = random.Random(1)
    subjects = world.make_group(rng, world.draw_names(rng, world.passing_names(), 2), 3)
    rewrite, implications = (
        world.write_self_edit(rng, subjects, style, 6) for style in ("rewrite", "implications")
    )
    assert all(rewrite.count(s.name) == 1 and implications.count(s.name) == 3 for s in subjects)


def test_the_committed_tokenizer_is_the_one_the_command_trains():
    assert train_tokenizer().get_vocab() == TOKENIZER.get_vocab() and 1000 <= len(TOKENIZER) <= 2048
    assert TOKENIZER.unk_token is None


@settings(max_examples=500, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_round_trips(text):
    assert TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False)["input_ids"]) == text


def test_every_word_of_the_world_is_one_token():
    for word in "Question baker Egypt fiddle London celebrated profession".split():
        assert len(TOKENIZER(word, add_special_tokens=False)["input_ids"]) == 1


def test_pretraining_repeats_from_its_seed_and_learns():
    def losses():
        return [
            measures["gist"]["loss"]
            for _, measures in train(new_model(TOKENIZER), TOKENIZER, 12, log_every=6)
        ]

    first = losses()
    assert first == losses() and first[-1] < first[0]
