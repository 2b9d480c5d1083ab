"""θ: a frozen 4-bit model with one LoRA, its tokenizer and its recipe. All text is read and written
through here."""

import hashlib
import re
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopPLogitsWarper


def best(rewards, alone):
    """The rule of the paper's code: always the best one (the first of equals), also where it helped
    nothing."""
    return [max(range(len(rewards)), key=lambda j: rewards[j])]


def best_if_better(rewards, alone):
    """Candidates to keep: the best one if it beats the trial without a self-edit, else none.

    >>> best_if_better([0.5, 0.8, 0.8], alone=0.5), best_if_better([0.5], alone=0.5)
    ([1], [])
    """
    return [j for j in best(rewards, alone) if rewards[j] > alone]


def every_better(rewards, alone):
    """The rule of the paper's text, with reward 1 for a self-edit that beats the trial without one:
    all of these."""
    return [j for j, reward in enumerate(rewards) if reward > alone]


@dataclass(frozen=True)
class Recipe:
    """All that a model needs to be told besides its weights; `dataclasses.replace` changes one.

    The defaults are those of the bundled model and were measured on its world.
    """

    prompts: object = None  # the domain's texts around an item and around its questions
    # the policy's LoRA, and so a trial's, which is a fork of it
    rank: int = 16
    alpha: int = 32
    target_modules: str | tuple[str, ...] = "all-linear"  # as PEFT names them
    # sampling of self-edits
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int = 160
    # inner loop
    learning_rate: float = 5e-3
    steps: int = 5  # gradient steps, each on all texts of the self-edit
    max_tokens: int = 512  # of one self-edit's texts together; what goes beyond is left out
    adapters_per_pass: int = 25  # trained side by side
    checkpointing: bool = False  # compute layers again in the backward pass instead of keeping them
    # exam
    answer_tokens: int = 16
    # M-step
    epochs: int = 8
    batch_size: int = 4
    m_step_learning_rate: float = 2e-3
    rows_per_pass: int = 4  # of a batch; the others of it are added up
    keep: Callable = (
        best_if_better  # selection: (rewards of an item, its reward without) -> candidates
    )
    texts_per_pass: int = 200  # written side by side


@dataclass(frozen=True)
class Policy:
    """The policy θ. model: a `PeftModel` over a 4-bit model, from `attach_policy`; only its LoRA
    ever changes."""

    model: PeftModel
    tokenizer: object
    recipe: Recipe

    @torch.no_grad()
    def write(self, prompts, seeds=None, max_new_tokens=16, temperature=1.0, top_p=1.0, stops=()):
        """Continue every prompt: by the likeliest tokens, or as a sample if there is a seed for
        each.

        stops: strings at the first of which a text ends. One left-padded batch, shape
        (len(prompts), longest prompt).
        Returns list[str], without the prompt, stripped. Raises ValueError for a prompt longer than
        the model's context.
        """
        model, tokenizer = self.model.eval(), self.tokenizer
        sampling = []
        if seeds is not None:
            sampling = [TemperatureLogitsWarper(float(temperature)), SeededSampling(seeds)]
            sampling[1:1] = [TopPLogitsWarper(top_p)] if top_p < 1 else []
        batch = encode(
            tokenizer,
            prompts,
            return_tensors="pt",
            padding=True,
            padding_side="left",
            return_token_type_ids=False,
        ).to(model.device)
        start, most = (
            batch["input_ids"].shape[1],
            getattr(model.config, "max_position_embeddings", None),
        )
        if most and start + max_new_tokens > most:
            raise ValueError(
                f"A prompt of {start} tokens leaves no room for {max_new_tokens} more in this model's "
                f"context of {most}: give shorter passages, or a model with a longer context."
            )
        output = model.generate(
            **batch,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            logits_processor=sampling,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **({"stop_strings": list(stops), "tokenizer": tokenizer} if stops else {}),
        )
        texts = tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)
        stop = re.compile("|".join(map(re.escape, stops)) or r"\Z")
        return [stop.split(text)[0].strip() for text in texts]

    def weights(self):
        """A copy of the LoRA's tensors, on the CPU, by the names that PEFT saves them with."""
        return {
            name: tensor.detach().cpu().clone()
            for name, tensor in get_peft_model_state_dict(
                self.model, adapter_name=self.model.active_adapter
            ).items()
        }

    def load(self, weights):
        """Put LoRA tensors, as `weights` returns them, into the policy."""
        set_peft_model_state_dict(self.model, weights, adapter_name=self.model.active_adapter)


def attach_policy(model, recipe=None, seed=0):
    """`model` with one LoRA on its linear layers (a `PeftModel`), B = 0 and A drawn from `seed`; a
    policy as it is.

    recipe: what rank and layers are taken from, and what everything that is done with the policy
    goes by; None for `Recipe()`'s LoRA, and the recipe that goes with the model. torch's random
    state stays as it was.
    """
    if isinstance(model, PeftModel):
        return model
    shape = recipe or Recipe()
    targets = (
        shape.target_modules
        if isinstance(shape.target_modules, str)
        else list(shape.target_modules)
    )
    config = LoraConfig(
        r=shape.rank, lora_alpha=shape.alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        torch.manual_seed(seed_of("policy", seed))
        warnings.filterwarnings(
            "ignore", ".*is_gradient_checkpointing", FutureWarning
        )  # PEFT by an old name
        policy = get_peft_model(model, config).eval()
    policy.recipe = recipe
    return policy


@contextmanager
def policy_on(model, tokenizer, recipe, seed=0, leave=False):
    """Within this context, the Policy on `model`: its own, or one drawn from `seed`.

    recipe: for a model that says none, see `attach_policy`. Afterwards the LoRA is as it was
    before, or not there if it was not; with `leave`, only after an error (also Ctrl-C).
    """
    recipe = getattr(model, "recipe", None) or recipe
    policy = Policy(attach_policy(model, recipe, seed), tokenizer, recipe)
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
    """A 63-bit seed from a key such as (seed, iteration, item, candidate): never the clock, the
    same on every machine.

    >>> seed_of(0, 1) == seed_of(0, 1) != seed_of(1, 0)
    True
    """
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


def encode(tokenizer, texts, **options):
    """`tokenizer(texts)` for texts that nobody has checked.

    The name of a special token is plain text, and half of a surrogate pair is U+FFFD.
    """

    def whole(text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    texts = whole(texts) if isinstance(texts, str) else list(map(whole, texts))
    return tokenizer(texts, split_special_tokens=True, **options)


class SeededSampling(LogitsProcessor):
    """Adds Gumbel noise from one generator a row, so that the likeliest token is a draw from
    softmax(logits).

    What a row draws does not depend on the rows beside it.
    """

    def __init__(self, seeds):
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids, scores):
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        return scores - torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7))).to(scores)
