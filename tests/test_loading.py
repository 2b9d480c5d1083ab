"""The bundled model is really held in 4 bits, and stays trainable after it has been used."""

import socket
import sys
import time
from types import SimpleNamespace

import bitsandbytes as bnb
import pytest
import torch
from huggingface_hub import errors as hub_errors

import sealkit
from sealkit import loading
from sealkit.inner_loop import attach_policy, collate, lora_layers, pack, row_losses
from sealkit.loading import BUNDLED_MODEL, choose, to_4_bits, weight_bytes


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
    to_4_bits(policy)
    after = gradients(policy, tokenizer)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_unknown_model_is_one_clear_sentence(tmp_path):
    with pytest.raises(ValueError, match="give 'bundled', a folder"):
        sealkit.load_quantized(tmp_path / "nothing")
    (tmp_path / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(ValueError, match="give 'bundled', a folder"):
        sealkit.load_quantized(tmp_path)


def test_environment_says_what_is_loaded_and_why():
    versions, device, model = sealkit.environment().split("\n")
    assert f"torch {torch.__version__}" in versions and f"bitsandbytes {bnb.__version__}" in versions
    assert ("CPU" in device) == (not torch.cuda.is_available()) and "SEALKIT_MODEL" in model
    assert "because it was asked for" in sealkit.environment("some/model")


@pytest.fixture
def gpu(monkeypatch):
    """A function that makes torch report a GPU of that many GiB and that compute capability, or (None) none."""
    monkeypatch.delenv("SEALKIT_MODEL", raising=False)

    def pretend(gib, capability):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gib is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=int(gib * 2**30)))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "a GPU")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)  # what a T4 claims
    return pretend


@pytest.mark.parametrize("gib, capability, model, dtype", [
    (None, None, "bundled", torch.float32),
    (8, (8, 6), "bundled", torch.bfloat16),
    (13.9, (7, 5), "bundled", torch.float16),
    (14.7, (7, 5), "mistralai/Mistral-7B-v0.1", torch.float16),   # T4
    (39.5, (8, 0), "mistralai/Mistral-7B-v0.1", torch.bfloat16),  # A100
])
def test_the_machine_decides_and_the_reason_is_told(gpu, gib, capability, model, dtype):
    gpu(gib, capability)
    choice = choose()
    assert str(choice.path) == (str(BUNDLED_MODEL) if model == "bundled" else model) and choice.dtype == dtype
    assert choice.device.type == ("cpu" if gib is None else "cuda")
    told = sealkit.environment()
    assert f"Model: {model}" in told and f"compute in {str(dtype)[6:]}" in told
    assert ("no GPU" in told) if gib is None else (f"{gib:.1f} GiB" in told and ("at least 14" in told) == (gib >= 14))
    assert ("compute capability 8.0 and this GPU has 7.5" in told) == (capability == (7, 5))


def test_argument_beats_variable_beats_machine(gpu, monkeypatch):
    gpu(80, (9, 0))
    assert choose("bundled").path == BUNDLED_MODEL and choose(device="cpu").path == BUNDLED_MODEL
    monkeypatch.setenv("SEALKIT_MODEL", "Qwen/Qwen2.5-0.5B")
    assert choose().path == "Qwen/Qwen2.5-0.5B" and "SEALKIT_MODEL says so" in sealkit.environment()
    assert choose("some/model").path == "some/model" and "because it was asked for" in sealkit.environment("some/model")


def response(status):
    """A real HTTP response of the kind that the hub's client attaches to its errors."""
    httpx = sys.modules[hub_errors.HTTPError.__module__.split(".")[0]]
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/some/model"))


def wrapped(error, text="some text of transformers"):
    """The error as transformers passes it on: an OSError with the hub's as its cause."""
    try:
        raise OSError(text) from error
    except OSError as outer:
        return outer


NATIVE = "Attempted to use bitsandbytes native library functionality but it's not available.\n\nThis typically happens when ..."


@pytest.mark.parametrize("error, kind, sentence", [
    (lambda: hub_errors.GatedRepoError("403 Client Error", response=response(403)), ValueError, "gated .* terms .* https://huggingface.co/some/model"),
    (lambda: wrapped(hub_errors.GatedRepoError("401", response=response(401))), ValueError, "gated .* without a token: make one .* HF_TOKEN"),
    (lambda: wrapped(hub_errors.RepositoryNotFoundError("404", response=response(404))), ValueError, "no public model .* check the spelling"),
    (lambda: hub_errors.LocalTokenNotFoundError("Token is required"), ValueError, "without a token: make one"),
    (lambda: hub_errors.LocalEntryNotFoundError("Cannot find the requested files in the disk cache"), RuntimeError, "cannot be reached"),
    (lambda: hub_errors.OfflineModeIsEnabled("offline"), RuntimeError, "cannot be reached"),
    (lambda: wrapped(ConnectionResetError("reset")), RuntimeError, "cannot be reached"),
    (lambda: OSError(28, "No space left on device"), RuntimeError, "disk is full.* HF_HOME"),
    (lambda: RuntimeError("Data processing error: File reconstruction error: No space left on device (os error 28)"), RuntimeError, "disk is full"),
    (lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 112.00 MiB"), RuntimeError, "memory is too small .* smaller model"),
    (lambda: RuntimeError(NATIVE), RuntimeError, "bitsandbytes .* does not work with this torch .* pip install -U bitsandbytes"),
    (lambda: ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes"), RuntimeError, "pip install -U bitsandbytes"),
    (lambda: ValueError("The checkpoint has model type `new` but Transformers does not recognize this architecture"), ValueError, "does not recognize"),
])
def test_what_goes_wrong_in_loading_is_one_sentence_with_the_remedy(monkeypatch, error, kind, sentence):
    monkeypatch.setattr(loading, "reachable", lambda address: True)
    monkeypatch.setattr(loading, "get_token", lambda: None)

    def fail(*args, **kwargs):
        raise error()

    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(kind, match=f"(?s){sentence}") as raised:
        sealkit.load_quantized("some/model")
    assert "\n" not in str(raised.value) and str(raised.value).count(". ") == 0


def test_an_error_that_is_not_about_loading_stays_as_it_is(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("something else")

    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(RuntimeError, match="^something else$"):
        sealkit.load_quantized("bundled")


def test_without_a_network_a_hub_id_fails_at_once(monkeypatch, tmp_path):
    """Through the real hub client, on an address where nothing listens; 45 s before, of which none is needed."""
    monkeypatch.setattr(loading, "getproxies", dict)
    assert not loading.reachable("http://127.0.0.1:9")
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert loading.reachable(f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setattr(loading, "reachable", lambda address: False)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="cannot be reached and 'some/model' is not in the local cache"):
        sealkit.load_quantized("some/model")
    assert time.monotonic() - start < 5
