"""k forks of the policy's LoRA side by side: row block i of a batch goes through adapter i, the
4-bit base once.

h = W x + α/r · B_i A_i x  (LoRA, arXiv:2106.09685), with the k matrices stacked along a leading
axis.
"""

from contextlib import contextmanager

import torch


def lora_layers(model):
    """{name: PEFT LoRA layer} of a policy's model, in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    }


def fork(model, k):
    """k copies of the policy's LoRA: {layer name: (A (k, r, in), B (k, out, r))}, fp32 leaves that
    want gradients."""

    def copies(matrices):
        weight = matrices[model.active_adapter].weight
        return weight.detach().float().repeat(k, 1, 1).requires_grad_()

    return {
        name: (copies(layer.lora_A), copies(layer.lora_B))
        for name, layer in lora_layers(model).items()
    }


@contextmanager
def side_by_side(model, adapters):
    """Within this context row block i of every batch goes through adapter i, in place of the
    policy's own LoRA.

    adapters: k of them, as `fork` makes them. The batch size must be a multiple of k.
    """

    def add_update(layer, A, B):
        scaling = layer.scaling[model.active_adapter]

        def hook(module, inputs, output):
            x = inputs[0].to(A.dtype).reshape(len(A), -1, A.shape[2])
            h = output.to(A.dtype).view(len(B), -1, B.shape[1])
            return (
                torch.baddbmm(h, x @ A.mT, B.mT, alpha=scaling).view(output.shape).to(output.dtype)
            )

        return layer.base_layer.register_forward_hook(hook)

    layers = lora_layers(model)
    with model.disable_adapter():
        handles = [add_update(layers[name], A, B) for name, (A, B) in adapters.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def each(function, *adapters):
    """Adapters whose matrices are what a function makes of one matrix of each of the given."""
    return {name: tuple(map(function, *(some[name] for some in adapters))) for name in adapters[0]}


def chosen(adapters, rows):
    """The adapters at some of the places along the leading axis."""
    return each(lambda matrix: matrix[rows], adapters)


def again(adapters):
    """A copy of adapters to go on from, leaves that want gradients, as `fork` makes them."""
    return each(lambda matrix: matrix.detach().clone().requires_grad_(), adapters)


def fresh(adapters, seeds):
    """New adapters of the same shapes as PEFT draws them, the i-th from seeds[i]: their B is 0."""
    drawn = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(A):
        rows = [torch.rand(A.shape[1:], generator=one) for one in drawn]
        return ((2 * torch.stack(rows) - 1) / A.shape[2] ** 0.5).to(A.device).requires_grad_()

    return {
        name: (draw(A), torch.zeros_like(B, requires_grad=True))
        for name, (A, B) in adapters.items()
    }


def mixed(old, new, share):
    """old + share (new − old), matrix by matrix. share: (k,), one for each adapter."""

    return each(
        lambda a, b: torch.lerp(a.detach(), b.detach(), share.to(a)[:, None, None]), old, new
    )


def joined(old, new):
    """One adapter for the sum of two updates, B A + B' A': ranks add up."""
    return {
        name: (torch.cat([A, new[name][0]], 1).detach(), torch.cat([B, new[name][1]], 2).detach())
        for name, (A, B) in old.items()
    }


def weights_of(adapters, i):
    """The tensors of adapter i by PEFT's names: what `Policy.load` takes, and
    `sealkit.memo.Journal` saves."""
    return {
        f"{name}.lora_{letter}.weight": matrix[i].detach().cpu().clone()
        for name, pair in adapters.items()
        for letter, matrix in zip("AB", pair)
    }
