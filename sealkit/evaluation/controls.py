"""Controls: what is as good without a reward? A claim for RL is worth what it leaves of these."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

from ..outer_loop import Iteration, m_step, write_self_edits, written_texts
from ..policy import Policy, Weights, seed_of
from ..runs.cache import Cache, Key, compute_missing
from . import Arms

if TYPE_CHECKING:
    from ..tasks import Domain, Item, Task

Cell = tuple[int, int]  # (item, candidate)
OF = 5  # texts to choose from
RULES = "longest", "random", "random in style"  # of `restem_without_reward`


def add_controls(
    arms: Arms[Item],
    train: Sequence[Item],
    iterations: Sequence[Iteration],
    policies: Mapping[str, Weights],
    styles: Sequence[str] = (),
    rules: Sequence[str] = RULES,
) -> None:
    """Add the rows that might embarrass the last of `policies`, to be read beside its own.

    policies: those that `compare_arms` was given, the first one from before RL.

    Without RL, for each style: its greedy text, the longest of OF samples, all OF in one. The last
    policy's greedy text. Text or learner: what the last policy wrote, learned by the first one, the
    other way round, and the oracle's text, learned by the last. ReSTEM without reward, by `rules`.
    Leaves the first policy's weights in the policy.
    """
    # 1. without RL: how each style is decoded
    policy, items = arms.policy, arms.items
    (before, first), *_, (after, last) = policies.items()
    policy.load(first)
    for style in styles:
        candidates = arms.write(f"prompt for {style}, no RL", style, OF)
        best = [longest(policy, arms.task, *pair) for pair in zip(items, candidates)]
        arms.add_sampled(f"{style}, no RL, greedy", style, greedy=True)
        chosen = [edits[j] for edits, j in zip(candidates, best)]
        arms.add(f"{style}, no RL, longest of {OF}", chosen, OF)
        arms.add(f"{style}, no RL, all {OF}", ["\n".join(edits) for edits in candidates], OF)
    text_before = [edit for (edit,) in arms.write(before)]

    # 2. text or learner
    policy.load(last)
    arms.add_sampled("after RL, greedy", greedy=True)
    text_after = [edit for (edit,) in arms.write(after)]
    arms.add("text before RL, learned after it", text_before)
    if all(oracles := [getattr(item, "oracle", "") for item in items]):
        arms.add("oracle, learned by the last policy", oracles, 0)
    policy.load(first)
    arms.add("text after RL, learned before it", text_after)

    # 3. ReSTEM without reward
    task: Any = arms.task  # a Domain: styles are told apart
    for rule in rules:
        weights = restem_without_reward(
            policy, task, train, iterations, rule, arms.seed, arms.cache
        )
        policy.load(weights)
        arms.add_sampled(f"no reward: {rule}")
        policy.load(first)


def longest(policy: Policy, task: Task[Item], item: Item, edits: Sequence[str]) -> int:
    """Which self-edit has most different texts to train on, whatever the budget; the first such."""
    unlimited = replace(policy.config, max_lines=None)
    counts = [len(task.lesson(item, edit, unlimited).texts) for edit in edits]
    return counts.index(max(counts))


def restem_without_reward(
    policy: Policy,
    task: Domain[Item],
    items: Sequence[Item],
    iterations: Sequence[Iteration],
    rule: str,
    seed: int = 0,
    cache: Cache | None = None,
) -> Weights:
    """The policy's weights after as many iterations of ReSTEM as `iterations`, without one trial.

    rule: "longest" keeps of each item's candidates the one with most different texts; "random" one
    of them; "random in style" at random as many of each style as the reward kept in that iteration.
    The first iteration's candidates are those of `iterations[0]`, which the policy wrote with the
    weights that it has now; they are left in it.
    """
    cache, first = {} if cache is None else cache, policy.weights()
    cells = list(product(range(len(items)), range(len(iterations[0].trials[0]))))
    weights = first
    for iteration in iterations:
        t = iteration.number

        def update(_: list[Key], t: int = t, iteration: Iteration = iteration) -> list[dict]:
            if iteration is iterations[0]:
                edits = {(i, j): iteration.trials[i][j].self_edit for i, j in cells}
            else:
                requests = [(items[i], j) for i, j in cells]
                edits = dict(zip(cells, write_self_edits(policy, task, requests, (seed, t))))
            kept = select(policy, task, items, edits, iteration, rule, seed)
            chosen = [(items[i], edits[i, j]) for i, j in kept]
            examples = [text for pair in chosen for text in written_texts(policy, task, *pair)]
            policy.load(first)
            m_step(policy, examples, (seed, t))
            return [{"weights": policy.weights()}]

        title = f"without reward, {rule}, iteration {t}"
        (updated,) = compute_missing(cache, [("control", rule, t)], update, 1, title)
        weights = updated["weights"]
        policy.load(weights)
    policy.load(first)
    return weights


def select(
    policy: Policy,
    task: Domain[Item],
    items: Sequence[Item],
    edits: Mapping[Cell, str],
    iteration: Iteration,
    rule: str,
    seed: int,
) -> list[Cell]:
    """The candidates that a rule of `restem_without_reward` keeps, from {cell: self-edit}."""
    k, rng = len(iteration.trials[0]), random.Random(seed_of(seed, rule, iteration.number))
    if rule == "random":
        return [(i, rng.randrange(k)) for i in range(len(items))]
    if rule == "longest":
        rows = [[edits[i, j] for j in range(k)] for i in range(len(items))]
        return [(i, longest(policy, task, items[i], row)) for i, row in enumerate(rows)]
    wanted = [task.style(items[i], iteration.trials[i][j].self_edit) for i, j in iteration.kept]
    cells = rng.sample(sorted(edits), len(edits))
    kept: list[Cell] = []
    for i, j in cells:
        if (style := task.style(items[i], edits[i, j])) in wanted:
            wanted.remove(style)
            kept.append((i, j))
    return kept
