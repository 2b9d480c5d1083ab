"""Talk to a run's policy about a passage that it has learned, without showing it."""

import sys
from collections.abc import Iterator

from ..api import config_of
from ..continual.stream import draw_streams
from ..inner_loop import answer, ask, sft
from ..loading import load_quantized
from ..lora import Adapters, fork
from ..outer_loop import write_self_edits
from ..policy import Policy, attach_policy
from ..runs.files import RunError
from ..runs.identity import fingerprint
from ..tasks import knowledge
from ..tasks.passages import Passage, Question
from .page import wrap
from .record import Record


def talk(record: Record, number: int = 1) -> None:
    """Ask the policy of a Record that has learned its held-out passage `number`, without seeing it.

    Of streams, it has learned all of the first one for good, and the passage is one of those. Else
    the last policy learns it now, as in a trial. Questions are read from stdin up to an empty line;
    each is also answered without what was learned. Raises RunError for a run without a policy or
    such a passage, or of another model.
    """
    folder, remembers = repr(str(record.folder)), record.streams is not None
    if sys.stdin is None or sys.stdin.closed:
        raise RunError("Questions are read from standard input, which is closed: open it.")
    if record.task is not knowledge:
        raise RunError(f"{folder} holds a run on puzzles: only what read passages can be asked.")
    if not (record.test and (record.iterations or remembers)):
        raise RunError(f"{folder} holds no finished iteration of the command line.")
    items = learned_passages(record) if remembers else record.test
    if number > len(items):
        where = "in the first stream" if remembers else "held out"
        raise RunError(f"--passage {number}: there are {len(items)} {where}.")
    policy, passage = load_policy(record), items[number - 1]
    which = "Learned for good" if remembers else "Held out"
    print(wrap(f"{which}, {number} of {len(items)}: {passage.title}"))
    print(wrap(passage.text, "    "))
    if remembers:
        adapters = load_memory(policy, record)
    else:
        adapters = learn_passage(policy, passage, record)
    print("Its exam would be:")
    print(wrap("\n".join(question.question for question in passage.questions), "    "))
    print("Ask it, without the passage; an empty line ends.")
    for question in read_questions():
        asks = Passage("", "", (Question(question, ("",)),))
        prompts = knowledge.questions(asks, policy.config)
        try:
            ((adapted,),), (before,) = ask(policy, adapters, [prompts]), answer(policy, prompts)
            said = f"adapted: {adapted}\nwithout: {before}"
        except ValueError as error:  # the question is too long
            said = str(error)
        print(wrap(said, "    "), flush=True)


def learn_passage(policy: Policy, passage: Passage, record: Record) -> Adapters:
    """The adapter of a policy after SFT on a passage and the self-edit that it writes, printed."""
    seed = record.settings["seed"], "compare"
    (edit,) = write_self_edits(policy, knowledge, [(passage, 0)], seed)
    adapters = fork(policy.model, 1)
    (losses,), _ = sft(policy, adapters, [knowledge.lesson(passage, edit, policy.config)])
    print(f"Of it the policy after iteration {len(record.iterations)} wrote:")
    print(wrap(edit or "(nothing)", "    "))
    print(f"and was finetuned on both, loss {losses[0]:.2f} → {losses[-1]:.2f}.")
    return adapters


def learned_passages(record: Record) -> list[Passage]:
    """The passages of the first stream, which a run's `memory/` has learned."""
    assert record.streams
    streams, _, length = record.streams.matrix(record.streams.best()).shape
    return draw_streams(record.test, streams, length, record.settings["seed"])[0]


def load_memory(policy: Policy, record: Record) -> Adapters:
    """The adapter that a stream left in a run's folder; the policy stays as it is."""
    if record.memory is None:
        where = f"{str(record.folder)!r} holds no memory/ with a checksum"
        raise RunError(f"{where}: give the command of its run again, which ends with one.")
    start = policy.weights()
    policy.load(record.memory)
    adapters = fork(policy.model, 1)
    policy.load(start)
    return adapters


def load_policy(record: Record) -> Policy:
    """The Policy of a Record's last iteration, or a new one, on the model it was trained on."""
    model, tokenizer = load_quantized(record.command["model"])
    base = fingerprint(model.parameters())
    if base != record.settings["model"]:
        raise RunError(f"{str(record.folder)!r} was made on other weights than these of its model.")
    config = config_of(model, tokenizer)
    policy = Policy(attach_policy(model, config), tokenizer, config)
    if record.iterations:
        policy.load(record.iterations[-1].weights)
    return policy


def read_questions() -> Iterator[str]:
    """Yield the questions that someone types, or that come through a pipe."""
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "").strip()
        except (EOFError, KeyboardInterrupt):
            return
        if not question:
            return
        yield question
