"""The inner loop (arXiv:2506.10943, section 3): fork θ, θ' ← SFT(θ, SE), ask θ', reward.

For many self-edits at once: their adapters lie side by side, and one pass through the frozen base
serves them all. Then they are thrown away.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import groupby, takewhile
from math import isfinite

import torch
from torch.nn.functional import cross_entropy

from .checks import check_length
from .lora import fork, select_adapters, side_by_side
from .models.unpacking import unpacked
from .policy import encode
from .runs.cache import compute_missing

LOSS_SCALE = 2.0**16  # at first, for models that compute in fp16


@dataclass(frozen=True)
class Lesson:
    """What a self-edit asks for: texts to train on, and its pace.

    starts: of each text, what it begins with and nothing is learned of; none for no text. per_step:
    how many texts a gradient step takes, one part after the other; None for all. reason: why there
    is nothing to train on and so no reward, for a self-edit that is not a valid one.

    >>> Lesson(["It burns."], steps=5, learning_rate=5e-3).steps
    5
    """

    texts: list[str]
    steps: int
    learning_rate: float
    starts: Sequence[str] = ()
    reason: str = ""
    per_step: int | None = None

    def part(self, step):
        """The Lesson of one step's texts alone."""
        width = self.per_step or len(self.texts) or 1
        first = step * width % (len(self.texts) or 1)
        here = slice(first, first + width)
        return replace(self, texts=self.texts[here], starts=self.starts[here])


@dataclass(frozen=True)
class Trial:
    """One self-edit's way through the inner loop.

    losses: mean per token at each step, in nats. tokens: trained on at the first. reason: why there
    was no exam, and so no reward.

    >>> Trial("It burns.", reward=0.5, answers=["yes", "no"], losses=[2.0, 1.0], tokens=4).reward
    0.5
    """

    self_edit: str
    reward: float
    answers: list[str]
    losses: list[float]
    tokens: int
    reason: str = ""


def run_trial_batch(policy, task, pairs):
    """One pass: the Trial of each (item, self-edit), side by side; their lessons have one pace.

    task: a module such as `sealkit.tasks.knowledge`. A lesson with a reason earns 0, untried.
    """
    lessons = [task.lesson(*pair, policy.config) for pair in pairs]
    if lessons[0].reason:
        return [Trial(edit, 0.0, [], [], 0, own.reason) for (_, edit), own in zip(pairs, lessons)]
    adapters = fork(policy.model, len(pairs))  # θ, k times
    losses, tokens = sft(policy, adapters, lessons)  # θ' ← SFT(θ, SE)
    questions = [task.questions(item, policy.config) for item, _ in pairs]
    answers = ask(policy, adapters, questions)  # A ~ LM_θ'( · | τ), without C
    trials = []
    for (item, edit), said, loss, count in zip(pairs, answers, losses, tokens):
        finite = list(takewhile(isfinite, loss))
        if len(finite) == len(loss):
            trials.append(Trial(edit, task.reward(item, said), said, loss, count))  # r(SE, τ, θ')
        else:
            step = f"training diverged at step {len(finite) + 1}"
            reason = f"{step}: its loss or gradient was not finite"
            trials.append(Trial(edit, 0.0, [""] * len(said), finite, count, reason))
    return trials


def run_trials(policy, task, pairs, cache=None, keys=None, title=None):
    """The inner loop for any number of (item, self-edit) pairs: list[Trial] in their order.

    Lessons of one pace and of like length are trained side by side, `config.adapters_per_pass` at
    a time. cache, keys, title: see `compute_missing`.
    """
    cache = {} if cache is None else cache
    pairs = dict(zip(keys or [("trial", n) for n in range(len(pairs))], pairs, strict=True))
    lessons = {key: task.lesson(*pair, policy.config) for key, pair in pairs.items()}

    def pace(key):
        return bool(lessons[key].reason), lessons[key].steps, lessons[key].learning_rate

    def length(key):
        return len(pack(policy, lessons[key].part(0).texts)[0])

    def one_pass(keys):
        return [
            asdict(trial) for trial in run_trial_batch(policy, task, [pairs[key] for key in keys])
        ]

    width, done = policy.config.adapters_per_pass, {}
    for _, group in groupby(sorted(pairs, key=lambda key: (pace(key), length(key))), pace):
        done |= zip(group := list(group), compute_missing(cache, group, one_pass, width, title))
    return [Trial(**done[key]) for key in pairs]


def sft(policy, adapters, lessons, penalty=None):
    """θ' ← SFT(θ, SE): train adapter i on lesson i with AdamW, all in one batch.

    The sum over rows has for each adapter the gradient of its own mean loss alone, and AdamW works
    by element, so every adapter goes the way that it would go by itself. One whose loss or gradient
    is not finite is set to zero and harms nobody. Changes `adapters`. penalty: adapters -> (k,), to
    be added to the losses. Returns (losses, k lists of `steps` floats, nan from where one diverged;
    tokens, k ints).
    """
    now = [lesson.part(0) for lesson in lessons]
    inputs, labels, tokens = make_batch(policy, now)
    tensors = [tensor for pair in adapters.values() for tensor in pair]
    optimizer = torch.optim.AdamW(tensors, lr=lessons[0].learning_rate, weight_decay=0.0)
    scale, losses = initial_loss_scales(policy, len(lessons)), []
    diverged = torch.zeros_like(scale, dtype=torch.bool)
    parts = [lambda: row_losses(policy.model, inputs, labels)]
    parts += [lambda: penalty(adapters)] if penalty else []
    model = policy.model
    with unpacked(model), side_by_side(model, adapters), checkpointed(policy), torch.enable_grad():
        for step in range(lessons[0].steps):
            texts = [lesson.part(step) for lesson in lessons]
            if texts != now:
                now, (inputs, labels, _) = texts, make_batch(policy, texts)
            loss = optimizer_step(optimizer, scale, parts, diverged)
            losses.append(loss.masked_fill(diverged, torch.nan))
    for tensor in tensors:
        tensor.data[diverged] = 0
    return torch.stack(losses).T.tolist(), tokens


def make_batch(policy, lessons):
    """All texts of each lesson in a row of its own: (model inputs, labels, tokens of each)."""
    packed = [pack(policy, lesson.texts) for lesson in lessons]
    check_length(policy.model, 1 + max(max(positions) for _, positions in packed))
    inputs, labels = collate(packed, policy.tokenizer.pad_token_id, policy.model.device)
    for row, lesson in zip(labels, lessons):
        row[: len(skipped := prompt_mask(policy, lesson))][skipped] = -100
    return inputs, labels, [len(ids) for ids, _ in packed]


def initial_loss_scales(policy, k):
    """The factors (k,) that keep small gradients from vanishing in fp16; 1 in other dtypes."""
    scale = LOSS_SCALE if policy.model.dtype == torch.float16 else 1.0
    return torch.full((k,), scale, device=policy.model.device)


def optimizer_step(optimizer, scale, parts, diverged):
    """One step for k sets of parameters (k, ...), each down its own loss. Returns the losses (k,).

    parts: functions of losses (k,), which are added up. scale: (k,), the factor of each loss in the
    backward pass; where a gradient overflows, its own is halved and the step tried again, so that
    an overflow is not the neighbours' business. What is not finite at any scale is marked in
    `diverged`, (k,) bool, and has no gradient.
    """
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    while True:
        optimizer.zero_grad()  # before: whoever trained these tensors last may have left gradients
        losses = 0
        for part in parts:
            loss = part()
            (scale * loss).sum().backward()
            losses = losses + loss.detach()
        rows = [tensor.grad.view(len(scale), -1) for tensor in tensors]
        for gradient in rows:
            gradient.div_(scale[:, None])
        finite = torch.stack([gradient.isfinite().all(1) for gradient in rows]).all(0)
        overflown = ~finite & losses.isfinite() & ~diverged & (scale > 1)
        if not overflown.any():
            break
        scale[overflown] /= 2
    diverged |= ~finite | ~losses.isfinite()
    if diverged.any():
        for gradient in rows:
            gradient[diverged] = 0
    optimizer.step()
    return losses


@contextmanager
def checkpointed(policy):
    """Within this context, if the config says so, backward passes compute each layer again.

    transformers does that in training mode alone; `load_quantized` has set all dropout to zero.
    """
    if policy.config.checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    try:
        yield
    finally:
        if policy.config.checkpointing:
            policy.model.gradient_checkpointing_disable()
            policy.model.eval()


def pack(policy, texts):
    """Token ids of texts one after the other, each with its end token: (ids, positions), list[int].

    Positions restart at 0, from which transformers infers that no text attends to another.
    """
    ids, positions, most = [], [], policy.config.max_tokens
    for text in texts:
        if len(ids) < most:
            tokens = [*encode(policy.tokenizer, text)["input_ids"], policy.tokenizer.eos_token_id]
            ids += tokens[: most - len(ids)]
            positions += range(len(ids) - len(positions))
    return ids, positions


def prompt_mask(policy, lesson):
    """Which of a packed lesson's tokens belong to the starts of its texts, (length,) bool."""
    marks, most = [], policy.config.max_tokens
    for text, start in zip(lesson.texts, lesson.starts):
        both = encode(policy.tokenizer, [text, start])["input_ids"]
        marks += [n < len(both[1]) for n in range(len(both[0]) + 1)]
    return torch.tensor(marks[:most], dtype=torch.bool, device=policy.model.device)


def collate(packed, pad_token_id, device):
    """One row for each packed lesson: (model inputs, labels (k, length)).

    Pads, a text of their own, and first tokens have the label -100: nothing is learned from them.
    """
    length = max(len(ids) for ids, _ in packed)
    pads = [length - len(ids) for ids, _ in packed]
    ids = torch.tensor([ids + [pad_token_id] * n for (ids, _), n in zip(packed, pads)])
    positions = torch.tensor([[*own, *range(n)] for (_, own), n in zip(packed, pads)])
    real = torch.arange(length) < length - torch.tensor(pads)[:, None]
    labels = ids.masked_fill(~real | (positions == 0), -100)
    return {"input_ids": ids.to(device), "position_ids": positions.to(device)}, labels.to(device)


def row_losses(model, inputs, labels):
    """Mean cross-entropy per labelled token of each row, in nats: (k,)."""
    logits = model(**inputs, use_cache=False).logits.float().flatten(0, 1)
    after = labels.roll(-1, 1)  # of the token that follows; a row's first token has none
    losses = cross_entropy(logits, after.flatten(), ignore_index=-100, reduction="none")
    return losses.view_as(labels)[:, :-1].sum(1) / (labels[:, 1:] != -100).sum(1).clamp(min=1)


def ask(policy, adapters, questions):
    """Adapter i's answers to its own questions, k lists of prompts: k lists of str.

    One batch for each number of questions, since every adapter of a batch has as many rows.
    """
    answers = [[] for _ in questions]
    for count in sorted(set(map(len, questions)) - {0}):
        rows = [i for i, own in enumerate(questions) if len(own) == count]
        own = adapters if len(rows) == len(questions) else select_adapters(adapters, rows)
        with side_by_side(policy.model, own):
            said = iter(answer(policy, [prompt for i in rows for prompt in questions[i]]))
        for i in rows:
            answers[i] = [next(said) for _ in range(count)]
    return answers


def answer(policy, prompts):
    """The policy's likeliest answer to each prompt, up to the end of its line: list[str]."""
    return policy.write(prompts, max_new_tokens=policy.config.answer_tokens, stops=("\n",))
