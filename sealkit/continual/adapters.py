"""TODO."""

import torch

from ..lora import map_adapters


def clone_adapters(adapters):
    """A copy of adapters to go on from, leaves that want gradients, as `fork` makes them."""
    return map_adapters(lambda matrix: matrix.detach().clone().requires_grad_(), adapters)


def init_adapters(adapters, seeds):
    """New adapters of the same shapes as PEFT draws them, the i-th from seeds[i]: their B is 0."""
    drawn = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(A):
        rows = [torch.rand(A.shape[1:], generator=one) for one in drawn]
        return ((2 * torch.stack(rows) - 1) / A.shape[2] ** 0.5).to(A.device).requires_grad_()

    return {
        name: (draw(A), torch.zeros_like(B, requires_grad=True))
        for name, (A, B) in adapters.items()
    }


def interpolate_adapters(old, new, share):
    """old + share (new − old), matrix by matrix. share: (k,), one for each adapter."""

    return map_adapters(
        lambda a, b: torch.lerp(a.detach(), b.detach(), share.to(a)[:, None, None]), old, new
    )


def concat_ranks(old, new):
    """One adapter for the sum of two updates, B A + B' A': ranks add up."""
    return {
        name: (torch.cat([A, new[name][0]], 1).detach(), torch.cat([B, new[name][1]], 2).detach())
        for name, (A, B) in old.items()
    }


def adapter_state_dict(adapters, i):
    """The tensors of adapter i by PEFT's names: what `Policy.load` takes, and
    `sealkit.runs.journal.Journal` saves."""
    return {
        f"{name}.lora_{letter}.weight": matrix[i].detach().cpu().clone()
        for name, pair in adapters.items()
        for letter, matrix in zip("AB", pair)
    }
