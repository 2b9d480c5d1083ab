"""Changes to a loaded model: what is left goes to 4 bits, no dropout, packed texts kept apart."""

from functools import wraps
from typing import Any

import bitsandbytes as bnb
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def quantize_remaining(model: PreTrainedModel) -> None:
    """Quantize what transformers left: linear layers of a class of their own (Falcon's), GGUF's."""
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if layer is not head and not isinstance(layer, bnb.nn.Linear4bit) and is_linear(layer):
            four = bnb.nn.Linear4bit(layer.in_features, layer.out_features, False, device="meta")
            weight: Any = bnb.nn.Params4bit(
                layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
            )
            four.weight = weight.to(layer.weight.device)
            four.bias = layer.bias
            model.set_submodule(name, four)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # PEFT asks for it


@torch.no_grad()
def is_linear(layer: nn.Module) -> bool:
    """Whether a layer computes W x + b and nothing else."""
    if not isinstance(layer, nn.Linear) or not layer.weight.is_floating_point():
        return False
    x = torch.linspace(-1, 1, layer.in_features).to(layer.weight)[None]
    y, expected = layer(x), nn.functional.linear(x, layer.weight, layer.bias)
    tolerance = 4 * torch.finfo(x.dtype).eps * expected.norm()
    return torch.is_tensor(y) and y.shape == expected.shape and torch.dist(y, expected) <= tolerance


def disable_dropout(model: PreTrainedModel) -> None:
    """Set every dropout probability to 0, of modules and configs, however the family names it.

    `eval()` is not enough: under gradient checkpointing a layer is in training mode, and those of
    OPT and Falcon drop out by that flag.
    """
    holders = {id(it): it for m in model.modules() for it in (m, getattr(m, "config", m))}
    for holder in holders.values():
        for key, value in list(vars(holder).items()):
            of_dropout = "drop" in key or key == "p" and isinstance(holder, nn.Dropout)
            if of_dropout and isinstance(value, float):
                setattr(holder, key, 0.0)


def mask_packed_texts(model: PreTrainedModel) -> None:
    """Give the model a mask of packed texts, where its family infers none from position ids."""
    forward = model.forward

    @wraps(forward)
    def masked(
        *args: Any,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if position_ids is not None and attention_mask is None:
            index = torch.arange(position_ids.shape[1], device=position_ids.device)
            start = index - position_ids
            visible = (start[:, :, None] == start[:, None, :]) & (index[:, None] >= index)
            zeros = torch.zeros(visible.shape, dtype=model.dtype, device=visible.device)
            attention_mask = zeros.masked_fill(~visible, torch.finfo(model.dtype).min)[:, None]
        return forward(*args, position_ids=position_ids, attention_mask=attention_mask, **kwargs)

    model.forward = masked


def keep_trainable_on_cpu(model: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit layers for inference on CPUs with AVX512-BF16.

    The first forward without gradients would repack each `Linear4bit` in place, and from then on
    every gradient below that layer would be exactly zero, with no error (bitsandbytes 0.50).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def set_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Pad with the end token, where there is no pad token or it is not embedded."""
    rows = embedding_rows(model)
    if tokenizer.pad_token is None or tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token


def embedding_rows(model: PreTrainedModel) -> int:
    """How many tokens the model embeds."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight.shape[0]
