"""The public functions: for passages, given model and tokenizer, what the loops do in any domain.

model: from `load_quantized`, or a policy's from `attach_policy`, whose `seal_config` then counts. A
plain model is given a LoRA drawn from `seed`, for the time of the call. 4-bit weights never change.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from .evaluation import Arms, Comparison, add_arms, compare_arms
from .evaluation.controls import add_controls
from .evaluation.together import Together
from .inner_loop import Trial, run_trials
from .outer_loop import History, answer_exams, seal, write_self_edits
from .policy import Config, Model, Policy, Weights, temporary_policy
from .runs.cache import Cache
from .runs.identity import open_run_cache
from .tasks import knowledge
from .tasks.passages import Passage


def config_of(model: Model, tokenizer: PreTrainedTokenizerBase) -> Config:
    """The Config that `attach_policy` was given for this model, else the one that goes with it."""
    return getattr(model, "seal_config", None) or knowledge.config_for(tokenizer)


def generate_self_edits(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    passage: Passage | list[Passage],
    k: int = 5,
    seed: object = 0,
    style: str | None = None,
) -> list[str] | list[list[str]]:
    """Sample k self-edits SE ~ LM_θ( · | C) for a passage, or k for each of a list of passages.

    seed: an int, or a tuple such as (seed, iteration); candidate j draws from (seed, passage,
    style, j) alone. style: one of the config's prompts; None leaves it open.
    Returns list[str], or a list of such lists. Raises ValueError for k < 1 or an unknown style.

    >>> import sealkit
    >>> passage = sealkit.load_passages("bundled", limit=1)[0]
    >>> len(sealkit.generate_self_edits(*sealkit.load_quantized("bundled"), passage, k=2, seed=0))
    2
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one self-edit per passage.")

    passages = passage if isinstance(passage, list) else [passage]
    policy = Policy(model, tokenizer, config_of(model, tokenizer))  # type: ignore[arg-type]
    requests = [(each, j) for each in passages for j in range(k)]
    edits = write_self_edits(policy, knowledge, requests, seed, style)
    by_passage = [edits[i : i + k] for i in range(0, len(edits), k)]
    return by_passage if isinstance(passage, list) else by_passage[0]


def answer_questions(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    passage: Passage | list[Passage],
    in_context: bool = False,
) -> list[str] | list[list[str]]:
    """The model's greedy answer to each question of a passage, or of each of a list of them.

    in_context: False is the paper's closed-book exam (the model never sees the passage).
    Returns list[str], one for each question, up to the end of the line; or a list of such lists.

    >>> import sealkit
    >>> passage = sealkit.load_passages("bundled", limit=1)[0]
    >>> answers = sealkit.answer_questions(*sealkit.load_quantized("bundled"), passage)
    >>> len(answers) == len(passage.questions)
    True
    """
    passages = passage if isinstance(passage, list) else [passage]
    policy = Policy(model, tokenizer, config_of(model, tokenizer))  # type: ignore[arg-type]
    answers = answer_exams(policy, knowledge, passages, in_context)
    return answers if isinstance(passage, list) else answers[0]


def evaluate_self_edits(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    passage: Passage,
    edits: Sequence[str],
    seed: int = 0,
) -> list[Trial]:
    """Reward of each self-edit: train θ' ← SFT(θ, SE) on it, ask θ' without showing the passage.

    edits: list[str]; an empty one trains on the passage alone.
    Returns list[Trial], `.reward` in [0, 1]. Raises ValueError if the passage has no questions.

    >>> import sealkit
    >>> passage = sealkit.load_passages("bundled", limit=1)[0]
    >>> both, loaded = ["", passage.oracle], sealkit.load_quantized("bundled")
    >>> alone, perfect = sealkit.evaluate_self_edits(*loaded, passage, both)
    >>> perfect.reward > alone.reward
    True
    """
    check_passages([passage])
    with temporary_policy(model, tokenizer, knowledge.config_for(tokenizer), seed) as policy:
        return run_trials(policy, knowledge, [(passage, edit) for edit in edits])


def run_seal(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[Passage],
    iterations: int = 2,
    k: int = 5,
    run_dir: str | Path | None = None,
    seed: int = 0,
) -> History:
    """SEAL: `iterations` times, k self-edits a passage, a trial of each, SFT on those kept.

    A plain model keeps the policy's LoRA. run_dir: a folder that receives the run, or holds it
    already: then it goes on where it stopped, to the same bits (same seed, same machine).
    Returns a History; its iterations, printed, are the log of the run.
    Raises ValueError for no passages, one without questions, k or iterations below 1, `RunError`
    for a run_dir that holds another run or damaged files, or cannot be written, FloatingPointError
    if the M-step diverges. However it ends before its end, the model is left as it came.

    >>> import sealkit
    >>> passages = sealkit.load_passages("bundled", limit=2)
    >>> history = sealkit.run_seal(*sealkit.load_quantized("bundled"), passages, iterations=1, k=2)
    >>> [len(trials) for trials in history.iterations[0].trials]
    [2, 2]
    """
    check_passages(passages)
    check_counts(iterations, k)
    config, items = knowledge.config_for(tokenizer), list(passages)
    with temporary_policy(model, tokenizer, config, seed, leave=True) as policy:
        with open_run_cache(run_dir, policy, knowledge, items, k, seed) as cache:
            loop = seal(policy, knowledge, items, k, seed, cache)
            iterations_run = tuple(islice(loop, iterations))
            return History(policy.model, cache["policy", 0]["weights"], iterations_run)


def compare(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[Passage],
    policies: Mapping[str, Weights] | None = None,
    styles: Sequence[str] = (),
    seed: int = 0,
    cache: Cache | None = None,
) -> Comparison:
    """Closed-book accuracy of each way to adapt, on the same passages, with the same inner loop.

    policies: {name: LoRA tensors}, such as {"self-edits before RL": history.start}; each writes one
    self-edit a passage and is adapted on it. None: the model's own, as "self-edits before RL".
    styles: also the first policy asked for these single styles (`config.prompts.styles`). cache:
    results that are there already, and where new ones go. The arms without self-edits start from
    the first policy; the oracle's are the passages' own (`Passage.oracle`), where all have one.
    Raises ValueError for an unknown style.

    >>> import sealkit
    >>> passages = sealkit.load_passages("bundled", "test", limit=2)
    >>> list(sealkit.compare(*sealkit.load_quantized("bundled"), passages).scores)
    ['no adaptation', 'passage in context', 'passage only', 'self-edits before RL', 'oracle']
    """
    check_passages(passages)
    with temporary_policy(model, tokenizer, knowledge.config_for(tokenizer), seed) as policy:
        known = policy.config.prompts.styles
        if unknown := set(styles) - set(known):
            raise ValueError(f"No self-edit style {sorted(unknown)[0]!r}: use {', '.join(known)}.")
        policies = policies or {"self-edits before RL": policy.weights()}
        arms = compare_arms(policy, knowledge, list(passages), policies, styles, seed, cache)
        return arms.comparison


def compare_controls(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[Passage],
    train: Sequence[Passage],
    history: History,
    seed: int = 0,
    cache: Cache | None = None,
) -> Comparison:
    """The policies of a run before and after RL, beside what might do as well without a reward.

    train, history, seed: what `run_seal` was given, and what it returned. passages: held out. The
    rows are those of `compare` with all styles, and the controls that `add_controls` lists.

    >>> import sealkit
    >>> train, loaded = sealkit.load_passages("bundled", limit=2), sealkit.load_quantized("bundled")
    >>> history, test = sealkit.run_seal(*loaded, train, 1, k=1), train[:1]
    >>> controls = sealkit.compare_controls(history.model, loaded[1], test, train, history)
    >>> controls.costs["questions, no RL, longest of 5"][0]
    5
    """
    check_passages(passages)
    last = history.iterations[-1]
    policies = {"self-edits before RL": history.start}
    policies[f"after iteration {last.number}"] = last.weights
    with temporary_policy(model, tokenizer, knowledge.config_for(tokenizer), seed) as policy:
        styles = policy.config.prompts.styles
        arms = compare_arms(policy, knowledge, list(passages), policies, styles, seed, cache)
        add_controls(arms, list(train), history.iterations, policies, styles)
        return arms.comparison


def compare_together(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    passages: Sequence[Passage],
    together: Together,
    policies: Mapping[str, Weights] | None = None,
    styles: Sequence[str] = (),
    seed: int = 0,
) -> Comparison:
    """The arms of `compare`, but `together.size` passages share one adapter.

    The paper's "continued pretraining" (section 4.2). Raises ValueError for more passages in an
    adapter than there are, FloatingPointError if its training diverges.

    >>> import sealkit
    >>> passages = sealkit.load_passages("bundled", "test", limit=2)
    >>> two = sealkit.Together(2, epochs=1)
    >>> table = sealkit.compare_together(*sealkit.load_quantized("bundled"), passages, two)
    >>> table.notes
    ('(2 at a time in one adapter: 1 epoch, 4 a gradient step)',)
    """
    check_passages(passages)
    with temporary_policy(model, tokenizer, knowledge.config_for(tokenizer), seed) as policy:
        policies = policies or {"self-edits before RL": policy.weights()}
        arms = Arms(policy, knowledge, list(passages), seed, {}, together)
        add_arms(arms, policies, styles)
        return arms.comparison


def check_passages(passages: Sequence[Passage]) -> None:
    """Raise ValueError for passages that there is no exam on."""
    if not passages:
        raise ValueError("There are no passages to learn from: give at least one.")
    for passage in passages:
        if not passage.questions:
            raise ValueError(knowledge.NO_EXAM.format(passage.title))


def check_counts(iterations: int, k: int) -> None:
    """Raise ValueError for numbers that make no run."""
    if iterations < 1 or k < 1:
        raise ValueError(f"iterations is {iterations} and k is {k}: both have to be at least 1.")
