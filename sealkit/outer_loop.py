"""The outer loop, ReSTEM: sample self-edits, keep what earned reward, finetune the policy on it (paper, section 3.1)."""

import hashlib
from dataclasses import asdict, dataclass
from functools import partial

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from .exam import accuracy, answer_questions
from .inner_loop import Settings, Trial, attach_policy, checkpointed, descend, loss_scaler, row_losses, run_trials, settings_for
from .prompts import BUNDLED, prompts_for
from .runs import Run, damaged, fingerprint, machine_of, open_run
from .self_edits import encode, generate_self_edits, seed_of, self_edit_prompt

LOGITS_BYTES = 2**29  # of one pass of the M-step, in fp32; a batch that needs more is summed up over several passes


@dataclass(frozen=True)
class Reinforcement:
    """The M-step's hyper-parameters (measured on the bundled world; the paper's are 2 epochs at 3e-4)."""

    epochs: int = 8
    batch_size: int = 4
    learning_rate: float = 2e-3
    checkpointing: bool = False  # as in `Settings`


def reinforcement_for(tokenizer):
    """Reinforcement() for the bundled model; for any other the paper's epochs and learning rate, with checkpointing."""
    return Reinforcement() if prompts_for(tokenizer) is BUNDLED else Reinforcement(epochs=2, learning_rate=3e-4, checkpointing=True)


@dataclass(frozen=True)
class Iteration:
    """One E-step and M-step. All rewards are shares of questions in [0, 1]."""

    number: int                            # from 1
    before: tuple[float, ...]              # closed book without adaptation, for each passage
    passage_only: tuple[float, ...]        # after training on the passage alone: what a self-edit has to beat
    trials: tuple[tuple[Trial, ...], ...]  # k for each passage
    kept: tuple[tuple[int, int], ...]      # (passage, candidate) that the policy was finetuned on
    losses: tuple[float, ...]              # of the M-step, one for each gradient step, in nats per token
    policy: dict                           # the policy's LoRA tensors afterwards, as PEFT names them

    @property
    def mean_reward(self):
        """Mean reward of all self-edits."""
        rewards = [trial.reward for trials in self.trials for trial in trials]
        return sum(rewards) / len(rewards)


@dataclass(frozen=True)
class History:
    """A SEAL run: the policy as it ended, its LoRA tensors at the start, and its iterations."""

    policy: torch.nn.Module
    start: dict
    iterations: tuple[Iteration, ...]


def best(rewards, passage_only):
    """The rule of the paper's code: always the best one (the first of equals), also where it helped nothing."""
    return [max(range(len(rewards)), key=lambda j: rewards[j])]


def best_if_better(rewards, passage_only):
    """Candidates to keep: the best one if it beats training on the passage alone, else none."""
    return [j for j in best(rewards, passage_only) if rewards[j] > passage_only]


def every_better(rewards, passage_only):
    """The rule of the paper's text, with reward 1 for a self-edit that beats training on the passage alone: all of these."""
    return [j for j, reward in enumerate(rewards) if reward > passage_only]


def policy_tensors(policy):
    """A copy of the policy's LoRA tensors, named as PEFT saves them."""
    return {name: tensor.detach().clone() for name, tensor in get_peft_model_state_dict(policy).items()}


def e_step(policy, tokenizer, passages, iteration, k=5, settings=Settings(), seed=0, progress=None, run=None, log=None):
    """Sample k self-edits a passage, run the inner loop on each: (before, passage_only, trials), see `Iteration`.

    run: a `runs.Run` that receives self-edits and trials as they are done; what it holds of this iteration is not done again.
    """
    passages, run = list(passages), run or Run(passages, k, seed)
    before = map(accuracy, answer_questions(policy, tokenizer, passages), passages)
    edits = generate_self_edits(policy, tokenizer, passages, k, (seed, iteration), known=run.self_edits_of(iteration),
                                report=partial(run.add_self_edits, iteration))
    pairs = pairs_of(passages, edits)
    trials = run_trials(policy, tokenizer, pairs, settings, progress, partial(run.add_trials, iteration),
                        known=run.trials_of(iteration, pairs), log=log)
    return tuple(before), *grouped(trials, k)


def pairs_of(passages, edits):
    """The trials of an E-step: for each passage one without a self-edit, then its own self-edits."""
    return [(passage, edit) for passage, own in zip(passages, edits) for edit in ("", *own)]


def grouped(trials, k):
    """(passage_only, trials) of `Iteration` from a list that holds for each passage the trial without a self-edit and k others."""
    groups = [trials[i : i + k + 1] for i in range(0, len(trials), k + 1)]
    return tuple(group[0].reward for group in groups), tuple(tuple(group[1:]) for group in groups)


def m_step(policy, tokenizer, pairs, reinforcement=Reinforcement(), seed=0):
    """Finetune the policy's LoRA on kept (passage, self-edit) pairs, with the loss on the self-edit alone.

    Goes on from the policy's present LoRA. Returns the loss of each gradient step, in nats per token.
    """
    rows = [supervised_ids(tokenizer, passage, edit) for passage, edit in pairs]
    order = torch.Generator().manual_seed(seed_of("m-step", seed))
    lora = [parameter for name, parameter in policy.named_parameters() if "lora_" in name]
    for parameter in lora:
        parameter.requires_grad_()
    optimizer = torch.optim.AdamW(lora, lr=reinforcement.learning_rate, weight_decay=0.0)
    scaler, losses = loss_scaler(policy), []
    with checkpointed(policy, reinforcement.checkpointing and bool(rows)):
        for _ in range(reinforcement.epochs if rows else 0):
            for chosen in torch.randperm(len(rows), generator=order).split(reinforcement.batch_size):
                ids, labels = (torch.nn.utils.rnn.pad_sequence(column, batch_first=True, padding_value=value).to(policy.device)
                               for column, value in zip(zip(*[rows[i] for i in chosen]), (tokenizer.pad_token_id, -100)))
                together = max(1, LOGITS_BYTES // (4 * ids.shape[1] * policy.config.vocab_size))
                parts = [partial(share_of_loss, policy, ids[i : i + together], labels[i : i + together], len(ids))
                         for i in range(0, len(ids), together)]
                losses.append(sum(descend(optimizer, scaler, parts)).item())
    return losses


def share_of_loss(policy, ids, labels, batch):
    """What some rows add to the mean loss of a batch of `batch` rows."""
    return row_losses(policy, {"input_ids": ids}, labels).mean() * (len(ids) / batch)


def supervised_ids(tokenizer, passage, edit):
    """(ids, labels) of prompt and self-edit for SFT, tensors of shape (length,): the prompt's labels are -100."""
    prompt = self_edit_prompt(passage, prompts=prompts_for(tokenizer))
    ids = encode(tokenizer, f"{prompt} {edit}")["input_ids"]
    before = encode(tokenizer, prompt)["input_ids"]
    shared = next((i for i, (token, other) in enumerate(zip(before, ids)) if token != other), len(before))  # a tokenizer may merge across the seam
    ids = torch.tensor(ids + [tokenizer.eos_token_id])
    labels = ids.clone()
    labels[:shared] = -100
    return ids, labels


def run_seal(model, tokenizer, passages, iterations=2, k=5, run_dir=None, seed=0, settings=None,
             reinforcement=None, keep=best_if_better, log=None, progress=False):
    """SEAL: `iterations` times, k self-edits for each passage, a trial of each, and SFT of the policy on the kept ones.

    model: from `load_quantized` (a LoRA policy is attached to it) or a policy from `attach_policy`. Its 4-bit weights
        are never changed. passages: list[Passage]. settings, reinforcement: of inner loop and M-step;
        None for `settings_for(tokenizer)` and `reinforcement_for(tokenizer)`.
    keep: the selection rule, a function (rewards of one passage, its passage-only reward) -> candidates to keep.
    run_dir: a folder that receives the run (see the README's table) or holds it already: then it goes on where it
        stopped, to the same bits. None: nothing is kept. log: takes each line of the run's story, for example `print`.
    progress: show a progress bar. Same seed, same machine: same bits.
    Returns a History. Raises ValueError for no passages, a passage without questions, k or iterations below 1,
    `runs.RunError` for a run_dir that holds another run or damaged files, or cannot be written, FloatingPointError if
    the M-step diverges. However it ends before its end, the model is left as it came.
    """
    check(passages, iterations, k)
    settings, reinforcement = settings or settings_for(tokenizer), reinforcement or reinforcement_for(tokenizer)
    log, policy = log or (lambda line: None), attach_policy(model, settings, seed)
    start = policy_tensors(policy)
    identity = {"seed": seed, "iterations": iterations, "k": k, "passages": digest(passages), "keep": getattr(keep, "__name__", type(keep).__name__),
                "model": fingerprint(p for name, p in policy.named_parameters() if "lora_" not in name),
                "policy": fingerprint(start.values()) if policy is model else "new",
                "inner_loop": asdict(settings), "m_step": asdict(reinforcement)}
    try:
        with open_run(run_dir, passages, k, seed, identity, machine_of(policy), log) as run:
            if run.saved < 0:
                run.save_policy(0, policy)
            start = run.policy(0, start)
            history = [recorded(run, number, start) for number in range(1, run.saved + 1)]
            set_peft_model_state_dict(policy, history[-1].policy if history else start)
            for number in range(len(history) + 1, iterations + 1):
                log(f"\n--- SEAL iteration {number} of {iterations} (ReSTEM): {k} self-edits for each of {len(passages)} passages ---")
                before, passage_only, trials = e_step(policy, tokenizer, passages, number, k, settings, seed,
                                                     f"inner loops, iteration {number}" if progress else None, run, log)
                kept = [(i, j) for i, group in enumerate(trials) for j in keep([trial.reward for trial in group], passage_only[i])]
                tell(log, passages, before, passage_only, trials, kept)
                if kept:  # ReSTEM finetunes the first policy anew each time (arXiv:2312.06585); going on from the last one overfits
                    set_peft_model_state_dict(policy, start)
                losses = m_step(policy, tokenizer, [(passages[i], trials[i][j].self_edit) for i, j in kept], reinforcement, (seed, number))
                run.save_policy(number, policy, before=before, kept=kept, losses=losses)
                history.append(Iteration(number, before, passage_only, trials, tuple(kept), tuple(losses), policy_tensors(policy)))
                log(f"Mean reward {history[-1].mean_reward:.1%}, passage only {sum(passage_only) / len(passages):.1%}. " + (
                    f"Policy updated: SFT of its LoRA on {len(kept)} self-edits, loss {losses[0]:.2f} → {losses[-1]:.2f}."
                    if kept else "No self-edit beat the passage alone: policy unchanged."))
    except BaseException:  # also Ctrl-C: the same call can be given again
        set_peft_model_state_dict(policy, start)
        if policy is not model:
            policy.unload()
        raise
    return History(policy, start, tuple(history))


def check(passages, iterations, k):
    """Raise ValueError for arguments that make no run."""
    if iterations < 1 or k < 1:
        raise ValueError(f"iterations is {iterations} and k is {k}: both have to be at least 1.")
    if not passages:
        raise ValueError("There are no passages to learn from: give at least one.")
    for passage in passages:
        if not passage.questions:
            raise ValueError(f"The passage {passage.title!r} has no questions: without an exam there is no reward; add some.")


def digest(passages):
    """Number of passages, and hex digits that change with any of their texts."""
    return f"{len(passages)}, {hashlib.sha256(repr(list(passages)).encode()).hexdigest()[:16]}"


def recorded(run, number, like):
    """Iteration `number` as a run's folder holds it. like: tensors as the policy's are."""
    facts, edits, k = run.facts(number), run.self_edits_of(number), run.k
    pairs = pairs_of(run.passages, [edits[i : i + k] for i in range(0, len(edits), k)])
    trials = run.trials_of(number, pairs)
    if len(trials) < len(run.passages) * (k + 1):
        raise damaged(run.trials.path, f"it holds {len(trials)} trials of iteration {number}, which ended with {len(run.passages) * (k + 1)}")
    kept = tuple((i, j) for i, j in facts["kept"])
    return Iteration(number, tuple(facts["before"]), *grouped([trials[n] for n in range(len(pairs))], k), kept, tuple(facts["losses"]),
                     run.policy(number, like))


def tell(log, passages, before, passage_only, trials, kept):
    """Log the E-step: each passage's scores without a self-edit, then each self-edit with loss and reward."""
    for i, (passage, group) in enumerate(zip(passages, trials)):
        log(f"Passage {i + 1}/{len(passages)} {passage.title!r}: closed book {before[i]:.0%}, passage only {passage_only[i]:.0%}")
        for j, trial in enumerate(group):
            outcome = trial.reason or f"loss {trial.losses[0]:.2f} → {trial.losses[-1]:.2f}"
            log(f"    QLoRA SFT on self-edit {j + 1} {excerpt(trial.self_edit)}: {outcome}, "
                f"reward {before[i]:.0%} → {trial.reward:.0%}{' (kept)' if (i, j) in kept else ''}")


def excerpt(text, width=48):
    """The start of a text, quoted, on one line, with control characters escaped: safe to print."""
    return repr(text if len(text) <= width else text[: width - 1] + "…")
