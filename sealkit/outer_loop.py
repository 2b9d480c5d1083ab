"""The outer loop, ReSTEM (arXiv:2506.10943, section 3.1; arXiv:2312.06585): sample, try out, keep,
learn from it.

max_θ E[r(SE, τ, θ')] over SE ~ LM_θ( · | C), with the reward of a self-edit taken as fixed while θ
is trained on it.
"""

import hashlib
from dataclasses import asdict, dataclass
from itertools import count, islice, product

import torch
from torch.nn.utils.rnn import pad_sequence

from .inner_loop import Trial, answer, checkpointed, descend, first_scale, row_losses, run_trials
from .memo import fingerprint, machine_of, open_run, remembered
from .policy import encode, seed_of
from .report import story


@dataclass(frozen=True)
class Iteration:
    """One E-step and M-step; printed, it is the log of both. All rewards are in [0, 1]."""

    number: int  # from 1
    names: tuple[str, ...]  # of the items
    before: tuple[float, ...]  # reward without adaptation, for each item
    alone: tuple[float, ...]  # after training on the item alone: what a self-edit has to beat
    trials: tuple[tuple[Trial, ...], ...]  # k for each item
    kept: tuple[tuple[int, int], ...]  # (item, candidate) that the policy was finetuned on
    losses: tuple[float, ...]  # of the M-step, one for each gradient step, in nats per token
    policy: dict  # the policy's LoRA tensors afterwards, as PEFT names them

    @property
    def mean_reward(self):
        """Mean reward of all self-edits."""
        rewards = [trial.reward for trials in self.trials for trial in trials]
        return sum(rewards) / len(rewards)

    def __str__(self):
        return story(self)


@dataclass(frozen=True)
class History:
    """A run: the policy's model as it ended, its LoRA tensors at the start, and its iterations."""

    policy: torch.nn.Module
    start: dict
    iterations: tuple[Iteration, ...]


def seal(policy, task, items, k=5, seed=0, memo=None):
    """Yield an Iteration after each policy update, for as long as someone asks: `itertools.islice`
    says how many.

    policy: a `Policy`, which the loop changes. task: a module such as `sealkit.tasks.knowledge`,
    whose items these are. memo: results by key that are there already, and where new ones go; a
    `Journal` makes the run outlive its process.
    """
    memo, recipe = {} if memo is None else memo, policy.recipe
    (first,) = remembered(memo, [("policy", 0)], lambda keys: [{"weights": policy.weights()}], 1)
    policy.load(first["weights"])
    for t in count(1):
        before, alone, trials = e_step(policy, task, items, t, k, seed, memo)
        kept = [
            (i, j)
            for i, own in enumerate(trials)
            for j in recipe.keep([trial.reward for trial in own], alone[i])
        ]

        def update(keys):
            if (
                kept
            ):  # anew from the first policy, as ReST-EM does: going on from the last one overfits
                policy.load(first["weights"])
            examples = [(task.prompt(items[i], recipe), trials[i][j].self_edit) for i, j in kept]
            return [{"losses": m_step(policy, examples, (seed, t)), "weights": policy.weights()}]

        (done,) = remembered(memo, [("policy", t)], update, 1)
        policy.load(done["weights"])
        names = tuple(str(task.name(item)[0]) for item in items)
        yield Iteration(
            t, names, before, alone, trials, tuple(kept), tuple(done["losses"]), done["weights"]
        )


def e_step(policy, task, items, t, k=5, seed=0, memo=None):
    """Sample k self-edits an item, run the inner loop on each: (before, alone, trials), see
    `Iteration`."""
    memo, recipe, n = {} if memo is None else memo, policy.recipe, range(len(items))

    def examine(keys):  # A ~ LM_θ( · | τ)
        some = [items[i] for *_, i in keys]
        return list(map(task.reward, some, answers_to(policy, task, some)))

    def write(keys):  # SE ~ LM_θ( · | C)
        return write_self_edits(policy, task, [(items[i], j) for *_, i, j in keys], (seed, t))

    before = remembered(memo, [("before", t, i) for i in n], examine, recipe.texts_per_pass)
    cells = list(product(n, range(k)))
    texts = remembered(
        memo, [("self-edit", t, *cell) for cell in cells], write, recipe.texts_per_pass
    )
    edits = {(i, None): "" for i in n} | dict(zip(cells, texts))
    tried = run_trials(
        policy,
        task,
        [(items[i], edit) for (i, _), edit in edits.items()],
        memo,
        [("trial", t, *cell) for cell in edits],
        f"inner loops, iteration {t}",
    )  # r(SE, τ, SFT(θ, SE))
    trial = dict(zip(edits, tried))
    alone = tuple(trial[i, None].reward for i in n)
    return tuple(before), alone, tuple(tuple(trial[i, j] for j in range(k)) for i in n)


def write_self_edits(policy, task, wanted, seed, style=None):
    """The self-edit of each (item, candidate), drawn from (seed, item, style, candidate) alone:
    list[str]."""
    seeds, recipe = [seed_of(seed, *task.name(item), style, j) for item, j in wanted], policy.recipe
    return policy.write(
        [task.prompt(item, recipe, style) for item, _ in wanted],
        seeds,
        recipe.max_new_tokens,
        recipe.temperature,
        recipe.top_p,
        recipe.prompts.stops,
    )


def answers_to(policy, task, items, in_context=False):
    """The policy's own answers to each item's questions, without adaptation: list of list[str]."""
    questions = [task.questions(item, policy.recipe, in_context) for item in items]
    said = iter(answer(policy, [prompt for own in questions for prompt in own]))
    return [[next(said) for _ in own] for own in questions]


def m_step(policy, examples, seed=0):
    """Finetune the policy's LoRA on (prompt, kept self-edit) pairs, with the loss on the self-edit
    alone.

    θ ← argmax_θ Σ log LM_θ(SE | C) over what was kept. Goes on from the policy's present LoRA.
    Returns the loss of each gradient step, in nats per token. Raises FloatingPointError if it
    diverges.
    """
    recipe, rows = policy.recipe, [supervised(policy, *example) for example in examples]
    order = torch.Generator().manual_seed(seed_of("m-step", seed))
    lora = [parameter for name, parameter in policy.model.named_parameters() if "lora_" in name]
    for parameter in lora:
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(lora, lr=recipe.m_step_learning_rate, weight_decay=0.0)
    scale, losses = first_scale(policy, 1), []
    diverged = torch.zeros_like(scale, dtype=torch.bool)
    with checkpointed(policy):
        for _ in range(recipe.epochs if rows else 0):
            for batch in torch.randperm(len(rows), generator=order).split(recipe.batch_size):
                parts = [
                    share_of_loss(policy, [rows[i] for i in some], len(batch))
                    for some in batch.split(recipe.rows_per_pass)
                ]
                losses.append(descend(optimizer, scale, parts, diverged).item())
                if diverged.any():
                    raise FloatingPointError(
                        "The M-step's loss or gradient is not finite: take a lower learning rate"
                        + (", or a GPU with bfloat16." if scale < 1 else ".")
                    )
    optimizer.zero_grad()
    return losses


def share_of_loss(policy, rows, batch):
    """A function of what some rows add to the mean loss of a batch of `batch` rows, (1,)."""
    ids, labels = (
        pad_sequence(column, batch_first=True, padding_value=value).to(policy.model.device)
        for column, value in zip(zip(*rows), (policy.tokenizer.pad_token_id, -100))
    )
    return lambda: (
        row_losses(policy.model, {"input_ids": ids}, labels).mean()[None] * (len(rows) / batch)
    )


def supervised(policy, prompt, edit):
    """(ids, labels) of prompt and self-edit for SFT, tensors of shape (length,): the prompt's
    labels are -100."""
    ids = encode(policy.tokenizer, f"{prompt} {edit}")["input_ids"]
    before = encode(policy.tokenizer, prompt)["input_ids"]
    seam = next(
        (i for i, (a, b) in enumerate(zip(before, ids)) if a != b), len(before)
    )  # a tokenizer may merge there
    ids = torch.tensor(ids + [policy.tokenizer.eos_token_id])
    labels = ids.clone()
    labels[:seam] = -100
    return ids, labels


def run(policy, task, items, iterations=2, k=5, run_dir=None, seed=0):
    """`seal` for so many iterations, kept in a folder if there is one; see `sealkit.run_seal`.
    Returns a History."""
    if iterations < 1 or k < 1:
        raise ValueError(f"iterations is {iterations} and k is {k}: both have to be at least 1.")
    if not items:
        raise ValueError("There is nothing to learn from: give at least one passage.")
    with memo_of(run_dir, policy, task, items, k, seed) as memo:
        done = tuple(islice(seal(policy, task, items, k, seed, memo), iterations))
        return History(policy.model, memo["policy", 0]["weights"], done)


def memo_of(run_dir, policy, task, items, k, seed):
    """A context with the memo of this run: what `run_dir` holds of it, see `open_run`; without a
    folder, nothing."""
    model = policy.model
    config = model.peft_config[model.active_adapter]
    return open_run(run_dir, identity(policy, task, items, k, seed), machine_of(model), config)


def identity(policy, task, items, k, seed):
    """What makes a run, as a dict: another run's results must never be taken for its own."""
    base = (parameter for name, parameter in policy.model.named_parameters() if "lora_" not in name)
    lora = (
        tensor for name, tensor in policy.weights().items() if "lora_B" in name
    )  # 0 in every new policy
    keep = policy.recipe.keep  # any callable, such as a partial, which has no name
    recipe = asdict(policy.recipe) | {"keep": getattr(keep, "__name__", type(keep).__name__)}
    recipe["prompts"] = hashlib.sha256(repr(recipe["prompts"]).encode()).hexdigest()[:16]
    return {
        "task": task.__name__.split(".")[-1],
        "seed": seed,
        "k": k,
        "items": digest(items),
        "model": fingerprint(base),
        "policy": fingerprint(lora),
        "recipe": recipe,
    }


def digest(items):
    """Number of items, and hex digits that change with any of their texts."""
    return f"{len(items)}, {hashlib.sha256(repr(list(items)).encode()).hexdigest()[:16]}"
