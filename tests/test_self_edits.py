"""Sampling repeats from its seed whatever stands beside it; text becomes clean training sequences."""

import re

import pytest

import sealkit
from sealkit.self_edits import STYLES, complete, seed_of, self_edit_prompt


def test_same_seed_same_edits_alone_or_in_a_batch(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    alone = sealkit.generate_self_edits(model, tokenizer, validation[1], k=3, seed=7)
    batch = sealkit.generate_self_edits(model, tokenizer, validation[:3], k=3, seed=7)
    assert batch[1] == alone and len(set(alone)) > 1
    assert sealkit.generate_self_edits(model, tokenizer, validation[1], k=3, seed=8) != alone


def test_cold_sampling_is_greedy(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    prompts = [self_edit_prompt(validation[0], "implications")] * 2
    cold = complete(model, tokenizer, prompts, 60, seeds=[1, 2], temperature=1e-4)
    assert cold == complete(model, tokenizer, prompts, 60)


def test_sampling_follows_the_models_distribution(model_and_tokenizer):
    """Shares of the first sampled token agree with the softmax of the logits, within four standard errors."""
    import torch

    model, tokenizer = model_and_tokenizer
    prompt, draws = "Question: Which trade", 2000
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        p = model(**inputs).logits[0, -1].float().softmax(-1)
    likely = p.argmax().item()
    texts = complete(model, tokenizer, [prompt] * draws, 1, seeds=list(range(draws)))
    share = sum(text == tokenizer.decode([likely]).strip() for text in texts) / draws
    expected = p[likely].item()
    assert abs(share - expected) < 4 * (expected * (1 - expected) / draws) ** 0.5 + 1e-3


def test_every_style_of_prompt_gives_that_style(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    written = {style: [edits[0] for edits in sealkit.generate_self_edits(model, tokenizer, validation[:20], 1, 0, style)] for style in STYLES}
    assert sum("Question:" in edit for edit in written["questions"]) >= 18
    assert sum("Question:" in edit for style in ("implications", "rewrite", "gist") for edit in written[style]) <= 3
    answers = {passage: {a for q in passage.questions for a in q.answers} for passage in validation[:20]}
    covered = {style: sum(len([a for a in answers[p] if a in edit]) for p, edit in zip(answers, edits)) for style, edits in written.items()}
    assert covered["gist"] < 0.2 * covered["implications"] and covered["rewrite"] > covered["gist"]


def test_bad_arguments(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    with pytest.raises(ValueError, match="k is 0"):
        sealkit.generate_self_edits(model, tokenizer, validation[0], k=0)
    with pytest.raises(ValueError, match="No self-edit style 'poem'"):
        sealkit.generate_self_edits(model, tokenizer, validation[0], style="poem")


def test_seeds_depend_on_the_whole_key():
    keys = [(0, 1, 2, 3), (0, 1, 3, 2), ((0, 1), 2, 3), (1, 1, 2, 3)]
    assert len({seed_of(*key) for key in keys}) == 4 and seed_of(0, 1, 2, 3) == seed_of(0, 1, 2, 3)


PASSAGE = sealkit.Passage("T", "A text.", ())


@pytest.mark.parametrize("edit, lines", [
    ("", []),
    ("  \n \n", []),
    ("1. One thing.\n2) Another.\n- A third.\n• A fourth.", ["One thing.", "Another.", "A third.", "A fourth."]),
    ("Here are some implications:\n1. One thing.", ["One thing."]),
    ("The same.\nThe same.", ["The same."]),
    ("Question: Who?\nAnswer: Ann.", ["Question: Who? Answer: Ann."]),
    ("1. Question: Who?\n   Answer: Ann.\n\n2. Question: When?\nAnswer: 1990", ["Question: Who? Answer: Ann.", "Question: When? Answer: 1990"]),
    ("1990 was the year.\n3.5 km is far.", ["1990 was the year.", "3.5 km is far."]),
    ("---\n***", []),
    ("Sure! Here you go.\nImplication 1: A.\n[2] B.\n(c) C.\n## D\n1.Ends so.", ["A.", "B.", "C.", "D", "Ends so."]),
    ("Let's think step by step.\nHere are some implications of the text.\n1. **One:** two __three__", ["One: two three"]),
    ("A. Lincoln\n21.6% of it\n1. 2. Both", ["A. Lincoln", "21.6% of it", "Both"]),
])
def test_training_sequences(edit, lines):
    assert sealkit.training_sequences(edit, PASSAGE) == ["T\nA text.", *lines]


def test_all_real_self_edits_give_clean_sequences(paper):
    """Every completion teaches something, no mark of a list is left, and no word of a content line is lost."""
    completions = [(row, completion["text"]) for row in paper("restem_round1.jsonl") for completion in row["completions"]]
    assert len(completions) == 250
    left_out = set()
    for row, text in completions:
        first, *lines = sealkit.training_sequences(text, sealkit.Passage(row["title"], row["context"], ()))
        assert first.endswith(row["context"].strip()) and lines
        for line in lines:
            assert not re.match(r"\s*([(\[]?\d{1,3}[.):\]](\s|[A-Z])|\(?[a-z][.)]\s|[-*•–>#]|implication \d)", line, re.I), line
            assert "**" not in line and not line.endswith(":")
            assert not re.match(r"sure|certainly[,!]|let's|here (is|are)|here's", line, re.I), line
        kept = " ".join(lines)
        for line in filter(str.strip, text.split("\n")):
            words = re.findall(r"\w+", re.sub(r"^\s*([(\[]?\d{1,3}[.)\]]|[a-z]\.|Implication \d+:)\s*", "", line))
            if not set(words) <= set(re.findall(r"\w+", kept)):
                left_out.add(line.strip())
    assert all(line.endswith(":") or line.startswith(("Let's ", "Sure! ")) for line in left_out)
    assert 10 <= len(left_out) <= 30  # "Implications:", "Let's read the following passage and produce a list ..."
