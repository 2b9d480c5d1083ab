"""The inner loop: for each self-edit a fork of the policy's LoRA is trained on it, examined, and thrown away.

The k forks lie side by side along the batch axis: row i of a batch belongs to adapter i, and one forward and
backward through the frozen 4-bit base serves them all.
"""

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from math import ceil, isfinite
from pathlib import Path

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm
from transformers.modeling_layers import GradientCheckpointingLayer

from .exam import MAX_ANSWER_TOKENS, accuracy, exam_prompt
from .prompts import BUNDLED, prompts_for
from .self_edits import complete, encode, seed_of, training_sequences


@dataclass(frozen=True)
class Settings:
    """The inner loop's hyper-parameters; the first three also shape the policy, since a trial is a fork of it."""

    rank: int = 16
    alpha: int = 32
    target_modules: str | tuple[str, ...] = "all-linear"  # as PEFT names them
    learning_rate: float = 5e-3
    steps: int = 5               # gradient steps, each on all sequences of the self-edit
    max_tokens: int = 512        # of one self-edit's sequences together; what goes beyond is left out
    adapters_per_pass: int = 25  # trained side by side
    checkpointing: bool = False  # compute each layer again in the backward pass instead of keeping its activations


def settings_for(tokenizer):
    """Settings() for the bundled model; for any other the paper's learning rate and epochs, and what a 16 GB GPU can hold.

    The paper's batches hold one sequence, ours all of a self-edit: see `Settings.steps`.
    """
    if prompts_for(tokenizer) is BUNDLED:
        return Settings()
    return Settings(learning_rate=1e-3, steps=10, adapters_per_pass=5, checkpointing=True)


@dataclass(frozen=True)
class Pass:
    """One pass of the inner loop: {number of the pair: its Trial}."""

    trials: dict[int, "Trial"]

    @property
    def adapters(self):
        """Trained side by side."""
        return len(self.trials)

    @property
    def tokens(self):
        """Trained on at each step."""
        return sum(trial.tokens for trial in self.trials.values())

    @property
    def positions(self):
        """Computed at each step: tokens and pads."""
        return self.adapters * max(trial.tokens for trial in self.trials.values())

    @property
    def pad_share(self):
        """Share of the positions that were pads."""
        return 1 - self.tokens / self.positions


@dataclass(frozen=True)
class Trial:
    """One self-edit's way through the inner loop."""

    self_edit: str
    reward: float               # share of the exam's questions answered right, in [0, 1]
    answers: tuple[str, ...]    # one for each question
    losses: tuple[float, ...]   # mean loss per token at each step, in nats; up to where it was finite
    tokens: int                 # tokens trained on at each step
    reason: str = ""            # why there was no exam, and so no reward


def attach_policy(model, settings=Settings(), seed=0):
    """The policy θ: `model` with one LoRA adapter on its linear layers (a `PeftModel`), B = 0, A drawn from `seed`."""
    if isinstance(model, PeftModel):
        return model
    torch.manual_seed(seed_of("policy", seed))
    targets = settings.target_modules if isinstance(settings.target_modules, str) else list(settings.target_modules)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets, task_type="CAUSAL_LM")
    with warnings.catch_warnings():  # PEFT asks transformers 5 for a property by its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return get_peft_model(model, config).eval()


def lora_layers(policy):
    """{name: PEFT LoRA layer} of the policy, in the model's order."""
    return {name: module for name, module in policy.named_modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")}


def fork(policy, k):
    """k copies of the policy's LoRA: {layer name: (A (k, r, in), B (k, out, r))}, fp32 leaves that want gradients."""
    def copies(weight):
        return weight.detach().float().repeat(k, 1, 1).requires_grad_()

    return {
        name: (copies(layer.lora_A["default"].weight), copies(layer.lora_B["default"].weight))
        for name, layer in lora_layers(policy).items()
    }


@contextmanager
def adapters_side_by_side(policy, adapters):
    """Within this context row block i of every batch goes through adapter i, in place of the policy's own LoRA.

    h = W x + α/r · B_i A_i x, with W the 4-bit layer. The batch size must be a multiple of the number of adapters.
    """
    def add_update(layer, A, B):
        scaling = layer.scaling["default"]

        def hook(module, inputs, output):
            x = inputs[0].to(A.dtype).reshape(len(A), -1, A.shape[2])
            h = output.to(A.dtype).view(len(B), -1, B.shape[1])
            return torch.baddbmm(h, x @ A.mT, B.mT, alpha=scaling).view(output.shape).to(output.dtype)

        return layer.base_layer.register_forward_hook(hook)

    layers = lora_layers(policy)
    with policy.disable_adapter():
        handles = [add_update(layers[name], A, B) for name, (A, B) in adapters.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def pack(tokenizer, sequences, max_tokens):
    """Token ids of several sequences one after the other, each with its end token: (ids, segments), both list[int].

    segments[i] says which sequence token i belongs to, so that none attends to another.
    """
    ids, segments = [], []
    for number, sequence in enumerate(sequences):
        if len(ids) == max_tokens:
            break
        tokens = [*encode(tokenizer, sequence)["input_ids"], tokenizer.eos_token_id][: max_tokens - len(ids)]
        ids += tokens
        segments += [number] * len(tokens)
    return ids, segments


def collate(packed, pad_token_id, device):
    """One row for each packed self-edit: (model inputs, labels (k, length)); pads and first tokens have the label -100."""
    length = max(len(ids) for ids, _ in packed)
    ids = torch.tensor([ids + [pad_token_id] * (length - len(ids)) for ids, _ in packed])
    segments = torch.tensor([segment + [-1] * (length - len(segment)) for _, segment in packed])
    first = torch.ones_like(segments, dtype=torch.bool)
    first[:, 1:] = segments[:, 1:] != segments[:, :-1]
    index = torch.arange(length)
    positions = index - torch.where(first, index, 0).cummax(1).values
    labels = ids.masked_fill(first | (segments < 0), -100)
    inputs = {"input_ids": ids, "position_ids": positions}  # which restart where a text begins: it sees no other
    return {name: tensor.to(device) for name, tensor in inputs.items()}, labels.to(device)


def row_losses(model, inputs, labels):
    """Mean cross-entropy per labelled token of each row, in nats: (k,)."""
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    losses = cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none")
    counts = (labels[:, 1:] != -100).sum(1)
    return losses.view(len(labels), -1).sum(1) / counts.clamp(min=1)


def train_adapters(policy, adapters, inputs, labels, settings):
    """Train each adapter on its own row with AdamW, all in one pass per step. Changes `adapters`; returns losses (steps, k).

    The sum over rows has for each adapter the gradient of its own mean loss alone, and AdamW works by element, so
    every adapter goes the way that it would go by itself. One whose loss or gradient is not finite is set to zero, with
    the loss nan from there on.
    """
    tensors = [tensor for pair in adapters.values() for tensor in pair]
    optimizer = torch.optim.AdamW(tensors, lr=settings.learning_rate, weight_decay=0.0)
    scaler, losses = loss_scaler(policy), []
    diverged = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    with adapters_side_by_side(policy, adapters), torch.enable_grad(), checkpointed(policy, settings.checkpointing):
        for _ in range(settings.steps):
            (loss,) = descend(optimizer, scaler, [lambda: row_losses(policy, inputs, labels)], diverged)
            losses.append(loss.masked_fill(diverged, torch.nan))
    with torch.no_grad():
        for tensor in tensors:
            tensor[diverged] = 0
    return torch.stack(losses)


def loss_scaler(policy):
    """A `torch.amp.GradScaler`, at work only if the model computes in fp16.

    The adapters and their gradients are fp32, but between the layers gradients pass in fp16, where those of a mean over
    hundreds of tokens leave the normal range (`tests/test_models.py` measures how many).
    """
    return torch.amp.GradScaler(policy.device.type, enabled=policy.dtype == torch.float16)


def descend(optimizer, scaler, parts, diverged=None):
    """One step of `optimizer` down the sum of the losses that the functions `parts` compute: list of their values, detached.

    Where a scaled gradient overflows, the scaler halves its scale and the same step is tried again, so that the number
    of steps is what the settings say. diverged: for parameters of k adapters (k, ...) and one part with k losses, a mask
    (k,) that receives those whose loss or gradient is not finite at any scale; they no longer count, and the others take
    the step that they would take without them. Raises FloatingPointError, before the step, if there is no such mask.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    first = scaler.get_scale()
    while True:
        optimizer.zero_grad()  # before, not after: whoever trained these tensors last may have left gradients
        losses = []
        for part in parts:
            loss = part()
            scaler.scale(loss.sum()).backward()
            losses.append(loss.detach())
        last_scale = not scaler.is_enabled() or scaler.get_scale() < 1
        if diverged is None:
            broken = ~torch.stack([parameter.grad.sum() for parameter in parameters]).isfinite().all()
            if broken and last_scale:
                raise FloatingPointError("The loss or its gradient is not finite: take a lower learning rate" +
                                         (", or a GPU with bfloat16." if scaler.is_enabled() else "."))
        else:
            hopeless = ~losses[0].isfinite()
            broken = hopeless | ~torch.stack([parameter.grad.flatten(1).sum(1) for parameter in parameters]).isfinite().all(0)
            found = (broken if last_scale else hopeless) & ~diverged
            diverged |= found
            if diverged.any():
                for parameter in parameters:
                    parameter.grad[diverged] = 0
            if scaler.is_enabled() and found.any():  # the others' step is not to depend on a scale that these forced
                scaler.update(first)
                continue
            broken = (broken & ~diverged).any()
        scaler.step(optimizer)
        scaler.update()
        if not broken:
            return losses


@contextmanager
def checkpointed(policy, on=True):
    """Within this context, if `on`, backward passes compute each decoder layer again instead of keeping its activations.

    Only the layers themselves are put into training mode, which is where transformers looks; what lies within them stays
    in eval mode, without dropout. The backward pass has to run in the same `adapters_side_by_side` as the forward pass.
    """
    layers = [module for module in policy.modules() if isinstance(module, GradientCheckpointingLayer)] if on else []
    for layer in layers:
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        layer.gradient_checkpointing = layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.gradient_checkpointing = layer.training = False


def run_trials(policy, tokenizer, pairs, settings=Settings(), progress=None, report=None, save_to=None, known=None, log=None):
    """The inner loop for (passage, self-edit) pairs of any passages: list[Trial] in the order of `pairs`.

    Pairs of like length are trained side by side, `settings.adapters_per_pass` at a time, or half as many each time that
    memory runs out, which `log` is told. report: a function that is called with the Pass after each pass.
    save_to: a folder that receives the adapter of pair i as `i/`, a stock PEFT adapter.
    known: {i: Trial} of an earlier call that did not end; a pass of which all are known is not run again.
    """
    packed = [pack(tokenizer, training_sequences(edit, passage), settings.max_tokens) for passage, edit in pairs]
    waiting = sorted(range(len(pairs)), key=lambda i: len(packed[i][0]))
    trials, known, width = [None] * len(pairs), known or {}, settings.adapters_per_pass
    with tqdm(total=len(waiting), desc=progress, disable=progress is None, leave=False) as bar:
        while waiting:
            chosen = waiting[:width]
            try:
                adapters, done = (None, [known[i] for i in chosen]) if known.keys() >= set(chosen) else one_pass(
                    policy, tokenizer, [pairs[i] for i in chosen], [packed[i] for i in chosen], settings)
            except RuntimeError as error:
                if len(chosen) == 1 or not should_reduce_batch_size(error):
                    raise
                done = None
            if done is None:  # not inside `except`: there the error would still hold the memory
                width = ceil(len(chosen) / 2)
                clear_device_cache(garbage_collection=True)
                if log:
                    log(f"Memory ran out with {len(chosen)} self-edits side by side: going on with {width}.")
                continue
            for column, i in enumerate(chosen):
                trials[i] = known.get(i, done[column])
                if save_to is not None and adapters is not None:
                    save_adapter(policy, adapters, column, Path(save_to) / str(i))
            if report and adapters is not None:
                report(Pass(dict(zip(chosen, done))))
            adapters = None  # before the next pass needs the memory
            del waiting[:width]
            bar.update(len(chosen))
    return trials


def one_pass(policy, tokenizer, pairs, packed, settings):
    """Train and examine one adapter for each pair, all at once: (adapters, list[Trial])."""
    adapters = fork(policy, len(pairs))
    losses = train_adapters(policy, adapters, *collate(packed, tokenizer.pad_token_id, policy.device), settings).T.tolist()
    answers = examine(policy, tokenizer, adapters, [passage for passage, _ in pairs])
    return adapters, [trial_of(*row) for row in zip(pairs, answers, losses, packed)]


def trial_of(pair, answers, losses, packed):
    """The Trial of one adapter; if a loss is not finite, with reward 0 and the reason."""
    (passage, edit), (ids, _) = pair, packed
    finite = list(takewhile(isfinite, losses))
    if len(finite) < len(losses):
        reason = f"training diverged at step {len(finite) + 1}: its loss or gradient was not finite"
        return Trial(edit, 0.0, ("",) * len(answers), tuple(finite), len(ids), reason)
    return Trial(edit, accuracy(answers, passage), tuple(answers), tuple(losses), len(ids))


def examine(policy, tokenizer, adapters, passages):
    """Adapter i's closed-book answers to passage i, in one batch for each number of questions: list of list[str]."""
    answers = [None] * len(passages)
    for count in sorted({len(passage.questions) for passage in passages}):
        chosen = [i for i, passage in enumerate(passages) if len(passage.questions) == count]
        own = adapters if len(chosen) == len(passages) else {name: (A[chosen], B[chosen]) for name, (A, B) in adapters.items()}
        prompts = [exam_prompt(passages[i], question, prompts=prompts_for(tokenizer)) for i in chosen for question in passages[i].questions]
        with adapters_side_by_side(policy, own):
            said = complete(policy, tokenizer, prompts, MAX_ANSWER_TOKENS, stops=("\n",))
        for row, i in enumerate(chosen):
            answers[i] = said[row * count :][:count]
    return answers


def save_adapter(policy, adapters, i, folder):
    """Save adapter i of `adapters` as a stock PEFT adapter, which `PeftModel.from_pretrained(base, folder)` loads."""
    tensors = {f"{name}.lora_{m}.default.weight": pair[n][i].detach() for name, pair in adapters.items() for n, m in enumerate("AB")}
    policy.save_pretrained(folder, state_dict=tensors)


def evaluate_self_edits(model, tokenizer, passage, edits, settings=None, seed=0, report=None, save_to=None):
    """Reward of each self-edit: train θ' ← SFT(θ, SE) on it, ask θ' about the passage without showing it.

    model: a 4-bit model, or a policy from `attach_policy`; its own weights are never changed. A plain model is
        given a LoRA for the time of the call, drawn from `seed`; a policy's forks need no seed.
    edits: list[str]; an empty self-edit trains on the passage alone. settings: None for `settings_for(tokenizer)`.
    report, save_to: see `run_trials`.
    Returns list[Trial], `.reward` in [0, 1]. Raises ValueError if the passage has no questions.
    """
    if not passage.questions:
        raise ValueError(f"The passage {passage.title!r} has no questions: without an exam there is no reward; add some.")
    settings = settings or settings_for(tokenizer)
    policy = attach_policy(model, settings, seed)
    try:
        return run_trials(policy, tokenizer, [(passage, edit) for edit in edits], settings, report=report, save_to=save_to)
    finally:
        if policy is not model:
            policy.unload()
