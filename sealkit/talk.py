"""Talk to a run's policy: it studies a passage, as in a trial, and is asked without seeing it."""

import sys

from .api import recipe_of
from .inner_loop import answer, ask, sft
from .loading import load_quantized
from .lora import fork
from .memo import RunError
from .outer_loop import fingerprint, write_self_edits
from .page import wrapped
from .policy import Policy, attach_policy
from .tasks import knowledge
from .tasks.passages import Passage, Question


def talk(record, number=1):
    """Adapt the last policy of a Record to its held-out passage `number`, and answer questions.

    They are read from stdin up to an empty line; each is also answered without the adaptation.
    Raises RunError for a run without a policy or such a passage, or of another model.
    """
    if not (record.iterations and record.test):
        raise RunError(f"{str(record.folder)!r} holds no finished iteration of the command line.")
    if number > len(record.test):
        raise RunError(f"--passage {number}: there are {len(record.test)} held out.")
    policy, passage = policy_of(record), record.test[number - 1]
    seed = record.settings["seed"], "compare"
    (edit,) = write_self_edits(policy, knowledge, [(passage, 0)], seed)
    adapters = fork(policy.model, 1)
    (losses,), _ = sft(policy, adapters, [knowledge.lesson(passage, edit, policy.recipe)])
    print(wrapped(f"Held out, {number} of {len(record.test)}: {passage.title}"))
    print(wrapped(passage.text, "    "))
    print(f"Of it the policy after iteration {len(record.iterations)} wrote:")
    print(wrapped(edit or "(nothing)", "    "))
    print(f"and was finetuned on both, loss {losses[0]:.2f} → {losses[-1]:.2f}. Its exam would be:")
    print(wrapped("\n".join(question.question for question in passage.questions), "    "))
    print("Ask it, without the passage; an empty line ends.")
    for question in asked():
        asks = Passage("", "", (Question(question, ("",)),))
        prompts = knowledge.questions(asks, policy.recipe)
        ((adapted,),), (before,) = ask(policy, adapters, [prompts]), answer(policy, prompts)
        print(wrapped(f"adapted: {adapted}\nwithout: {before}", "    "), flush=True)


def policy_of(record):
    """The Policy of a Record's last iteration, on the model that it was trained on."""
    model, tokenizer = load_quantized(record.command["model"])
    base = fingerprint(model.parameters())
    if base != record.settings["model"]:
        raise RunError(f"{str(record.folder)!r} was made on other weights than these of its model.")
    recipe = recipe_of(model, tokenizer)
    policy = Policy(attach_policy(model, recipe), tokenizer, recipe)
    policy.load(record.iterations[-1].policy)
    return policy


def asked():
    """Yield the questions that someone types, or that come through a pipe."""
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not question:
            return
        yield question
