"""A reward that counts forgetting: accuracy on a self-edit's own item and on earlier items.

Not in the paper. The loop is `outer_loop.seal`, with another task, and the policy that it starts
from has already learned the earlier items.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from ..tasks import Item, Task

if TYPE_CHECKING:
    from ..inner_loop import Lesson
    from ..policy import Config

Pair = tuple[Item, Sequence[Item]]  # an item and the earlier ones


def remembering(task: Task[Item], share: float = 0.5) -> Task[Pair[Item]]:
    """A task like `task` whose items are pairs (item, earlier items): the exam asks about both.

    Reward: (1 − share) · accuracy on the item + share · mean accuracy on the earlier ones, in
    [0, 1]. With 1/2 it ranks self-edits by accuracy less the cost on earlier items.

    >>> from sealkit import Passage, Question
    >>> from sealkit.tasks import knowledge
    >>> lamp, tower = (Passage(n, n, (Question("Lit?", ("yes",)),)) for n in ("Lamp", "Tower"))
    >>> remembering(knowledge).reward((lamp, [tower]), ["yes", "no"])
    0.5
    """

    def name(pair: Pair[Item]) -> tuple[Hashable, ...]:
        return task.name(pair[0])

    def parts(pair: Pair[Item], config: Config) -> list[Pair[Item]]:
        return [(part, pair[1]) for part in task.parts(pair[0], config)]

    def prompt(pair: Pair[Item], config: Config, style: str | None = None) -> str:
        return task.prompt(pair[0], config, style)

    def lesson(pair: Pair[Item], edit: str, config: Config) -> Lesson:
        return task.lesson(pair[0], edit, config)

    def exam(pair: Pair[Item]) -> list[object]:
        return [question for item in (pair[0], *pair[1]) for question in task.exam(item)]

    def questions(pair: Pair[Item], config: Config, in_context: bool = False) -> list[str]:
        exams = [task.questions(item, config, in_context) for item in (pair[0], *pair[1])]
        return [prompt for prompts in exams for prompt in prompts]

    def reward(pair: Pair[Item], answers: Sequence[str], config: Config | None = None) -> float:
        items = (pair[0], *pair[1])
        per_question = len(answers) // max(1, len(exam(pair)))  # more than one if views vote
        remaining, counts = iter(answers), [per_question * len(task.exam(item)) for item in items]
        exams = [list(islice(remaining, count)) for count in counts]
        item_reward, *earlier = [task.reward(*each, config) for each in zip(items, exams)]
        return (1 - share) * item_reward + share * sum(earlier) / len(earlier)

    functions = {f.__name__: f for f in (name, parts, prompt, lesson, exam, questions, reward)}
    title = f"{task.__name__}, remembering {share}"
    return cast("Task[Pair[Item]]", SimpleNamespace(__name__=title, **functions))
