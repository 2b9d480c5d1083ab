"""Self-edits written sentence by sentence, of which the lines that the passage supports are trained
on: what a small model needs that can't keep to a whole passage (`knowledge.SMOLLM2_CONFIG`)."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

import sealkit
from sealkit import m_steps, outer_loop
from sealkit.cli.record import read_record
from sealkit.continual.remembering import remembering
from sealkit.outer_loop import write_self_edits, written_texts
from sealkit.policy import Policy
from sealkit.tasks import knowledge, puzzles
from sealkit.tasks.knowledge import SMOLLM2_CONFIG


@pytest.fixture
def writer(policy):
    """The bundled policy, sentence by sentence."""
    prompts = replace(policy.config.prompts, by_sentence=True, stops=("\n",))
    return replace(policy, config=replace(policy.config, prompts=prompts, max_lines=None))


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("It burns. It is lit.", ["It burns.", "It is lit."]),
        ('"Is it?" "Yes!" So it is.', ['"Is it?"', '"Yes!"', "So it is."]),
        (
            "In 1.5 days, e.g. by hand.\n\n12 men came.",
            ["In 1.5 days, e.g. by hand.", "12 men came."],
        ),
        ("  One only ", ["One only"]),
        ("Čas běží. Řeka teče.", ["Čas běží.", "Řeka teče."]),
        ("", [""]),
    ],
)
def test_the_parts_of_a_passage_are_its_sentences(text, sentences):
    passage = sealkit.Passage("Lamp", text, ())
    parts = knowledge.parts(passage, SMOLLM2_CONFIG)
    assert [part.text for part in parts] == sentences and {part.title for part in parts} == {"Lamp"}
    assert knowledge.parts(passage, knowledge.GENERAL_CONFIG) == [passage]


def test_a_puzzle_is_one_part_and_a_pair_keeps_its_earlier_items(policy, validation):
    puzzle = puzzles.load_puzzles("bundled", "test", 1)[0]
    assert puzzles.parts(puzzle, puzzles.BUNDLED_CONFIG) == [puzzle]
    passage = sealkit.Passage("Lamp", "It burns. It is lit.", ())
    pairs = remembering(knowledge).parts((passage, validation), SMOLLM2_CONFIG)
    assert [part.text for part, _ in pairs] == ["It burns.", "It is lit."]
    assert all(earlier is validation for _, earlier in pairs)


def test_a_self_edit_has_a_line_of_each_sentence_whatever_stands_beside_it(
    exact, writer, validation, monkeypatch
):
    drawn, write = [], Policy.write

    def noted(policy, prompts, seeds, *options):
        drawn.extend(seeds)
        return write(policy, prompts, seeds, *options)

    monkeypatch.setattr(Policy, "write", noted)
    passages = validation[:3]
    requests = [(passage, j) for passage in passages for j in range(2)]
    edits = write_self_edits(writer, knowledge, requests, 0)
    assert len(set(drawn)) == len(drawn) == 6 * 8, "each line draws by itself"
    for (passage, j), edit in zip(requests, edits):
        parts = knowledge.parts(passage, writer.config)
        assert len(edit.split("\n")) == len(parts) == 8
        alone = [write_self_edits(writer, knowledge, [(part, j)], 0)[0] for part in parts[:2]]
        assert edit.split("\n")[:2] == alone
    assert len(set(edits)) == len(edits)
    narrow = replace(writer, config=replace(writer.config, texts_per_pass=5))
    assert write_self_edits(narrow, knowledge, requests, 0) == edits


def test_the_m_step_learns_each_line_after_its_own_sentence(writer, validation, monkeypatch):
    learned = []
    monkeypatch.setattr(
        outer_loop, "m_step", lambda policy, examples, seed: learned.append(examples) or [0.0]
    )
    keep = replace(writer, config=replace(writer.config, keep=lambda rewards, alone: [0]))
    iteration = next(outer_loop.seal(keep, knowledge, validation[:1], k=1))
    (edit,) = (trial.self_edit for trial in iteration.trials[0])
    parts = knowledge.parts(validation[0], writer.config)
    prompts = [knowledge.prompt(part, writer.config) for part in parts]
    assert learned == [list(zip(prompts, edit.split("\n")))] and len(parts) == 8
    assert written_texts(writer, knowledge, validation[0], edit) == learned[0]


def test_what_the_passage_does_not_support_is_not_trained_on():
    passage = sealkit.Passage("Lamp", "It was lit in 1891 by Ada Byron.", ())
    lines = ["Question: Who lit it? Answer: Ada Byron", "Question: When? Answer: in 1892"]
    lines += ["It was Ada who lit it.", "It was Eve who lit it.", "Question: Why? Answer:"]
    texts = knowledge.lesson(passage, "\n".join(lines), SMOLLM2_CONFIG).texts
    assert texts == ["Lamp\nIt was lit in 1891 by Ada Byron.", lines[0], lines[2]]
    assert len(knowledge.lesson(passage, "\n".join(lines), knowledge.GENERAL_CONFIG).texts) == 5
    assert not knowledge.is_supported("Question: Why? Answer: …", passage), "it says nothing"
    three = replace(SMOLLM2_CONFIG, max_lines=1)
    assert knowledge.lesson(passage, "\n".join(lines[1:]), three).texts[1:] == [lines[2]]


def test_an_m_step_that_weighs_whole_self_edits_refuses_them(writer, validation):
    loop = m_steps.outer_loop(writer, knowledge, validation[:1], None)
    with pytest.raises(ValueError, match="by_sentence=False"):
        next(loop)


def test_a_tokenizer_names_the_config_and_a_folder_remembers_it(writer, validation, tmp_path):
    named = SimpleNamespace(init_kwargs={"prompts": "smollm2"})
    assert knowledge.config_for(named) is SMOLLM2_CONFIG
    config = replace(SMOLLM2_CONFIG, steps=1, max_new_tokens=8)
    model = sealkit.attach_policy(sealkit.load_quantized("bundled")[0], config)
    sealkit.run_seal(model, writer.tokenizer, validation[:1], 1, 1, tmp_path)
    assert read_record(tmp_path).config == replace(config, keep=SMOLLM2_CONFIG.keep)
