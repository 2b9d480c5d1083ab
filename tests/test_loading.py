"""The bundled model is really held in 4 bits, and stays trainable after it has been used."""

import bitsandbytes as bnb
import pytest
import torch

import sealkit
from sealkit.inner_loop import attach_policy, collate, lora_layers, pack, row_losses
from sealkit.loading import BUNDLED_MODEL, keep_trainable_on_cpu, newline_id, weight_bytes


def test_every_linear_layer_is_nf4_with_double_quantization(model_and_tokenizer):
    model, _ = model_and_tokenizer
    layers = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(layers) == 7 * model.config.num_hidden_layers
    for layer in layers:
        assert isinstance(layer, bnb.nn.Linear4bit) and layer.weight.dtype == torch.uint8
        assert layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested
        rows, columns = layer.weight.quant_state.shape
        assert layer.weight.numel() == rows * columns / 2
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_weights_are_less_than_half_of_those_in_16_bits_and_the_file_is_small(model_and_tokenizer):
    model, _ = model_and_tokenizer
    held, plain = weight_bytes(model)
    assert held < plain / 2
    assert (BUNDLED_MODEL / "model.safetensors").stat().st_size <= 16e6


def gradients(policy, tokenizer):
    inputs, labels = collate([pack(tokenizer, ["Bramwick works as a baker."], 64)], tokenizer.pad_token_id, "cpu")
    policy.zero_grad()
    row_losses(policy, inputs, labels).sum().backward()
    return {name: layer.lora_B["default"].weight.grad.clone() for name, layer in lora_layers(policy).items()}


def test_lora_gradients_after_generate_equal_those_before_in_every_layer(model_and_tokenizer, validation):
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    before = gradients(policy, tokenizer)
    sealkit.answer_questions(policy, tokenizer, validation[0])
    after = gradients(policy, tokenizer)
    assert len(before) == 28
    for name in before:
        assert before[name].abs().sum() > 0, name
        assert torch.equal(before[name], after[name]), name


def test_without_the_switch_bitsandbytes_would_cut_the_gradients(model_and_tokenizer, validation):
    """Shows that the test above can fail: the trap is still there in this version of bitsandbytes."""
    if not bnb.functional.has_avx512bf16():
        pytest.skip("this processor has no AVX512-BF16, so bitsandbytes never repacks")
    model, tokenizer = model_and_tokenizer
    policy = attach_policy(model)
    for module in policy.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = True
    before = gradients(policy, tokenizer)
    sealkit.answer_questions(policy, tokenizer, validation[0])
    keep_trainable_on_cpu(policy)
    after = gradients(policy, tokenizer)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_unknown_model_is_one_clear_sentence(tmp_path):
    with pytest.raises(ValueError, match="give 'bundled', a folder"):
        sealkit.load_quantized(tmp_path / "nothing")


def test_newline_is_one_token(model_and_tokenizer):
    _, tokenizer = model_and_tokenizer
    assert tokenizer.decode([newline_id(tokenizer)]) == "\n"


def test_environment_says_what_is_loaded_and_why():
    versions, device, model = sealkit.environment().split("\n")
    assert f"torch {torch.__version__}" in versions and f"bitsandbytes {bnb.__version__}" in versions
    assert ("CPU" in device) == (not torch.cuda.is_available()) and "because" in model
    assert "as asked for" in sealkit.environment("some/model")
