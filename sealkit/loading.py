"""NF4 models for this machine: frozen 4-bit weights, ready for LoRA (QLoRA, arXiv:2305.14314)."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import model_info
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from .checks import check_layers, check_packing, check_tokens
from .models import smollm2
from .models.choice import Choice, choose, set_process_options
from .models.convert import (
    disable_dropout,
    keep_trainable_on_cpu,
    mask_packed_texts,
    quantize_remaining,
    set_pad_token,
)
from .models.errors import UnsupportedModelError, check_keys, check_place, explain_loading_error
from .models.unpacking import set_compute_dtype


def load_quantized(
    name: str | Path | None = None, device: torch.device | str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal LM held in 4 bits (NF4, double quantization), and its tokenizer.

    name: "bundled" or "puzzles" for a tiny Mistral that ships with sealkit; "smollm2" for the real
        model that Python's package registry ships (`models.smollm2`); a folder, a hub's id or a
        GGUF file (unpacked in memory first; needs the package gguf); None for what the environment
        variable SEALKIT_MODEL names, else "bundled". The hub's cache needs no network.
    device: a torch device, for example "cuda". None: the CPU for the two bundled models, for any
        other a CUDA GPU where there is one.
    Every linear layer of the decoder becomes bitsandbytes' `Linear4bit`, frozen; the rest stays as
    it is. (A checkpoint saved in 4 bits keeps its own kind: see `models.unpacking.quantization`.)
    Compute is fp32 on a CPU, a bundled model's 4-bit products in bf16 if the CPU has that, bf16 on
    GPUs that have it, else fp16. Dropout is off, and so are a model's own decoding rules.
    Returns (model, tokenizer), in eval mode. Raises ValueError for a model that there is not, is
    damaged or can't do what the loops need (see `checks`), RunError for what the machine lacks.

    >>> model, tokenizer = load_quantized("bundled", "cpu")
    >>> model.model.layers[0].mlp.up_proj, model.model.layers[0].mlp.up_proj.weight.nbytes
    (Linear4bit(in_features=128, out_features=384, bias=False), 24576)
    """
    choice = choose(name, device)
    set_process_options(choice)
    quiet = choice.bundled and transformers_logging.is_progress_bar_enabled()
    if quiet:
        transformers_logging.disable_progress_bar()
    try:
        model, tokenizer = load_cached_or_download(choice)
        quantize_remaining(model)
        set_compute_dtype(model, choice.dtype)
        keep_trainable_on_cpu(model)
        check_layers(model)
        disable_dropout(model.requires_grad_(False).eval())
        check_tokens(model, tokenizer)
        set_pad_token(model, tokenizer)
        try:
            check_packing(model)  # in exact products
        except UnsupportedModelError:
            mask_packed_texts(model)
            check_packing(model)
        set_compute_dtype(model, choice.products)
    except Exception as error:
        if (explained := explain_loading_error(error, choice)) is error:
            raise
        raise explained from error
    finally:
        if quiet:
            transformers_logging.enable_progress_bar()
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**ends)
    return model, tokenizer


def load_cached_or_download(choice: Choice) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model, tokenizer) from a folder or the hub's cache, else from the network."""
    if choice.path == smollm2.FOLDER:
        smollm2.fetch_and_convert()
    check_place(choice.path)
    try:
        return load_pretrained(choice, local_files_only=True)
    except (OSError, ValueError) as error:
        if Path(choice.path).exists() or isinstance(error, UnsupportedModelError):
            raise
    model_info(str(choice.path), timeout=5)  # says at once what reading would after many attempts
    return load_pretrained(choice)


def load_pretrained(
    choice: Choice, **options: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model, tokenizer) as transformers reads them; no weights of what 4 bits can't hold."""
    folder = choice.path
    plan = {"dtype": choice.dtype, "device_map": {"": choice.device}, "adapter_kwargs": options}
    options = options | {
        "trust_remote_code": False
    }  # by default transformers asks, and a y runs it
    if (path := Path(folder)).suffix == ".gguf" and path.is_file():
        folder, options = path.parent, options | {"gguf_file": path.name}
    else:
        with torch.device("meta"):
            config = AutoConfig.from_pretrained(folder, **options)
            check_layers(AutoModelForCausalLM.from_config(config, trust_remote_code=False))
        nf4 = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=choice.dtype,
        )
        plan |= {"quantization_config": nf4, "use_safetensors": True}
    tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    plan |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # which we refuse
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, **options, **plan)
    check_keys(loaded[1])
    return loaded[0], tokenizer


def weight_bytes(model: torch.nn.Module) -> tuple[int, int]:
    """Bytes of the model's weights as held now, and as they would be in 16 bits: (int, int).

    Counts packed 4-bit values with their scales and double-quantization tables, embeddings, norms
    and head.

    >>> held, plain = weight_bytes(load_quantized("bundled", "cpu")[0])
    >>> held < plain
    True
    """
    held = plain = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        held += parameter.nbytes
        plain += 2 * (parameter.numel() if state is None else state.shape.numel())
        if state is not None:
            tables = [state.absmax, state.code]
            tables += [state.state2.absmax, state.state2.code, state.offset] if state.nested else []
            held += sum(table.nbytes for table in tables)
    return held, plain
