"""4-bit layers, and their products on a CPU: weights dequantized once instead of for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn
from torch.nn.functional import linear

MAX_UNPACKED = 400e6  # weights of a model that `unpacked` unpacks
MAX_MEMORY = 0.25  # of the memory that is free, which unpacked weights may take
LARGE_HEAD = 10e6  # weights of a head that multiplies as 4-bit layers do


def quantized_layers(model: nn.Module) -> list[Any]:
    """The `Linear4bit` layers of a model, in its order."""
    return [module for module in model.modules() if isinstance(module, Linear4bit)]


def quantization(model: nn.Module) -> str:
    """The kind of a model's 4-bit weights, which one saved in 4 bits brings with it.

    >>> import sealkit
    >>> quantization(sealkit.load_quantized("bundled", "cpu")[0])
    'NF4, double quantization'
    """
    states = [layer.weight.quant_state for layer in quantized_layers(model)]
    double = {True: "double quantization", False: "single quantization"}
    return "; ".join(sorted({f"{s.quant_type.upper()}, {double[s.nested]}" for s in states}))


def set_compute_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Have all 4-bit layers multiply in this dtype, not in that of whoever saved a checkpoint."""
    for layer in quantized_layers(model):
        layer.compute_dtype = dtype


@contextmanager
def unpacked(model: nn.Module) -> Iterator[None]:
    """Within this context a small model's 4-bit weights are unpacked once, not for each product.

    On a CPU, with up to MAX_UNPACKED weights and where memory has room for 2 or 4 bytes of each: a
    tenth faster to the same bits. A LARGE_HEAD then multiplies in the dtype of the 4-bit layers.
    """
    layers = quantized_layers(model)
    wanted = sum(m.in_features * m.out_features for m in layers)
    if model.device.type != "cpu" or wanted > MAX_UNPACKED or not has_room(layers, wanted):
        layers = []
    for layer in layers:
        weight = dequantize_4bit(layer.weight, layer.weight.quant_state).to(layer.compute_dtype)
        layer.forward = partial(linear_in_weight_dtype, weight=weight, bias=layer.bias)
    if layers and (head := large_head(model)) is not None:
        weight = head.weight.detach().to(layers[0].compute_dtype)
        head.forward = partial(linear_in_weight_dtype, weight=weight, bias=head.bias)
        layers = [*layers, head]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def has_room(layers: list[Any], weights: int) -> bool:
    """Whether MAX_MEMORY of what is free holds so many weights as the layers multiply them."""
    size = layers[0].compute_dtype.itemsize if layers else 0
    return weights * size <= MAX_MEMORY * psutil.virtual_memory().available


def large_head(model: nn.Module) -> Any:
    """The plain linear head of a model, if it is a LARGE_HEAD, else None."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    large = type(head) is nn.Linear and head.weight.numel() >= LARGE_HEAD
    return head if large else None


def linear_in_weight_dtype(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b in the dtype of the weight, given back in that of x, as `Linear4bit` does."""
    bias = bias if bias is None else bias.to(weight.dtype)
    return linear(x.to(weight.dtype), weight, bias).to(x.dtype)
