"""Forks side by side compute what PEFT computes with each of them, and go back to PEFT whole."""

import pytest
import torch
from peft import PeftModel

import sealkit
from sealkit.continual.adapters import adapter_state_dict
from sealkit.inner_loop import ask, sft
from sealkit.lora import fork, lora_layers, select_adapters, side_by_side
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
