"""The inner loop (arXiv:2506.10943, section 3): fork θ, θ' ← SFT(θ, SE), examine θ', reward.

Many self-edits at a time: their adapters lie side by side, one pass through the frozen base serves
them all, and after the exam they are thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby, takewhile
from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .checks import check_length
from .lora import Adapters, fork, select_adapters, side_by_side
from .models.text import encode
from .models.unpacking import large_head, unpacked
from .policy import Policy
from .runs.cache import Cache, Key, compute_missing

if TYPE_CHECKING:
    from .tasks import Item, Task

LOSS_SCALE = 2.0**16  # initial, for models that compute in fp16
PackedTexts = tuple[list[int], list[int]]  # token ids and positions, one of each per token


@dataclass(frozen=True)
class Lesson:
    """What a self-edit asks for: texts to train on, and the schedule of training.

    starts: for each text, the prefix that has no loss; none: all of a text has. per_step: how many
    of the texts a gradient step takes, in turn; None for all. reason: why there is nothing to train
    on, and so no reward, for a self-edit that is not valid.

    >>> Lesson(["It burns."], steps=5, learning_rate=5e-3).steps
    5
    """

    texts: list[str]
    steps: int
    learning_rate: float
    starts: Sequence[str] = ()
    reason: str = ""
    per_step: int | None = None

    def part(self, step: int) -> Lesson:
        """The Lesson of one step's texts alone."""
        width = self.per_step or len(self.texts) or 1
        first = step * width % (len(self.texts) or 1)
        texts = slice(first, first + width)
        return replace(self, texts=self.texts[texts], starts=self.starts[texts])


@dataclass(frozen=True)
class Trial:
    """One self-edit's way through the inner loop.

    losses: mean per token at each step, in nats. tokens: trained on at the first step. reason: why
    there was no exam, and so no reward. cut: tokens left out at the first step, see `max_tokens`.

    >>> Trial("It burns.", reward=0.5, answers=["yes", "no"], losses=[2.0, 1.0], tokens=4).reward
    0.5
    """

    self_edit: str
    reward: float
    answers: list[str]
    losses: list[float]
    tokens: int
    reason: str = ""
    cut: int = 0


def run_trial_batch(
    policy: Policy, task: Task[Item], pairs: Sequence[tuple[Item, str]]
) -> list[Trial]:
    """The Trial of each (item, self-edit) pair, all in one batch; their lessons have one schedule.

    task: a module such as `sealkit.tasks.knowledge`. An invalid self-edit earns 0, untried.
    """
    lessons = [task.lesson(item, edit, policy.config) for item, edit in pairs]
    if lessons[0].reason:
        return [
            Trial(edit, 0.0, [], [], 0, lesson.reason) for (_, edit), lesson in zip(pairs, lessons)
        ]

    # 1. fork the policy's LoRA: θ, k times
    adapters = fork(policy.model, len(pairs))

    # 2. train each fork on its self-edit: θ' ← SFT(θ, SE)
    losses, tokens = sft(policy, adapters, lessons)

    # 3. examine it without the passage: A ~ LM_θ'( · | τ)
    exams = [task.questions(item, policy.config) for item, _ in pairs]
    answers = ask(policy, adapters, exams)

    # 4. grade: r(SE, τ, θ')
    trials = []
    for (item, edit), lesson, given, curve, count in zip(pairs, lessons, answers, losses, tokens):
        cut = sum(map(len, tokenize(policy, lesson.part(0).texts))) - count
        finite = list(takewhile(isfinite, curve))
        reward, reason = 0.0, ""
        if len(finite) == len(curve):
            reward = task.reward(item, given, policy.config)
        else:
            given, step = [""] * len(given), f"training diverged at step {len(finite) + 1}"
            reason = f"{step}: its loss or gradient was not finite"
        trials.append(Trial(edit, reward, given, finite, count, reason, cut))
    return trials


def run_trials(
    policy: Policy,
    task: Task[Item],
    pairs: Sequence[tuple[Item, str]],
    cache: Cache | None = None,
    keys: Sequence[Key] | None = None,
    title: str | None = None,
) -> list[Trial]:
    """The Trial of any number of (item, self-edit) pairs, in their order.

    Lessons of one schedule and of like length are trained side by side, `config.adapters_per_pass`
    at a time. cache, keys (one for each pair), title: see `compute_missing`.
    """
    # 1. each pair's lesson, by key
    cache = {} if cache is None else cache
    pair_of = dict(zip(keys or [("trial", n) for n in range(len(pairs))], pairs, strict=True))
    lessons = {key: task.lesson(*pair, policy.config) for key, pair in pair_of.items()}

    def schedule_of(key: Key) -> tuple[bool, int, float]:
        return bool(lessons[key].reason), lessons[key].steps, lessons[key].learning_rate

    def length(key: Key) -> int:
        return len(pack(policy, lessons[key].part(0).texts)[0])

    def run_batch(keys: list[Key]) -> list[dict]:
        return [
            asdict(trial) for trial in run_trial_batch(policy, task, [pair_of[k] for k in keys])
        ]

    # 2. sort by schedule and length, so that a batch has few pads
    ordered = sorted(pair_of, key=lambda key: (schedule_of(key), length(key)))

    # 3. run what is missing, batch by batch
    results: dict[Key, dict] = {}
    for _, group in groupby(ordered, schedule_of):
        keys, width = list(group), policy.config.adapters_per_pass
        results |= zip(keys, compute_missing(cache, keys, run_batch, width, title))
    return [Trial(**results[key]) for key in pair_of]


def sft(
    policy: Policy,
    adapters: Adapters,
    lessons: Sequence[Lesson],
    penalty: Callable[[Adapters], Tensor] | None = None,
) -> tuple[list[list[float]], list[int]]:
    """θ' ← SFT(θ, SE): train adapter i on lesson i with AdamW, all k in one batch, in place.

    The sum of the losses gives each adapter the gradient of its own mean loss alone, and AdamW
    works elementwise, so each adapter is trained as if by itself. One whose loss or gradient is not
    finite is zeroed; the rest of the batch is unaffected. penalty: adapters -> (k,), added to the
    losses. Returns (losses (k, steps), nan from where one diverged; tokens (k,)).
    """
    # 1. one packed row a lesson, one optimizer for all k adapters
    current = [lesson.part(0) for lesson in lessons]
    inputs, labels, tokens = make_batch(policy, current)
    tensors = [tensor for pair in adapters.values() for tensor in pair]
    optimizer = torch.optim.AdamW(tensors, lr=lessons[0].learning_rate, weight_decay=0.0)
    scale = initial_loss_scales(policy, len(lessons))
    diverged = torch.zeros_like(scale, dtype=torch.bool)
    model, curves = policy.model, []

    # 2. gradient steps, each on the texts of its turn
    with unpacked(model), side_by_side(model, adapters), checkpointed(policy), torch.enable_grad():
        for step in range(lessons[0].steps):
            texts = [lesson.part(step) for lesson in lessons]
            if texts != current:
                current, (inputs, labels, _) = texts, make_batch(policy, texts)
            parts = [partial(row_losses, model, inputs, labels)]
            parts += [partial(penalty, adapters)] if penalty else []
            losses = optimizer_step(optimizer, scale, parts, diverged)
            curves.append(losses.masked_fill(diverged, torch.nan))

    # 3. an adapter that diverged has learned nothing
    for tensor in tensors:
        tensor.data[diverged] = 0
    return torch.stack(curves).T.tolist(), tokens


def make_batch(
    policy: Policy, lessons: Sequence[Lesson]
) -> tuple[dict[str, Tensor], Tensor, list[int]]:
    """All texts of each lesson in one row: (model inputs, labels (k, length), tokens (k,))."""
    packed = [pack(policy, lesson.texts) for lesson in lessons]
    check_length(policy.model, 1 + max(max(positions) for _, positions in packed))
    inputs, labels = collate(packed, policy.tokenizer.pad_token_id, policy.model.device)
    for row, lesson in zip(labels, lessons):
        masked = prompt_mask(policy, lesson)
        row[: len(masked)][masked] = -100
    return inputs, labels, [len(ids) for ids, _ in packed]


def initial_loss_scales(policy: Policy, k: int) -> Tensor:
    """Factors (k,) that keep small gradients from underflowing in fp16; 1 in other dtypes."""
    scale = LOSS_SCALE if policy.model.dtype == torch.float16 else 1.0
    return torch.full((k,), scale, device=policy.model.device)


def optimizer_step(
    optimizer: torch.optim.Optimizer,
    scale: Tensor,
    parts: Sequence[Callable[[], Tensor]],
    diverged: Tensor,
) -> Tensor:
    """One step for k sets of parameters (k, ...), each on its own loss. Returns the losses (k,).

    parts: functions of losses (k,), which are added up. scale: (k,), the factor of each loss in the
    backward pass; where a gradient overflows, only that one is halved and the step tried again.
    diverged: (k,) bool, receives what is not finite at any scale; its gradient is zeroed, and the
    rest of the batch is unaffected.
    """
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    while True:
        optimizer.zero_grad()  # first: whoever trained these tensors last may have left gradients
        losses = torch.zeros_like(scale)
        for part in parts:
            loss = part()
            (scale * loss).sum().backward()
            losses = losses + loss.detach()
        gradients = [tensor.grad.view(len(scale), -1) for tensor in tensors]
        for gradient in gradients:
            gradient.div_(scale[:, None])
        finite = torch.stack([gradient.isfinite().all(1) for gradient in gradients]).all(0)
        overflown = ~finite & losses.isfinite() & ~diverged & (scale > 1)
        if not overflown.any():
            break
        scale[overflown] /= 2
    diverged |= ~finite | ~losses.isfinite()
    if diverged.any():
        for gradient in gradients:
            gradient[diverged] = 0
    optimizer.step()
    return losses


def shuffled_batches(
    count: int, epochs: int, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Mini-batches of the indices below `count`, each epoch in a new order; (<= batch_size,)."""
    for _ in range(epochs if count else 0):
        yield from torch.randperm(count, generator=generator).split(batch_size)


@contextmanager
def checkpointed(policy: Policy) -> Iterator[None]:
    """Within this context, if the config says so, backward passes recompute each layer.

    transformers does that in training mode alone, in which a LoRA's dropout stays off too, as
    `load_quantized` has set the model's own to zero: the same seed gives the same bits.
    """
    model, checkpointing = policy.model.eval(), policy.config.checkpointing
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    if checkpointing:  # transformers has renamed it
        getattr(model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
        for module in model.modules():
            module.training = not isinstance(module, nn.Dropout)
    try:
        yield
    finally:
        if checkpointing:
            getattr(model, f"{kind}_checkpointing_disable")()
            model.eval()


def tokenize(policy: Policy, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text with its end token."""
    return [[*ids, policy.tokenizer.eos_token_id] for ids in encode(policy.tokenizer, texts)]


def pack(policy: Policy, texts: Sequence[str]) -> PackedTexts:
    """Token ids of texts one after the other, each with its end token: (ids, positions).

    Positions restart at 0, from which transformers infers that no text attends to another. If there
    are more than `config.max_tokens`, the longest texts are cut: a long passage leaves room for its
    self-edit.
    """
    rows, most = tokenize(policy, texts), policy.config.max_tokens
    kept = share_tokens([len(row) for row in rows], most)
    ids = [token for row, n in zip(rows, kept) for token in row[:n]]
    return ids[:most], [place for n in kept for place in range(n)][:most]


def share_tokens(lengths: Sequence[int], most: int) -> list[int]:
    """How many tokens of each text are kept: all, or of the longest ones equally many, up to one.

    >>> share_tokens([600, 8, 9], 512), share_tokens([600, 600, 5], 512)
    ([495, 8, 9], [253, 254, 5])
    """
    kept, room = list(lengths), most
    shortest_first = sorted(range(len(lengths)), key=lengths.__getitem__)
    for left, i in zip(range(len(lengths), 0, -1), shortest_first):
        kept[i] = min(lengths[i], max(room // left, 2))
        room -= kept[i]
    return kept


def prompt_mask(policy: Policy, lesson: Lesson) -> Tensor:
    """Which tokens of a packed lesson belong to the starts of its texts, (length,) bool."""
    texts = lesson.texts if lesson.starts else ()
    ids, starts = (encode(policy.tokenizer, each) for each in (texts, lesson.starts))
    most = policy.config.max_tokens
    kept = share_tokens([len(row) + 1 for row in ids], most)
    marks = [place < len(start) for n, start in zip(kept, starts) for place in range(n)]
    return torch.tensor(marks[:most], dtype=torch.bool, device=policy.model.device)


def collate(
    packed: Sequence[PackedTexts], pad_token_id: int, device: torch.device
) -> tuple[dict[str, Tensor], Tensor]:
    """One row for each packed lesson: (model inputs, labels (k, length)).

    Pads, a text of their own, and first tokens have the label -100: nothing is learned from them.
    """
    length = max(len(ids) for ids, _ in packed)
    pads = [length - len(ids) for ids, _ in packed]
    ids = torch.tensor([row + [pad_token_id] * n for (row, _), n in zip(packed, pads)])
    positions = torch.tensor([[*row, *range(n)] for (_, row), n in zip(packed, pads)])
    real = torch.arange(length) < length - torch.tensor(pads)[:, None]
    labels = ids.masked_fill(~real | (positions == 0), -100)
    return {"input_ids": ids.to(device), "position_ids": positions.to(device)}, labels.to(device)


def row_losses(model: torch.nn.Module, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """Mean cross-entropy per labelled token of each row, in nats: (k,).

    A large head computes logits only where a row of the batch has a label.
    """
    after = labels[:, 1:]  # of the token that follows; a row's first token has none
    options = {}
    if large_head(model) is not None and not labels.is_meta:  # where no value is known
        places = (after != -100).any(0).nonzero().flatten()
        options, after = {"logits_to_keep": places}, after[:, places]
    logits = model(**inputs, **options, use_cache=False).logits[:, : after.shape[1]]
    flat = logits.float().flatten(0, 1), after.flatten()
    losses = cross_entropy(*flat, ignore_index=-100, reduction="none")
    return losses.view_as(after).sum(1) / (after != -100).sum(1).clamp(min=1)


def ask(policy: Policy, adapters: Adapters, exams: Sequence[Sequence[str]]) -> list[list[str]]:
    """Adapter i's answers to its own exam, k lists of prompts: k lists of answers.

    One batch for each number of questions, since every adapter of a batch has as many rows.
    """
    answers: list[list[str]] = [[] for _ in exams]
    for count in sorted({len(exam) for exam in exams} - {0}):
        rows = [i for i, exam in enumerate(exams) if len(exam) == count]
        batch = adapters if len(rows) == len(exams) else select_adapters(adapters, rows)
        with side_by_side(policy.model, batch):
            remaining = iter(answer(policy, [prompt for i in rows for prompt in exams[i]]))
        for i in rows:
            answers[i] = [next(remaining) for _ in range(count)]
    return answers


def answer(policy: Policy, prompts: Sequence[str]) -> list[str]:
    """The policy's greedy answer to each prompt, up to the end of its line."""
    return policy.write(prompts, max_new_tokens=policy.config.answer_tokens, stops=("\n",))
