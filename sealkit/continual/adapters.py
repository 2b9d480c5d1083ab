"""Operations on k adapters side by side (see `sealkit.lora.fork`) that only streams need."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..lora import Adapters, map_adapters


def clone_adapters(adapters: Adapters) -> Adapters:
    """A copy to train further: leaves that require gradients."""
    return map_adapters(lambda matrix: matrix.detach().clone().requires_grad_(), adapters)


def init_adapters(adapters: Adapters, seeds: Sequence[int]) -> Adapters:
    """New adapters of the same shapes, as PEFT initializes them, the i-th from seeds[i]: B = 0."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(A: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(A.shape[1:], generator=g) for g in generators])
        return ((2 * uniform - 1) / A.shape[2] ** 0.5).to(A.device).requires_grad_()

    return {
        name: (draw(A), torch.zeros_like(B, requires_grad=True))
        for name, (A, B) in adapters.items()
    }


def interpolate_adapters(old: Adapters, new: Adapters, share: Tensor) -> Adapters:
    """old + share (new − old), matrix by matrix. share: (k,), one for each adapter."""

    def lerp(a: Tensor, b: Tensor) -> Tensor:
        return torch.lerp(a.detach(), b.detach(), share.to(a)[:, None, None])

    return map_adapters(lerp, old, new)


def concat_ranks(old: Adapters, new: Adapters) -> Adapters:
    """One adapter for the sum of two updates, B A + B' A': ranks add up."""
    return {
        name: (torch.cat([A, new[name][0]], 1).detach(), torch.cat([B, new[name][1]], 2).detach())
        for name, (A, B) in old.items()
    }


def adapter_state_dict(adapters: Adapters, i: int) -> dict[str, Tensor]:
    """The tensors of adapter i by PEFT's names: what `Policy.load` takes and a journal saves."""
    return {
        f"{name}.lora_{letter}.weight": matrix[i].detach().cpu().clone()
        for name, pair in adapters.items()
        for letter, matrix in zip("AB", pair)
    }
