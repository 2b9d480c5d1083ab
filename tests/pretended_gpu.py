"""A GPU that is not there: tensors keep real values on the CPU, and say that they are on `cuda`.

Within `pretended_gpu` a tensor that was moved to "cuda", or computed from one that was, reports
that device, and what CUDA refuses raises here too: operands on two devices, a generator of the
other device, a matrix product of two dtypes or of integers, `.numpy()`. A backward pass in float16
without a loss scale raises, too. Unlike fake tensors it has values, so sampling, `.item()` and
stopping work. It cannot show what depends on CUDA's kernels:
their speed, memory and last digits.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from accelerate import PartialState
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

from sealkit import loading
from sealkit.models import choice

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
T4, A100 = (7, 5), (8, 0)
aten = torch.ops.aten
COPIES = {aten.copy_.default, aten._foreach_copy_.default}  # from any device to any
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}
INDEXED |= {aten._index_put_impl_.default, aten._unsafe_index.Tensor}
PRODUCTS = {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default}
PRODUCTS |= {aten.mv.default, aten.dot.default, aten.linear.default}
HALVES = PRODUCTS | {torch.ops.bitsandbytes.gemm_4bit.default}
# Of the gradients of a float16 pass, the largest is 0.02 in the bundled models without a loss scale
# and 10 and more with one; below 6e-5 digits are lost.
LEAST_GRADIENT = 0.1


def on_gpu(tensor: torch.Tensor) -> bool:
    """Whether a tensor is held on the pretended GPU; its views are, too."""
    return getattr(tensor.untyped_storage(), "on_gpu", False)


def place(tensor: torch.Tensor, gpu: bool) -> None:
    """Say of a tensor's storage on which device it is."""
    if tensor.layout == torch.strided and tensor.untyped_storage().device.type != "meta":
        tensor.untyped_storage().on_gpu = gpu


def tensors_in(*values: Any) -> list[torch.Tensor]:
    """The tensors in any nested arguments that are not on `meta`."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found += () if value.is_meta else (value,)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(*value)
    return found


class Kernels(TorchDispatchMode):
    """Checks each operation's operands as CUDA does, also in backward passes, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0  # on tensors of any device
        self.largest = 0.0  # of the gradients that float16 products have made in a backward pass

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing compiles here; the wrapper costs as much as the checks

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunction():
            kwargs = kwargs or {}
            self.operations += 1
            operands = tensors_in(*args, *kwargs.values())
            on = [on_gpu(tensor) for tensor in operands]
            if any(on):
                check(func, args, kwargs, operands, on)
            if func in HALVES and operands[0].dtype == torch.float16:
                result = self.half_product(func, args, kwargs)
            else:
                result = func(*args, **kwargs)
            gpu = on[0] if func in INDEXED else any(on)
            if gpu:
                storages = {id(tensor.untyped_storage()) for tensor in operands}
                for tensor in tensors_in(result):
                    if id(tensor.untyped_storage()) not in storages:
                        place(tensor, True)
            return result

    def half_product(self, func: Any, args: tuple, kwargs: dict) -> torch.Tensor:
        """A float16 product, summed in float32 as on a GPU; a CPU's own would take far longer."""

        def wide(value: Any) -> Any:
            half = isinstance(value, torch.Tensor) and value.dtype == torch.float16
            return value.float() if half else value

        result = func(*map(wide, args), **{name: wide(value) for name, value in kwargs.items()})
        result = result.half()
        if torch._C._current_autograd_node() is not None:
            self.largest = max(self.largest, result.abs().max().item())
        return result


def check(func: Any, args: tuple, kwargs: dict, operands: list, on: list[bool]) -> None:
    """Raise RuntimeError for what CUDA refuses."""
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: a CPU's generator for a tensor on cuda")
    if func in PRODUCTS:
        dtypes = {tensor.dtype for tensor in operands}
        if len(dtypes) > 1 or not all(dtype.is_floating_point for dtype in dtypes):
            raise RuntimeError(f"{func}: CUDA has no product of {dtypes}")
    if all(on) or func in COPIES:
        return
    if func in INDEXED and on[0]:
        operands = tensors_in(args[2:3])  # a CPU's indices are accepted, its values are not
        on = [on_gpu(tensor) for tensor in operands]
    scalars = torch.Tag.pointwise in func.tags or "_foreach_" in str(func) or func in INDEXED
    apart = [tensor for tensor, gpu in zip(operands, on) if not gpu]
    if any(tensor.dim() or not scalars for tensor in apart):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, cuda and cpu")


class Placement(TorchFunctionMode):
    """Answers where tensors are, and moves them to where they are asked to be."""

    def __init__(self, kernels: Kernels, least_gradient: float) -> None:
        super().__init__()
        self.kernels, self.least_gradient = kernels, least_gradient

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return attribute(func, *args)
        if func is torch.Tensor.backward:  # in Python: what it runs has to see this mode
            gradient, self.kernels.largest = kwargs.pop("gradient", None), 0.0
            with self:
                torch.autograd.backward(args[0], gradient, **kwargs)
            if 0 < self.kernels.largest < self.least_gradient:
                largest = f"the largest float16 gradient is {self.kernels.largest:.2g}"
                raise RuntimeError(f"{largest}: small ones vanish without a loss scale")
            return None
        if func in (torch.Tensor.numpy, torch.Tensor.__array__) and on_gpu(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy: use .cpu() first")
        if func in (torch.Tensor.to, torch.Tensor.cuda, torch.Tensor.cpu):
            return moved(func, *args, **kwargs)
        target = kwargs.get("device")
        if target is None:
            result = func(*args, **kwargs)
            if func in (torch.Tensor.new_tensor, torch.Tensor.__deepcopy__):
                place(result, on_gpu(args[0]))
            return result
        gpu = is_cuda(target)
        if gpu:
            kwargs["device"] = CPU
            if kwargs.get("generator") is not None:
                raise RuntimeError(f"{func}: a CPU's generator for a tensor on cuda")
        if torch.device(kwargs["device"]).type != "cpu":
            return func(*args, **kwargs)
        given = tensors_in(args)
        return tree_map(lambda one: placed(one, gpu, given), func(*args, **kwargs))


def attribute(func: Any, tensor: torch.Tensor, *rest: Any) -> Any:
    """What an attribute of a tensor says, those about its device as on a GPU."""
    of, value = func.__self__, func(tensor, *rest)
    known = {torch.Tensor.device: CUDA, torch.Tensor.is_cuda: True, torch.Tensor.is_cpu: False}
    if of in known and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if not tensor.is_meta and on_gpu(tensor):
            return known[of]
    return value


def is_cuda(device: Any) -> bool:
    """Whether a device as given by a caller is a GPU."""
    return isinstance(device, int) or torch.device(device).type == "cuda"


def placed(result: Any, gpu: bool, given: list[torch.Tensor]) -> Any:
    """A result on the device that was asked for; a copy if it shares memory with what was given."""
    if not isinstance(result, torch.Tensor) or on_gpu(result) == gpu:
        return result
    if any(result.untyped_storage() is one.untyped_storage() for one in given):
        result = result.clone()
    place(result, gpu)
    return result


def moved(func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`tensor.to(...)`, `.cuda()`, `.cpu()`: to another device it is a copy."""
    if func is not torch.Tensor.to:
        return placed(tensor, func is torch.Tensor.cuda, [tensor])
    copy, other = kwargs.pop("copy", False), kwargs.pop("other", None)
    args = args if other is None else (other, *args)
    device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
    gpu = on_gpu(tensor) if device is None else is_cuda(device)
    if args and isinstance(args[0], torch.Tensor):
        gpu = on_gpu(args[0])
    if device is not None and device.type not in ("cuda", "cpu"):
        return func(tensor, *args, **kwargs)
    return placed(func(tensor, dtype=dtype or tensor.dtype, copy=copy), gpu, [tensor])


def to_gpu(model: torch.nn.Module) -> None:
    """Have all tensors of a 4-bit model on the pretended GPU: parameters, buffers, scales."""
    for tensor in [*model.parameters(), *model.buffers()]:
        place(tensor, True)
        if state := getattr(tensor, "quant_state", None):
            tables = [state.absmax, state.code, state.offset]
            tables += [state.state2.absmax, state.state2.code] if state.nested else []
            for table in filter(lambda one: one is not None, tables):
                place(table, True)


@contextmanager
def pretended_gpu(
    capability: tuple[int, int] = T4, least_gradient: float = LEAST_GRADIENT
) -> Iterator[Kernels]:
    """Within this context torch has a GPU, and sealkit's models go there unless told otherwise.

    Weights are read on the CPU, in threads that no mode reaches, and then placed on the GPU.
    """
    fetch = loading.load_cached_or_download

    def fetch_to_gpu(choice: choice.Choice) -> tuple:
        if choice.device.type != "cuda":
            return fetch(choice)
        with _disable_current_modes(), _pop_mode_temporarily():
            model, tokenizer = fetch(replace(choice, device=CPU))
            to_gpu(model)
        return model, tokenizer

    card = SimpleNamespace(total_memory=15 * 2**30, name="a pretended GPU", major=capability[0])
    answers = {
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_capability": capability,
        "get_device_name": card.name,
        "get_device_properties": card,
        "is_bf16_supported": True,  # what a T4 says, too
        "max_memory_allocated": 2**30,
        "memory_allocated": 2**30,
        "get_rng_state": None,
        "set_rng_state": None,
        "synchronize": None,
        "empty_cache": None,
        "reset_peak_memory_stats": None,
    }
    PartialState(cpu=True)  # of one process; it is asked once in the life of a program
    with ExitStack() as stack:
        for name, answer in answers.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, return_value=answer))
        stack.enter_context(mock.patch.dict("bitsandbytes.functional.name2qmap"))
        stack.enter_context(mock.patch.object(loading, "load_cached_or_download", fetch_to_gpu))
        stack.enter_context(mock.patch.object(choice, "default_device", lambda bundled: "cuda"))
        kernels = stack.enter_context(Kernels())
        stack.enter_context(Placement(kernels, least_gradient))
        yield kernels
