"""Controls: each is what its row says, and none has seen a reward."""

from dataclasses import replace

import pytest

import sealkit
from sealkit.evaluation import Arms, controls
from sealkit.evaluation.controls import add_controls, longest, restem_without_reward, select
from sealkit.outer_loop import seal, write_self_edits
from sealkit.tasks import knowledge


@pytest.fixture(scope="module")
def run():
    """A short run: (policy, its cache, train, its first weights, iterations)."""
    model, tokenizer = sealkit.load_quantized()
    config = replace(sealkit.config_for(tokenizer), keep=lambda rewards, baseline: [0])
    policy = sealkit.Policy(sealkit.attach_policy(model, config), tokenizer, config)
    cache, train = {}, sealkit.load_passages("bundled", limit=3)
    loop = seal(policy, knowledge, train, 2, cache=cache)
    iterations = [next(loop)]
    first = cache["policy", 0]["weights"]
    policy.load(first)
    return policy, cache, train, first, iterations


def test_every_control_has_a_row_and_its_cost(run, validation):
    policy, cache, train, first, iterations = run
    arms = Arms(policy, knowledge, validation[:3], 0, cache)
    policies = {"before": first, "after": iterations[-1].weights}
    add_controls(arms, train, iterations, policies, ["questions"])
    assert sum(key[:2] == ("text", "before") for key in cache) == 3  # under the arm's own name
    written = {arm: cost for arm, (cost, _) in arms.costs.items()}
    assert written == {
        "questions, no RL, greedy": 1,
        "questions, no RL, longest of 5": 5,
        "questions, no RL, all 5": 5,
        "after RL, greedy": 1,
        "text before RL, learned after it": 1,
        "oracle, learned by the last policy": 0,
        "text after RL, learned before it": 1,
        "no reward: longest": 1,
        "no reward: random": 1,
        "no reward: random in style": 1,
    }
    assert all((policy.weights()[name] == first[name]).all() for name in first)


def test_a_self_edit_has_room_for_so_many_lines(run, validation):
    """What is written is cut, a repeated line too; of what is given, so many are read."""
    policy, *_ = run
    requests = [(passage, j) for passage in validation[:4] for j in range(3)]
    texts = {}
    for most in (None, 2):
        narrow = replace(policy, config=replace(policy.config, max_lines=most))
        texts[most] = write_self_edits(narrow, knowledge, requests, 0, "questions")
    assert max(len(text.split("\n")) for text in texts[None]) > 2
    assert texts[2] == ["\n".join(text.split("\n")[:2]) for text in texts[None]]
    lesson = knowledge.lesson(validation[0], "A.\nA.\nB.\nC.", narrow.config)
    assert lesson.texts[1:] == ["A.", "B."]


def test_greedy_text_is_the_likeliest_and_needs_no_seed(run, validation):
    policy, *_ = run
    cold = replace(policy, config=replace(policy.config, temperature=1e-4))
    requests = [(passage, 0) for passage in validation[:4]]
    assert write_self_edits(policy, knowledge, requests, None) == write_self_edits(
        cold, knowledge, requests, 5
    )


def test_the_longest_counts_different_lines_whatever_the_budget(run):
    policy, _, train, *_ = run
    six, repeated = "A.\nB.\nC.\nD.\nE.\nF.", "A.\n" * 9
    assert longest(policy, knowledge, train[0], [repeated, "A.\nB.\nC.\nD.\nE.", six, six]) == 2


def test_restem_without_reward_never_runs_a_trial(run, monkeypatch):
    policy, _, train, first, iterations = run
    monkeypatch.setattr(
        "sealkit.inner_loop.run_trial_batch", lambda *_: pytest.fail("a trial was run")
    )
    monkeypatch.setattr(controls, "write_self_edits", lambda *_: pytest.fail("written again"))
    cache = {}
    weights = restem_without_reward(policy, knowledge, train, iterations, "longest", 0, cache)
    assert any((weights[name] != first[name]).any() for name in first)
    assert all((policy.weights()[name] == first[name]).all() for name in first)
    monkeypatch.setattr(controls, "m_step", lambda *_: pytest.fail("it was there already"))
    restem_without_reward(policy, knowledge, train, iterations, "longest", 0, cache)


def test_random_in_style_keeps_as_many_of_each_style_as_the_reward(run):
    policy, _, train, _, (iteration,) = run
    cells = {(i, j): of[j].self_edit for i, of in enumerate(iteration.trials) for j in range(2)}
    chosen = select(policy, knowledge, train, cells, iteration, "random in style", 0)

    def styles(kept):
        return sorted(knowledge.style(train[i], cells[i, j]) for i, j in kept)

    assert styles(chosen) == styles(iteration.kept) and len(set(chosen)) == len(chosen)
