"""Trials change nothing but their own fork, never train on pads, and reward what a self-edit is worth."""

import random
import weakref
from dataclasses import replace

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict

import sealkit
from sealkit.bundled import world
from sealkit.inner_loop import attach_policy, collate, examine, fork, lora_layers, pack, row_losses, run_trials, train_adapters
from sealkit.self_edits import complete

QUICK = sealkit.Settings(steps=3)


def test_base_and_policy_are_byte_identical_after_trials(model_and_tokenizer, validation, base_bytes):
    model, tokenizer = model_and_tokenizer
    before = base_bytes(model)
    policy = attach_policy(model)
    lora = {name: tensor.clone() for name, tensor in get_peft_model_state_dict(policy).items()}
    trials = sealkit.evaluate_self_edits(policy, tokenizer, validation[0], ["", validation[0].oracle], QUICK)
    assert len(trials) == 2 and all(0 <= trial.reward <= 1 for trial in trials)
    assert base_bytes(policy) == before
    assert all(torch.equal(tensor, lora[name]) for name, tensor in get_peft_model_state_dict(policy).items())


def test_a_plain_model_is_left_as_it_was(model_and_tokenizer, validation, base_bytes):
    model, tokenizer = model_and_tokenizer
    before, names = base_bytes(model), [name for name, _ in model.named_parameters()]
    first, second = (sealkit.evaluate_self_edits(model, tokenizer, validation[0], ["x"], QUICK, seed) for seed in (0, 0))
    assert first == second and first != sealkit.evaluate_self_edits(model, tokenizer, validation[0], ["x"], QUICK, 1)
    assert [name for name, _ in model.named_parameters()] == names and base_bytes(model) == before


def test_training_lowers_the_loss_and_changes_every_lora_matrix(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    adapters, start = fork(policy, 1), fork(policy, 1)
    inputs, labels = collate([pack(tokenizer, [validation[0].oracle], 512)], tokenizer.pad_token_id, "cpu")
    losses = train_adapters(policy, adapters, inputs, labels, sealkit.Settings(steps=8))
    assert losses[-1, 0] < 0.7 * losses[0, 0]
    for name, pair in adapters.items():
        assert not any(torch.equal(tensor, old) for tensor, old in zip(pair, start[name])), name


def test_packed_sequences_do_not_see_each_other(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    sequences = ["Bramwick works as a baker.", "Question: What animal does Telford have? Answer: goat", "Keldo"]
    inputs, labels = collate([pack(tokenizer, sequences, 512)], tokenizer.pad_token_id, "cpu")
    with torch.no_grad():
        together = model(**inputs).logits[0]
        alone = torch.cat([model(torch.tensor([tokenizer(s)["input_ids"] + [tokenizer.eos_token_id]])).logits[0] for s in sequences])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-4)


def test_pads_are_never_trained_on(model_and_tokenizer):
    """Pads carry no label, and what stands in them changes neither loss nor gradient, to the bit."""
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    packed = [pack(tokenizer, texts, 512) for texts in (["Bramwick works as a baker."], ["Telford keeps a goat at home."] * 4)]
    inputs, labels = collate(packed, tokenizer.pad_token_id, "cpu")
    real = len(packed[0][0])
    assert (labels[0, real:] == -100).all() and (labels[0, :real] != -100).sum() == real - 1

    def loss_and_gradients(inputs):
        policy.zero_grad()
        loss = row_losses(policy, inputs, labels)
        loss.sum().backward()
        return loss.detach(), [p.grad.clone() for name, p in policy.named_parameters() if "lora_B" in name]

    loss, gradients = loss_and_gradients(inputs)
    garbage = inputs["input_ids"].clone()
    garbage[0, real:] = 700
    other_loss, other_gradients = loss_and_gradients(inputs | {"input_ids": garbage})
    assert torch.equal(loss, other_loss) and all(torch.equal(a, b) for a, b in zip(gradients, other_gradients))


def test_side_by_side_equals_one_by_one(model_and_tokenizer, validation):
    """Unequal lengths, numbers of sequences and an empty self-edit; same rewards, losses to float tolerance."""
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    pairs = [(passage, edit) for passage in validation[:5] for edit in ("", passage.oracle, passage.oracle.split("\n")[0])]
    together = run_trials(policy, tokenizer, pairs, QUICK)
    alone = run_trials(policy, tokenizer, pairs, replace(QUICK, adapters_per_pass=1))
    assert [trial.reward for trial in together] == [trial.reward for trial in alone]
    for a, b in zip(together, alone):
        assert a.losses == pytest.approx(b.losses, rel=1e-3) and a.tokens == b.tokens


def test_stacked_lora_is_pefts_lora(model_and_tokenizer):
    """A fork with PEFT's own weights computes what PEFT computes."""
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(1))
    ids = tokenizer(["Bramwick works as a baker."] * 2, return_tensors="pt")
    from sealkit.inner_loop import adapters_side_by_side

    with torch.no_grad():
        expected = policy(**ids).logits
        with adapters_side_by_side(policy, fork(policy, 2)):
            ours = policy(**ids).logits
        with policy.disable_adapter():
            plain = policy(**ids).logits
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert (plain - expected).abs().max() > 0.1


def test_complete_beats_vague_over_24_passages(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    rng, names = random.Random(11), world.held_out_names()
    groups = [world.make_group(rng, world.draw_names(rng, names, 2), 3) for _ in range(24)]
    passages = [world.make_passage(rng, group) for group in groups]
    pairs = list(zip(passages, (p.oracle for p in passages)))
    pairs += [(passage, world.write_self_edit(rng, group, "gist", 6)) for passage, group in zip(passages, groups)]
    rewards = [trial.reward for trial in run_trials(attach_policy(model), tokenizer, pairs)]
    assert sum(rewards[:24]) / 24 > sum(rewards[24:]) / 24 + 0.2


def test_a_self_edit_longer_than_the_budget_is_cut(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    (trial,) = sealkit.evaluate_self_edits(model, tokenizer, validation[0], ["word " * 100_000], replace(QUICK, steps=1, max_tokens=128))
    assert trial.tokens == 128


def test_a_passage_without_questions_is_refused(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    with pytest.raises(ValueError, match="has no questions"):
        sealkit.evaluate_self_edits(model, tokenizer, sealkit.Passage("T", "x", ()), ["a"])


def test_the_policy_adapts_the_layers_it_is_told_to(model_and_tokenizer):
    model, _ = model_and_tokenizer
    policy = attach_policy(model, sealkit.Settings(target_modules=("q_proj", "v_proj")))
    assert {name.rsplit(".", 1)[1] for name in lora_layers(policy)} == {"q_proj", "v_proj"}


# --- k adapters in one pass


@pytest.fixture(scope="module")
def twenty():
    """A policy, and for each of 20 passages: no self-edit, a short one, a perfect one and two of its own."""
    model, tokenizer = sealkit.load_quantized()
    policy = attach_policy(model)
    passages = sealkit.load_passages("bundled", "validation", 20)
    own = sealkit.generate_self_edits(policy, tokenizer, passages, 2)
    edits = [["", p.oracle.split("\n")[0], p.oracle, *written] for p, written in zip(passages, own)]
    return policy, tokenizer, passages, edits


def trained(policy, tokenizer, passage, edits, settings=sealkit.Settings()):
    """{layer: (A, B)} of the adapters of one pass, after training."""
    packed = [pack(tokenizer, sealkit.training_sequences(edit, passage), settings.max_tokens) for edit in edits]
    adapters = fork(policy, len(edits))
    train_adapters(policy, adapters, *collate(packed, tokenizer.pad_token_id, policy.device), settings)
    return adapters


def test_one_pass_equals_one_by_one_on_20_passages(twenty):
    policy, tokenizer, passages, edits = twenty
    together = [sealkit.evaluate_self_edits(policy, tokenizer, p, e) for p, e in zip(passages, edits)]
    alone = [sealkit.evaluate_self_edits(policy, tokenizer, p, e, replace(sealkit.Settings(), adapters_per_pass=1)) for p, e in zip(passages, edits)]
    for a, b in zip(sum(together, []), sum(alone, [])):
        assert a.reward == b.reward and a.answers == b.answers and a.tokens == b.tokens
        assert a.losses == pytest.approx(b.losses, rel=1e-3, abs=1e-4)


def test_adapters_of_one_pass_equal_those_trained_alone(twenty):
    """By the length of the difference, relative to how far training moved the adapter."""
    policy, tokenizer, passages, edits = twenty
    start = fork(policy, 1)
    for passage, own in zip(passages, edits):
        together = trained(policy, tokenizer, passage, own)
        for i, edit in enumerate(own):
            alone = trained(policy, tokenizer, passage, [edit])
            gap = sum((together[n][m][i] - alone[n][m][0]).square().sum() for n in alone for m in (0, 1)).sqrt()
            way = sum((alone[n][m][0] - start[n][m][0]).square().sum() for n in alone for m in (0, 1)).sqrt()
            assert gap < 0.01 * way, (passage.title, i, gap / way)


@pytest.mark.parametrize("harm", ["garbage", "nan"])
def test_a_bad_adapter_leaves_its_neighbours_alone_to_the_bit(twenty, harm):
    policy, tokenizer, passages, _ = twenty
    good = [passages[0].oracle, passages[1].oracle]
    packed = [pack(tokenizer, [text], 512) for text in (good[0], passages[2].oracle, good[1])]

    def outcome(change):
        adapters, rows = fork(policy, 3), [(list(ids), segments) for ids, segments in packed]
        change(adapters, rows)
        losses = train_adapters(policy, adapters, *collate(rows, tokenizer.pad_token_id, "cpu"), QUICK)
        return adapters, losses, examine(policy, tokenizer, adapters, [passages[0], passages[2], passages[1]])

    def spoil(adapters, rows):
        if harm == "nan":
            for A, B in adapters.values():
                A.data[1] = torch.nan
        else:
            random.Random(0).shuffle(rows[1][0])

    clean, spoiled = outcome(lambda adapters, rows: None), outcome(spoil)
    assert not torch.equal(clean[1][:, 1], spoiled[1][:, 1])
    for i in (0, 2):
        assert torch.equal(clean[1][:, i], spoiled[1][:, i]) and clean[2][i] == spoiled[2][i]
        assert all(torch.equal(a[i], b[i]) for n in clean[0] for a, b in zip(clean[0][n], spoiled[0][n]))


def test_the_exam_asks_each_question_once(twenty, monkeypatch):
    policy, tokenizer, passages, _ = twenty
    few = [replace(p, questions=p.questions[:n]) for p, n in zip(passages, (6, 2, 1, 2))]
    asked = []
    monkeypatch.setattr("sealkit.inner_loop.complete", lambda model, tok, prompts, *a, **k: asked.extend(prompts) or complete(model, tok, prompts, *a, **k))
    pairs = [(p, p.oracle) for p in few]
    rewards = [trial.reward for trial in run_trials(policy, tokenizer, pairs, QUICK)]
    assert len(asked) == 6 + 2 + 1 + 2
    assert rewards == [run_trials(policy, tokenizer, [pair], QUICK)[0].reward for pair in pairs]


def test_each_pass_reports_its_tokens_and_pads(twenty):
    policy, tokenizer, passages, edits = twenty
    pairs, passes = [(p, e) for p, own in zip(passages, edits) for e in own], []
    trials = run_trials(policy, tokenizer, pairs, replace(QUICK, steps=1), report=passes.append)
    assert sum(one.tokens for one in passes) == sum(trial.tokens for trial in trials)
    assert sum(one.adapters for one in passes) == len(trials) and all(0 <= one.pad_share < 0.35 for one in passes)
    pads = 1 - sum(one.tokens for one in passes) / sum(one.positions for one in passes)
    assert pads < 0.15, "pairs of like length belong in one pass"


def test_a_pass_gets_narrower_when_memory_runs_out_with_the_same_result(twenty, monkeypatch):
    policy, tokenizer, passages, edits = twenty
    pairs, passes = [(p, e) for p, own in zip(passages[:3], edits) for e in own], []
    expected = run_trials(policy, tokenizer, pairs, QUICK)

    def no_room(model, inputs, labels):
        if len(labels) > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return row_losses(model, inputs, labels)

    monkeypatch.setattr("sealkit.inner_loop.row_losses", no_room)
    narrow = run_trials(policy, tokenizer, pairs, QUICK, report=passes.append)
    assert max(one.adapters for one in passes) <= 4 and len(passes) > 1
    assert [trial.reward for trial in narrow] == [trial.reward for trial in expected]
    monkeypatch.setattr("sealkit.inner_loop.row_losses", lambda *a: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("CUDA out of memory.")))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        run_trials(policy, tokenizer, pairs, QUICK)


def test_the_adapters_of_a_pass_are_gone_before_the_next(twenty, monkeypatch):
    policy, tokenizer, passages, edits = twenty
    former = []

    def one_at_a_time(policy, k):
        assert not any(reference() for reference in former), "two passes' adapters in memory at once"
        adapters = fork(policy, k)
        former.extend(weakref.ref(tensor) for pair in adapters.values() for tensor in pair)
        return adapters

    monkeypatch.setattr("sealkit.inner_loop.fork", one_at_a_time)
    run_trials(policy, tokenizer, [(passages[0], edit) for edit in edits[0]], replace(QUICK, steps=1, adapters_per_pass=2))
    assert len(former) == 3 * 2 * 28


def test_trained_adapters_load_as_stock_peft(twenty, tmp_path):
    policy, tokenizer, passages, edits = twenty
    trials = sealkit.evaluate_self_edits(policy, tokenizer, passages[0], edits[0], save_to=tmp_path)
    for i, trial in enumerate(trials):
        plain, _ = sealkit.load_quantized()
        loaded = PeftModel.from_pretrained(plain, tmp_path / str(i))
        assert tuple(sealkit.answer_questions(loaded, tokenizer, passages[0])) == trial.answers
    assert not any(parameter.requires_grad and parameter.grad is not None for parameter in policy.parameters())
