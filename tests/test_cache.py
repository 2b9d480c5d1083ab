"""What is known is not computed again, and what memory is too small for is done in parts."""

from types import SimpleNamespace

import pytest
import torch
from killed import small_policy
from small_runs import (
    FAULTS,
    ended,
    interrupt,
    lines_of,
    loaded,
    loaded_of,
    policy,
    print_faults,
    refused,
    small,
    unbroken,
    without,
)

import sealkit
from sealkit import inner_loop
from sealkit.runs.cache import compute_missing
from sealkit.runs.journal import Journal

NUMBERS = [("square", n) for n in range(11)]


# --- what is known is not computed again


class Squares:
    """compute for `compute_missing` over NUMBERS, with room for so many at a time."""

    def __init__(self, room=100):
        self.room, self.asked = room, []

    def __call__(self, keys):
        self.asked.append([n for _, n in keys])
        if len(keys) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return [n * n for _, n in keys]


SQUARES = [n * n for n in range(11)]


@pytest.fixture(params=["dict", "journal"])
def cache(request, tmp_path):
    """A memo of both kinds; a journal has all of it on the disk, each key in one line."""
    made = Journal(tmp_path) if request.param == "journal" else {}
    yield made
    if made and request.param == "journal":
        assert Journal(tmp_path) == made and len(lines_of(tmp_path)) == len(made)


def test_known_keys_are_not_computed(cache):
    cache.update({key: 0 for key in NUMBERS[:4]})  # other values, to see where they are taken from
    compute = Squares()
    assert compute_missing(cache, NUMBERS, compute, 4) == [0] * 4 + SQUARES[4:]
    assert compute.asked == [[4, 5, 6, 7], [8, 9, 10]]
    assert compute_missing(cache, NUMBERS[::-1], compute, 3) == (SQUARES[:3:-1] + [0] * 4)
    assert len(compute.asked) == 2 and list(cache) == NUMBERS
    assert compute_missing(cache, [], compute, 4) == []


def test_a_part_that_is_partially_known_is_computed_whole(cache):
    """Else its batch, and so its bits, would be others than those of an unbroken run. What is known
    stays: on another machine it would have other bits, and results may have been made of it."""
    cache.update({NUMBERS[1]: 0, NUMBERS[4]: 0, NUMBERS[5]: 0})
    compute = Squares()
    assert compute_missing(cache, NUMBERS, compute, 2) == [0, 0, 4, 9, 0, 0, *SQUARES[6:]]
    assert compute.asked == [[0, 1], [2, 3], [6, 7], [8, 9], [10]]


def test_each_part_is_noted_when_it_is_done(cache):
    compute = Squares()

    def interrupted(keys):
        return interrupt() if NUMBERS[8] in keys else compute(keys)

    with pytest.raises(KeyboardInterrupt):
        compute_missing(cache, NUMBERS, interrupted, 4)
    assert cache == dict(zip(NUMBERS[:8], SQUARES))
    assert compute_missing(cache, NUMBERS, compute, 4) == SQUARES
    assert compute.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_narrowing_keeps_order_and_results(cache, capsys):
    compute = Squares(room=2)
    assert compute_missing(cache, NUMBERS, compute, 5) == SQUARES and list(cache) == NUMBERS
    twos = [[0, 1], [2, 3], [4], [5, 6], [7, 8], [9], [10]]
    assert compute.asked == [[0, 1, 2, 3, 4], [0, 1, 2], *twos]
    said = "Memory ran out with {} side by side: going on with {}."
    assert capsys.readouterr().out.splitlines() == [said.format(5, 3), said.format(3, 2)]


def test_narrowing_in_a_later_part_keeps_the_earlier_ones(cache, capsys):
    compute = Squares(room=4)

    def fuller(keys):  # as when others take memory meanwhile
        compute.room = 2 if NUMBERS[4] in keys else compute.room
        return compute(keys)

    assert compute_missing(cache, NUMBERS, fuller, 4) == SQUARES and list(cache) == NUMBERS
    assert compute.asked == [[0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [6, 7], [8, 9], [10]]


def test_narrowing_begins_at_what_there_is(cache, capsys):
    compute = Squares(room=2)
    assert compute_missing(cache, NUMBERS[:3], compute, 200) == SQUARES[:3]
    assert "with 3 side by side: going on with 2" in capsys.readouterr().out
    assert compute.asked == [[0, 1, 2], [0, 1], [2]]


SHORT = {  # what is raised when memory runs out, and what is said of it
    "CUDA": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB."), "GPU's"),
    "Linux": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "computer's"),
    "Windows": (RuntimeError("DefaultCPUAllocator: not enough memory: you tried"), "computer's"),
    "oneDNN": (RuntimeError("could not create a primitive"), "computer's"),
    "threads": (RuntimeError("can't start new thread"), "computer's"),
    "Python": (MemoryError(), "computer's"),
}


@pytest.mark.parametrize("where", SHORT)
def test_memory_that_one_is_too_much_for_is_an_error_with_the_remedy(cache, capsys, where):
    error, whose = SHORT[where]
    compute = Squares(room=4)

    def never(keys):
        if NUMBERS[8] in keys:
            raise error
        return compute(keys)

    with pytest.raises(sealkit.RunError, match=f"{whose} memory ran out, .*: ") as raised:
        compute_missing(cache, NUMBERS, never, 4)
    assert raised.value.__cause__ is error and cache == dict(zip(NUMBERS[:8], SQUARES))
    assert "going on with 1" in capsys.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of questions")])
def test_other_errors_are_raised_at_once(cache, error):
    asked = []

    def compute(keys):
        asked.append(keys)
        raise error

    with pytest.raises(type(error)) as raised:
        compute_missing(cache, NUMBERS, compute, 4)
    assert raised.value is error and len(asked) == 1 and not cache


# --- memory that runs out


def test_memory_that_runs_out_on_one_process_changes_no_plan_of_another(monkeypatch):
    asked = []
    for rank, room in enumerate((2, 100)):
        state = SimpleNamespace(process_index=rank, num_processes=2)
        monkeypatch.setattr("sealkit.runs.cache.distributed_state", lambda state=state: state)
        monkeypatch.setattr(
            "sealkit.runs.cache.broadcast", lambda own, rank: dict(zip(NUMBERS, SQUARES))
        )
        compute = Squares(room)
        assert compute_missing({}, NUMBERS, compute, 4) == SQUARES
        asked.append(compute.asked)
    assert asked == [[[0, 1, 2, 3], [0, 1], [2, 3], [8, 9], [10]], [[4, 5, 6, 7]]]


def test_memory_that_runs_out_is_told(ended, small, monkeypatch, capsys):
    expected, row_losses = small(ended), inner_loop.row_losses

    def no_room(model, inputs, labels):
        if len(labels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return row_losses(model, inputs, labels)

    without(ended, ("trial", 2), ("policy", 2))
    monkeypatch.setattr(inner_loop, "row_losses", no_room)
    history = small(ended)
    told = [line for line in capsys.readouterr().out.splitlines() if "Memory ran out" in line]
    assert told == ["Memory ran out with 4 side by side: going on with 2."]
    FAULTS.append(("memory runs out in a pass", told[0]))
    rewards = [
        [trial.reward for group in one.iterations[1].trials for trial in group]
        for one in (history, expected)
    ]
    assert rewards[0] == rewards[1]


def test_memory_that_one_trial_is_too_much_for_leaves_all_as_it_was(ended, small, monkeypatch):
    def no_room(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    without(ended, ("trial", 2), ("policy", 2))
    monkeypatch.setattr(inner_loop, "row_losses", no_room)
    refused("memory runs out with one", ended, lambda: small(ended), names=["GPU's memory ran out"])


# --- the cache of a comparison


def test_a_comparison_goes_on_where_it_stopped(policy, validation, tmp_path, monkeypatch):
    def compare(cache=None, passages=validation[:2], **options):
        return sealkit.compare(
            policy.model, policy.tokenizer, passages, cache=cache, **options
        ).scores

    small_policy(*loaded_of(policy), steps=1)
    whole = compare()
    with monkeypatch.context() as patch:
        patch.setattr("sealkit.evaluation.write_self_edits", interrupt)
        with pytest.raises(KeyboardInterrupt):
            compare(Journal(tmp_path))
    arms = ["no adaptation", "passage in context", "passage only"]
    assert list(dict.fromkeys(key[1] for key in Journal(tmp_path))) == arms
    with monkeypatch.context() as patch:
        again = "an arm that is there was run again"
        patch.setattr("sealkit.evaluation.answer_exams", lambda *arguments: pytest.fail(again))
        assert compare(Journal(tmp_path)) == whole
        patch.setattr("sealkit.evaluation.write_self_edits", lambda *arguments: pytest.fail(again))
        patch.setattr("sealkit.inner_loop.run_trial_batch", lambda *arguments: pytest.fail(again))
        assert compare(Journal(tmp_path)) == whole


def test_a_comparison_takes_no_other_results_for_its_own(policy, validation, tmp_path):
    """Other passages, another seed, recipe, policy or model: nothing of the first is taken."""
    journal, quick = Journal(tmp_path), {"steps": 1, "max_new_tokens": 4, "answer_tokens": 2}
    small_policy(*loaded_of(policy), **quick)

    def computed(passages=validation[:1], seed=0):
        before = len(journal)
        sealkit.compare(*loaded_of(policy), passages, seed=seed, cache=journal)
        return len(journal) - before

    every = computed()
    assert every == 6 and computed() == 0  # 5 arms and the text of one
    assert computed(validation[1:2]) == every
    assert computed(seed=1) == every
    small_policy(*loaded_of(policy), **quick | {"steps": 2})
    assert computed() == every
    small_policy(*loaded_of(policy), **quick)
    policy.load({name: tensor * 2 for name, tensor in policy.weights().items()})
    assert computed() == every
    embedding = policy.model.get_input_embeddings().weight.data
    embedding *= 2
    other = computed()
    embedding /= 2
    assert other == every and computed() == 0


def test_the_table_of_faults(capsys):
    with capsys.disabled():
        print_faults()


def test_a_bar_counts_results_and_says_nothing_of_its_own_speed(monkeypatch, capsys):
    monkeypatch.setattr("sealkit.runs.cache.progress_disabled", lambda: False)
    keys = [("square", n) for n in range(4)]
    compute_missing({keys[0]: 0}, keys, lambda keys: [n * n for _, n in keys], 2, "squares")
    compute_missing({}, keys[:1], lambda keys: [0], 2, "M-step")
    said = capsys.readouterr().err
    assert "squares: 0/4 " in said and "M-step ..." in said
    assert "it/s" not in said and "0/1" not in said
