"""Trials change nothing but their own fork, never learn pads, and reward what an edit is worth."""

import random
import weakref
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

import sealkit
from sealkit import inner_loop
from sealkit.bundled import world
from sealkit.inner_loop import (
    ask,
    checkpointed,
    collate,
    pack,
    row_losses,
    run_trial_batch,
    run_trials,
    sft,
)
from sealkit.lora import fork, side_by_side
from sealkit.tasks import knowledge

SEQUENCES = [
    "Bramwick works as a baker.",
    "Question: What animal does Telford have? Answer: goat",
    "Keldo",
]


def quick(policy, **changes):
    """The policy with a recipe of 3 steps."""
    return replace(policy, config=replace(policy.config, **{"steps": 3} | changes))


def batch(policy, groups):
    """(inputs, labels) of packed rows."""
    packed = [pack(policy, texts) for texts in groups]
    return collate(packed, policy.tokenizer.pad_token_id, policy.model.device)


@pytest.fixture
def passes(monkeypatch):
    """The trials of each pass from here on, list of lists."""
    seen = []

    def noted(*args):
        seen.append(run_trial_batch(*args))
        return seen[-1]

    monkeypatch.setattr(inner_loop, "run_trial_batch", noted)
    return seen


@pytest.fixture(scope="module")
def twenty(only_policy):
    """20 passages, each with no self-edit, a short one, a perfect one and two of the policy's."""
    passages = sealkit.load_passages("bundled", "validation", 20)
    own = sealkit.generate_self_edits(only_policy.model, only_policy.tokenizer, passages, 2)
    edits = [["", p.oracle.split("\n")[0], p.oracle, *written] for p, written in zip(passages, own)]
    return passages, edits


# --- what a trial changes


def test_base_and_policy_are_byte_identical_after_trials(policy, validation, base_bytes):
    before, lora, passage = base_bytes(policy.model), policy.weights(), validation[0]
    edits = ["", passage.oracle]
    trials = sealkit.evaluate_self_edits(policy.model, policy.tokenizer, passage, edits)
    assert len(trials) == 2 and all(0 <= trial.reward <= 1 for trial in trials)
    assert base_bytes(policy.model) == before
    assert all(torch.equal(tensor, lora[name]) for name, tensor in policy.weights().items())


def test_a_plain_model_is_left_as_it_was(loaded, validation, base_bytes):
    model = loaded[0]
    before, names = base_bytes(model), [name for name, _ in model.named_parameters()]
    first, again, other = (
        sealkit.evaluate_self_edits(*loaded, validation[0], ["x"], seed) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert [name for name, _ in model.named_parameters()] == names and base_bytes(model) == before


def test_training_lowers_the_loss_and_changes_every_lora_matrix(policy, validation):
    adapters, start = fork(policy.model, 1), fork(policy.model, 1)
    (losses,), (tokens,) = sft(
        policy, adapters, [sealkit.Lesson([validation[0].oracle], 8, policy.config.learning_rate)]
    )
    assert losses[-1] < 0.7 * losses[0] and len(losses) == 8 and tokens > 20
    for name, pair in adapters.items():
        assert not any(torch.equal(tensor, old) for tensor, old in zip(pair, start[name])), name


def test_a_self_edit_longer_than_the_budget_is_cut(policy, validation):
    tight = quick(policy, steps=1, max_tokens=128)
    (trial,) = run_trials(tight, knowledge, [(validation[0], "word " * 100_000)])
    assert trial.tokens == 128


def test_a_passage_without_questions_is_refused(loaded):
    with pytest.raises(ValueError, match="has no questions"):
        sealkit.evaluate_self_edits(*loaded, sealkit.Passage("T", "x", ()), ["a"])


def test_a_trial_has_the_pace_that_its_lesson_asks_for(policy, validation, passes):
    """The number of steps and the rate may be the self-edit's own choice; each pace has a pass."""

    class Paced:
        name, questions, reward = knowledge.name, knowledge.questions, knowledge.reward

        @staticmethod
        def lesson(item, edit, config):
            steps, rate = edit.split()
            return sealkit.Lesson([item.oracle], int(steps), float(rate))

    edits = ["2 1e-3", "5 1e-3", "2 5e-3", "5 1e-3"]
    trials = run_trials(policy, Paced, [(validation[0], edit) for edit in edits])
    assert [trial.self_edit for trial in trials] == edits
    assert [len(trial.losses) for trial in trials] == [2, 5, 2, 5]
    assert trials[0].losses[1] > trials[2].losses[1] and trials[1] == trials[3]
    assert sorted(map(len, passes)) == [1, 1, 2]


def test_complete_beats_vague_over_24_passages(policy):
    rng, names = random.Random(11), world.held_out_names()
    groups = [world.make_group(rng, world.draw_names(rng, names, 2), 4, True) for _ in range(24)]
    passages = [world.make_passage(rng, group) for group in groups]
    pairs = [(passage, passage.oracle) for passage in passages]
    for passage, group in zip(passages, groups):
        pairs.append((passage, world.write_self_edit(rng, group, "gist")))
    rewards = [trial.reward for trial in run_trials(policy, knowledge, pairs)]
    assert sum(rewards[:24]) / 24 > sum(rewards[24:]) / 24 + 0.2


# --- rows of packed texts


def test_packed_sequences_do_not_see_each_other(policy):
    inputs, labels = batch(policy, [SEQUENCES])
    with torch.no_grad():
        together = policy.model(**inputs, use_cache=False).logits[0]
        alone = [
            policy.model(batch(policy, [[text]])[0]["input_ids"]).logits[0] for text in SEQUENCES
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-4, rtol=1e-4)
    starts = inputs["position_ids"][0] == 0
    assert starts.sum() == 3 and (labels[0, starts] == -100).all()
    assert torch.equal(labels[0, ~starts], inputs["input_ids"][0, ~starts])


def test_packing_by_positions_is_an_explicit_block_diagonal_mask_to_the_bit(policy, validation):
    """6 rows of passages with their lines, of unequal lengths and so with pads."""
    groups = [sealkit.training_sequences(passage.oracle, passage) for passage in validation[:6]]
    groups = [group[: 2 + i] for i, group in enumerate(groups)]
    inputs, labels = batch(policy, groups)
    text = (inputs["position_ids"] == 0).cumsum(1)
    ago = torch.arange(text.shape[1])
    mask = (text[:, :, None] == text[:, None, :]) & (ago[:, None] >= ago)
    with torch.no_grad():
        ours = row_losses(policy.model, inputs, labels)
        masked = row_losses(policy.model, inputs | {"attention_mask": mask[:, None]}, labels)
        unmasked = row_losses(
            policy.model, inputs | {"attention_mask": torch.ones_like(text)}, labels
        )
    assert torch.equal(ours, masked) and not torch.equal(ours, unmasked)
    assert labels.shape[0] == 6 and (labels[:, 1:] != -100).sum(1).unique().numel() > 1


def test_the_loss_of_a_row_is_the_mean_over_its_labelled_tokens(policy):
    inputs, labels = batch(policy, [SEQUENCES, SEQUENCES[:1]])
    with torch.no_grad():
        losses = row_losses(policy.model, inputs, labels)
        logits = policy.model(**inputs, use_cache=False).logits
    for i in range(2):
        expected = cross_entropy(logits[i, :-1].float(), labels[i, 1:])
        assert losses[i].item() == pytest.approx(expected.item(), rel=1e-6)
    assert row_losses(policy.model, inputs, labels.fill_(-100)).tolist() == [0, 0]


def test_pads_are_never_trained_on(policy):
    """They carry no label, and what stands in them changes no loss and no gradient, to the bit."""
    inputs, labels = batch(policy, [SEQUENCES[:1], ["Telford keeps a goat at home."] * 4])
    real = len(pack(policy, SEQUENCES[:1])[0])
    assert (labels[0, real:] == -100).all() and (labels[0, :real] != -100).sum() == real - 1

    def loss_and_gradients(inputs):
        policy.model.zero_grad()
        loss = row_losses(policy.model, inputs, labels)
        loss.sum().backward()
        lora_B = [p for name, p in policy.model.named_parameters() if "lora_B" in name]
        return [loss.detach(), *(p.grad.clone() for p in lora_B)]

    garbage = inputs["input_ids"].clone()
    garbage[0, real:] = 700
    expected = loss_and_gradients(inputs)
    for ours, other in zip(expected, loss_and_gradients(inputs | {"input_ids": garbage})):
        assert torch.equal(ours, other) and ours.any()


@pytest.mark.filterwarnings("error")
def test_checkpointing_changes_no_gradient(policy, validation):
    """To the bit, on the bundled model; layers are computed again, so these are not equal runs."""
    inputs, labels = batch(policy, [SEQUENCES, [validation[0].oracle], SEQUENCES[:2]])
    layers, calls, outcomes = policy.model.get_base_model().model.layers, [], []
    handle = layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    for checkpointing in (False, True):
        adapters = fork(policy.model, 3)
        with (
            side_by_side(policy.model, adapters),
            checkpointed(quick(policy, checkpointing=checkpointing)),
        ):
            row_losses(policy.model, inputs, labels).sum().backward()
        outcomes.append([tensor.grad for pair in adapters.values() for tensor in pair])
        assert len(calls) == (3 if checkpointing else 1)  # forward, and again in the backward pass
    handle.remove()
    assert all(torch.equal(plain, again) for plain, again in zip(*outcomes))
    assert sum(gradient.any().item() for gradient in outcomes[0]) == len(outcomes[0]) / 2  # B = 0
    assert not any(module.training for module in policy.model.modules())


# --- k adapters in one pass


def test_one_pass_equals_one_by_one(policy, exact, twenty):
    """Unequal lengths, an empty self-edit: same answers, losses to float tolerance, near adapters.

    Near by the length of the difference, relative to how far training moved the adapter.
    """

    def trained(passage, edits):
        adapters = fork(policy.model, len(edits))
        lessons = [knowledge.lesson(passage, edit, policy.config) for edit in edits]
        losses, tokens = sft(policy, adapters, lessons)
        questions = [knowledge.questions(passage, policy.config)] * len(edits)
        return adapters, losses, tokens, ask(policy, adapters, questions)

    def length(adapters, i, others):
        pairs = [(a[i], b[0]) for name in adapters for a, b in zip(adapters[name], others[name])]
        return sum((a - b).square().sum() for a, b in pairs).sqrt()

    start = fork(policy.model, 1)
    for passage, own in list(zip(*twenty))[:6]:
        adapters, *together = trained(passage, own)
        for i, edit in enumerate(own):
            other, *alone = trained(passage, [edit])
            (losses, tokens, said), ([other_losses], *others) = (x[i] for x in together), alone
            assert losses == pytest.approx(other_losses, rel=1e-3, abs=1e-4)
            assert [[tokens], [said]] == others
            gap, way = length(adapters, i, other), length(other, 0, start)
            assert gap < 0.01 * way, (passage.title, i, gap / way)


def test_trials_come_in_the_order_of_their_pairs(policy, exact, twenty):
    """However they were sorted into passes, and however wide these were."""
    pairs = [(p, edit) for p, own in list(zip(*twenty))[:3] for edit in own]
    wide, narrow = (
        run_trials(quick(policy, adapters_per_pass=width), knowledge, pairs) for width in (25, 4)
    )
    for (_, edit), a, b in zip(pairs, wide, narrow, strict=True):
        assert a.self_edit == b.self_edit == edit
        assert a.reward == b.reward and a.answers == b.answers and a.tokens == b.tokens
        assert a.losses == pytest.approx(b.losses, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("harm", ["garbage", "nan"])
def test_a_bad_adapter_leaves_its_neighbours_alone_to_the_bit(policy, validation, harm):
    passages = [validation[0], validation[2], validation[1]]
    words = passages[1].oracle.split(" ")
    random.Random(0).shuffle(words)

    def outcome(spoilt):
        texts = [passage.oracle for passage in passages]
        adapters = fork(policy.model, 3)
        if spoilt and harm == "nan":
            for A, _ in adapters.values():
                A.data[1] = torch.nan
        elif spoilt:
            texts[1] = " ".join(words)
        lessons = [sealkit.Lesson([text], 3, policy.config.learning_rate) for text in texts]
        losses, _ = sft(policy, adapters, lessons)
        said = ask(policy, adapters, [knowledge.questions(p, policy.config) for p in passages])
        return adapters, losses, said

    (clean, losses, said), (spoilt, other_losses, other_said) = outcome(False), outcome(True)
    assert losses[1] != other_losses[1]
    for i in (0, 2):
        assert losses[i] == other_losses[i] and said[i] == other_said[i]
        assert all(torch.equal(a[i], b[i]) for n in clean for a, b in zip(clean[n], spoilt[n]))


def test_the_exam_asks_each_question_once(policy, validation, monkeypatch):
    few = [replace(p, questions=p.questions[:n]) for p, n in zip(validation, (4, 2, 1, 2))]
    pairs, asked, write = [(p, p.oracle) for p in few], [], sealkit.Policy.write

    def noted(self, prompts, *args, **options):
        asked.extend(prompts)
        return write(self, prompts, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sealkit.Policy, "write", noted)
        trials = run_trials(quick(policy), knowledge, pairs)
    expected = [prompt for passage in few for prompt in knowledge.questions(passage, policy.config)]
    assert sorted(asked) == sorted(expected)
    assert [len(trial.answers) for trial in trials] == [4, 2, 1, 2]
    for pair, trial in zip(pairs, trials):
        assert run_trials(quick(policy), knowledge, [pair])[0].reward == trial.reward


def test_pairs_of_like_length_share_a_pass(policy, twenty, monkeypatch):
    pairs, passes = [(p, edit) for p, own in zip(*twenty) for edit in own], []

    def only_packed(policy, task, pairs):
        texts = [task.lesson(*pair, policy.config).texts for pair in pairs]
        passes.append([len(pack(policy, own)[0]) for own in texts])
        return [
            sealkit.Trial(edit, 0, [], [], tokens) for (_, edit), tokens in zip(pairs, passes[-1])
        ]

    monkeypatch.setattr(inner_loop, "run_trial_batch", only_packed)
    run_trials(policy, knowledge, pairs)
    assert list(map(len, passes)) == [policy.config.adapters_per_pass] * 4
    positions = [len(own) * max(own) for own in passes]
    assert all(1 - sum(own) / count < 0.35 for own, count in zip(passes, positions))
    pads = 1 - sum(map(sum, passes)) / sum(positions)
    assert pads < 0.15, "pairs of like length belong in one pass"


def test_a_pass_gets_narrower_when_memory_runs_out_with_the_same_result(
    policy, twenty, passes, monkeypatch, capsys
):
    pairs = [(p, edit) for p, own in list(zip(*twenty))[:2] for edit in own]
    expected, most = run_trials(quick(policy), knowledge, pairs), 4
    assert list(map(len, passes)) == [10]

    def no_room(model, inputs, labels):
        if len(labels) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return row_losses(model, inputs, labels)

    monkeypatch.setattr(inner_loop, "row_losses", no_room)
    narrow = run_trials(quick(policy), knowledge, pairs)
    assert list(map(len, passes)) == [10, 3, 3, 3, 1]
    assert [trial.reward for trial in narrow] == [trial.reward for trial in expected]
    assert capsys.readouterr().out.splitlines() == [
        f"Memory ran out with {many} side by side: going on with {few}."
        for many, few in ((10, 5), (5, 3))
    ]
    most = 0
    with pytest.raises(sealkit.RunError, match="memory ran out, even with one self-edit at a time"):
        run_trials(quick(policy), knowledge, pairs)


def test_the_adapters_of_a_pass_are_gone_before_the_next(policy, twenty, monkeypatch):
    former = []

    def one_at_a_time(model, k):
        assert not any(reference() for reference in former), "two passes' adapters in memory"
        adapters = fork(model, k)
        former.extend(weakref.ref(tensor) for pair in adapters.values() for tensor in pair)
        return adapters

    monkeypatch.setattr(inner_loop, "fork", one_at_a_time)
    (passage, *_), (own, *_) = twenty
    two = quick(policy, steps=1, adapters_per_pass=2)
    run_trials(two, knowledge, [(passage, edit) for edit in own])
    assert len(former) == 3 * 2 * 28


def test_what_is_known_is_not_tried_again(policy, twenty, passes):
    """By key: only parts of which something is missing are computed, and those whole."""
    (passage, *_), (own, *_) = twenty
    pairs, keys, cache = (
        [(passage, edit) for edit in own],
        [("trial", 1, 0, j) for j in range(5)],
        {},
    )
    two = quick(policy, steps=1, adapters_per_pass=2)
    trials = run_trials(two, knowledge, pairs, cache, keys)
    assert cache.keys() == set(keys) and len(passes) == 3
    lost = passes[1][0].self_edit
    del cache[keys[own.index(lost)]]
    assert run_trials(two, knowledge, pairs, cache, keys) == trials
    assert len(passes) == 4 and passes[3] == passes[1]


def test_a_passage_that_fills_the_row_leaves_room_for_its_self_edit(policy):
    """It used to take all tokens, so that all self-edits of a passage had one reward."""
    passage = " ".join(SEQUENCES * 40)
    alone, with_edit = (pack(policy, [passage, *edit])[0] for edit in ([], SEQUENCES[1:3]))
    most = policy.config.max_tokens
    assert len(alone) == most and most - 3 < len(with_edit) <= most
    for text in SEQUENCES[1:3]:
        tokens = [*policy.tokenizer(text)["input_ids"], policy.tokenizer.eos_token_id]
        assert str(tokens)[1:-1] in str(with_edit)
    lessons = [sealkit.Lesson([passage, text], 1, 1e-3) for text in SEQUENCES[1:3]]
    (first, *_), (second, *_) = sft(policy, fork(policy.model, 2), lessons)[0]
    assert first != second


def test_starts_of_texts_that_are_cut_stay_without_a_loss(policy):
    lesson = sealkit.Lesson(
        [SEQUENCES[1] * 100, SEQUENCES[2]], 1, 1e-3, [SEQUENCES[1], SEQUENCES[2][:8]]
    )
    ids, mask = pack(policy, lesson.texts)[0], inner_loop.prompt_mask(policy, lesson)
    starts = [token for start in lesson.starts for token in policy.tokenizer(start)["input_ids"]]
    assert len(mask) == len(ids) == policy.config.max_tokens
    assert [token for token, masked in zip(ids, mask) if masked] == starts


def test_a_trial_counts_the_tokens_that_were_cut(policy, validation):
    passage = replace(validation[0], text=" ".join(SEQUENCES * 40))
    pairs = [(passage, edit) for edit in ("", SEQUENCES[1])] + [(validation[0], "")]
    long, with_edit, short = run_trials(policy, knowledge, pairs)
    texts = knowledge.lesson(passage, "", policy.config).texts
    tokens = len(policy.tokenizer(texts[0])["input_ids"]) + 1
    assert long.tokens == policy.config.max_tokens and long.cut == tokens - long.tokens > 0
    assert with_edit.cut > long.cut and short.cut == 0
