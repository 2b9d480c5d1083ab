"""θ: a frozen 4-bit model with one LoRA, its tokenizer and its config. It reads and writes."""

import hashlib
import re
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import peft
import torch
from peft import LoraConfig, PeftModel
from transformers import LogitsProcessor, StopStringCriteria, TemperatureLogitsWarper

from .checks import check_length
from .models.unpacking import unpacked
from .selection import keep_best_above_baseline


@dataclass(frozen=True)
class Config:
    """All that a model needs to be told besides its weights; `dataclasses.replace` changes it.

    The defaults are the bundled model's, measured on its world; it has its own `keep`, too.

    >>> from dataclasses import replace
    >>> replace(Recipe(), steps=3).steps
    3
    """

    prompts: object = None  # the domain's texts around an item and around its questions
    # the policy's LoRA, and so a trial's, which is a fork of it; target modules as PEFT names them
    rank: int = 16
    alpha: int = 32
    target_modules: str | tuple[str, ...] = "all-linear"
    # sampling of self-edits
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int = 160
    # inner loop: gradient steps, each on all texts of a self-edit up to so many tokens
    learning_rate: float = 4e-3
    steps: int = 3
    max_tokens: int = 512
    answer_tokens: int = 16  # of an answer in the exam
    # M-step, and its selection: (rewards of an item, its reward without) -> candidates
    epochs: int = 8
    batch_size: int = 4
    m_step_learning_rate: float = 2e-3
    keep: Callable = keep_best_above_baseline
    # memory: what is done side by side; layers computed again in the backward pass
    texts_per_pass: int = 200
    adapters_per_pass: int = 25
    rows_per_pass: int = 4  # of a batch of the M-step
    checkpointing: bool = False


@dataclass(frozen=True)
class Policy:
    """The policy θ. model: from `attach_policy`; only its LoRA ever changes.

    >>> import sealkit
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> config = sealkit.config_for(tokenizer)
    >>> policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    >>> len(policy.write(["Question: What is near Pelvik? Answer:"]))
    1
    """

    model: PeftModel
    tokenizer: object
    config: Config

    @torch.no_grad()
    def write(self, prompts, seeds=None, max_new_tokens=16, temperature=1.0, top_p=1.0, stops=()):
        """Continue every prompt: by the likeliest tokens, or as a sample if each has a seed.

        stops: strings at which a text ends. One left-padded batch (len(prompts), longest prompt).
        Returns list[str], stripped. Raises ValueError for a prompt too long for the model.
        """
        model, tokenizer, sampling = self.model.eval(), self.tokenizer, []
        if seeds is not None:
            sampling = [TemperatureLogitsWarper(float(temperature)), SeededSampling(seeds)]
            sampling[1:1] = [TopP(top_p)] if top_p < 1 else []
        batch = encode(tokenizer, prompts, return_tensors="pt", padding=True, padding_side="left")
        ids, mask = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
        start = ids.shape[1]
        check_length(model, start + max_new_tokens)
        with unpacked(model):
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                logits_processor=sampling,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                stopping_criteria=[stop_criterion(tokenizer, tuple(stops))] if stops else [],
            )
        stop = re.compile("|".join(map(re.escape, stops)) or r"\Z")
        texts = tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)
        return [stop.split(text)[0].strip() for text in texts]

    def weights(self):
        """A copy of the LoRA's tensors, on the CPU, by the names that PEFT saves them with."""
        tensors = peft.get_peft_model_state_dict(
            self.model, adapter_name=self.model.active_adapter, save_embedding_layers=False
        )
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def load(self, weights):
        """Put LoRA tensors, as `weights` returns them, into the policy."""
        peft.set_peft_model_state_dict(self.model, weights, self.model.active_adapter)


def attach_policy(model, config=None, seed=0):
    """`model` with one LoRA (a `PeftModel`), B = 0 and A drawn from `seed`; a policy as it is.

    config: of the LoRA, and what all that is done with the policy goes by; None for `Config()`'s
    LoRA, and the config that goes with the model. torch's random state stays as it was.

    >>> import sealkit
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> sealkit.attach_policy(model, sealkit.Config(rank=4)).peft_config["default"].r
    4
    """
    if isinstance(model, PeftModel):
        return model
    shape, devices = config or Config(), [model.device] if model.device.type == "cuda" else []
    modules = shape.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=shape.rank,
        lora_alpha=shape.alpha,
        target_modules=modules if isinstance(modules, str) else list(modules),
    )
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        torch.manual_seed(seed_of("policy", seed))
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        policy = peft.get_peft_model(model, config).eval()
    policy.config = config
    return policy


@contextmanager
def temporary_policy(model, tokenizer, config, seed=0, leave=False):
    """Within this context, the Policy on `model`: its own, or one drawn from `seed`.

    config: for a model that says none. Afterwards the LoRA is as it was before, or gone if there
    was none; with `leave`, only after an error (also Ctrl-C).
    """
    config = getattr(model, "config", None) or config
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
                policy.model.unload()


def seed_of(*key):
    """A 63-bit seed from a key such as (seed, iteration, item, candidate), never from the clock."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def encode(tokenizer, texts, **options):
    """`tokenizer(texts)` for texts that nobody has checked: the name of a special token is plain
    text, and half of a surrogate pair is U+FFFD."""

    def whole(text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    texts = whole(texts) if isinstance(texts, str) else list(map(whole, texts))
    return tokenizer(texts, split_special_tokens=True, **options)


@lru_cache
def stop_criterion(tokenizer, stops):
    """transformers' criterion for `stops`, which reads the whole vocabulary to make itself."""
    return StopStringCriteria(tokenizer, stops)


class TopP(LogitsProcessor):
    """Top-p sampling as transformers' `TopPLogitsWarper` does it, but sorted by numpy: torch takes
    30 times as long for that on a CPU."""

    def __init__(self, top_p):
        self.top_p = top_p

    def __call__(self, input_ids, scores):
        ordered = torch.from_numpy(np.sort(scores.float().cpu().numpy())).to(scores)
        left_out = (ordered.softmax(-1).cumsum(-1) <= 1 - self.top_p).sum(-1, keepdim=True)
        least = ordered.gather(-1, left_out.clamp(max=scores.shape[-1] - 1))
        return scores.masked_fill(scores < least, -torch.inf)


class SeededSampling(LogitsProcessor):
    """Gumbel noise from one generator a row: the likeliest token is a draw from softmax(logits).

    What a row draws does not depend on the rows beside it.
    """

    def __init__(self, seeds):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids, scores):
        drawn = [torch.rand(scores.shape[1], generator=one) for one in self.generators]
        uniform = torch.stack(drawn).clamp(1e-10, 1 - 1e-7)
        return scores - torch.log(-torch.log(uniform)).to(scores)
