"""A reward that remembers: accuracy on a self-edit's own item, less what it costs on earlier ones.

Not in the paper. The loop is `outer_loop.seal`: only the task is another, and the policy it starts
from has learned the earlier items already.
"""

from itertools import islice
from types import SimpleNamespace


def remembering(task, share=0.5):
    """A task like `task` whose items are pairs (item, earlier items): the exam asks about both.

    Reward: (1 − share) · own accuracy + share · accuracy on the earlier ones, in [0, 1]. With
    1/2 it ranks self-edits by own accuracy less the cost on earlier ones, with 0 by own alone.

    >>> from sealkit import Passage, Question
    >>> from sealkit.tasks import knowledge
    >>> lamp, tower = (Passage(n, n, (Question("Lit?", ("yes",)),)) for n in ("Lamp", "Tower"))
    >>> remembering(knowledge).reward((lamp, [tower]), ["yes", "no"])
    0.5
    """

    def questions(pair, config, in_context=False):
        asked = [task.questions(one, config, in_context) for one in (pair[0], *pair[1])]
        return [prompt for prompts in asked for prompt in prompts]

    def reward(pair, answers):
        items = (pair[0], *pair[1])
        per_question = len(answers) // sum(len(task.exam(item)) for item in items)
        remaining, rewards = iter(answers), []
        for item in items:
            count = per_question * len(task.exam(item))
            rewards.append(task.reward(item, list(islice(remaining, count))))
        item_reward, *earlier = rewards
        return (1 - share) * item_reward + share * sum(earlier) / len(earlier)

    return SimpleNamespace(
        __name__=f"{task.__name__}, remembering {share}",
        name=lambda pair: task.name(pair[0]),
        prompt=lambda pair, config, style=None: task.prompt(pair[0], config, style),
        lesson=lambda pair, edit, config: task.lesson(pair[0], edit, config),
        exam=lambda pair: [q for item in (pair[0], *pair[1]) for q in task.exam(item)],
        questions=questions,
        reward=reward,
    )
