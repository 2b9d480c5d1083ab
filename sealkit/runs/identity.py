"""TODO."""

import hashlib
from dataclasses import asdict
from importlib.metadata import version

import torch

from ..models.unpacking import quantized_layers
from .folder import open_run

LIBRARIES = "torch", "transformers", "peft", "bitsandbytes"


def open_run_cache(run_dir, policy, task, items, k, seed):
    """A context with the cache of a run, see `open_run`, and what must never be mixed up in it."""
    model, config = policy.model, policy.config
    keep = getattr(config.keep, "__name__", type(config.keep).__name__)  # a partial has none
    machine = {name: version(name) for name in LIBRARIES} | {"dtype": str(model.dtype)}
    machine["products"] = ", ".join(
        sorted({str(layer.compute_dtype) for layer in quantized_layers(model)})
    )
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


def digest(items):
    """Number of items, and hex digits that change with any of their texts."""
    return f"{len(items)}, {hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]}"


def fingerprint(tensors):
    """16 hex digits of the starts of some tensors: those of two checkpoints differ."""
    sha = hashlib.sha256()
    for tensor in tensors:
        start = tensor.detach().flatten()[:512].cpu().contiguous().view(torch.uint8)
        sha.update(start.numpy().tobytes())
    return sha.hexdigest()[:16]
