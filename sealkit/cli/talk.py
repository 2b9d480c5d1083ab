"""Talk to a run's policy about a passage that it has learned, without showing it."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

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

END = "q", "quit", "exit"


@dataclass(frozen=True)
class Student:
    """A policy and a fork of its LoRA, `adapters`, that has learned a passage."""

    policy: Policy
    passage: Passage
    adapters: Adapters

    @cached_property
    def known(self) -> dict[str, Question]:
        """The questions with a known answer, by text and, those of the exam, also by number."""
        pairs = re.findall(r"(?m)^Question: (.+) Answer: (.+)$", self.passage.oracle)
        exam = self.passage.questions
        every = [*(Question(text, (right,)) for text, right in pairs), *exam]
        numbered = {str(n): question for n, question in enumerate(exam, 1)}
        return {normalize(question.question): question for question in every} | numbered

    @property
    def wordings(self) -> list[str]:
        """The known questions with … for the names in the title: all that a tiny model has read."""
        names = "|".join(re.findall(r"\b[A-Z]\w+", self.passage.title)) or "(?!)"
        texts = [question.question for question in self.known.values()]
        return list(dict.fromkeys(re.sub(rf"\b({names})\b", "…", text) for text in texts))

    def answer(self, question: Question) -> dict[str, tuple[str, bool | None]]:
        """{"adapted" and "without": (answer, whether the task grades it as right)}.

        None: nobody knows what is right. Raises ValueError for a question that is too long.
        """
        exam, config = Passage("", "", (question,)), self.policy.config
        prompts = knowledge.questions(exam, config)
        ((adapted,),) = ask(self.policy, self.adapters, [prompts])
        (without,) = answer(self.policy, prompts)
        known = bool(question.answers)
        return {
            who: (text, knowledge.reward(exam, [text], config) == 1 if known else None)
            for who, text in {"adapted": adapted, "without": without}.items()
        }

    def reply(self, line: str) -> str:
        """What there is to say to a line that someone typed: a question, or the number of one."""
        line = line.strip(" #.()") if re.fullmatch(r"[ #(]*\d+[.) ]*", line) else line
        if line.isdecimal() and line not in self.known:
            most = len(self.passage.questions)
            return f"There is no question {line[:9]}: type a number from 1 to {most}."
        question = self.known.get(normalize(line), Question(line, ()))
        try:
            answers = self.answer(question)
        except ValueError as error:  # it is too long
            return str(error)
        marks = {True: "  ✓ right", False: "  ✗ wrong", None: ""}
        lines = [question.question] * line.isdecimal()
        lines += [f"{who + ':':8} {text}{marks[right]}" for who, (text, right) in answers.items()]
        if question.answers:
            return "\n".join([*lines, f"right is {' or '.join(question.answers)}"])
        return "\n".join([*lines, self.advice(line)])

    def advice(self, line: str) -> str:
        """What to ask instead of a question of one's own, whose right answer nobody knows."""
        numbers = {normalize(q.question): n for n, q in enumerate(self.passage.questions, 1)}
        (near,) = get_close_matches(normalize(line)[:200], list(numbers), 1, cutoff=0)
        nearest = f"Of the exam, number {numbers[near]} is nearest: {self.known[near].question}"
        if self.policy.config.prompts.grader != "exact match":
            return nearest
        few = f"So small a model knows questions in few wordings: {' '.join(self.wordings)}"
        return f"{few}\n{nearest}"


def normalize(text: str) -> str:
    """A question without what does not matter: case, spaces, the question mark."""
    return " ".join(text.lower().split()).rstrip(" ?")


def talk(record: Record, number: int = 1) -> None:
    """Ask the policy of a Record that has learned its held-out passage `number`, without seeing it.

    Of streams, it has learned all of the first one for good, and the passage is one of those. Else
    the last policy learns it now, as in a trial. Questions, or their numbers, are read from stdin
    up to its end; each is also answered without what was learned. Raises RunError for a run
    without a policy or such a passage, or of another model.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise RunError("Questions are read from standard input, which is closed: open it.")
    passage, which = choose_passage(record, number)
    policy = load_policy(record)
    print(wrap(f"{which}: {passage.title}"))
    print(wrap(passage.text, "    "))
    if record.streams:
        student = Student(policy, passage, load_memory(policy, record))
    else:
        edit = write_self_edit(policy, passage, record)
        student, losses = learn(policy, passage, edit)
        print(f"Of it the policy after iteration {len(record.iterations)} wrote:")
        print(wrap(edit or "(nothing)", "    "))
        print(f"and was finetuned on both, loss {losses[0]:.2f} → {losses[-1]:.2f}.")
    print("Its exam, which it sits without the passage:")
    numbered = enumerate(passage.questions, 1)
    print(wrap("\n".join(f"{n}. {question.question}" for n, question in numbered), "    "))
    print("Type a number, or a question of your own; q ends.")
    for line in read_lines():
        print(wrap(student.reply(line), "    "), flush=True)


def choose_passage(record: Record, number: int) -> tuple[Passage, str]:
    """(A passage that a Record can be asked about, which one it is). Raises RunError."""
    folder = repr(str(record.folder))
    if record.task is not knowledge:
        raise RunError(f"{folder} holds a run on puzzles: only what read passages can be asked.")
    if not (record.test and (record.iterations or record.streams)):
        raise RunError(f"{folder} holds no finished iteration of the command line.")
    items = learned_passages(record) if record.streams else record.test
    if number > len(items):
        where = "in the first stream" if record.streams else "held out"
        raise RunError(f"--passage {number}: there are {len(items)} {where}.")
    which = "Learned for good" if record.streams else "Held out"
    return items[number - 1], f"{which}, {number} of {len(items)}"


def write_self_edit(policy: Policy, passage: Passage, record: Record) -> str:
    """The self-edit that the policy wrote for a held-out passage in the run's comparison."""
    seed = record.settings["seed"], "compare"
    return write_self_edits(policy, knowledge, [(passage, 0)], seed)[0]


def learn(policy: Policy, passage: Passage, edit: str) -> tuple[Student, list[float]]:
    """A Student after SFT on a passage and a self-edit, as in a trial, and the losses of it."""
    adapters = fork(policy.model, 1)
    (losses,), _ = sft(policy, adapters, [knowledge.lesson(passage, edit, policy.config)])
    return Student(policy, passage, adapters), losses


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


def read_lines() -> Iterator[str]:
    """Yield the lines that someone types, or that come through a pipe, but empty ones."""
    typed = sys.stdin.isatty()
    while True:
        try:
            line = input("> " if typed else "").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line.lower() in END:
            return
        if line:
            print(f"> {wrap(line)}" * (not typed), end="" if typed else "\n")
            yield line
