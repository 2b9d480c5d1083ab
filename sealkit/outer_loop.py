"""The outer loop, ReSTEM: max_θ E[r(SE, τ, θ')] by sampling, trying out, keeping, learning from it.

arXiv:2506.10943, section 3.1; arXiv:2312.06585.
"""

from dataclasses import dataclass
from itertools import count, islice, product

import torch
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
)
from .models.unpacking import unpacked
from .policy import encode, seed_of
from .runs.cache import compute_missing
from .runs.identity import open_run_cache


def format_log(iteration, item="passage"):
    """The log of an Iteration: rewards of each item, loss and reward of each self-edit, update."""
    count, k = len(iteration.trials), len(iteration.trials[0])
    title = f"--- SEAL iteration {iteration.number} (ReSTEM): {count} {item}s"
    lines = [f"{title}, {k} self-edits each ---"]
    for i, (name, trials) in enumerate(zip(iteration.names, iteration.trials)):
        before, alone = (
            f"closed book {iteration.baseline_rewards[i]:.0%}",
            f"{iteration.item_only_rewards[i]:.0%}",
        )
        lines.append(
            f"{item.title()} {i + 1}/{count} {excerpt(name)}: {before}, {item} only {alone}"
        )
        for j, trial in enumerate(trials):
            said = f"    QLoRA SFT on self-edit {j + 1} {excerpt(trial.self_edit)}: "
            said += trial.reason or f"loss {trial.losses[0]:.2f} → {trial.losses[-1]:.2f}"
            kept = " (kept)" if (i, j) in iteration.kept else ""
            lines.append(f"{said}, reward {trial.reward:.0%}{kept}")
    alone = sum(iteration.item_only_rewards) / count
    lines.append(f"Mean reward {iteration.mean_reward:.1%}, {item} only {alone:.1%}.")
    if iteration.kept:
        kept, losses = len(iteration.kept), iteration.losses
        lines[-1] += f" Policy updated: SFT of its LoRA on {kept} self-edits,"
        lines[-1] += f" loss {losses[0]:.2f} → {losses[-1]:.2f}."
    else:
        lines[-1] += f" No self-edit beat the {item} alone: policy unchanged."
    return "\n".join([*lines, ""])


def excerpt(text, width=48):
    """The start of a text, quoted, on one line, with control characters escaped: safe to print."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")


@dataclass(frozen=True)
class Iteration:
    """One E-step and M-step of `seal`; printed, it is the log of both. Rewards are in [0, 1].

    names: of the items. before: reward of each without adaptation. alone: after training on the
    item alone, what a self-edit has to beat. trials: k for each item. kept: the (item, candidate)
    that the policy was finetuned on. losses: of the M-step's gradient steps, in nats per token.
    policy: its LoRA tensors afterwards.

    >>> trial = Trial("It burns.", reward=0.5, answers=["yes"], losses=[2.0, 1.0], tokens=4)
    >>> Iteration(1, ("Lamp",), (0.0,), (0.0,), ((trial,),), ((0, 0),), (2.0, 1.0), {}).mean_reward
    0.5
    """

    number: int
    names: tuple[str, ...]
    before: tuple[float, ...]
    alone: tuple[float, ...]
    trials: tuple[tuple[Trial, ...], ...]
    kept: tuple[tuple[int, int], ...]
    losses: tuple[float, ...]
    policy: dict

    @property
    def mean_reward(self):
        """Mean reward of all self-edits."""
        rewards = [trial.reward for trials in self.trials for trial in trials]
        return sum(rewards) / len(rewards)

    def __str__(self):
        return format_log(self)


@dataclass(frozen=True)
class History:
    """A run: the policy's model as it ended, its LoRA tensors at the start, and its iterations.

    >>> History(None, {}, ()).iterations
    ()
    """

    policy: torch.nn.Module
    start: dict
    iterations: tuple[Iteration, ...]


def seal(policy, task, items, k=5, seed=0, cache=None):
    """Yield an Iteration after each policy update, for as long as someone asks.

    policy: a `Policy`, which the loop changes. task: a module such as `sealkit.tasks.knowledge`,
    whose items these are. cache: results by key that are there already, and where new ones go.

    >>> import sealkit
    >>> from sealkit.tasks import knowledge
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> config = sealkit.config_for(tokenizer)
    >>> policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    >>> next(seal(policy, knowledge, sealkit.load_passages("bundled", limit=1), k=1)).number
    1
    """
    cache, config = {} if cache is None else cache, policy.config
    (start,) = compute_missing(
        cache, [("policy", 0)], lambda keys: [{"weights": policy.weights()}], 1
    )
    policy.load(start["weights"])
    names = tuple(str(task.name(item)[0]) for item in items)
    for t in count(1):
        # E-step: sample self-edits, r(SE, τ, θ') of each, keep those that earned it
        before, alone, trials = e_step(policy, task, items, t, k, seed, cache)
        rewards = [[trial.reward for trial in own] for own in trials]
        kept = [(i, j) for i in range(len(items)) for j in config.keep(rewards[i], alone[i])]
        examples = [(task.prompt(items[i], config), trials[i][j].self_edit) for i, j in kept]

        # M-step: θ ← argmax_θ Σ log LM_θ(SE | C) over what was kept
        def update(keys, t=t, examples=examples, kept=kept):
            if examples:  # anew from the first policy, as ReST-EM: going on from the last overfits
                policy.load(start["weights"])
            done = {"losses": m_step(policy, examples, (seed, t)), "weights": policy.weights()}
            return [done | {"kept": kept}]

        (done,) = compute_missing(cache, [("policy", t)], update, 1, f"iteration {t}: M-step")
        policy.load(done["weights"])
        losses = tuple(done["losses"])
        yield Iteration(t, names, before, alone, trials, tuple(kept), losses, done["weights"])


def e_step(policy, task, items, t, k=5, seed=0, cache=None):
    """Sample k self-edits an item, try out each: (before, alone, trials) of the Iteration t."""
    cache, width, n = (
        {} if cache is None else cache,
        policy.config.texts_per_pass,
        range(len(items)),
    )

    def examine(keys):  # A ~ LM_θ( · | τ)
        some = [items[i] for *_, i in keys]
        return list(map(task.reward, some, answer_exams(policy, task, some)))

    def write(keys):  # SE ~ LM_θ( · | C)
        return write_self_edits(policy, task, [(items[i], j) for *_, i, j in keys], (seed, t))

    title = f"iteration {t}: "
    before = compute_missing(cache, [("before", t, i) for i in n], examine, width, f"{title}exams")
    cells = list(product(n, range(k)))
    keys = [("self-edit", t, *cell) for cell in cells]
    texts = compute_missing(cache, keys, write, width, f"{title}self-edits")
    edits = {(i, None): "" for i in n} | dict(zip(cells, texts))
    pairs = [(items[i], edit) for (i, _), edit in edits.items()]
    keys = [("trial", t, *cell) for cell in edits]
    done = run_trials(policy, task, pairs, cache, keys, f"{title}inner loops")
    trials = dict(zip(edits, done))  # r(SE, τ, SFT(θ, SE))
    alone = tuple(trials[i, None].reward for i in n)
    return tuple(before), alone, tuple(tuple(trials[i, j] for j in range(k)) for i in n)


def write_self_edits(policy, task, wanted, seed, style=None):
    """The self-edit of each (item, candidate), drawn from (seed, item, style, candidate) alone."""
    config, done, width = policy.config, [], policy.config.texts_per_pass
    sampling = config.max_new_tokens, config.temperature, config.top_p, config.prompts.stops
    for some in (wanted[i : i + width] for i in range(0, len(wanted), width)):
        prompts = [task.prompt(item, config, style) for item, _ in some]
        seeds = [seed_of(seed, *task.name(item), style, j) for item, j in some]
        done += policy.write(prompts, seeds, *sampling)
    return done


def answer_exams(policy, task, items, in_context=False):
    """The policy's own answers to each item's questions, without adaptation: list of list[str]."""
    questions = [task.questions(item, policy.config, in_context) for item in items]
    prompts, said = [prompt for own in questions for prompt in own], []
    while len(said) < len(prompts):
        said += answer(policy, prompts[len(said) :][: policy.config.texts_per_pass])
    said = iter(said)
    return [[next(said) for _ in own] for own in questions]


def m_step(policy, examples, seed=0):
    """Finetune the policy's LoRA on (prompt, self-edit) pairs, the loss on the self-edit alone.

    Goes on from the policy's present LoRA. Returns the loss of each gradient step, in nats per
    token. Raises FloatingPointError if it diverges.
    """
    config, rows = policy.config, [sft_example(policy, *example) for example in examples]
    check_length(policy.model, max((len(ids) for ids, _ in rows), default=0))
    order = torch.Generator().manual_seed(seed_of("m-step", seed))
    lora = [tensor for name, tensor in policy.model.named_parameters() if "lora_" in name]
    for tensor in lora:
        tensor.requires_grad_()
    optimizer = torch.optim.AdamW(lora, lr=config.m_step_learning_rate, weight_decay=0.0)
    scale, losses = initial_loss_scales(policy, 1), []
    diverged = torch.zeros_like(scale, dtype=torch.bool)
    with unpacked(policy.model), checkpointed(policy):
        for _ in range(config.epochs if rows else 0):
            for batch in torch.randperm(len(rows), generator=order).split(config.batch_size):
                some = [[rows[i] for i in part] for part in batch.split(config.rows_per_pass)]
                parts = [partial_loss(policy, part, len(batch)) for part in some]
                losses.append(optimizer_step(optimizer, scale, parts, diverged).item())
                if diverged.any():
                    raise FloatingPointError(
                        "The M-step's loss or its gradient is not finite: take a lower learning "
                        "rate, or in float16 a GPU with bfloat16."
                    )
    optimizer.zero_grad()
    return losses


def partial_loss(policy, rows, batch):
    """A function of what some rows add to the mean loss of a batch of `batch` rows, (1,)."""
    ids, labels = (
        pad_sequence(column, batch_first=True, padding_value=value).to(policy.model.device)
        for column, value in zip(zip(*rows), (policy.tokenizer.pad_token_id, -100))
    )
    share = len(rows) / batch
    return lambda: row_losses(policy.model, {"input_ids": ids}, labels).mean()[None] * share


def sft_example(policy, prompt, edit):
    """(ids, labels) of prompt and self-edit for SFT, tensors (length,); the prompt's: -100."""
    ids = encode(policy.tokenizer, f"{prompt} {edit}")["input_ids"]
    before = encode(policy.tokenizer, prompt)["input_ids"]
    same = [a == b for a, b in zip(before, ids)]  # a tokenizer may merge across the seam
    ids = torch.tensor([*ids, policy.tokenizer.eos_token_id])
    labels = ids.clone()
    labels[: [*same, False].index(False)] = -100
    return ids, labels


def run(policy, task, items, iterations=2, k=5, run_dir=None, seed=0):
    """`seal` for so many iterations, kept in a folder if there is one; see `run_seal`: History."""
    check_counts(iterations, k)
    with open_run_cache(run_dir, policy, task, items, k, seed) as cache:
        done = tuple(islice(seal(policy, task, items, k, seed, cache), iterations))
        return History(policy.model, cache["policy", 0]["weights"], done)


def check_counts(iterations, k):
    """Raise ValueError for numbers that make no run."""
    if iterations < 1 or k < 1:
        raise ValueError(f"iterations is {iterations} and k is {k}: both have to be at least 1.")
