"""The policy θ: a frozen 4-bit model with one LoRA, its tokenizer and its configuration."""

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import peft
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor
from transformers import (
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
)

from .checks import check_length
from .models.adapters import check_adapter, check_same_tensors
from .models.sampling import SeededSampling, TopP, read_once
from .models.text import encode, stop_criterion
from .models.unpacking import unpacked
from .selection import keep_best_above_baseline

Model = PreTrainedModel | PeftModel
Weights = dict[str, Tensor]  # a LoRA's tensors, on the CPU, by the names that PEFT saves them with


@dataclass(frozen=True)
class Config:
    """Hyperparameters of a policy and of both loops; `dataclasses.replace` changes some.

    The defaults are those of the bundled model, measured on its world, which overrides `keep`.

    >>> from dataclasses import replace
    >>> replace(Config(), steps=3).steps
    3
    """

    prompts: Any = None  # the domain's own: texts around an item and around its questions
    # LoRA of the policy, and of a trial, which is a fork of it; target modules as PEFT names them
    rank: int = 16
    alpha: int = 32
    target_modules: str | tuple[str, ...] = "all-linear"
    # sampling of self-edits
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int = 160
    max_lines: int | None = None  # a self-edit's room, in lines; None: any number
    # inner loop: gradient steps, each on all texts of a self-edit, at most `max_tokens` tokens
    learning_rate: float = 4e-3
    steps: int = 3
    max_tokens: int = 512
    answer_tokens: int = 16  # new tokens of an answer in the exam
    # M-step, and which self-edits it learns from: see `selection`
    epochs: int = 8
    batch_size: int = 4
    m_step_learning_rate: float = 2e-3
    keep: Callable[[Sequence[float], float], list[int]] = keep_best_above_baseline
    # memory: batch sizes of sampling and exams, of trials, and of a part of an M-step's batch
    texts_per_pass: int = 200
    adapters_per_pass: int = 25
    rows_per_pass: int = 4
    checkpointing: bool = False  # recompute activations in the backward pass


@dataclass(frozen=True)
class Policy:
    """The policy θ. model: from `attach_policy`; only its LoRA ever changes. Raises ValueError for
    an adapter that is no plain LoRA, see `check_adapter`.

    >>> import sealkit
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> config = sealkit.config_for(tokenizer)
    >>> policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    >>> len(policy.write(["Question: What is near Pelvik? Answer:"]))
    1
    """

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    config: Config

    def __post_init__(self) -> None:
        check_adapter(self.model)

    @torch.no_grad()
    def write(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int] | None = None,
        max_new_tokens: int = 16,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stops: Sequence[str] = (),
    ) -> list[str]:
        """Continue each prompt: greedily, or as a sample if each has a seed.

        stops: strings at which a text ends. One left-padded batch (len(prompts), longest prompt).
        Returns list[str], stripped. Raises ValueError for a prompt too long for the model.
        """
        model, tokenizer = self.model.eval(), self.tokenizer
        processors: list[LogitsProcessor] = []
        if seeds is not None:
            processors = [TemperatureLogitsWarper(float(temperature)), SeededSampling(seeds)]
            processors[1:1] = [TopP(top_p)] if top_p < 1 else []
        rows = encode(tokenizer, prompts)
        start = max(map(len, rows))
        check_length(model, start + max_new_tokens)
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        options: dict[str, Any] = ends | {"do_sample": False}
        with unpacked(model):
            ids, mask, cache = read_once(model, rows, max_new_tokens, options)
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=max_new_tokens,
                logits_processor=processors,
                stopping_criteria=[stop_criterion(tokenizer, tuple(stops))] if stops else [],
                **options,
            )
        stop = re.compile("|".join(map(re.escape, stops)) or r"\Z")
        texts = tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)
        return [stop.split(text)[0].strip() for text in texts]

    def weights(self) -> Weights:
        """A copy of the LoRA's tensors, on the CPU, by the names that PEFT saves them with."""
        tensors = peft.get_peft_model_state_dict(
            self.model, adapter_name=str(self.model.active_adapter), save_embedding_layers=False
        )
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def load(self, weights: Weights) -> None:
        """Put LoRA tensors, as `weights` returns them, into the policy. Raises ValueError for
        others, or not finite ones."""
        check_same_tensors(weights, self.weights())
        peft.set_peft_model_state_dict(self.model, weights, self.model.active_adapter)


def attach_policy(model: Model, config: Config | None = None, seed: int = 0) -> PeftModel:
    """`model` with one LoRA (a `PeftModel`), B = 0 and A drawn from `seed`; a policy as it is.

    config: shapes the LoRA and stays with the model as `seal_config`, by which the public functions
    then go; None for the LoRA of `Config()` and, later, the configuration that goes with the model.
    torch's random state stays as it was. Raises ValueError for an adapter that is no plain LoRA.

    >>> import sealkit
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> sealkit.attach_policy(model, sealkit.Config(rank=4)).peft_config["default"].r
    4
    """
    check_adapter(model)
    if isinstance(model, PeftModel):
        return model
    shape, devices = config or Config(), [model.device] if model.device.type == "cuda" else []
    modules = shape.target_modules
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        torch.manual_seed(seed_of("policy", seed))
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        policy = peft.get_peft_model(model, lora).eval()
    policy.seal_config = config  # type: ignore[assignment]
    return policy


@contextmanager
def temporary_policy(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
    seed: int = 0,
    leave: bool = False,
) -> Iterator[Policy]:
    """Within this context, the Policy on `model`: its own, or one drawn from `seed`.

    config: for a model that has no `seal_config`. Afterwards the LoRA is as it was before, or gone
    if there was none; with `leave`, only after an error (also Ctrl-C).
    """
    config = getattr(model, "seal_config", None) or config
    policy = Policy(attach_policy(model, config, seed), tokenizer, config)
    start = policy.weights()
    try:
        yield policy
    except BaseException:
        leave = False
        raise
    finally:
        if not leave:
            policy.load(start)
            if policy.model is not model:
                policy.model.unload()  # type: ignore[operator]


def seed_of(*key: object) -> int:
    """A 63-bit seed from a key such as (seed, iteration, item, candidate), never from the clock."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1
