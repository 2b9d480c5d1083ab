"""The outer loop, ReSTEM: max_θ E[r(SE, τ, θ')] by sampling self-edits and SFT on the best.

arXiv:2506.10943, section 3.1; arXiv:2312.06585.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice, product
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .checks import check_length
from .inner_loop import (
    Trial,
    answer,
    checkpointed,
    initial_loss_scales,
    optimizer_step,
    row_losses,
    run_trials,
    shuffled_batches,
)
from .models.text import encode
from .models.unpacking import unpacked
from .policy import Policy, Weights, seed_of
from .runs.cache import Cache, Key, compute_missing

if TYPE_CHECKING:
    from .tasks import Item, Task

Rewards = tuple[float, ...]  # (items,)
Trials = tuple[tuple[Trial, ...], ...]  # (items, k)


@dataclass(frozen=True)
class Iteration:
    """One E-step and M-step of `seal`; printed, it is the log of both. Rewards are in [0, 1].

    names: of the items. baseline_rewards: of each item without adaptation. item_only_rewards: after
    training on the item alone, what a self-edit has to beat. trials: k for each item. kept: the
    (item, candidate) pairs that the policy was finetuned on. losses: of the M-step's gradient
    steps, in nats per token. weights: the policy's LoRA tensors afterwards.

    >>> trial = Trial("It burns.", reward=0.5, answers=["yes"], losses=[2.0, 1.0], tokens=4)
    >>> Iteration(1, ("Lamp",), (0.0,), (0.0,), ((trial,),), ((0, 0),), (2.0, 1.0), {}).mean_reward
    0.5
    """

    number: int
    names: tuple[str, ...]
    baseline_rewards: Rewards
    item_only_rewards: Rewards
    trials: Trials
    kept: tuple[tuple[int, int], ...]
    losses: tuple[float, ...]
    weights: Weights

    @property
    def mean_reward(self) -> float:
        """Mean reward of all self-edits."""
        rewards = [trial.reward for of_item in self.trials for trial in of_item]
        return sum(rewards) / len(rewards)

    def __str__(self) -> str:
        return format_log(self)


@dataclass(frozen=True)
class History:
    """A run: the policy's model as it ended, its LoRA tensors at the start, and its iterations.

    >>> History(None, {}, ()).iterations
    ()
    """

    model: torch.nn.Module | None
    start: Weights
    iterations: tuple[Iteration, ...]


def seal(
    policy: Policy,
    task: Task[Item],
    items: Sequence[Item],
    k: int = 5,
    seed: int = 0,
    cache: Cache | None = None,
) -> Iterator[Iteration]:
    """Yield an Iteration after each policy update, for as long as the caller asks.

    policy: changed by the loop. task: a module such as `sealkit.tasks.knowledge`. items: what it
    learns, such as passages. k: self-edits sampled for each. cache: results that are there already,
    and where new ones go.

    >>> import sealkit
    >>> from sealkit.tasks import knowledge
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> config = sealkit.config_for(tokenizer)
    >>> policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    >>> next(seal(policy, knowledge, sealkit.load_passages("bundled", limit=1), k=1)).number
    1
    """
    cache = {} if cache is None else cache
    (first,) = compute_missing(cache, [("policy", 0)], lambda _: [{"weights": policy.weights()}], 1)
    policy.load(first["weights"])
    names = tuple(str(task.name(item)[0]) for item in items)
    for t in count(1):
        # 1. E-step: sample k self-edits an item and run a trial of each: r(SE, τ, θ')
        baseline, item_only, trials = e_step(policy, task, items, t, k, seed, cache)

        # 2. select: the self-edits whose reward earned it
        kept = []
        for i, of_item in enumerate(trials):
            rewards = [trial.reward for trial in of_item]
            kept += [(i, j) for j in policy.config.keep(rewards, item_only[i])]
        chosen = [(items[i], trials[i][j].self_edit) for i, j in kept]
        examples = [text for pair in chosen for text in written_texts(policy, task, *pair)]

        # 3. M-step: θ ← argmax_θ Σ log LM_θ(SE | C) over the self-edits kept
        def update(
            keys: list[Key], t: int = t, examples: list = examples, kept: list = kept
        ) -> list[dict]:
            if examples:  # from the first policy, as ReST-EM: from the last one it overfits
                policy.load(first["weights"])
            losses = m_step(policy, examples, (seed, t))
            return [{"losses": losses, "weights": policy.weights(), "kept": kept}]

        (updated,) = compute_missing(cache, [("policy", t)], update, 1, f"iteration {t}: M-step")
        policy.load(updated["weights"])
        losses, weights = tuple(updated["losses"]), updated["weights"]
        yield Iteration(t, names, baseline, item_only, trials, tuple(kept), losses, weights)


def e_step(
    policy: Policy,
    task: Task[Item],
    items: Sequence[Item],
    t: int,
    k: int = 5,
    seed: int = 0,
    cache: Cache | None = None,
) -> tuple[Rewards, Rewards, Trials]:
    """Sample k self-edits an item and run a trial of each, in iteration t.

    Returns (baseline rewards (items,), item-only rewards (items,), trials (items, k)).
    """
    cache, n = {} if cache is None else cache, range(len(items))
    width, title = policy.config.texts_per_pass, f"iteration {t}: "

    # 1. examine the policy as it is: A ~ LM_θ( · | τ)
    def examine(keys: list[Key]) -> list[float]:
        batch = [items[i] for *_, i in keys]
        answers = answer_exams(policy, task, batch)
        return [task.reward(*pair, policy.config) for pair in zip(batch, answers)]

    keys: list[Key] = [("before", t, i) for i in n]
    baseline = compute_missing(cache, keys, examine, width, f"{title}exams")

    # 2. sample self-edits: SE ~ LM_θ( · | C)
    def write(keys: list[Key]) -> list[str]:
        return write_self_edits(policy, task, [(items[i], j) for *_, i, j in keys], (seed, t))

    cells = list(product(n, range(k)))
    keys = [("self-edit", t, *cell) for cell in cells]
    edits = compute_missing(cache, keys, write, width, f"{title}self-edits")

    # 3. run the inner loop on each, and on each item alone: r(SE, τ, SFT(θ, SE))
    edit_of = {(i, None): "" for i in n} | dict(zip(cells, edits))
    pairs = [(items[i], edit) for (i, _), edit in edit_of.items()]
    keys = [("trial", t, *cell) for cell in edit_of]
    trials = run_trials(policy, task, pairs, cache, keys, f"{title}inner loops")
    trial_of = dict(zip(edit_of, trials))
    item_only = tuple(trial_of[i, None].reward for i in n)
    return tuple(baseline), item_only, tuple(tuple(trial_of[i, j] for j in range(k)) for i in n)


def write_self_edits(
    policy: Policy,
    task: Task[Item],
    requests: Sequence[tuple[Item, int]],
    seed: object,
    style: str | None = None,
) -> list[str]:
    """Sample the self-edit of each request, an (item, candidate) pair: list[str].

    Each is drawn from (seed, item, style, candidate) alone, whatever stands beside it; if the seed
    is None, greedily. Where an item has several parts, its self-edit has a line of each.
    """
    config, texts = policy.config, []
    width = config.texts_per_pass
    sampling = config.max_new_tokens, config.temperature, config.top_p, config.prompts.stops
    parts = [task.parts(item, config) for item, _ in requests]
    each = [(part, j) for of_item, (_, j) in zip(parts, requests) for part in of_item]
    for batch in (each[i : i + width] for i in range(0, len(each), width)):
        prompts = [task.prompt(part, config, style) for part, _ in batch]
        drawn = [seed_of(seed, *task.name(part), style, j) for part, j in batch]
        seeds = None if seed is None else drawn
        texts += policy.write(prompts, seeds, *sampling)
    remaining = iter(texts)
    edits = ["\n".join(islice(remaining, len(of_item))) for of_item in parts]
    return ["\n".join(edit.split("\n")[: config.max_lines]) for edit in edits]


def written_texts(policy: Policy, task: Task[Item], item: Item, edit: str) -> list[tuple[str, str]]:
    """(prompt, text) pairs of a self-edit, as `write_self_edits` wrote it: one of each part."""
    parts = task.parts(item, policy.config)
    texts = [edit] if len(parts) == 1 else edit.split("\n")
    return [(task.prompt(part, policy.config), text) for part, text in zip(parts, texts)]


def answer_exams(
    policy: Policy, task: Task[Item], items: Sequence[Item], in_context: bool = False
) -> list[list[str]]:
    """The policy's answers to each item's questions, without adaptation: (items, questions)."""
    exams = [task.questions(item, policy.config, in_context) for item in items]
    prompts = [prompt for exam in exams for prompt in exam]
    width, answers = policy.config.texts_per_pass, []
    for i in range(0, len(prompts), width):
        answers += answer(policy, prompts[i : i + width])
    remaining = iter(answers)
    return [[next(remaining) for _ in exam] for exam in exams]


def m_step(policy: Policy, examples: Sequence[tuple[str, str]], seed: object = 0) -> list[float]:
    """Finetune the policy's LoRA on (prompt, self-edit) pairs, the loss on the self-edit alone.

    Starts from the policy's present LoRA. Returns the loss of each gradient step, in nats per
    token. Raises FloatingPointError if it diverges.
    """
    rows = sft_rows(policy, examples)

    def losses(part: Tensor) -> Tensor:
        ids, labels = pad_rows(policy, [rows[i] for i in part])
        return row_losses(policy.model, {"input_ids": ids}, labels)

    return finetune(policy, len(rows), losses, seed)


def finetune(
    policy: Policy,
    count: int,
    losses_of: Callable[[Tensor], Tensor],
    seed: object = 0,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[float]:
    """Epochs of shuffled mini-batches on the policy's LoRA, as its config says.

    losses_of: indices (n,) below `count` -> the loss of each such example, (n,). optimizer: one
    that goes on from an earlier call (`lora_optimizer`), else a new one. Returns the mean loss of
    each gradient step. Raises FloatingPointError if it diverges.
    """
    # 1. let gradients reach the LoRA
    config, losses = policy.config, []
    optimizer = optimizer or lora_optimizer(policy)
    order = torch.Generator().manual_seed(seed_of("m-step", seed))
    scale = initial_loss_scales(policy, 1)
    diverged = torch.zeros_like(scale, dtype=torch.bool)

    def share_of(part: Tensor, batch: Tensor) -> Tensor:
        return losses_of(part).mean()[None] * (len(part) / len(batch))

    # 2. epochs of shuffled mini-batches, each in parts of `rows_per_pass` examples
    with unpacked(policy.model), checkpointed(policy):
        for batch in shuffled_batches(count, config.epochs, config.batch_size, order):
            parts = [partial(share_of, part, batch) for part in batch.split(config.rows_per_pass)]
            losses.append(optimizer_step(optimizer, scale, parts, diverged).item())
            if diverged.any():
                raise FloatingPointError(
                    "The M-step's loss or its gradient is not finite: take a lower learning rate, "
                    "or in float16 a GPU with bfloat16."
                )
    optimizer.zero_grad()
    return losses


def lora_optimizer(policy: Policy) -> torch.optim.AdamW:
    """AdamW on the policy's LoRA, at the config's learning rate for M-steps."""
    lora = [tensor for name, tensor in policy.model.named_parameters() if "lora_" in name]
    for tensor in lora:
        tensor.requires_grad_()
    return torch.optim.AdamW(lora, lr=policy.config.m_step_learning_rate, weight_decay=0.0)


def pad_rows(policy: Policy, rows: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """(ids, labels) of rows as `sft_example` makes them, each (rows, longest); pads are -100."""
    ids, labels = (
        pad_sequence(list(column), batch_first=True, padding_value=value).to(policy.model.device)
        for column, value in zip(zip(*rows), (policy.tokenizer.pad_token_id, -100))
    )
    return ids, labels


def sft_rows(policy: Policy, examples: Sequence[tuple[str, str]]) -> list[tuple[Tensor, Tensor]]:
    """`sft_example` of each (prompt, self-edit) pair. Raises ValueError for one that is too long
    for the model."""
    rows = [sft_example(policy, *example) for example in examples]
    check_length(policy.model, max((len(ids) for ids, _ in rows), default=0))
    return rows


def sft_example(policy: Policy, prompt: str, edit: str) -> tuple[Tensor, Tensor]:
    """(ids, labels) of prompt and self-edit for SFT, each (length,); the prompt's are -100."""
    tokens, prefix = encode(policy.tokenizer, [f"{prompt} {edit}", prompt])
    shared = [a == b for a, b in zip(prefix, tokens)]  # a tokenizer may merge across the seam
    ids = torch.tensor([*tokens, policy.tokenizer.eos_token_id])
    labels = ids.clone()
    labels[: [*shared, False].index(False)] = -100
    return ids, labels


def format_log(iteration: Iteration, item: str = "passage") -> str:
    """The log of an Iteration: rewards of each item, loss and reward of each self-edit, update."""
    count, k = len(iteration.trials), len(iteration.trials[0])
    title = f"--- SEAL iteration {iteration.number} (ReSTEM): {count} {item}s"
    lines = [f"{title}, {k} self-edits each ---"]
    columns = iteration.names, iteration.trials, iteration.baseline_rewards
    for i, (name, trials, baseline) in enumerate(zip(*columns)):
        rewards = f"closed book {baseline:.0%}, {item} only {iteration.item_only_rewards[i]:.0%}"
        lines.append(f"{item.title()} {i + 1}/{count} {excerpt(name)}: {rewards}")
        for j, trial in enumerate(trials):
            line = f"    QLoRA SFT on self-edit {j + 1} {excerpt(trial.self_edit)}: "
            line += trial.reason or f"loss {trial.losses[0]:.2f} → {trial.losses[-1]:.2f}"
            line += f", {trial.cut} tokens cut" if trial.cut else ""
            kept = " (kept)" if (i, j) in iteration.kept else ""
            lines.append(f"{line}, reward {trial.reward:.0%}{kept}")
    item_only = sum(iteration.item_only_rewards) / count
    lines.append(f"Mean reward {iteration.mean_reward:.1%}, {item} only {item_only:.1%}.")
    if iteration.kept:
        first, last = iteration.losses[0], iteration.losses[-1]
        lines[-1] += f" Policy updated: SFT of its LoRA on {len(iteration.kept)} self-edits,"
        lines[-1] += f" loss {first:.2f} → {last:.2f}."
    else:
        lines[-1] += f" No self-edit beat the {item} alone: policy unchanged."
    return "\n".join([*lines, ""])


def excerpt(text: str, width: int = 48) -> str:
    """The start of a text, quoted, on one line, with control characters escaped: safe to print."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")
