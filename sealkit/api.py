"""The public functions: what the loops do for any domain, for passages, given model and
tokenizer."""

from .evaluation import Comparison, compare_arms
from .inner_loop import Trial, run_trials
from .outer_loop import History, answers_to, run, write_self_edits
from .policy import Policy, policy_on
from .tasks import knowledge


def recipe_of(model, tokenizer):
    """The Recipe that `attach_policy` was given for this model, else the one that goes with it."""
    return getattr(model, "recipe", None) or knowledge.recipe_for(tokenizer)


def generate_self_edits(model, tokenizer, passage, k=5, seed=0, style=None):
    """Sample k self-edits SE ~ LM_θ( · | C) for one passage (Passage), or k for each of a list of
    passages.

    model: from `load_quantized` or `attach_policy`. seed: an int, or a tuple such as (seed,
    iteration); candidate j of the passage draws from (seed, passage, style, j) alone. style: one of
    the recipe's prompts; None leaves it open.
    Returns list[str] of length k, or a list of such lists. Raises ValueError for k < 1 or an
    unknown style.

    >>> import sealkit
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> passage = sealkit.load_passages("bundled", limit=1)[0]
    >>> len(sealkit.generate_self_edits(model, tokenizer, passage, k=2, seed=0))
    2
    """
    if k < 1:
        raise ValueError(f"k is {k}: ask for at least one self-edit per passage.")
    passages, policy = as_list(passage), Policy(model, tokenizer, recipe_of(model, tokenizer))
    wanted, width, edits = (
        [(p, j) for p in passages for j in range(k)],
        policy.recipe.texts_per_pass,
        [],
    )
    for i in range(0, len(wanted), width):
        edits += write_self_edits(policy, knowledge, wanted[i : i + width], seed, style)
    groups = [edits[i : i + k] for i in range(0, len(edits), k)]
    return groups if isinstance(passage, list) else groups[0]


def answer_questions(model, tokenizer, passage, in_context=False):
    """The model's likeliest answer to each question of a passage (Passage), or of each of a list of
    passages.

    in_context: False is the paper's closed-book exam (the model never sees the passage), True shows
    it.
    Returns list[str], one for each question, up to the end of the line; or a list of such lists.

    >>> import sealkit
    >>> passage = sealkit.load_passages("bundled", limit=1)[0]
    >>> answers = sealkit.answer_questions(*sealkit.load_quantized("bundled"), passage, in_context=True)
    >>> len(answers) == len(passage.questions)
    True
    """
    passages, policy = as_list(passage), Policy(model, tokenizer, recipe_of(model, tokenizer))
    width, answers = max(1, policy.recipe.texts_per_pass // 5), []
    for i in range(0, len(passages), width):
        answers += answers_to(policy, knowledge, passages[i : i + width], in_context)
    return answers if isinstance(passage, list) else answers[0]


def evaluate_self_edits(model, tokenizer, passage, edits, seed=0) -> list[Trial]:
    """Reward of each self-edit: train θ' ← SFT(θ, SE) on it, ask θ' about the passage without
    showing it.

    model: a 4-bit model, or a policy from `attach_policy`; its own weights are never changed. A
    plain model is given a LoRA for the time of the call, drawn from `seed`. edits: list[str]; an
    empty one trains on the passage alone.
    Returns list[Trial], `.reward` in [0, 1]. Raises ValueError if the passage has no questions.

    >>> import sealkit
    >>> passage = sealkit.load_passages("bundled", limit=1)[0]
    >>> alone, perfect = sealkit.evaluate_self_edits(*sealkit.load_quantized("bundled"), passage, ["", passage.oracle])
    >>> perfect.reward > alone.reward
    True
    """
    check([passage])
    with policy_on(model, tokenizer, knowledge.recipe_for(tokenizer), seed) as policy:
        return run_trials(policy, knowledge, [(passage, edit) for edit in edits])


def run_seal(model, tokenizer, passages, iterations=2, k=5, run_dir=None, seed=0) -> History:
    """SEAL: `iterations` times, k self-edits for each passage, a trial of each, SFT of the policy
    on those kept.

    model: from `load_quantized` (a LoRA policy is attached to it), or a policy from
        `attach_policy`, whose recipe is taken. Its 4-bit weights are never changed. passages:
        list[Passage].
    run_dir: a folder that receives the run, or holds it already: then it goes on where it stopped,
    to the same bits. Same seed, same machine: same bits. Returns a History; its iterations,
    printed, are the log of the run.
    Raises ValueError for no passages, a passage without questions, k or iterations below 1,
    `RunError` for a run_dir that holds another run or damaged files, or cannot be written,
    FloatingPointError if the M-step diverges. However it ends before its end, the model is left as
    it came.

    >>> import sealkit
    >>> passages = sealkit.load_passages("bundled", limit=2)
    >>> history = sealkit.run_seal(*sealkit.load_quantized("bundled"), passages, iterations=1, k=2)
    >>> [len(trials) for trials in history.iterations[0].trials]
    [2, 2]
    """
    check(passages)
    with policy_on(model, tokenizer, knowledge.recipe_for(tokenizer), seed, leave=True) as policy:
        return run(policy, knowledge, list(passages), iterations, k, run_dir, seed)


def compare(model, tokenizer, passages, policies=None, styles=(), seed=0, memo=None) -> Comparison:
    """Closed-book accuracy of each way to adapt, on the same passages, with the same inner loop.

    policies: {name: LoRA tensors}, for example {"self-edits before RL": history.start, "after
        iteration 1": ...}; each writes one self-edit a passage and is adapted on it. None: the
        model's own, as "self-edits before RL".
    styles: also the first policy asked for self-edits of these single styles
    (`recipe.prompts.styles`). memo: results that are there already, and where new ones go, see
    `remembered`. The arms without self-edits start from the first policy; the oracle's self-edits
    are the passages' own (`Passage.oracle`), where all have one. Raises ValueError for an unknown
    style.

    >>> import sealkit
    >>> model, tokenizer = sealkit.load_quantized("bundled")
    >>> table = sealkit.compare(model, tokenizer, sealkit.load_passages("bundled", "test", limit=2))
    >>> list(table.scores)
    ['no adaptation', 'passage in context', 'passage only', 'self-edits before RL', 'oracle']
    """
    check(passages)
    with policy_on(model, tokenizer, knowledge.recipe_for(tokenizer), seed) as policy:
        known = policy.recipe.prompts.styles
        if unknown := set(styles) - set(known):
            raise ValueError(f"No self-edit style {sorted(unknown)[0]!r}: use {', '.join(known)}.")
        policies = policies or {"self-edits before RL": policy.weights()}
        return compare_arms(policy, knowledge, list(passages), policies, styles, seed, memo)


def as_list(passage):
    return passage if isinstance(passage, list) else [passage]


def check(passages):
    """Raise ValueError for passages that there is no exam on."""
    if not passages:
        raise ValueError("There are no passages to learn from: give at least one.")
    for passage in passages:
        if not passage.questions:
            raise ValueError(
                f"The passage {passage.title!r} has no questions: without an exam there is no reward; add some."
            )
