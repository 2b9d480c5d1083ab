"""4-bit layers, and their products on a CPU: weights dequantized once instead of for each."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from torch import Tensor, nn
from torch.nn.functional import linear

MAX_UNPACKED = 100e6  # weights of a model that `unpacked` unpacks: 0.4 GB


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

    On a CPU, with up to SMALL weights: a tenth faster to the same bits, for 2 or 4 bytes a weight.
    """
    layers = quantized_layers(model)
    if (
        model.device.type != "cpu"
        or sum(m.in_features * m.out_features for m in layers) > MAX_UNPACKED
    ):
        layers = []
    for layer in layers:
        weight = dequantize_4bit(layer.weight, layer.weight.quant_state).to(layer.compute_dtype)
        layer.forward = partial(linear_in_weight_dtype, weight=weight, bias=layer.bias)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def linear_in_weight_dtype(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b in the dtype of the weight, given back in that of x, as `Linear4bit` does."""
    bias = bias if bias is None else bias.to(weight.dtype)
    return linear(x.to(weight.dtype), weight, bias).to(x.dtype)
