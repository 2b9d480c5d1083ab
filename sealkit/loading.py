"""NF4 models for this machine: frozen 4-bit weights, ready for LoRA (QLoRA, arXiv:2305.14314)."""

import platform
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

BUNDLED_MODEL = Path(__file__).parent / "bundled" / "model"


def choose(name=None, device=None):
    """What `load_quantized` takes for these arguments on this machine: (folder or hub id, torch.device, compute dtype)."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.float32
    if device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return BUNDLED_MODEL if name in (None, "bundled") else name, device, dtype


def environment(name=None, device=None):
    """Versions, device and chosen model, each with the reason: three lines of text."""
    path, device, dtype = choose(name, device)
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "peft", "bitsandbytes"))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    why = f"compute in {str(dtype).removeprefix('torch.')}, " + {
        torch.float32: "which is exact and fast enough on a CPU",
        torch.bfloat16: "which this GPU has in hardware",
        torch.float16: "because bfloat16 needs compute capability 8.0",
    }[dtype]
    model = f"{path}, as asked for" if name else "bundled, a Mistral of 3.3 M parameters, because no other was asked for"
    return f"Python {platform.python_version()}, {versions}\nDevice: {where}; {why}\nModel: {model}"


def load_quantized(name=None, device=None):
    """A causal LM held in 4 bits (NF4, double quantization), and its tokenizer.

    name: None or "bundled" for the tiny Mistral that ships with sealkit; else a folder or a model hub's id.
    device: a torch device; None for CUDA where there is one, else the CPU.
    Every linear layer of the decoder becomes bitsandbytes' `Linear4bit`, frozen; embeddings, norms and the output
    head stay as they are. Compute is fp32 on a CPU, bf16 on GPUs that have it, else fp16.
    Returns (model, tokenizer), the model in eval mode. Raises ValueError, naming the remedy, if there is no such model.
    """
    path, device, dtype = choose(name, device)
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    if path == BUNDLED_MODEL:
        transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, quantization_config=quantization, dtype=dtype, device_map={"": device})
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No model could be loaded from {str(path)!r} ({str(error).splitlines()[0]}): "
            "give 'bundled', a folder with config.json and safetensors, or the id of a public model."
        ) from error
    finally:
        transformers_logging.enable_progress_bar()
    keep_trainable_on_cpu(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.requires_grad_(False)
    return model.eval(), tokenizer


def keep_trainable_on_cpu(model):
    """Keep bitsandbytes from repacking 4-bit layers for inference on CPUs with AVX512-BF16.

    The first forward without gradients would repack each `Linear4bit` in place, and from then on every gradient
    below that layer would be exactly zero, with no error (bitsandbytes 0.50, `Linear4bit.forward`).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def newline_id(tokenizer):
    """The token id of a newline between two words."""
    return tokenizer("a\nb", add_special_tokens=False)["input_ids"][-2]


def weight_bytes(model):
    """Bytes of the model's weights as held now, and as they would be in 16 bits: (int, int).

    Counts packed 4-bit values with their scales and double-quantization tables, embeddings, norms and head.
    """
    held = plain = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        held += parameter.numel() * parameter.element_size()
        plain += 2 * (parameter.numel() if state is None else state.shape.numel())
        if state is not None:
            tables = [state.absmax, state.code] + ([state.state2.absmax, state.state2.code, state.offset] if state.nested else [])
            held += sum(t.numel() * t.element_size() for t in tables)
    return held, plain
