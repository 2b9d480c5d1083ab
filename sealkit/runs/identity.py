"""What makes a run this run: settings and machine, by which a folder is matched to it."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .cache import Cache
from .folder import open_run

LIBRARIES = "torch", "transformers", "peft", "bitsandbytes"


def open_run_cache(
    run_dir: str | Path | None, policy: Any, task: Any, items: Sequence[Any], k: int, seed: int
) -> AbstractContextManager[Cache]:
    """A context with the cache of a run in `run_dir`, or in memory: see `open_run` and its errors.

    policy: a `sealkit.Policy`. task: its module. Settings are what shapes the results, machine what
    shapes their last digits.
    """
    model, config = policy.model, policy.config
    keep = getattr(config.keep, "__name__", type(config.keep).__name__)  # a partial has none
    products = {str(m.compute_dtype) for m in model.modules() if hasattr(m, "compute_dtype")}
    machine: dict[str, Any] = {name: version(name) for name in LIBRARIES}
    machine["dtype"] = str(model.dtype)
    machine["products"] = ", ".join(sorted(products))
    machine["device"] = f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    machine["threads"] = torch.get_num_threads()
    if model.device.type == "cuda":
        machine |= {"device": torch.cuda.get_device_name(model.device), "threads": "any"}
    base = (tensor for name, tensor in model.named_parameters() if "lora_" not in name)
    lora = (tensor for name, tensor in policy.weights().items() if "lora_B" in name)  # 0 if new
    settings = {"task": task.__name__, "seed": seed, "k": k, "items": digest(items)}
    settings |= {"model": fingerprint(base), "policy": fingerprint(lora)} | asdict(config)
    settings |= {"prompts": digest([config.prompts]), "keep": keep}
    return open_run(run_dir, settings, machine, model.peft_config[model.active_adapter])


def digest(items: Iterable[Any]) -> str:
    """The number of items, and hex digits that change with any of their texts."""
    items = list(items)
    return f"{len(items)}, {hashlib.sha256(repr(items).encode()).hexdigest()[:16]}"


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """16 hex digits of the starts of some tensors: those of two checkpoints differ."""
    sha = hashlib.sha256()
    for tensor in tensors:
        start = tensor.detach().flatten()[:512].cpu().contiguous().view(torch.uint8)
        sha.update(start.numpy().tobytes())
    return sha.hexdigest()[:16]
