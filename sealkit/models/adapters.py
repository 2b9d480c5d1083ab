"""Which PEFT adapters a trial can fork: one plain LoRA, told by its configuration and layers."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from peft import LoraConfig, PeftModel, PeftType
from peft.tuners.lora import Linear
from peft.tuners.lora.bnb import Linear4bit
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

# What a LoraConfig may say: which layers have a LoRA, its ranks, scaling and first values. A
# dropout may be named, and never acts.
FORKED = (
    "r lora_alpha use_rslora rank_pattern alpha_pattern lora_dropout target_modules exclude_modules"
    " layers_to_transform layers_pattern fan_in_fan_out init_lora_weights loftq_config eva_config"
    " corda_config lora_ga_config runtime_config inference_mode task_type peft_type auto_mapping"
    " peft_version base_model_name_or_path revision"
).split()
PLAIN = (
    "train a LoRA whose LoraConfig names its rank, alpha and layers alone, or merge this adapter "
    "into the model in 16 bits, save that and load it as the model"
)


def check_adapter(model: nn.Module) -> None:
    """Raise ValueError if what PEFT has added to a model is no LoRA that `lora.fork` can copy.

    A model without an adapter passes.

    >>> import sealkit
    >>> from peft import IA3Config, get_peft_model
    >>> model, _ = sealkit.load_quantized("bundled")
    >>> check_adapter(get_peft_model(model, IA3Config(task_type="CAUSAL_LM")))
    ... # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: A trial can't fork this policy, whose adapter is of the kind IA3: train a LoRA...
    """
    layers: dict[str, Any] = {
        n: m for n, m in model.named_modules() if isinstance(m, BaseTunerLayer)
    }
    if not isinstance(model, PeftModel):
        if layers:
            raise refusal("lies in a model that is no PeftModel", "attach it with PeftModel")
        return
    adapter = str(model.active_adapter)
    config = model.peft_config[adapter]
    if config.peft_type != PeftType.LORA:
        raise refusal(f"is of the kind {PeftType(config.peft_type).name}")
    plain = LoraConfig()
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in FORKED and value != getattr(plain, field.name):
            raise refusal(f"has {field.name}={str(value):.40}")
    if list(model.active_adapters) != [adapter]:
        raise refusal("is one of several that are active", "call set_adapter with the name of one")
    for name, layer in layers.items():
        if type(layer) not in (Linear, Linear4bit) or adapter not in layer.lora_A:
            raise refusal(f"shares the layer {name} ({type(layer).__name__}), not a linear one")
        if layer.merged:
            raise refusal("is merged into the 4-bit weights", "call unmerge_adapter first")
        weights = {side: getattr(layer, side)[adapter].weight for side in ("lora_A", "lora_B")}
        if dtypes := {w.dtype for w in weights.values()} - {torch.float32}:
            raise refusal(f"is held in {dtypes.pop()}", "load it with autocast_adapter_dtype=True")
        check_finite({f"{name}.{side}": weight for side, weight in weights.items()})


def refusal(what: str, remedy: str = PLAIN) -> ValueError:
    """The ValueError for an adapter: what it is or has, and what to do."""
    return ValueError(f"A trial can't fork this policy, whose adapter {what}: {remedy}.")


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError, naming the first of some tensors that holds nan or infinity."""
    for name, tensor in weights.items():
        if not (tensor.is_meta or tensor.isfinite().all()):
            raise ValueError(f"{name} of an adapter is not finite: take another copy of it.")


def check_same_tensors(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise ValueError for tensors that aren't, by name and shape, a policy's own, or not finite.

    PEFT would leave out a tensor of another name without a word.
    """
    shapes, expected = ({n: tuple(t.shape) for n, t in each.items()} for each in (weights, own))
    if wrong := dict(shapes.items() ^ expected.items()):
        raise ValueError(
            f"An adapter's tensors are not those of this policy ({len(wrong)} differ, "
            f"{min(wrong)} for one): take one that was trained on this model with these layers."
        )
    check_finite(weights)
