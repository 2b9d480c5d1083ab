"""The inner loop (arXiv:2506.10943, section 3): fork θ, θ' ← SFT(θ, SE), ask θ', reward; then θ' is
thrown away.

For many self-edits at once: their adapters lie side by side, and one pass through the frozen base
serves them all.
"""

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby, takewhile
from math import isfinite

import torch
from torch.nn.functional import cross_entropy

from .lora import chosen, fork, side_by_side
from .memo import remembered
from .policy import encode

LOSS_SCALE = 2.0**16  # at first, for models that compute in fp16


@dataclass(frozen=True)
class Lesson:
    """What a self-edit asks for: texts to train on, and how."""

    texts: list[str]
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class Trial:
    """One self-edit's way through the inner loop."""

    self_edit: str
    reward: float
    answers: list[str]
    losses: list[float]  # mean per token at each step, in nats
    tokens: int  # trained on at each step
    reason: str = ""  # why there was no exam, and so no reward


def try_out(policy, task, pairs):
    """One pass: the Trial of each (item, self-edit), all side by side; their lessons have the same
    pace.

    task: a module such as `sealkit.tasks.knowledge`.
    """
    lessons = [task.lesson(item, edit, policy.recipe) for item, edit in pairs]
    adapters = fork(policy.model, len(pairs))  # θ, k times
    losses, tokens = sft(policy, adapters, lessons)  # θ' ← SFT(θ, SE)
    questions = [task.questions(item, policy.recipe) for item, _ in pairs]
    said = ask(policy, adapters, questions)  # A ~ LM_θ'( · | τ), without C
    trials = []
    for (item, edit), answers, loss, count in zip(pairs, said, losses, tokens):
        finite, reason, reward = (
            list(takewhile(isfinite, loss)),
            "",
            task.reward(item, answers),
        )  # r(SE, τ, θ')
        if len(finite) < len(loss):
            reason = (
                f"training diverged at step {len(finite) + 1}: its loss or gradient was not finite"
            )
            answers, reward = [""] * len(answers), 0.0
        trials.append(Trial(edit, reward, answers, finite, count, reason))
    return trials


def run_trials(policy, task, pairs, memo=None, keys=None, title=None):
    """The inner loop for any number of (item, self-edit) pairs: list[Trial] in their order.

    Lessons of one pace and of like length are trained side by side, `recipe.adapters_per_pass` at a
    time. memo, keys: where to note each pair's trial, see `remembered`.
    """
    memo, keys = {} if memo is None else memo, keys or [("trial", n) for n in range(len(pairs))]
    lessons = [task.lesson(item, edit, policy.recipe) for item, edit in pairs]
    lengths = [len(pack(policy, lesson.texts)[0]) for lesson in lessons]
    place = {key: n for n, key in enumerate(keys)}

    def pace(key):
        return lessons[place[key]].steps, lessons[place[key]].learning_rate

    def one_pass(some):
        return [
            asdict(trial) for trial in try_out(policy, task, [pairs[place[key]] for key in some])
        ]

    done = {}
    for _, group in groupby(
        sorted(keys, key=lambda key: (*pace(key), lengths[place[key]])), key=pace
    ):
        group = list(group)
        done |= zip(
            group, remembered(memo, group, one_pass, policy.recipe.adapters_per_pass, title)
        )
    return [Trial(**done[key]) for key in keys]


def sft(policy, adapters, lessons):
    """Train adapter i on lesson i with AdamW, all in one batch: θ' ← SFT(θ, SE). Changes
    `adapters`.

    The sum over rows has for each adapter the gradient of its own mean loss alone, and AdamW works
    by element, so every adapter goes the way that it would go by itself. One whose loss or gradient
    is not finite is set to zero and harms nobody. Returns (losses, k lists of `steps` floats, nan
    from where one diverged; tokens, k ints).
    """
    packed = [pack(policy, lesson.texts) for lesson in lessons]
    inputs, labels = collate(packed, policy.tokenizer.pad_token_id, policy.model.device)
    tensors = [tensor for pair in adapters.values() for tensor in pair]
    optimizer = torch.optim.AdamW(tensors, lr=lessons[0].learning_rate, weight_decay=0.0)
    scale = first_scale(policy, len(lessons))
    diverged, losses = torch.zeros_like(scale, dtype=torch.bool), []
    with side_by_side(policy.model, adapters), checkpointed(policy), torch.enable_grad():
        for _ in range(lessons[0].steps):
            loss = descend(
                optimizer, scale, [lambda: row_losses(policy.model, inputs, labels)], diverged
            )
            losses.append(loss.masked_fill(diverged, torch.nan))
    with torch.no_grad():
        for tensor in tensors:
            tensor[diverged] = 0
    return torch.stack(losses).T.tolist(), [len(ids) for ids, _ in packed]


def first_scale(policy, k):
    """The factors, (k,), that keep small gradients from vanishing in fp16; 1 in other dtypes."""
    return torch.full(
        (k,), LOSS_SCALE if policy.model.dtype == torch.float16 else 1.0, device=policy.model.device
    )


def descend(optimizer, scale, parts, diverged):
    """One step of `optimizer` for k sets of parameters (k, ...), each down its own loss. Returns
    the losses (k,).

    parts: functions of losses (k,) to be added up. scale: (k,), the factor of each loss in the
    backward pass. Where a gradient overflows, its own factor is halved and the step tried again, so
    that one adapter's overflow is not its neighbours' business. What is not finite at any scale is
    marked in `diverged`, (k,) bool, and has no gradient.
    """
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    while True:
        optimizer.zero_grad()  # before, not after: whoever trained these tensors last may have left gradients
        losses = 0
        for part in parts:
            loss = part()
            (scale * loss).sum().backward()
            losses = losses + loss.detach()
        for tensor in tensors:
            tensor.grad.view(len(scale), -1).div_(scale[:, None])
        finite = torch.stack(
            [tensor.grad.view(len(scale), -1).isfinite().all(1) for tensor in tensors]
        ).all(0)
        again = ~finite & losses.isfinite() & ~diverged & (scale > 1)
        if not again.any():
            break
        scale[again] /= 2
    diverged |= ~finite | ~losses.isfinite()
    if diverged.any():
        for tensor in tensors:
            tensor.grad.view(len(scale), -1)[diverged] = 0
    optimizer.step()
    return losses


@contextmanager
def checkpointed(policy):
    """Within this context, if the recipe says so, backward passes compute each layer again to save
    memory.

    transformers does that in training mode alone; `load_quantized` has set every dropout to zero.
    """
    if policy.recipe.checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    try:
        yield
    finally:
        if policy.recipe.checkpointing:
            policy.model.gradient_checkpointing_disable()
            policy.model.eval()


def pack(policy, texts):
    """Token ids of several texts one after the other, each with its end token: (ids, positions),
    both list[int].

    Positions restart at 0 with each text, from which transformers infers that none attends to
    another.
    """
    ids, positions, most = [], [], policy.recipe.max_tokens
    for text in texts:
        if len(ids) == most:
            break
        tokens = [*encode(policy.tokenizer, text)["input_ids"], policy.tokenizer.eos_token_id][
            : most - len(ids)
        ]
        ids += tokens
        positions += range(len(tokens))
    return ids, positions


def collate(packed, pad_token_id, device):
    """One row for each packed lesson: (model inputs, labels (k, length)).

    Pads, which are a text of their own, and first tokens have the label -100: nothing is learned
    from them.
    """
    length = max(len(ids) for ids, _ in packed)
    rows = [(length - len(ids), ids, positions) for ids, positions in packed]
    ids = torch.tensor([ids + [pad_token_id] * pads for pads, ids, _ in rows])
    positions = torch.tensor([positions + [*range(pads)] for pads, _, positions in rows])
    labels = ids.masked_fill(positions == 0, -100)
    for row, (own, _) in zip(labels, packed):
        row[len(own) :] = -100
    return {"input_ids": ids.to(device), "position_ids": positions.to(device)}, labels.to(device)


def row_losses(model, inputs, labels):
    """Mean cross-entropy per labelled token of each row, in nats: (k,)."""
    logits = model(**inputs, use_cache=False).logits[:, :-1].float()
    losses = cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="none"
    )
    counts = (labels[:, 1:] != -100).sum(1)
    return losses.view(len(labels), -1).sum(1) / counts.clamp(min=1)


def ask(policy, adapters, questions):
    """Adapter i's answers to its own questions, k lists of prompts: k lists of str.

    One batch for each number of questions, since every adapter of a batch has as many rows.
    """
    answers = [None] * len(questions)
    for count in sorted(set(map(len, questions))):
        rows = [i for i, own in enumerate(questions) if len(own) == count]
        own = adapters if len(rows) == len(questions) else chosen(adapters, rows)
        with side_by_side(policy.model, own):
            said = iter(answer(policy, [prompt for i in rows for prompt in questions[i]]))
        for i in rows:
            answers[i] = [next(said) for _ in range(count)]
    return answers


def answer(policy, prompts):
    """The policy's likeliest answer to each prompt, up to the end of its line: list[str]."""
    return policy.write(prompts, max_new_tokens=policy.recipe.answer_tokens, stops=("\n",))
