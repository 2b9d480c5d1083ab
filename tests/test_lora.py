"""Forks side by side compute what PEFT computes with each of them, and go back to PEFT whole."""

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model

import sealkit
from sealkit.continual.adapters import adapter_state_dict
from sealkit.inner_loop import ask, sft
from sealkit.lora import fork, lora_layers, select_adapters, side_by_side
from sealkit.models.unpacking import set_compute_dtype
from sealkit.tasks.knowledge import lesson, questions

TEXT = "Bramwick works as a baker."


@pytest.fixture
def away(policy):
    """The policy, its B no longer 0."""
    generator = torch.Generator().manual_seed(1)
    for layer in lora_layers(policy.model).values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.05, generator=generator)
    return policy


@torch.no_grad()
def logits(policy, rows=1):
    return policy.model(**policy.tokenizer([TEXT] * rows, return_tensors="pt")).logits


def test_a_fork_computes_what_pefts_lora_computes(away):
    expected = logits(away, 2)
    with side_by_side(away.model, fork(away.model, 2)):
        ours = logits(away, 2)
    with away.model.disable_adapter():
        plain = logits(away, 2)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)
    assert (plain - expected).abs().max() > 0.1
    assert torch.equal(logits(away, 2), expected), (
        "afterwards the policy's own LoRA is at work again"
    )


def test_each_row_goes_through_its_own_adapter(away):
    """Also after an error within the context nothing of the forks is left."""
    adapters, expected = fork(away.model, 3), logits(away)
    for A, B in adapters.values():
        B.data[1] = 0
        A.data[2] *= 2
    with side_by_side(away.model, adapters):
        together = logits(away, 3)
    for i in range(3):
        with side_by_side(away.model, select_adapters(adapters, [i])):
            torch.testing.assert_close(logits(away)[0], together[i], atol=1e-4, rtol=1e-4)
    with pytest.raises(KeyError), side_by_side(away.model, adapters):
        raise KeyError
    assert torch.equal(logits(away), expected)


def test_a_fork_is_a_copy_in_fp32_that_wants_gradients(away):
    start = away.weights()
    for A, B in fork(away.model, 2).values():
        assert A.dtype == B.dtype == torch.float32 and A.requires_grad and B.is_leaf
        A.data += 1
        B.data += 1
    assert all(torch.equal(tensor, start[name]) for name, tensor in away.weights().items())


def test_an_adapter_by_pefts_names_makes_the_policy_that_it_was(away):
    adapters, start = fork(away.model, 2), away.weights()
    assert all(torch.equal(adapter_state_dict(adapters, 1)[name], start[name]) for name in start)
    for _, B in adapters.values():
        B.data[1] *= -1
    with side_by_side(away.model, select_adapters(adapters, [1])):
        expected = logits(away)
    assert adapter_state_dict(adapters, 0).keys() == start.keys()
    away.load(adapter_state_dict(adapters, 1))
    torch.testing.assert_close(logits(away), expected, atol=1e-4, rtol=1e-4)


def test_trained_adapters_load_as_stock_peft(policy, validation, tmp_path):
    passage, config = validation[0], policy.config
    edits = ["", passage.oracle.split("\n")[0], passage.oracle]
    adapters = fork(policy.model, len(edits))
    sft(policy, adapters, [lesson(passage, edit, config) for edit in edits])
    expected = ask(policy, adapters, [questions(passage, config)] * len(edits))
    journal = sealkit.Journal(tmp_path, policy.model.peft_config["default"])
    journal.update(
        {("trial", i): {"weights": adapter_state_dict(adapters, i)} for i in range(len(edits))}
    )
    for i in range(len(edits)):
        plain, tokenizer = sealkit.load_quantized()
        stock = PeftModel.from_pretrained(plain, tmp_path / f"trial_{i}")
        assert sealkit.answer_questions(stock, tokenizer, passage) == expected[i]
    assert not any(parameter.grad is not None for parameter in policy.model.parameters())
    assert expected[0] != expected[2]


# --- Policies that others trained: a fork is the policy, or the policy is refused

K = {"task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16}
EVERYWHERE = K | {"target_modules": "all-linear"}
FORKED = {
    "plain": LoraConfig(**EVERYWHERE),
    "rank-stabilized": LoraConfig(**EVERYWHERE, use_rslora=True),
    "ranks and alphas by layer": LoraConfig(
        **EVERYWHERE, rank_pattern={"q_proj": 4, "up_proj": 16}, alpha_pattern={"v_proj": 64}
    ),
    "some layers": LoraConfig(**K, target_modules=["q_proj"], layers_to_transform=[1, 3]),
    "the head too": LoraConfig(**K, target_modules=["q_proj", "lm_head"]),
    "gaussian, with a dropout": LoraConfig(
        **EVERYWHERE, init_lora_weights="gaussian", lora_dropout=0.1, exclude_modules=["v_proj"]
    ),
}
REFUSED = {
    "use_dora=True": LoraConfig(**EVERYWHERE, use_dora=True),
    "modules_to_save=": LoraConfig(**EVERYWHERE, modules_to_save=["lm_head"]),
    "lora_bias=True": LoraConfig(**EVERYWHERE, lora_bias=True),
    "bias=all": LoraConfig(**EVERYWHERE, bias="all"),
    "trainable_token_indices=": LoraConfig(**EVERYWHERE, trainable_token_indices=[5, 6]),
    "alora_invocation_tokens=": LoraConfig(**EVERYWHERE, alora_invocation_tokens=[5]),
    "layer_replication=": LoraConfig(**EVERYWHERE, layer_replication=[[0, 2], [0, 4]]),
    "target_parameters=": LoraConfig(**K, target_modules=[], target_parameters=["lm_head.weight"]),
    r"embed_tokens \(Embedding\)": LoraConfig(**K, target_modules=["q_proj", "embed_tokens"]),
    "kind PROMPT_TUNING": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
    "kind IA3": IA3Config(task_type="CAUSAL_LM"),
    "kind LOHA": LoHaConfig(task_type="CAUSAL_LM", target_modules=["lm_head"]),
}


def trained(model, config):
    """A policy of that kind whose own tensors are random."""
    policy, generator = get_peft_model(model, config).eval(), torch.Generator().manual_seed(1)
    for tensor in policy.parameters():
        if tensor.requires_grad:
            tensor.data += 0.02 * torch.randn(tensor.shape, generator=generator)
    return policy


@pytest.mark.parametrize("kind", FORKED)
def test_a_fork_of_a_stock_lora_is_that_lora(model_and_tokenizer, kind):
    model, tokenizer = model_and_tokenizer
    set_compute_dtype(model, torch.float32)
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        plain = model(ids).logits
        policy = trained(model, FORKED[kind])
        expected = policy(ids).logits
        with side_by_side(policy, fork(policy, 2)):
            forked = policy(ids.repeat(2, 1)).logits
    assert torch.dist(plain, expected) > 1e-3 * plain.norm()
    for row in forked:
        assert torch.dist(row, expected[0]) < 1e-5 * expected.norm()
    start = sealkit.Policy(policy, tokenizer, sealkit.config_for(tokenizer)).weights()
    assert adapter_state_dict(fork(policy, 1), 0).keys() == start.keys()


@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_that_no_fork_can_copy_is_refused_in_one_sentence(
    model_and_tokenizer, validation, kind
):
    model, tokenizer = model_and_tokenizer
    policy = get_peft_model(model, REFUSED[kind])
    for refuse in (
        lambda: fork(policy, 1),
        lambda: sealkit.evaluate_self_edits(policy, tokenizer, validation[0], [""]),
        lambda: sealkit.generate_self_edits(policy, tokenizer, validation[0]),
        lambda: sealkit.run_seal(policy, tokenizer, validation[:1]),
    ):
        with pytest.raises(ValueError, match=f"can't fork this policy, .*{kind}") as raised:
            refuse()
        assert "\n" not in str(raised.value) and "merge this adapter" in str(raised.value)


def test_an_adapter_that_is_not_as_it_should_be_is_refused(model_and_tokenizer):
    model, _ = model_and_tokenizer
    policy = get_peft_model(model, FORKED["plain"])
    fork(policy, 1)
    policy.add_adapter("other", FORKED["plain"])
    policy.base_model.set_adapter(["default", "other"])
    with pytest.raises(ValueError, match="one of several that are active: call set_adapter"):
        fork(policy, 1)
    policy.set_adapter("other")
    fork(policy, 1)
    weight = next(iter(lora_layers(policy).values())).lora_B["other"].weight
    weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="q_proj.lora_B of an adapter is not finite"):
        fork(policy, 1)
    weight.data = torch.zeros_like(weight, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="held in torch.bfloat16: load it with autocast"):
        fork(policy, 1)
    with pytest.raises(ValueError, match="lies in a model that is no PeftModel"):
        sealkit.attach_policy(policy.get_base_model())
