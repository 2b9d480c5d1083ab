"""k forks of the policy's LoRA side by side: row block i of a batch goes through adapter i, the
4-bit base once.

h = W x + α/r · B_i A_i x  (LoRA, arXiv:2106.09685), with the k matrices stacked along a leading
axis.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .models.adapters import check_adapter

Adapters = dict[str, tuple[Tensor, Tensor]]  # by layer: A (k, r, in) and B (k, out, r)


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    """{name: PEFT LoRA layer} of a policy's model, in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    }


def fork(model: PeftModel, k: int) -> Adapters:
    """k copies of the policy's LoRA: {layer name: (A (k, r, in), B (k, out, r))}, fp32 leaves that
    require gradients. Raises ValueError for an adapter that is no plain LoRA."""
    check_adapter(model)

    def copies(matrices: nn.ModuleDict) -> Tensor:
        weight = matrices[str(model.active_adapter)].weight
        assert isinstance(weight, Tensor)
        return weight.detach().float().repeat(k, 1, 1).requires_grad_()

    return {
        name: (copies(layer.lora_A), copies(layer.lora_B))
        for name, layer in lora_layers(model).items()
    }


@contextmanager
def side_by_side(model: PeftModel, adapters: Adapters) -> Iterator[None]:
    """Within this context row block i of every batch goes through adapter i, in place of the
    policy's own LoRA.

    adapters: k, as `fork` makes them; k is `model.blocks`, of which batches must be a multiple.
    """

    def add_update(layer: LoraLayer, A: Tensor, B: Tensor) -> RemovableHandle:
        scaling = layer.scaling[model.active_adapter]

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = inputs[0].to(A.dtype).reshape(len(A), -1, A.shape[2])
            h = output.to(A.dtype).view(len(B), -1, B.shape[1])
            h = torch.baddbmm(h, x @ A.mT, B.mT, alpha=scaling)  # h + α/r · B (A x)
            return h.view(output.shape).to(output.dtype)

        return layer.get_base_layer().register_forward_hook(hook)

    layers = lora_layers(model)
    with model.disable_adapter():
        handles = [add_update(layers[name], A, B) for name, (A, B) in adapters.items()]
        outside = getattr(model, "blocks", 1)
        model.blocks = len(next(iter(adapters.values()))[0])  # type: ignore[assignment]
        try:
            yield
        finally:
            model.blocks = outside  # type: ignore[assignment]
            for handle in handles:
                handle.remove()


def map_adapters(function: Callable[..., Tensor], *adapters: Adapters) -> Adapters:
    """Apply a function of one matrix of each of some adapters to all their matrices."""
    return {
        name: (
            function(*(each[name][0] for each in adapters)),
            function(*(each[name][1] for each in adapters)),
        )
        for name in adapters[0]
    }


def select_adapters(adapters: Adapters, rows: Sequence[int]) -> Adapters:
    """The adapters at some places along the leading axis."""
    return map_adapters(lambda matrix: matrix[rows], adapters)
