"""Continual learning: streams side by side, remedies, routers, the matrix, memory that lasts."""

import inspect
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial

import matplotlib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

import sealkit
from sealkit.cli.main import main
from sealkit.continual.adapters import concat_ranks, init_adapters, interpolate_adapters
from sealkit.continual.forgetting import Forgetting, alt_text, plot_forgetting
from sealkit.continual.remedies import (
    REMEDIES,
    Remedy,
    average,
    gate,
    replay,
    route_by_words,
    route_to_newest,
)
from sealkit.continual.remembering import remembering
from sealkit.continual.stream import (
    Learner,
    answer_routed,
    draw_streams,
    fixed_edits,
    learn_sequentially,
    run_benchmark,
    write_on_policy,
)
from sealkit.inner_loop import run_trials, sft
from sealkit.lora import fork, select_adapters, side_by_side
from sealkit.outer_loop import e_step, seal, write_self_edits
from sealkit.tasks import Task, few_shot, knowledge, puzzles

LENGTH = 3


@pytest.fixture
def small(policy):
    """A policy, and two streams of three passages."""
    return policy, draw_streams(sealkit.load_passages("bundled", "validation", 20), 2, LENGTH)


def oracles(streams):
    return fixed_edits([[passage.oracle for passage in stream] for stream in streams])


def learners_of(small, remedy, write=None):
    policy, streams = small
    return list(
        learn_sequentially(policy, knowledge, streams, [0, 1], write or oracles(streams), remedy)
    )


def equal_adapters(one, other):
    return all(torch.equal(a, b) for n in one for a, b in zip(one[n], other[n]))


# --- The stream


def test_streams_are_drawn_from_the_seed_without_a_passage_twice(validation):
    streams = draw_streams(validation, 16, 8, seed=3)
    assert len(streams) == 16 and all(len({p.title for p in stream}) == 8 for stream in streams)
    assert streams == draw_streams(validation, 16, 8, seed=3) != draw_streams(validation, 16, 8)
    assert streams[:4] == draw_streams(validation, 4, 8, seed=3)
    with pytest.raises(ValueError, match="a stream of 8 needs|stream of 8 needs as many"):
        draw_streams(validation[:7], 1, 8)


def test_the_first_item_is_learned_as_in_the_inner_loop(small):
    policy, streams = small
    first, after, *_ = learners_of(small, REMEDIES["none"])
    pairs = [(stream[0], stream[0].oracle) for stream in streams]
    trials = run_trials(policy, knowledge, pairs)
    assert [rewards[0] for rewards in after.earned] == [trial.reward for trial in trials]
    assert equal_adapters(first.memory[0], fork(policy.model, 2)) and not first.texts[0]


def test_each_next_item_goes_on_from_the_last(small):
    """By hand: two rounds of SFT on the same adapters. The policy itself stays as it was."""
    policy, streams = small
    start = policy.weights()
    *_, second, _ = learners_of(small, REMEDIES["none"])
    adapters = fork(policy.model, 2)
    for place in range(2):
        items = [stream[place] for stream in streams]
        sft(policy, adapters, [knowledge.lesson(p, p.oracle, policy.config) for p in items])
    assert equal_adapters(second.memory[0], adapters)
    assert all(torch.equal(start[name], tensor) for name, tensor in policy.weights().items())


def test_a_stream_goes_the_same_way_beside_others(small, exact):
    policy, streams = small
    ends = learners_of(small, REMEDIES["replay of 1"])[-1]
    other = learn_sequentially(
        policy, knowledge, streams[1:], [1], oracles(streams[1:]), REMEDIES["replay of 1"]
    )
    alone = list(other)[-1]
    assert alone.earned[0] == ends.earned[1] and alone.spent[0]["tokens"] == ends.spent[1]["tokens"]
    for name, (A, _) in alone.memory[0].items():
        torch.testing.assert_close(A[0], ends.memory[0][name][0][1], atol=5e-3, rtol=0.1)


def test_the_policy_as_it_is_by_then_writes(small):
    """Before anything is learned as the first policy does, after three items otherwise."""
    policy, streams = small
    learner = learners_of(small, REMEDIES["none"])[-1]
    unchanged = replace(learner, memory=[fork(policy.model, 2)])
    requests = [(stream[1], seed) for stream, seed in zip(streams, (0, 1))]
    first = write_self_edits(policy, knowledge, requests, "stream")
    assert write_on_policy(unchanged, 1) == first != write_on_policy(learner, 1)


def test_what_diverges_is_not_learned_and_leaves_the_rest_as_it_is(small):
    policy, streams = small
    learner = learners_of(small, REMEDIES["none"])[1]
    lessons = [knowledge.lesson(stream[1], "x", policy.config) for stream in streams]

    def penalty(adapters):
        (_, B), *_ = adapters.values()
        return B.sum((1, 2)) * torch.tensor([float("inf"), 0.0])

    trained = learner.train(lessons, penalty=penalty)
    without = learner.train(lessons)
    first, second = (partial(select_adapters, rows=[i]) for i in range(2))
    assert equal_adapters(first(trained), first(learner.memory[0]))
    assert equal_adapters(second(trained), second(without))
    assert not equal_adapters(second(trained), second(learner.memory[0]))


# --- Remedies


class Recorder(Learner):
    """A learner that notes what it is asked to train on."""

    def train(self, lessons, start=None, penalty=None):
        self.spent.append((lessons, start))
        return init_adapters(self.memory[0], [7, 8])


@pytest.fixture
def learner(small):
    """After two items; it trains nothing, and notes lessons in `spent`."""
    policy, streams = small
    texts = [[["a1", "a2"], ["b1"]], [["c1"], ["d1", "d2"]]]
    memory = [fork(policy.model, 2)]
    return Recorder(policy, knowledge, streams, memory, texts, [[0.2, 0.9]] * 2, [0, 1], [])


LESSONS = [sealkit.Lesson(["new"], 5, 1e-3), sealkit.Lesson(["other"], 5, 1e-3)]


def test_replay_adds_earlier_self_edits_and_no_steps(learner):
    drawn = {}
    for name, options in {"1": {}, "all": {}, "best": {"by": "reward"}}.items():
        count = None if name == "all" else 1
        replay(learner, LESSONS, count, **options)
        lessons, start = learner.spent[-1]
        drawn[name] = [lesson.texts for lesson in lessons]
        assert start is None and {(one.steps, one.learning_rate) for one in lessons} == {(5, 1e-3)}
    assert drawn["all"] == [["new", "a1", "a2", "b1"], ["other", "c1", "d1", "d2"]]
    assert drawn["best"] == [["new", "b1"], ["other", "d1", "d2"]]
    assert drawn["1"][0] in (["new", "a1", "a2"], ["new", "b1"])
    replay(learner, LESSONS, 1)
    assert [one.texts for one in learner.spent[-1][0]] == drawn["1"], "the draw is the seed's"


def test_what_is_replayed_is_not_cut_off(small):
    policy, streams = small
    tight = replace(policy, config=replace(policy.config, steps=1, max_tokens=150))
    all_of_them = learners_of((tight, streams), REMEDIES["replay of all"])[-1].spent
    alone = learners_of((tight, streams), REMEDIES["none"])[-1].spent
    pairs = zip(all_of_them, alone)
    assert all(more["tokens"] > 1.5 * less["tokens"] > 300 for more, less in pairs)


@pytest.mark.parametrize("costs, share", [([0, 0, 0], 1), ([1, 0, 0], 0.5), ([1, 1, 1], 0)])
def test_a_gate_shrinks_what_costs_too_much(learner, monkeypatch, costs, share):
    """The first stream's cost is as given, for each look; the second's is nothing."""
    looks = iter([row for cost in costs for row in (0.5, 0.5 - cost)])
    monkeypatch.setattr(
        Recorder, "exams", lambda self, places, memory: np.array([[next(looks)] * 2, [0.5, 0.5]])
    )
    (kept,) = gate(learner, LESSONS)
    new = init_adapters(learner.memory[0], [7, 8])
    assert equal_adapters(
        kept, interpolate_adapters(learner.memory[0], new, torch.tensor([share, 1.0]))
    )


def test_averaging_is_halfway(learner):
    (kept,) = average(learner, LESSONS)
    new = init_adapters(learner.memory[0], [7, 8])
    for name, (A, _) in kept.items():
        torch.testing.assert_close(A, (learner.memory[0][name][0] + new[name][0]) / 2)


def test_joined_adapters_add_their_updates(policy, exact):
    one, two = (init_adapters(fork(policy.model, 2), seeds) for seeds in ([1, 2], [3, 4]))
    for adapters in (one, two):
        for n, (_, B) in enumerate(adapters.values()):
            torch.nn.init.normal_(B.data, std=0.05, generator=torch.Generator().manual_seed(n))
    for name, (A, B) in concat_ranks(one, two).items():
        separate = one[name][1] @ one[name][0] + two[name][1] @ two[name][0]
        torch.testing.assert_close(B @ A, separate)
    ids = policy.tokenizer(["Bramwick works as a baker."] * 2, return_tensors="pt")
    with torch.no_grad(), side_by_side(policy.model, one), side_by_side(policy.model, two):
        nested = policy.model(**ids).logits
    with torch.no_grad(), side_by_side(policy.model, concat_ranks(one, two)):
        torch.testing.assert_close(policy.model(**ids).logits, nested, atol=1e-4, rtol=1e-4)


def test_orthogonal_loras_overlap_less_with_the_penalty_and_leave_the_old_ones(small):
    def overlap(weight):
        learners = learners_of(
            small, Remedy(partial(REMEDIES["orthogonal LoRAs"].learn, weight=weight))
        )
        before, after = learners[1].memory[0], learners[2].memory[0]
        rank = {name: A.shape[1] for name, (A, _) in before.items()}
        assert all(torch.equal(after[n][0][:, : rank[n]], before[n][0]) for n in rank)
        return sum(
            (before[n][0] @ after[n][0][:, rank[n] :].mT).square().sum().item() for n in rank
        )

    assert overlap(50.0) < 0.8 * overlap(0.0)


def test_one_adapter_remedies_take_the_same_steps_and_keep_one_adapter(small):
    policy, streams = small
    quick = replace(policy, config=replace(policy.config, steps=1))
    for name, remedy in REMEDIES.items():
        end = learners_of((quick, streams), remedy)[-1]
        assert [spent["steps"] for spent in end.spent] == [LENGTH] * 2, name
        assert len(end.memory) == (LENGTH + 1 if "bank" in name else 1), name


# --- A bank and its routers


def test_a_bank_forgets_nothing_with_an_oracle(small):
    policy, streams = small
    end = learners_of(small, REMEDIES["bank, oracle"])[-1]
    rewards = end.exams(range(LENGTH), route=REMEDIES["bank, oracle"].route)
    pairs = [(passage, passage.oracle) for stream in streams for passage in stream]
    alone = [trial.reward for trial in run_trials(policy, knowledge, pairs)]
    assert rewards.flatten().tolist() == pytest.approx(alone, abs=0.26)  # one question of four
    assert rewards.tolist() == end.earned


def test_routers_know_the_question_alone(small):
    end = learners_of(small, REMEDIES["bank, by words"])[-1]
    prompts = [knowledge.questions(stream[0], small[0].config) for stream in small[1]]
    routes = route_by_words(end, 0, prompts)
    assert routes == route_by_words(end, 2, prompts), "the place of the item is not looked at"
    assert np.mean([adapter == 1 for route in routes for adapter in route]) > 0.9
    routes = REMEDIES["bank, by loss"].route(end, 0, prompts)
    assert {adapter for route in routes for adapter in route} <= {1, 2, 3}
    assert list(map(len, routes)) == list(map(len, prompts))
    assert route_to_newest(end, 0, prompts)[0] == [3] * len(prompts[0])


def test_each_question_is_answered_by_the_adapter_of_its_route(small):
    policy, streams = small
    end = learners_of(small, REMEDIES["bank, oracle"])[-1]
    prompts = [knowledge.questions(stream[1], policy.config) for stream in streams]
    mixed_routes = [[n % 4 for n in range(len(exam))] for exam in prompts]
    answers = answer_routed(policy, end.memory, mixed_routes, prompts)
    for n in range(4):
        all_by_n = answer_routed(policy, end.memory, [[n] * len(exam) for exam in prompts], prompts)
        for one, other in zip(answers, all_by_n):
            assert one[n::4] == other[n::4]


# --- What comes out


def test_the_matrix_and_its_summary():
    row = {"accuracy": [[0.1, 0.1, 0.1], [0.8, 0.0, None], [0.5, 0.6, 0.0], [0.2, 0.4, 0.7]]}
    row |= {"routed": None, "steps": 15, "tokens": 100, "seconds": 2.0, "bytes": 8}
    other = row | {"seconds": 3.0, "bytes": 24, "routed": 0.5}
    table = Forgetting({"none": [row, row], "bank": [other, other]})
    assert table.learned("none").tolist() == [[0.8, 0.6, 0.7]] * 2
    assert table.backward_transfer("none")[0] == pytest.approx((0.2 - 0.8 + 0.4 - 0.6) / 2)
    assert table.kept("none") == pytest.approx(1.3 / 2.1)
    assert table.end("bank", minus="none") == (0, 0, 0)
    assert (table.cost("bank", "seconds"), table.cost("bank", "bytes")) == (1.5, 3)
    for part in ("never adapted", "10.0 [ 10.0,  10.0]", "-40.0", "1.50", "50%", "62%"):
        assert part in str(table)
    matplotlib.use("Agg")
    figure = plot_forgetting(table)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown[:3] == ["10"] * 3 and len(shown) == 11, "None leaves its cell empty"
    assert "62% just learned" not in alt_text(table) and "70% just learned" in alt_text(table)
    matplotlib.pyplot.close(figure)


TWO_REMEDIES = {name: REMEDIES[name] for name in ("none", "replay of all")}


def test_forgetting_is_cached_and_a_run_resumes(small, tmp_path, monkeypatch):
    policy, streams = small
    monkeypatch.setattr("sealkit.continual.stream.STREAMS_PER_PASS", 1)
    with sealkit.runs.folder.open_run(tmp_path / "run", {}, {}) as cache:
        whole = run_benchmark(policy, knowledge, streams, TWO_REMEDIES, 0, "questions", cache)
    assert whole.matrix("none").shape == (2, LENGTH + 1, LENGTH)
    assert np.isnan(whole.matrix("none")[:, 1, 2]).all() and not whole.control()[0] > 0.5
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]))
    calls = []
    monkeypatch.setattr(
        "sealkit.continual.stream.learn_sequentially",
        lambda *args: calls.append(args) or learn_sequentially(*args),
    )
    with sealkit.runs.folder.open_run(tmp_path / "run", {}, {}) as cache:
        resumed = run_benchmark(policy, knowledge, streams, TWO_REMEDIES, 0, "questions", cache)
    assert len(calls) == 1, "one stream of one remedy was missing"
    for name in TWO_REMEDIES:
        np.testing.assert_array_equal(resumed.matrix(name), whole.matrix(name))


def test_what_a_stream_taught_outlives_the_process(tmp_path, monkeypatch, capsys):
    """The command line; its memory, a stock PEFT adapter, answers in a new process."""
    monkeypatch.setattr("sealkit.continual.stream.REMEDIES", TWO_REMEDIES)
    options = "--task stream --streams 2 --held-out 3 --output".split()
    assert not main([*options, str(tmp_path / "r")])
    printed = capsys.readouterr().out
    for part in ("2 streams of 3 passages", "never adapted", "replay of all − none", "s in all"):
        assert part in printed
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert names == {".lock", "memory", "command.json", "figure.png", "journal.jsonl"} | {
        "log.txt",
        "report.html",
        "results.json",
        "run.json",
        "test.jsonl",
    }
    assert not main(["show", str(tmp_path / "r")])
    shown = capsys.readouterr().out
    assert "--task stream --streams 2 --held-out 3" in " ".join(shown.split())
    assert shown[shown.index("2 streams") :].rpartition("\nOpen ")[0] in printed
    rows = json.loads((tmp_path / "r" / "results.json").read_text())["replay of all"]
    stream = draw_streams(sealkit.load_passages("bundled", "test", 3), 2, 3)[0]
    code = (
        "import sys, sealkit; from peft import PeftModel;"
        "model, tokenizer = sealkit.load_quantized();"
        "model = PeftModel.from_pretrained(model, sys.argv[1]).eval();"
        "policy = sealkit.Policy(model, tokenizer, sealkit.config_for(tokenizer));"
        "print('\\n'.join(policy.write(sys.argv[2:], stops=('\\n',))))"
    )
    prompts = [
        q for passage in stream for q in knowledge.questions(passage, knowledge.BUNDLED_CONFIG)
    ]
    command = [sys.executable, "-c", code, str(tmp_path / "r" / "memory"), *prompts]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    answers, rewards = iter(process.stdout.splitlines()), []
    for passage in stream:
        said = [next(answers) for _ in passage.questions]
        rewards.append(knowledge.reward(passage, said, knowledge.BUNDLED_CONFIG))
    monkeypatch.setattr(
        "sys.stdin", io.StringIO("\n".join(q.question for q in stream[0].questions))
    )
    assert not main(["ask", str(tmp_path / "r")])
    adapted = re.findall("adapted: (.*)  [✓✗]", capsys.readouterr().out)
    right = knowledge.reward(stream[0], adapted, knowledge.BUNDLED_CONFIG)
    assert right == pytest.approx(rewards[0], abs=0.26)  # one question of four
    assert rewards == pytest.approx(rows[0]["accuracy"][-1], abs=0.26)
    assert np.mean(rewards) > np.mean(rows[0]["accuracy"][0]) + 0.2
    check_damaged_memories(tmp_path / "r", capsys)


def check_damaged_memories(run, capsys):
    """Whatever happened to `memory/`, `ask` and `show` say so in one sentence and adapt nothing."""
    path = run / "memory" / "adapter_model.safetensors"
    whole, tensors = path.read_bytes(), load_file(path)
    assert path.stat().st_mode == (run / "journal.jsonl").stat().st_mode
    renamed = {k.replace("base_model.model.", "base_model."): t for k, t in tensors.items()}
    nan = {name: tensor * np.nan for name, tensor in tensors.items()}
    for damage in (whole[:50000], save(renamed), save(nan), b"", None):
        path.unlink()
        if damage is not None:
            path.write_bytes(damage)
        for command in ("ask", "show"):
            assert main([command, str(run)]) == 2
            error = capsys.readouterr().err
            assert f"{path}: " in error and "Put back a copy" in error and error.count("\n") == 1
        path.write_bytes(whole)
    journal, kept = run / "journal.jsonl", (run / "journal.jsonl").read_bytes()
    journal.write_bytes(b"".join(x for x in kept.splitlines(True) if b'["memory"]' not in x))
    assert main(["ask", str(run)]) == 2
    assert "holds no memory/ with a checksum: give the command" in capsys.readouterr().err
    journal.write_bytes(kept)
    assert not main(["show", str(run)])


# --- The reward that remembers


def test_a_reward_that_remembers_is_accuracy_on_the_item_and_on_earlier_items(policy, validation):
    new, *earlier = validation[:3]
    task, pair = remembering(knowledge, 0.25), (new, earlier)
    exams = [knowledge.questions(one, policy.config) for one in validation[:3]]
    assert task.questions(pair, policy.config) == exams[0] + exams[1] + exams[2]
    right = [[q.answers[0] for q in one.questions] for one in validation[:3]]
    wrong = ["nothing"] * len(right[1])
    assert task.reward(pair, right[0] + right[1] + wrong) == pytest.approx(0.75 + 0.25 / 2)
    assert task.prompt(pair, policy.config) == knowledge.prompt(new, policy.config)
    assert task.lesson(pair, "x", policy.config) == knowledge.lesson(new, "x", policy.config)


def test_the_outer_loop_runs_on_it(policy, validation):
    quick = replace(policy, config=replace(policy.config, steps=1, epochs=1))
    pairs = [(passage, validation[3:4]) for passage in validation[:2]]
    iteration = next(seal(quick, remembering(knowledge), pairs, k=1))
    assert iteration.names == tuple(passage.title for passage in validation[:2])
    count = len(validation[0].questions) + len(validation[3].questions)
    assert len(iteration.trials[0][0].answers) == count


@pytest.fixture(scope="module")
def solver():
    return few_shot.load_policy("bundled")


def test_a_reward_that_remembers_works_for_puzzles_too(solver):
    """Also where each test grid is asked several times, and the answers vote."""
    first, second, third = puzzles.load_puzzles("bundled", "validation", 3)
    task, pair = remembering(puzzles, 0.25), (first, [second, third])
    voting = replace(solver.config, prompts=replace(solver.config.prompts, views=3))
    for config in (solver.config, voting):
        exams = [puzzles.questions(puzzle, config) for puzzle in (first, second, third)]
        assert task.questions(pair, config) == exams[0] + exams[1] + exams[2]
    assert task.exam(pair) == [*first.tests, *second.tests, *third.tests]
    right = [[puzzles.line(y) for _, y in puzzle.tests] for puzzle in (first, second, third)]
    wrong = ["1"] * len(third.tests)
    assert task.reward(pair, right[0] + right[1] + wrong) == pytest.approx(0.75 + 0.25 / 2)
    assert task.reward(pair, ["1"] * len(right[0]) + right[1] + right[2]) == pytest.approx(0.25)
    assert task.name(pair) == puzzles.name(first)
    assert task.prompt(pair, solver.config) == puzzles.prompt(first, solver.config)


def test_an_e_step_runs_on_pairs_of_puzzles(solver):
    first, second, third = puzzles.load_puzzles("bundled", "validation", 3)
    pairs = [(first, [third]), (second, [third])]
    quick = replace(solver, config=replace(solver.config, steps=2))
    task = remembering(puzzles)
    baseline, item_only, trials = e_step(quick, task, pairs, t=1, k=1)
    assert len(baseline) == len(item_only) == len(trials) == 2
    for pair, (trial,) in zip(pairs, trials):
        if not trial.reason:
            assert len(trial.answers) == len(task.exam(pair))
            assert trial.reward == task.reward(pair, trial.answers)
    lesson = task.lesson(pairs[0], "", quick.config)
    assert lesson == puzzles.lesson(first, "", quick.config) and not lesson.reason


@pytest.mark.parametrize(
    "task",
    [knowledge, puzzles, remembering(knowledge), remembering(puzzles)],
    ids=lambda task: task.__name__,
)
def test_every_task_has_what_the_protocol_declares(task):
    """Each function takes as many positional arguments, with the same defaults."""
    assert isinstance(task.__name__, str)
    declared = {name: f for name, f in vars(Task).items() if not name.startswith("_")}
    assert {"name", "prompt", "lesson", "exam", "questions", "reward"} <= declared.keys()
    for name, function in declared.items():
        _, *wanted = inspect.signature(function).parameters.values()  # without self
        parameters = inspect.signature(getattr(task, name)).parameters.values()
        assert [p.default for p in parameters] == [p.default for p in wanted], name
