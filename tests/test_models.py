"""Any causal LM: 25 families of tiny random models work and 9 are refused; three go through the
whole loop, in fp16 too."""

import dataclasses
from types import SimpleNamespace

import bitsandbytes as bnb
import pytest
import torch
from families import CONFIGS, GENERAL, REFUSED, WORK, Inside, save, tokenizer_like

import sealkit
import sealkit.lora
from sealkit import loading, outer_loop
from sealkit.checks import check_length
from sealkit.inner_loop import initial_loss_scales
from sealkit.policy import attach_policy
from sealkit.tasks import knowledge

QUICK = dataclasses.replace(
    knowledge.GENERAL_CONFIG, steps=2, adapters_per_pass=3, max_new_tokens=12, epochs=1
)
PASSAGES = [
    sealkit.Passage(
        "Warsaw",
        "Marie Curie was born in Warsaw in 1867. She won two Nobel Prizes.",
        (
            sealkit.Question("Where was Marie Curie born?", ("Warsaw",)),
            sealkit.Question("When was she born?", ("1867",)),
        ),
    ),
    sealkit.Passage(
        "Ferry",
        "The ferry is 40 m long.\nIt {sails} daily.",
        (sealkit.Question("How long is the ferry?", ("40 m",)),),
    ),
]


@pytest.fixture(scope="module", params=WORK)
def loaded(request, tmp_path_factory):
    """(family, model, tokenizer): each family's is loaded once."""
    return request.param, *sealkit.load_quantized(
        save(request.param, tmp_path_factory.mktemp("family"))
    )


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
    others = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and id(module) not in layers
        and module is not model.get_output_embeddings()
        and "lora_" not in name
    ]
    assert len(layers) >= 8 and not others and len(inside.adapters) == len(layers)


def test_a_familys_packed_texts_do_not_see_each_other(inside):
    """Logits of two texts in one row, beside pads, against each alone; with the LoRA in place."""
    together = inside.logits([[SHORT, LONG], [LONG], [LONG] * 3])
    alone = torch.cat([inside.logits([[text]] * 3)[0] for text in (SHORT, LONG)])
    assert torch.dist(together[0][: len(alone)], alone) < 1e-4 * alone.norm()
    third = inside.logits([[LONG], [LONG], [LONG] * 3])[2]
    assert torch.dist(together[2], third) < 1e-4 * third.norm()


def test_a_familys_adapters_learn_side_by_side_what_they_learn_alone(loaded, inside):
    rows = [SHORT], [LONG, SHORT], [LONG]
    together = inside.train(inside.batch(*rows))
    assert (together.min(0).values < together[0]).all()
    prompts = ["The ferry", "Marie Curie was born in", "When was Marie Curie born? She was born"]
    answers = inside.answers(prompts)
    start = inside.done()
    for i, row in enumerate(rows):
        alone = Inside(start, loaded[2], 1)
        torch.manual_seed(0)
        for _, B in alone.adapters.values():
            drawn = torch.nn.init.normal_(torch.empty(3, *B.shape[1:]), std=0.1)
            with torch.no_grad():
                B.copy_(drawn[i])
        torch.testing.assert_close(
            alone.train(alone.batch(row))[:, 0], together[:, i], rtol=1e-4, atol=1e-4
        )
        assert alone.answers(prompts[i : i + 1]) == answers[i : i + 1]
        alone.done()
    assert any(answers)


def test_a_familys_losses_are_the_same_with_checkpointing_and_with_the_same_seed(loaded):
    """Dropout is on in most of these configs, and under checkpointing layers are in training
    mode."""
    losses = []
    for checkpointing in (False, True, True):
        inside = Inside(loaded[1], loaded[2], 2)
        losses.append(
            inside.train(inside.batch([SHORT], [LONG, SHORT]), checkpointing=checkpointing)
        )
        inside.done()
    assert torch.equal(losses[1], losses[2])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "opt", "mistral", "mpt"])
def test_a_text_longer_than_the_models_positions_is_one_sentence(family, tmp_path):
    name = {"gpt2": "n_positions", "mpt": "max_seq_len"}.get(family, "max_position_embeddings")
    model, _ = sealkit.load_quantized(save(family, tmp_path, **{name: 64}))
    check_length(model, 64)
    check_length(attach_policy(model), 64)
    with pytest.raises(
        ValueError, match="A text of 65 tokens, .* longer than this model's 64 positions"
    ):
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
    assert len(layers) == 14 and all(
        isinstance(layer, bnb.nn.Linear4bit) and layer.weight.quant_state.nested for layer in layers
    )
    assert (
        model.config._attn_implementation == "sdpa" and tokenizer.pad_token == tokenizer.eos_token
    )
    assert sealkit.config_for(tokenizer) is knowledge.GENERAL_CONFIG
    always = dataclasses.replace(QUICK, keep=first_one)
    policy = attach_policy(model, always)
    edits = sealkit.generate_self_edits(policy, tokenizer, PASSAGES[0], k=2, seed=0)
    assert len(set(edits)) == 2 and not any("\nTitle:" in edit for edit in edits)
    trials = sealkit.evaluate_self_edits(policy, tokenizer, PASSAGES[0], ["", *edits])
    assert all(trial.losses[1] < trial.losses[0] and not trial.reason for trial in trials)
    history = sealkit.run_seal(policy, tokenizer, PASSAGES, 1, 2, tmp_path / "run")
    assert len(history.iterations[0].losses) == 1 and len(history.iterations[0].kept) == 2
    assert (tmp_path / "run" / "policy_1" / "adapter_model.safetensors").is_file()


def first_one(rewards, alone):
    return [0]


def test_the_models_own_decoding_defaults_do_not_change_greedy_answers(saved):
    _, folder = saved
    model, tokenizer = sealkit.load_quantized(folder)
    prompt = knowledge.questions(PASSAGES[0], knowledge.GENERAL_CONFIG)[0]
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(12):
        with torch.no_grad():
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    policy = sealkit.Policy(model, tokenizer, knowledge.GENERAL_CONFIG)
    assert policy.write([prompt], max_new_tokens=12) == [
        tokenizer.decode(ids[0, start:], skip_special_tokens=True)
        .split(tokenizer.eos_token)[0]
        .strip()
    ]


def test_an_answer_learned_with_a_merged_newline_is_cut_at_it(tmp_path):
    model, tokenizer = sealkit.load_quantized(save("qwen2", tmp_path, initializer_range=0.2))
    inside = Inside(model, tokenizer, 1)
    inside.train([["Question: Who? Answer: in Warsaw.\nQuestion: Which"]], steps=60)
    prompts = ["Question: Who? Answer:"]
    with sealkit.lora.side_by_side(inside.policy.model, inside.adapters):
        assert inside.policy.write(prompts, max_new_tokens=12, stops=("\n",)) == ["in Warsaw."]
        assert inside.policy.write(prompts, max_new_tokens=12)[0].startswith("in Warsaw.\nQuestion")


@pytest.mark.parametrize("family", CONFIGS)
def test_sft_learns_the_self_edit_and_not_the_prompt(family):
    tokenizer = tokenizer_like(family)
    for edit in ("1. A fact.\n2. More.", "\nx", "(c) d"):
        policy = SimpleNamespace(tokenizer=tokenizer, config=knowledge.GENERAL_CONFIG)
        ids, labels = outer_loop.sft_example(
            policy, knowledge.prompt(PASSAGES[0], policy.config), edit
        )
        learned = ids[labels != -100]
        assert learned[-1] == tokenizer.eos_token_id and edit.strip() in tokenizer.decode(
            learned[:-1]
        )
        assert len(learned) <= len(tokenizer(edit)["input_ids"]) + 3


def test_general_prompts_give_their_own_examples_clean_sequences():
    for style in (None, *GENERAL.styles):
        prompt = knowledge.prompt(PASSAGES[1], knowledge.GENERAL_CONFIG, style)
        assert prompt.endswith(f"It {{sails}} daily.\n{GENERAL.cues[style]}")
        example = prompt.split("\nTitle:")[1].split(GENERAL.cues[style], 1)[1]
        lines = sealkit.training_sequences(example, PASSAGES[1])[1:]
        assert len(lines) >= 5 and all("Varnholt" in line or "ferry" in line for line in lines)
    with pytest.raises(ValueError, match="use one of implications, long implications"):
        knowledge.prompt(PASSAGES[0], knowledge.GENERAL_CONFIG, "gist")


def test_m_step_in_parts_and_with_checkpointing_goes_the_same_way(saved):
    _, folder = saved
    ends = []
    for rows, checkpointing in ((4, False), (1, True)):
        model, tokenizer = sealkit.load_quantized(folder)
        config = dataclasses.replace(
            knowledge.GENERAL_CONFIG,
            epochs=2,
            m_step_learning_rate=2e-3,
            rows_per_pass=rows,
            checkpointing=checkpointing,
        )
        policy = sealkit.Policy(attach_policy(model, config), tokenizer, config)
        losses = outer_loop.m_step(
            policy, [(knowledge.prompt(p, config), p.text) for p in PASSAGES] * 2
        )
        ends.append((losses, policy.weights()))
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-4) and ends[0][0][1] < ends[0][0][0]
    for name, tensor in ends[0][1].items():
        torch.testing.assert_close(tensor, ends[1][1][name], atol=2e-4, rtol=1e-2)


def as_float16(monkeypatch, folder):
    choose, half = loading.choose, {"dtype": torch.float16, "products": torch.float16}
    monkeypatch.setattr(loading, "choose", lambda *a: dataclasses.replace(choose(*a), **half))
    return sealkit.load_quantized(folder)


def test_float16_trains_fp32_adapters_with_a_scaled_loss(saved, monkeypatch):
    _, folder = saved
    model, tokenizer = as_float16(monkeypatch, folder)
    assert (
        model.dtype == torch.float16
        and model.model.layers[0].mlp.up_proj.compute_dtype == torch.float16
    )
    policy = sealkit.Policy(attach_policy(model, QUICK), tokenizer, QUICK)
    assert all(
        p.dtype == torch.float32 for name, p in policy.model.named_parameters() if "lora_" in name
    )
    assert initial_loss_scales(policy, 1).item() > 1
    trials = sealkit.evaluate_self_edits(
        policy.model, tokenizer, PASSAGES[0], ["Warsaw is a city."]
    )
    assert trials[0].losses[1] < trials[0].losses[0]
    four = dataclasses.replace(
        policy, config=dataclasses.replace(QUICK, epochs=4, m_step_learning_rate=2e-3)
    )
    losses = outer_loop.m_step(four, [("Warsaw", "Warsaw is a city.")])
    assert losses[-1] < losses[0]
