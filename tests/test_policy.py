"""θ writes what its seeds say, alone or in a batch; its LoRA comes, goes and comes back whole."""

import copy
import json
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
import torch
from families import tokenizer_like
from peft import LoraConfig, get_peft_model
from tokenizers import processors
from transformers import AutoTokenizer, LlamaTokenizer

import sealkit
from sealkit.inner_loop import pack
from sealkit.lora import lora_layers
from sealkit.models.text import encode
from sealkit.policy import seed_of, temporary_policy
from sealkit.selection import (
    keep_all_above_baseline,
    keep_best,
    keep_best_above_baseline,
    keep_best_above_threshold,
)
from sealkit.tasks.knowledge import BUNDLED_CONFIG, GENERAL_CONFIG, prompt


def test_same_seed_same_edits_alone_or_in_a_batch(loaded, validation):
    write = partial(sealkit.generate_self_edits, *loaded)
    alone = write(validation[1], k=3, seed=7)
    assert write(validation[:3], k=3, seed=7)[1] == alone and len(set(alone)) > 1
    assert write(validation[1], k=3, seed=8) != alone


def test_cold_sampling_is_greedy(policy, validation):
    prompts = [prompt(validation[0], policy.config, "implications")] * 2
    assert policy.write(prompts, [1, 2], 60, temperature=1e-4) == policy.write(prompts, None, 60)


def test_sampling_follows_the_models_distribution(policy):
    """Shares of the first token agree with the softmax of its logits, within 4 standard errors."""
    text, draws, tokenizer = "Question: Which trade", 2000, policy.tokenizer
    with torch.no_grad():
        logits = policy.model(**tokenizer(text, return_tensors="pt")).logits[0, -1].float()
    p = logits.softmax(-1)
    likely = p.argmax().item()
    texts = policy.write([text] * draws, range(draws), 1)
    share = sum(said == tokenizer.decode([likely]).strip() for said in texts) / draws
    expected = p[likely].item()
    assert abs(share - expected) < 4 * (expected * (1 - expected) / draws) ** 0.5 + 1e-3


@pytest.mark.parametrize("stops", [("\n",), (".\n", " Answer:"), ("\nTitle:", " a")])
def test_a_text_ends_at_a_stop_as_if_it_were_cut_there_afterwards(policy, validation, stops):
    """Through the `stop_strings` of transformers' `generate`: greedy answers and sampled edits."""
    passes, prompts = [], [prompt(passage, policy.config, "questions") for passage in validation]
    handle = policy.model.register_forward_hook(lambda *_: passes.append(1))
    for seeds in (None, range(12)):
        passes.clear()
        whole, cut = [], policy.write(prompts[:12], seeds, 60, stops=stops)
        assert len(passes) < 60 or stops != ("\n",), "written on after the last row's stop"
        for text in policy.write(prompts[:12], seeds, 60):
            ends = [text.find(stop) for stop in stops if stop in text]
            whole.append(text[: min(ends, default=len(text))].strip())
        assert cut == whole and len(set(map(len, cut))) > 1
    handle.remove()


def test_every_style_of_prompt_gives_that_style(loaded, validation):
    passages, written = validation[:20], {}
    for style in BUNDLED_CONFIG.prompts.styles:
        edits = sealkit.generate_self_edits(*loaded, passages, 1, 0, style)
        written[style] = [own[0] for own in edits]
    assert sum("Question:" in edit for edit in written["questions"]) >= 18
    others = [edit for style, edits in written.items() if style != "questions" for edit in edits]
    assert sum("Question:" in edit for edit in others) <= 3
    covered = dict.fromkeys(written, 0)
    for style, edits in written.items():
        for passage, edit in zip(passages, edits):
            answers = {answer for question in passage.questions for answer in question.answers}
            covered[style] += sum(answer in edit for answer in answers)
    assert covered["gist"] < 0.2 * covered["implications"]
    assert covered["rewrite"] > covered["gist"]


def test_bad_arguments(loaded, policy, validation):
    with pytest.raises(ValueError, match="k is 0"):
        sealkit.generate_self_edits(*loaded, validation[0], k=0)
    with pytest.raises(ValueError, match="No self-edit style 'poem'"):
        sealkit.generate_self_edits(*loaded, validation[0], style="poem")
    with pytest.raises(
        ValueError, match="longer than this model.s 1024 positions: take shorter passages"
    ):
        policy.write(["word " * 2000])


def test_seeds_depend_on_the_whole_key():
    keys = [(0, 1, 2, 3), (0, 1, 3, 2), ((0, 1), 2, 3), (1, 1, 2, 3)]
    assert len({seed_of(*key) for key in keys}) == 4 and seed_of(0, 1, 2, 3) == seed_of(0, 1, 2, 3)


# --- the LoRA


def test_a_policy_is_drawn_from_its_seed_and_from_nothing_else(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    drawn = []
    for seed in (0, 1, 0):
        state = torch.random.get_rng_state()
        attached = sealkit.attach_policy(model, BUNDLED_CONFIG, seed)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert (
            sealkit.attach_policy(attached, seed=5) is attached
            and attached.seal_config is BUNDLED_CONFIG
        )
        drawn.append(sealkit.Policy(attached, tokenizer, BUNDLED_CONFIG).weights())
        attached.unload()
        torch.rand(3)
    for name, tensor in drawn[0].items():
        assert torch.equal(tensor, drawn[2][name])
        if "lora_A" in name:
            assert not torch.equal(tensor, drawn[1][name])
        else:
            assert not tensor.any(), "a new policy's B is 0, so that it is the model that it is on"


def test_the_policy_adapts_the_layers_it_is_told_to(model_and_tokenizer):
    config = replace(BUNDLED_CONFIG, target_modules=("q_proj", "v_proj"), rank=4)
    attached = sealkit.attach_policy(model_and_tokenizer[0], config)
    layers = lora_layers(attached)
    assert {name.rsplit(".", 1)[1] for name in layers} == {"q_proj", "v_proj"}
    assert {layer.lora_A["default"].weight.shape[0] for layer in layers.values()} == {4}


def test_weights_are_a_copy_that_can_be_put_back(policy):
    start = policy.weights()
    policy.load({name: tensor + 1 for name, tensor in start.items()})
    assert all(torch.equal(policy.weights()[name], tensor + 1) for name, tensor in start.items())


def test_weights_ask_the_hub_for_nothing(policy, monkeypatch):
    """As PEFT does by default, to see whether the vocabulary has grown, for a model of a hub id."""
    asked = "peft.utils.save_and_load.check_file_exists_on_hf_hub"
    monkeypatch.setattr(asked, lambda *args: pytest.fail("the hub was asked"))
    config = policy.model.peft_config["default"]
    monkeypatch.setattr(config, "base_model_name_or_path", "some/model")
    assert len(policy.weights()) == 2 * 28


def test_a_policy_may_have_its_lora_under_any_name(model_and_tokenizer, validation):
    """As a stock adapter may that was loaded by `PeftModel.from_pretrained(adapter_name=...)`."""
    model, tokenizer = model_and_tokenizer
    attached = get_peft_model(model, LoraConfig(target_modules="all-linear"), "mine").eval()
    before = sealkit.Policy(attached, tokenizer, BUNDLED_CONFIG).weights()
    (trial,) = sealkit.evaluate_self_edits(attached, tokenizer, validation[0], [""])
    assert trial.losses[-1] < trial.losses[0]
    after = sealkit.Policy(attached, tokenizer, BUNDLED_CONFIG).weights()
    assert len(before) == 2 * 28
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("leave", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_a_borrowed_model_is_given_back_as_it_came(model_and_tokenizer, fails, leave, plain):
    """Unless it is to be left with what was learned; after an error (also Ctrl-C) in any case."""
    model, tokenizer = model_and_tokenizer
    names = [name for name, _ in model.named_parameters()]
    model = model if plain else sealkit.attach_policy(model, BUNDLED_CONFIG)
    with suppress(KeyboardInterrupt):
        with temporary_policy(model, tokenizer, BUNDLED_CONFIG, leave=leave) as borrowed:
            start = borrowed.weights()
            borrowed.load({name: tensor + 1 for name, tensor in start.items()})
            if fails:
                raise KeyboardInterrupt
    left = leave and not fails
    if plain:
        assert (names == [name for name, _ in model.named_parameters()]) != left
    if left or not plain:
        after = borrowed.weights()
        assert all(torch.equal(after[name], tensor + left) for name, tensor in start.items())


# --- selection rules


@pytest.mark.parametrize("width", [2, 5])
def test_no_more_texts_lie_side_by_side_than_the_recipe_allows(
    policy, validation, width, monkeypatch
):
    """Also for lists of passages, in the functions of `api`, with the same texts."""
    some, sizes, write = validation[:2], [], sealkit.Policy.write

    def noting(self, prompts, *args, **options):
        sizes.append(len(prompts))
        return write(self, prompts, *args, **options)

    def both():
        edits = sealkit.generate_self_edits(policy.model, policy.tokenizer, some, k=3, seed=0)
        return edits, sealkit.answer_questions(policy.model, policy.tokenizer, some)

    whole = both()
    monkeypatch.setattr(sealkit.Policy, "write", noting)
    monkeypatch.setattr(policy.model, "seal_config", replace(policy.config, texts_per_pass=width))
    assert both() == whole and len(whole[0]) == len(whole[1]) == 2
    count = sum(len(passage.questions) for passage in some)
    assert max(sizes) == width and sum(sizes) == 2 * 3 + count


def test_selection_rules():
    assert (
        keep_best_above_baseline([0.1, 0.5, 0.5], 0.3) == [1]
        and keep_best_above_baseline([0.1, 0.3], 0.3) == []
    )
    assert keep_best([0.1, 0.3], 0.9) == [1]
    assert keep_all_above_baseline([0.5, 0.1, 0.4], 0.3) == [0, 2]
    assert keep_best_above_threshold([0.75, 1.0, 1.0, 0.5], 0.5) == [1, 2]
    assert keep_best_above_threshold([0.75, 0.5, 0.25], 0.5) == [0]
    assert keep_best_above_threshold([0.74, 0.5], 0.3) == []
    assert keep_best_above_threshold([0.75, 1.0, 1.0], 1.0) == []
    assert (
        BUNDLED_CONFIG.keep is keep_best_above_threshold
        and GENERAL_CONFIG.keep is keep_best_above_baseline
    )


def test_selection_on_the_papers_rewards(paper):
    """Round 1: its code keeps 50 self-edits; of 10 passages the best did not beat the model."""
    kept = {keep_best: 0, keep_best_above_baseline: 0}
    for row in paper("restem_round1.jsonl"):
        rewards = [completion["adapter_mean"] for completion in row["completions"]]
        for rule in kept:
            chosen = rule(rewards, row["completions"][0]["baseline_mean"])
            kept[rule] += len(chosen)
            assert all(rewards[j] == max(rewards) for j in chosen)
    assert kept == {keep_best: 50, keep_best_above_baseline: 40}


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda w: {name.replace("model.model.", "model."): w[name] for name in w}, "112 differ"),
        (lambda w: dict(list(w.items())[1:]), "1 differ, .*q_proj.lora_A.weight for one"),
        (lambda w: {name: tensor[..., :4] for name, tensor in w.items()}, "56 differ"),
        (lambda w: {name: tensor * torch.nan for name, tensor in w.items()}, "not finite: take"),
    ],
    ids=["renamed", "one lacks", "other ranks", "nan"],
)
def test_tensors_of_another_adapter_are_not_loaded_in_silence(policy, spoil, message):
    start = policy.weights()
    with pytest.raises(ValueError, match=message):
        policy.load(spoil(start))
    assert all(torch.equal(tensor, start[name]) for name, tensor in policy.weights().items())


# --- End tokens that a tokenizer puts behind every text


def with_template(family, template):
    """A family's tokenizer, what it puts around a text changed."""
    tokenizer = tokenizer_like(family)
    names = {"eos": tokenizer.eos_token, "bos": tokenizer.bos_token}
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in names.values() if name]
    template = processors.TemplateProcessing(
        single=template.format(**names), special_tokens=special
    )
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template]  # as Llama 3 has it
    )
    return tokenizer


def llama_with(folder, **settings):
    """A Llama tokenizer with such settings, as a checkpoint's folder has it."""
    state = json.loads(tokenizer_like("mistral").backend_tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in state["merges"]]
    LlamaTokenizer(state["vocab"], merges, **settings).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


TEMPLATES = [
    ("llama", "{bos} $A {eos}", 1),
    ("llama", "$A {eos}", 0),
    ("mistral", "{bos} $A {eos} {eos}", 1),
    ("mistral", "$A", 0),
    ("qwen2", "$A {eos}", 0),
]


@pytest.mark.parametrize("family, template, before", TEMPLATES)
def test_no_text_gets_an_end_token_from_its_tokenizer(family, template, before):
    check_ends(with_template(family, template), before)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("eos", [True, False])
def test_no_text_gets_one_by_add_eos_token(tmp_path, bos, eos):
    tokenizer = llama_with(tmp_path, add_bos_token=bos, add_eos_token=eos)
    assert (tokenizer("It rains.")["input_ids"][-1] == tokenizer.eos_token_id) == eos
    check_ends(tokenizer, before=int(bos))


def check_ends(tokenizer, before):
    """Texts begin with `before` start tokens and have nothing behind them."""
    texts = ["It rains.", "a", f"{tokenizer.eos_token} a", "It rains. It rains."]
    for text, row in zip(texts, encode(tokenizer, texts), strict=True):
        bare = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert row == [tokenizer.bos_token_id] * before + bare
    assert encode(tokenizer, []) == []
    whole = sealkit.Policy(torch.nn.Identity(), tokenizer, BUNDLED_CONFIG)
    ids, _ = pack(whole, texts[:2])
    assert ids.count(tokenizer.eos_token_id) == 2 and ids[-1] == tokenizer.eos_token_id


def test_answers_are_the_same_with_a_tokenizer_that_ends_every_text(loaded, validation):
    model, tokenizer = loaded
    ending = copy.deepcopy(tokenizer)
    bos, eos = ending.bos_token, ending.eos_token
    ending.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        special_tokens=[(bos, ending.bos_token_id), (eos, ending.eos_token_id)],
    )
    assert ending("It rains.")["input_ids"] != tokenizer("It rains.")["input_ids"]
    answers = sealkit.answer_questions(model, ending, validation[0], in_context=True)
    assert answers == sealkit.answer_questions(model, tokenizer, validation[0], in_context=True)
    assert all(answers)
