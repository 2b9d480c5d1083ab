"""Any causal LM: 25 families of tiny random models work and 9 are refused; three go through the whole loop, in fp16 too."""

import dataclasses
import json

import bitsandbytes as bnb
import pytest
import torch

import sealkit
from families import CONFIGS, REFUSED, WORK, Inside, save, tokenizer_like
from sealkit import loading
from sealkit.checks import check_length
from sealkit.exam import exam_prompt
from sealkit.inner_loop import (adapters_side_by_side, attach_policy, checkpointed, collate, descend, fork, lora_layers, loss_scaler, pack,
                                row_losses, settings_for, train_adapters)
from sealkit.outer_loop import m_step, reinforcement_for, supervised_ids
from sealkit.prompts import BUNDLED, GENERAL, prompts_for
from sealkit.self_edits import _StopAt, complete, self_edit_prompt

QUICK = sealkit.Settings(steps=2, adapters_per_pass=3, checkpointing=True)
ONCE = sealkit.Reinforcement(epochs=1, checkpointing=True)
PASSAGES = [
    sealkit.Passage("Warsaw", "Marie Curie was born in Warsaw in 1867. She won two Nobel Prizes.",
                    (sealkit.Question("Where was Marie Curie born?", ("Warsaw",)), sealkit.Question("When was she born?", ("1867",)))),
    sealkit.Passage("Ferry", "The ferry is 40 m long.\nIt {sails} daily.", (sealkit.Question("How long is the ferry?", ("40 m",)),)),
]


@pytest.fixture(scope="module", params=WORK)
def loaded(request, tmp_path_factory):
    """(family, model, tokenizer): each family's is loaded once."""
    return request.param, *sealkit.load_quantized(save(request.param, tmp_path_factory.mktemp("family")))


@pytest.fixture
def inside(loaded):
    """Three forks of a policy whose B is not 0, on a family's model."""
    inside = Inside(loaded[1], loaded[2], 3)
    torch.manual_seed(0)
    for _, B in inside.adapters.values():
        torch.nn.init.normal_(B, std=0.1)
    yield inside
    inside.done()


SHORT, LONG = "The ferry is 40 m long.", "Marie Curie was born in Warsaw in 1867."


def test_a_familys_decoder_is_in_4_bits_and_every_layer_has_a_lora(loaded, inside):
    _, model, _ = loaded
    layers = {id(module) for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)}
    others = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and id(module) not in layers
              and module is not model.get_output_embeddings() and "lora_" not in name]
    assert len(layers) >= 8 and not others and len(inside.adapters) == len(layers)


def test_a_familys_packed_texts_do_not_see_each_other(inside):
    """Logits of two texts in one row, beside pads, against each alone; with the LoRA in place."""
    (both, labels), (first, _), (second, _) = inside.batch([SHORT, LONG], [LONG], [LONG] * 3), *(inside.batch(*[[text]] * 3) for text in (SHORT, LONG))
    packed, alone = inside.logits((both, labels))[0], torch.cat([inside.logits((rows, None))[0] for rows in (first, second)])
    assert torch.dist(packed[: len(alone)], alone) < 1e-4 * alone.norm()
    third = inside.logits(inside.batch([LONG], [LONG], [LONG] * 3))[2]
    assert torch.dist(inside.logits((both, labels))[2], third) < 1e-4 * third.norm()


def test_a_familys_adapters_learn_side_by_side_what_they_learn_alone(loaded, inside):
    rows = [SHORT], [LONG, SHORT], [LONG]
    together = inside.train(inside.batch(*rows))
    assert (together[-1] < together[0]).all()
    prompts = ["The ferry", "Marie Curie was born in", "When was Marie Curie born? She was born"]
    answers = inside.answers(prompts)
    start = inside.done()
    for i, row in enumerate(rows):
        alone = Inside(start, loaded[2], 1)
        torch.manual_seed(0)
        for name, (A, B) in alone.adapters.items():
            drawn = torch.nn.init.normal_(torch.empty(3, *B.shape[1:]), std=0.1)
            with torch.no_grad():
                B.copy_(drawn[i])
        torch.testing.assert_close(alone.train(alone.batch(row))[:, 0], together[:, i], rtol=1e-4, atol=1e-4)
        assert alone.answers(prompts[i : i + 1]) == answers[i : i + 1]
        alone.done()
    assert any(answers)


def test_a_familys_losses_are_the_same_with_checkpointing_and_with_the_same_seed(loaded):
    """Dropout is on in most of these configs, and under checkpointing layers are in training mode."""
    losses = []
    for checkpointing in (False, True, True):
        inside = Inside(loaded[1], loaded[2], 2)
        losses.append(inside.train(inside.batch([SHORT], [LONG, SHORT]), checkpointing=checkpointing))
        inside.done()
    assert torch.equal(losses[1], losses[2])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "opt", "mistral", "mpt"])
def test_a_text_longer_than_the_models_positions_is_one_sentence(family, tmp_path):
    name = {"gpt2": "n_positions", "mpt": "max_seq_len"}.get(family, "max_position_embeddings")
    model, _ = sealkit.load_quantized(save(family, tmp_path, **{name: 64}))
    check_length(model, 64)
    check_length(attach_policy(model), 64)
    with pytest.raises(ValueError, match="A text of 65 tokens, .* longer than this model's 64 positions"):
        check_length(model, 65)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_can_not_keep_the_promises_is_refused_in_one_sentence(family, tmp_path):
    with pytest.raises(ValueError, match=rf"\(a {family}\) {REFUSED[family][1]}") as raised:
        sealkit.load_quantized(save(family, tmp_path))
    assert "\n" not in str(raised.value) and str(raised.value).count(". ") == 0


@pytest.fixture(scope="module", params=CONFIGS)
def saved(request, tmp_path_factory):
    return request.param, save(request.param, tmp_path_factory.mktemp(request.param))


def test_a_family_goes_through_the_whole_loop(saved, tmp_path):
    family, folder = saved
    model, tokenizer = sealkit.load_quantized(folder)
    layers = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(layers) == 14 and all(isinstance(layer, bnb.nn.Linear4bit) and layer.weight.quant_state.nested for layer in layers)
    assert model.config._attn_implementation == "sdpa" and tokenizer.pad_token == tokenizer.eos_token
    assert prompts_for(tokenizer) is GENERAL and settings_for(tokenizer) != sealkit.Settings() and reinforcement_for(tokenizer) != sealkit.Reinforcement()
    edits = sealkit.generate_self_edits(model, tokenizer, PASSAGES[0], k=2, seed=0, max_new_tokens=12)
    assert len(set(edits)) == 2 and not any("\nTitle:" in edit for edit in edits)
    trials = sealkit.evaluate_self_edits(model, tokenizer, PASSAGES[0], ["", *edits], QUICK)
    assert all(torch.isfinite(torch.tensor(trial.losses)).all() and trial.losses[1] < trial.losses[0] for trial in trials)
    always = lambda rewards, passage_only: [0]
    history = sealkit.run_seal(model, tokenizer, PASSAGES, 1, 2, tmp_path / "run", settings=QUICK, reinforcement=ONCE, keep=always)
    assert len(history.iterations[0].losses) == 1 and len((tmp_path / "run" / "trials.jsonl").read_text().splitlines()) == 6
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert settings["inner_loop"]["checkpointing"] and (tmp_path / "run" / "policy_1" / "adapter_model.safetensors").is_file()


def test_the_models_own_decoding_defaults_do_not_change_greedy_answers(saved):
    _, folder = saved
    model, tokenizer = sealkit.load_quantized(folder)
    prompt = exam_prompt(PASSAGES[0], PASSAGES[0].questions[0], prompts=GENERAL)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(12):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    assert complete(model, tokenizer, [prompt], 12) == [tokenizer.decode(ids[0, start:], skip_special_tokens=True).split(tokenizer.eos_token)[0].strip()]


@pytest.mark.parametrize("family", CONFIGS)
def test_a_text_ends_at_a_newline_inside_a_larger_token(family):
    tokenizer = tokenizer_like(family)
    prompt, answer = tokenizer("Answer:")["input_ids"], tokenizer("Answer: in Warsaw.\nQuestion: Who")["input_ids"]
    stop = _StopAt(tokenizer, ("\n",), len(prompt))
    ended = [stop(torch.tensor([answer[:length]]), None).item() for length in range(len(prompt), len(answer) + 1)]
    first = ended.index(True)
    assert ended == [False] * first + [True] * (len(ended) - first)
    assert tokenizer.decode(answer[len(prompt) : len(prompt) + first]).strip() == "in Warsaw."
    if family != "mistral":
        assert tokenizer.decode(answer[len(prompt) + first - 1]) == ".\n", "this vocabulary should have a token that a stop by token id would miss"


def test_an_answer_learned_with_a_merged_newline_is_cut_at_it(tmp_path):
    model, tokenizer = sealkit.load_quantized(save("qwen2", tmp_path, initializer_range=0.2))
    policy = attach_policy(model)
    adapters = fork(policy, 1)
    text = "Question: Who? Answer: in Warsaw.\nQuestion: Which"
    packed = collate([pack(tokenizer, [text], 64)], tokenizer.pad_token_id, "cpu")
    train_adapters(policy, adapters, *packed, sealkit.Settings(steps=60, learning_rate=1e-2))
    with adapters_side_by_side(policy, adapters):
        assert complete(policy, tokenizer, ["Question: Who? Answer:"], 12, stops=("\n",)) == ["in Warsaw."]
        assert complete(policy, tokenizer, ["Question: Who? Answer:"], 12)[0].startswith("in Warsaw.\nQuestion")


@pytest.mark.parametrize("family", CONFIGS)
def test_sft_learns_the_self_edit_and_not_the_prompt(family):
    tokenizer = tokenizer_like(family)
    for edit in ("1. A fact.\n2. More.", "\nx", "(c) d"):
        ids, labels = supervised_ids(tokenizer, PASSAGES[0], edit)
        learned = ids[labels != -100]
        assert learned[-1] == tokenizer.eos_token_id and edit.strip() in tokenizer.decode(learned[:-1])
        assert len(learned) <= len(tokenizer(edit)["input_ids"]) + 3


def test_prompts_travel_with_the_tokenizer(model_and_tokenizer, tmp_path):
    from transformers import AutoTokenizer

    _, tokenizer = model_and_tokenizer
    tokenizer.save_pretrained(tmp_path)
    assert prompts_for(tokenizer) is BUNDLED and prompts_for(AutoTokenizer.from_pretrained(tmp_path)) is BUNDLED


def test_general_prompts_give_their_own_examples_clean_sequences():
    for style in (None, *GENERAL.styles):
        prompt = self_edit_prompt(PASSAGES[1], style, GENERAL)
        assert prompt.endswith(f"Title: Ferry\nPassage: The ferry is 40 m long.\nIt {{sails}} daily.\n{GENERAL.cues[style]}")
        example = prompt.split("\nTitle:")[1].split(GENERAL.cues[style], 1)[1]
        lines = sealkit.training_sequences(example, PASSAGES[1])[1:]
        assert len(lines) >= 5 and all("Varnholt" in line or "ferry" in line for line in lines) and not any(line[0].isdigit() for line in lines)
    with pytest.raises(ValueError, match="use one of implications, long implications"):
        self_edit_prompt(PASSAGES[0], "gist", GENERAL)
    shown = exam_prompt(PASSAGES[0], PASSAGES[0].questions[0], True, GENERAL)
    assert shown.startswith(GENERAL.exam) and PASSAGES[0].text in shown and shown.endswith("Question: Where was Marie Curie born? Answer:")


def gradients(policy, packed, checkpointing):
    adapters = fork(policy, 3)
    inputs, labels = packed
    with adapters_side_by_side(policy, adapters), torch.enable_grad(), checkpointed(policy, checkpointing):
        row_losses(policy, inputs, labels).sum().backward()
    return [tensor.grad for pair in adapters.values() for tensor in pair]


def test_checkpointing_changes_no_gradient_of_any_adapter(saved, monkeypatch):
    """Also shows that layers are computed again, so that the equality is not one of two equal runs."""
    family, folder = saved
    model, tokenizer = sealkit.load_quantized(folder)
    policy = attach_policy(model)
    for layer in lora_layers(policy).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.02)
    packed = collate([pack(tokenizer, ["The ferry is 40 m long."] * n, 64) for n in (1, 2, 3)], tokenizer.pad_token_id, "cpu")
    calls = []
    handle = policy.get_base_model().model.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    plain = gradients(policy, packed, False)
    assert len(calls) == 1
    recomputed = gradients(policy, packed, True)
    assert len(calls) == 3  # plain, forward, and again in the backward pass
    handle.remove()
    assert all(gradient.abs().sum() > 0 and torch.equal(gradient, other) for gradient, other in zip(plain, recomputed))
    assert not any(module.training for module in policy.modules())


def test_m_step_in_parts_and_with_checkpointing_goes_the_same_way(saved, monkeypatch):
    _, folder = saved
    ends = []
    for parts, checkpointing in ((2**40, False), (1, True)):
        monkeypatch.setattr(sealkit.outer_loop, "LOGITS_BYTES", parts)
        model, tokenizer = sealkit.load_quantized(folder)
        policy = attach_policy(model)
        losses = m_step(policy, tokenizer, [(p, p.text) for p in PASSAGES] * 2, sealkit.Reinforcement(epochs=2, checkpointing=checkpointing))
        ends.append((losses, sealkit.outer_loop.policy_tensors(policy)))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-4) and ends[0][0][1] < ends[0][0][0]
    for name, tensor in ends[0][1].items():
        torch.testing.assert_close(tensor, ends[1][1][name], atol=2e-4, rtol=1e-2)


def as_float16(monkeypatch, folder):
    choose = loading.choose
    monkeypatch.setattr(loading, "choose", lambda *a: dataclasses.replace(choose(*a), dtype=torch.float16))
    return sealkit.load_quantized(folder)


def test_float16_trains_fp32_adapters_with_a_scaled_loss(saved, monkeypatch):
    _, folder = saved
    model, tokenizer = as_float16(monkeypatch, folder)
    assert model.dtype == torch.float16 and model.model.layers[0].mlp.up_proj.compute_dtype == torch.float16
    policy = attach_policy(model)
    assert all(p.dtype == torch.float32 for name, p in policy.named_parameters() if "lora_" in name) and loss_scaler(policy).is_enabled()
    trials = sealkit.evaluate_self_edits(policy, tokenizer, PASSAGES[0], ["Warsaw is a city."], QUICK)
    assert trials[0].losses[1] < trials[0].losses[0]
    losses = m_step(policy, tokenizer, [(PASSAGES[0], "Warsaw is a city.")], sealkit.Reinforcement(epochs=4))
    assert losses[-1] < losses[0]


def test_without_a_scale_float16_gradients_between_layers_underflow(validation, monkeypatch, capsys):
    """On the bundled model: how many gradient values of the last layer's output leave fp16's normal range, with and without the scale."""
    model, tokenizer = as_float16(monkeypatch, "bundled")
    policy = attach_policy(model)
    inputs, labels = collate([pack(tokenizer, sealkit.training_sequences(validation[0].oracle, validation[0]), 512)], tokenizer.pad_token_id, "cpu")
    lost = {}
    for scale in (1.0, 2.0**16):
        adapters, seen = fork(policy, 1), []

        def keep(module, args, output):
            output.requires_grad_()
            output.register_hook(seen.append)

        handle = model.model.embed_tokens.register_forward_hook(keep)
        with adapters_side_by_side(policy, adapters):
            (row_losses(policy, inputs, labels).sum() * scale).backward()
        handle.remove()
        lost[scale] = (seen[0].abs() < torch.finfo(torch.float16).tiny).float().mean().item()
        assert seen[0].isfinite().all() and seen[0].dtype == torch.float16
    with capsys.disabled():
        print(f"\ngradients between layers below fp16's normal range: {lost[1.0]:.0%} without a loss scale, {lost[2.0**16]:.0%} with 2^16")
    assert lost[1.0] > 0.1 and lost[2.0**16] < 0.5 * lost[1.0]  # the rest is 0 in any precision


def test_a_step_that_overflows_is_tried_again_with_half_the_scale():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer, scaler = torch.optim.SGD([weight], lr=0.5), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    half = lambda: (weight.half() * 100).float()  # its gradient, 100 · 2^16, is infinite in fp16
    assert descend(optimizer, scaler, [half])[0].item() == 100
    assert weight.item() == 1 - 0.5 * 100 and scaler.get_scale() == 2.0**9
    with pytest.raises(FloatingPointError, match="or a GPU with bfloat16"):
        descend(optimizer, scaler, [lambda: weight * float("inf")])
