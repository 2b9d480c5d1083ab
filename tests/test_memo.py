"""What can befall a run: it goes on to the same bits, or says what is wrong and changes nothing.

And what a self-edit, a checkpoint or a damaged file may not do.
"""

import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from families import CONFIGS, tokenizer_like
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed import POINTS, small_policy, small_run

import sealkit
from sealkit import inner_loop, outer_loop
from sealkit.inner_loop import Trial, collate, optimizer_step, pack, run_trials
from sealkit.models.choice import BUNDLED_MODEL
from sealkit.outer_loop import Iteration, excerpt, m_step, sft_example
from sealkit.policy import Policy
from sealkit.runs.cache import compute_missing
from sealkit.runs.folder import lock_run_folder
from sealkit.runs.journal import ADAPTER, Journal
from sealkit.runs.processes import LOST_PROCESS, sigterm_as_run_error
from sealkit.selection import keep_best
from sealkit.tasks import knowledge

FAULTS = []  # (what befell, what was said)
SEEDS = 2026, 2027
KILLED = Path(__file__).with_name("killed.py")
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
NUMBERS = [("square", n) for n in range(11)]


# --- the model, and a small run that has ended


@pytest.fixture(scope="module")
def loaded():
    """A policy's model with its tokenizer; one thread, as in `killed.py`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    policy = small_policy(model, tokenizer)
    yield policy, tokenizer
    torch.set_num_threads(threads)


@pytest.fixture
def policy(loaded):
    """The Policy of the small run; its weights are put back after the test."""
    own = Policy(*loaded, small_policy(*loaded).config)
    start = own.weights()
    yield own
    own.load(start)


@pytest.fixture
def small(policy):
    """The small run, each time from the first policy; also checks that an error leaves that one."""
    start = policy.weights()

    def run(folder=None, **changes):
        policy.load(start)
        try:
            return small_run(policy.model, policy.tokenizer, folder, **changes)
        except BaseException:
            assert same_tensors(policy.weights(), start)
            raise

    return run


@pytest.fixture(scope="module")
def unbroken(loaded, tmp_path_factory):
    """The folder of a small run that nothing befell."""
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    policy = Policy(*loaded, None)
    start = policy.weights()
    small_run(*loaded, folder)
    policy.load(start)
    return folder


@pytest.fixture
def ended(unbroken, tmp_path):
    """A copy of the unbroken run."""
    return Path(shutil.copytree(unbroken, tmp_path / "run"))


@pytest.fixture(scope="module", autouse=True)
def killing(request, tmp_path_factory):
    """Processes of `killed.py`, one for each seed, which work beside the tests before theirs."""
    running, pipes = [], {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    if any(item.name == "test_20_kills_resume_to_the_same_bits" for item in request.session.items):
        for seed in SEEDS:
            command = [sys.executable, KILLED, tmp_path_factory.mktemp("killed"), str(seed)]
            running.append(subprocess.Popen(command, env=ONE_THREAD, **pipes))
    yield running
    for process in running:
        process.kill()
        process.wait()


def same_tensors(some, others):
    return some.keys() == others.keys() and all(
        torch.equal(some[name], others[name]) for name in some
    )


def same_history(some, others):
    """Whether all of two histories is the same, to the bit."""
    assert same_tensors(some.start, others.start)
    for a, b in zip(some.iterations, others.iterations, strict=True):
        assert replace(a, weights={}) == replace(b, weights={})
        assert same_tensors(a.weights, b.weights)
    return True


def content(folder):
    """{path: bytes} of all files of a run."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def lines_of(folder):
    return (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)


def rows_of(folder):
    """{key: value} of the lines of all journals of a run, policies by their hash."""
    lines = [line for path in folder.glob("journal*.jsonl") for line in open(path, "rb")]
    return {tuple(row["key"]): row["value"] for row in map(json.loads, lines)}


def without(folder, *kinds):
    """Take the lines of some kinds of key, such as ("trial", 2), from a run; policies whole."""
    lines = [line for line in lines_of(folder) if key_of(line)[:2] not in kinds]
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    for kind in kinds:
        shutil.rmtree(folder / "_".join(map(str, kind)), ignore_errors=True)


def key_of(line):
    return tuple(json.loads(line)["key"])


def without_last_pass(folder):
    """Take the last pass and the last policy from a finished run."""
    without(folder, ("policy", 2))
    (folder / "journal.jsonl").write_bytes(b"".join(lines_of(folder)[:-2]))


def refused(fault, folder, act, error=sealkit.RunError, names=()):
    """Check that `act` raises one error that names what it should, and changes no byte of the
    folder."""
    before = content(folder)
    with pytest.raises(error) as raised:
        act()
    message = str(raised.value)
    FAULTS.append((fault, message.replace(str(folder), "RUN")))
    assert all(str(name) in message for name in names), message
    assert content(folder) == before
    return raised.value


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


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


def test_memory_that_one_is_too_much_for_is_raised_as_itself(cache, capsys):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    compute = Squares(room=4)

    def never(keys):
        if NUMBERS[8] in keys:
            raise error
        return compute(keys)

    with pytest.raises(torch.OutOfMemoryError) as raised:
        compute_missing(cache, NUMBERS, never, 4)
    assert raised.value is error and cache == dict(zip(NUMBERS[:8], SQUARES))


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of questions")])
def test_other_errors_are_raised_at_once(cache, error):
    asked = []

    def compute(keys):
        asked.append(keys)
        raise error

    with pytest.raises(type(error)) as raised:
        compute_missing(cache, NUMBERS, compute, 4)
    assert raised.value is error and len(asked) == 1 and not cache


# --- the journal


def test_what_a_line_speaks_of_is_on_the_disk_before_it(policy, tmp_path, monkeypatch):
    """As the system is told: files, and the lists of files that hold them."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("only /proc says what a descriptor belongs to")
    synchronized, fsync = [], os.fsync

    def noting(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}")).relative_to(tmp_path.resolve())
        synchronized.append(f"{path.parent}/*.tmp" if path.suffix == ".tmp" else str(path))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    journal = Journal(tmp_path, policy.model.peft_config["default"])
    journal.update({("policy", 0): {"weights": policy.weights()}})
    whole = ["policy_0/*.tmp", "policy_0"]  # a file, and the list that names it
    assert synchronized == [".", *whole, *whole, "journal.jsonl", "."]
    journal.update({("trial", 1, 0, None): 1})
    assert synchronized[-1] == "journal.jsonl"


def test_what_could_not_be_written_is_not_remembered(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.update({("a", 1): 1})
    before = content(tmp_path)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        journal.update({("a", 2): 2, ("a", 3): 3})
    assert content(tmp_path) == before and journal == {("a", 1): 1}


def test_values_come_back_as_they_were(tmp_path):
    """Also what JSON has no own form for."""
    rows = {
        ("text", "arm, \ud800", 0): "\ud800 \x00 \x1b[2J \u2028 漢 😀",
        ("trial", 1, 0, None): {"losses": [0.1, 1e-30, 1 / 3, float("inf")], "answers": []},
        ("before", 1, 10**12): 0.0,
    }
    Journal(tmp_path).update(rows)
    again = Journal(tmp_path)
    assert again == rows and list(again) == list(rows)
    assert (tmp_path / "journal.jsonl").read_bytes().isascii()


def test_half_of_a_last_line_is_left_out_and_said(ended, small, capsys):
    whole = content(ended)
    path = ended / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    shutil.rmtree(ended / "policy_2")
    small(ended)
    said = capsys.readouterr().out.splitlines()
    half = f"The last line of '{path}' was written by half and is left out."
    assert half in said
    FAULTS.append(("half of a last line", half.replace(str(ended), "RUN")))
    assert content(ended) == whole


@pytest.mark.parametrize("cut", [1, 2])
def test_a_journal_is_cut_anywhere(ended, small, cut):
    """At any byte: what is whole is kept, what is not is left out, nothing is damaged."""
    path, whole = ended / "journal.jsonl", Journal(ended)
    data = path.read_bytes()
    for size in random.Random(cut).sample(range(len(data)), 40):
        path.write_bytes(data[:size])
        count = data[:size].count(b"\n")
        there = Journal(ended)
        assert list(there) == list(whole)[:count] and there.size == data[:size].rfind(b"\n") + 1


DAMAGES = {
    "not json": lambda line: line[:30] + b"\n",
    "not utf-8": lambda line: b"\xff" + line,
    "not an object": lambda line: b"[1, 2]\n",
    "a number": lambda line: b"17\n",
    "nested without end": lambda line: b"[" * 100_000 + b"\n",
    "empty": lambda line: b"\n",
    "a number changed": lambda line: re.sub(rb'"value": [\d.]+', b'"value": 0.75', line),
    "another key": lambda line: line.replace(b'"before", 1', b'"before", 2'),
    "its checksum changed": lambda line: line.replace(b'"crc": ', b'"crc": 1'),
    "no value": lambda line: json.dumps({"key": ["before", 1, 0], "crc": 1}).encode() + b"\n",
    "no key": lambda line: json.dumps({"value": 0.0, "crc": 1}).encode() + b"\n",
    "two lines in one": lambda line: line[:-1] + line,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_is_named(ended, small, damage):
    lines = lines_of(ended)
    assert key_of(lines[1]) == ("before", 1, 0)
    changed = DAMAGES[damage](lines[1])
    assert changed != lines[1]
    path = ended / "journal.jsonl"
    path.write_bytes(b"".join([lines[0], changed, *lines[2:]]))
    fault = f"line 2 of journal.jsonl: {damage}"
    refused(fault, ended, lambda: small(ended), names=[path, "line 2"])


def test_any_changed_bit_is_found(ended, capsys):
    """Named with file and number of the line; but for bits that make no difference (1e-05, 1E-05).

    Without adapters, to be fast: lines with one have their checksum too.
    """
    path, found, harmless = ended / "journal.jsonl", 0, 0
    without(ended, ("policy", 0), ("policy", 1), ("policy", 2))
    data, whole, draw = path.read_bytes(), Journal(ended), random.Random(0)
    for _ in range(1500):
        place, changed = draw.randrange(len(data) - 1), bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        number = data[:place].count(b"\n") + 1
        try:
            assert Journal(ended) == whole
            harmless += 1
        except sealkit.RunError as error:
            found += 1
            assert f"{path}, line {number}: " in str(error)
    with capsys.disabled():
        print(
            f"\nbits of a journal changed: {found} found and named, {harmless} make no difference"
        )
    assert found > 1450


def test_a_line_that_lacks_is_computed_again(ended, small):
    """One of each kind, and all of a kind; the files of a policy stay."""
    whole, expected = rows_of(ended), small(ended)
    for lacking in (
        [("before", 1, 0), ("self-edit", 1, 0, 1), ("trial", 1, 1, 0), ("policy", 1)],
        [("trial", 2, 0, 1)],
        [key for key in whole if key[0] == "self-edit"],
        [("policy", 0)],
    ):
        lines = [line for line in lines_of(ended) if key_of(line) not in lacking]
        (ended / "journal.jsonl").write_bytes(b"".join(lines))
        assert rows_of(ended) != whole
        assert same_history(small(ended), expected)
        assert rows_of(ended) == whole


def test_doubled_lines_are_harmless(ended, small, unbroken):
    path, expected = ended / "journal.jsonl", small(ended)
    path.write_bytes(b"".join(2 * line for line in lines_of(ended)) + b"".join(lines_of(ended)))
    before = content(ended)
    assert same_history(small(ended), expected) and content(ended) == before


# --- a run that has ended


def test_a_finished_run_is_read_back_whole(ended, small, policy, capsys):
    before = content(ended)
    history = small(ended)
    assert same_tensors(policy.weights(), history.iterations[-1].weights)
    said = capsys.readouterr().out
    assert said == f"Going on with the run in '{ended}': 12 trials are there.\n"
    assert content(ended) == before
    assert same_history(history, small())
    assert all(trial.losses for group in history.iterations[0].trials for trial in group)
    for iteration in history.iterations:
        texts = [[trial.self_edit for trial in group] for group in iteration.trials]
        assert all(len(set(group)) == 2 for group in texts), "candidates are drawn from one seed"


def test_the_folder_of_a_run(unbroken):
    names = {"run.json", "journal.jsonl"}
    adapters = {f"policy_{t}/{name}" for t in range(3) for name in (ADAPTER, "adapter_config.json")}
    assert content(unbroken).keys() == names | adapters
    kinds = {("policy", 0)}
    for t in (1, 2):
        kinds |= {("before", t, i) for i in range(2)} | {("policy", t)}
        kinds |= {("self-edit", t, i, j) for i in range(2) for j in range(2)}
        kinds |= {("trial", t, i, j) for i in range(2) for j in (None, 0, 1)}
    assert rows_of(unbroken).keys() == kinds and len(lines_of(unbroken)) == len(kinds)


def test_more_iterations_go_on_and_fewer_return_the_first(ended, small, policy):
    whole, expected = content(ended), small(ended)
    first = small(ended, iterations=1)
    assert same_history(first, replace(expected, iterations=expected.iterations[:1]))
    assert same_tensors(policy.weights(), first.iterations[0].weights) and content(ended) == whole
    third = small(ended, iterations=3)
    assert same_history(replace(third, iterations=third.iterations[:2]), expected)
    assert third.iterations[2].number == 3 and third.iterations[2].trials[0][0].losses
    now = content(ended)
    assert (
        now["journal.jsonl"].startswith(whole.pop("journal.jsonl")) and now.items() >= whole.items()
    )
    assert f"policy_3/{ADAPTER}" in now and same_history(small(ended, iterations=3), third)


def test_what_is_there_is_not_done_again(ended, small, monkeypatch):
    """One pass of the second iteration is missing: that one is run, and no self-edit is sampled."""
    whole, passes, try_out = content(ended), [], inner_loop.run_trial_batch
    without_last_pass(ended)

    def noting(policy, task, pairs):
        passes.append(len(pairs))
        return try_out(policy, task, pairs)

    def never(*arguments):
        pytest.fail("what is there was done again")

    monkeypatch.setattr(inner_loop, "run_trial_batch", noting)
    monkeypatch.setattr(outer_loop, "write_self_edits", never)
    monkeypatch.setattr(outer_loop, "answer_exams", never)
    small(ended)
    assert passes == [2] and content(ended) == whole


def test_what_a_killed_process_had_written_by_half_is_swept_away(ended, small):
    whole = content(ended)
    halves = [folder / f".{n:032x}.tmp" for n, folder in enumerate((ended, ended / "policy_1"))]
    for half in halves:
        half.write_bytes(b"half")
    refused("other seed, with halves of files", ended, lambda: small(ended, seed=4), names=["seed"])
    small(ended)
    assert content(ended) == whole


def test_each_m_step_begins_at_the_first_policy(ended, small, policy):
    """As ReST-EM does, and not at the one that wrote the self-edits."""
    history, passages = small(ended), sealkit.load_passages("bundled", limit=2)
    for iteration in history.iterations:
        assert iteration.kept
        examples = [
            (knowledge.prompt(passages[i], policy.config), iteration.trials[i][j].self_edit)
            for i, j in iteration.kept
        ]
        policy.load(history.start)
        assert tuple(m_step(policy, examples, (3, iteration.number))) == iteration.losses
        assert same_tensors(policy.weights(), iteration.weights)


# --- damaged folders, and other runs' folders


def test_missing_and_truncated_policies_are_named(ended, small):
    adapter = ended / "policy_1" / ADAPTER
    data = adapter.read_bytes()
    for fault, change in {
        "adapter cut short": data[: len(data) // 2],
        "adapter empty": b"",
        "one bit of an adapter flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "adapter of another policy": (ended / "policy_2" / ADAPTER).read_bytes(),
    }.items():
        adapter.write_bytes(change)
        refused(fault, ended, lambda: small(ended), names=[adapter])
    adapter.unlink()
    refused("adapter file missing", ended, lambda: small(ended), names=[adapter])
    shutil.rmtree(adapter.parent)
    refused("policy_1 missing", ended, lambda: small(ended), names=[adapter.parent])


@pytest.mark.parametrize(
    "text", ['{"settings": {"seed": 3,', "", "[1]", '"x"', "{}", '{"settings": 3, "machine": {}}']
)
def test_a_damaged_record_of_a_run_is_named(ended, small, text):
    record = ended / "run.json"
    record.write_text(text)
    refused(f"run.json is {text!r}", ended, lambda: small(ended), names=[record])


def test_other_settings_are_refused_by_name(ended, small, policy):
    passages = sealkit.load_passages("bundled", limit=3)
    for fault, changes, names in (
        ("seed", {"seed": 4}, ["seed is 3 there and 4 here"]),
        ("k", {"k": 1}, ["k is 2 there and 1 here"]),
        ("steps", {"steps": 3}, ["steps is 2 there and 3 here"]),
        ("rule", {"keep": keep_best}, ["keep is best_if_better there and keep_best here"]),
        ("prompts", {"prompts": knowledge.GENERAL_CONFIG.prompts}, ["prompts is"]),
        ("passages", {"passages": passages[1:]}, ["items is 2, "]),
        ("number of passages", {"passages": passages}, ["items is 2, ", "there and 3, "]),
    ):
        refused(f"other {fault}", ended, lambda: small(ended, **changes), names=names)  # noqa: B023
    start = policy.weights()
    policy.load({name: tensor + 1 for name, tensor in start.items()})
    refused(
        "other policy", ended, lambda: small_run(*loaded_of(policy), ended), names=["policy is"]
    )
    policy.load(start)
    embedding = policy.model.get_input_embeddings().weight.data
    embedding *= 2
    refused("other model", ended, lambda: small(ended), names=["model is"])
    embedding /= 2


def loaded_of(policy):
    return policy.model, policy.tokenizer


def test_a_folder_of_something_else_is_refused(tmp_path, small):
    (tmp_path / "thesis.txt").write_text("years of work")
    names = [tmp_path, "other files"]
    refused("a folder with other files", tmp_path, lambda: small(tmp_path), names=names)


def test_a_folder_of_the_old_format_is_told(tmp_path, small):
    (tmp_path / "run.json").write_text('{"seed": 3, "machine": {}}')
    (tmp_path / "trials.jsonl").write_text("{}\n")
    names = [tmp_path, "sealkit 0.1", "new folder"]
    refused("a run of sealkit 0.1", tmp_path, lambda: small(tmp_path), names=names)


def test_other_versions_and_threads_are_told(ended, small, capsys):
    record = json.loads((ended / "run.json").read_text())
    record["machine"] |= {"torch": "1.0", "threads": 2, "products": "torch.float16"}
    (ended / "run.json").write_text(json.dumps(record))
    small(ended)
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "elsewhere" in line]
    assert "torch is 1.0 there" in said and "threads is 2 there and 1 here" in said
    assert "products is torch.float16 there and torch." in said
    assert "last digits may differ" in said
    FAULTS.append(("resumed with other versions and threads", said))


def test_two_runs_on_one_folder(ended, small):
    receiver, sender = os.pipe()
    if not (holder := os.fork()):
        with lock_run_folder(ended):
            os.write(sender, b"held")
            time.sleep(600)
        os._exit(1)
    try:
        assert os.read(receiver, 4) == b"held"
        names = [ended, "Another process"]
        refused("two runs on one folder", ended, lambda: small(ended), names=names)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
    small(ended)  # a killed process holds nothing


# --- disks, signals


@contextmanager
def files_of_at_most(size):
    """Within this context no file may grow beyond `size` bytes: a write fails halfway, as on a full
    disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(ended, small):
    whole, journal = content(ended), ended / "journal.jsonl"

    def run_with_at_most(size):
        with files_of_at_most(size):
            small(ended)

    without_last_pass(ended)
    room, names = journal.stat().st_size + 300, ["journal.jsonl", "free some space"]
    refused("no room for a trial", ended, lambda: run_with_at_most(room), names=names)
    journal.write_bytes(b"".join(whole["journal.jsonl"].splitlines(keepends=True)[:-1]))
    names = ["policy_2", "free some space"]
    refused("no room for an adapter", ended, lambda: run_with_at_most(100_000), names=names)
    small(ended)
    assert content(ended) == whole


def test_no_room_for_a_run(tmp_path, small):
    def run():
        with files_of_at_most(100):
            small(tmp_path / "run")

    refused("no room for a run", tmp_path, run, names=["run.json", "free some space"])
    assert content(tmp_path) == {}


def test_a_folder_that_cannot_be_written(unbroken, small):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        run = Path(shutil.copytree(unbroken, Path(folder) / "run"))
        os.chmod(run, 0o555)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)  # root may write anywhere
            before = {path.name: path.stat().st_mtime for path in run.iterdir()}
            with pytest.raises(sealkit.RunError, match="allow writing") as raised:
                small(run)
            with pytest.raises(sealkit.RunError, match="allow writing"):
                small(run / "new")
        finally:
            if root:
                os.seteuid(0)
        FAULTS.append(("a read-only folder", str(raised.value).replace(str(run), "RUN")))
        assert {path.name: path.stat().st_mtime for path in run.iterdir()} == before
        assert content(run) == content(unbroken)
        os.chmod(run, stat.S_IRWXU)


PLACES = (
    "outer_loop.answer",  # the exam before
    "policy.SeededSampling.__call__",  # sampling
    "inner_loop.row_losses",  # the inner loop
    "inner_loop.ask",  # its exam
    "outer_loop.row_losses",  # the M-step
    "memo.write_whole",  # saving a policy
)


def test_an_interrupt_leaves_model_and_folder_ready_for_the_same_call(
    unbroken, loaded, tmp_path, monkeypatch
):
    """Ctrl-C in a notebook, several times on one model, at other places each time."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    passages, folder = sealkit.load_passages("bundled", limit=2), tmp_path / "run"
    monkeypatch.setattr(knowledge, "BUNDLED_CONFIG", loaded[0].config)

    def run():
        return sealkit.run_seal(model, tokenizer, passages, 2, 2, folder, 3)

    for place in PLACES:
        with monkeypatch.context() as patch:
            patch.setattr(f"sealkit.{place}", interrupt)
            with pytest.raises(KeyboardInterrupt):
                run()
        assert not any("lora" in name for name, _ in model.named_parameters())
        assert type(model).__name__ == "MistralForCausalLM" and not list(folder.rglob("*.tmp"))
    history = run()
    assert content(folder) == content(unbroken)
    assert any("lora" in name for name, _ in model.named_parameters())
    assert history.model.get_base_model() is model


def test_ctrl_c_names_the_command_that_goes_on(tmp_path):
    arguments = ["--passages", "2", "--self-edits", "2", "--iterations", "1", "--held-out", "2"]
    running = subprocess.Popen(
        [sys.executable, "-m", "sealkit", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ONE_THREAD,
        # a job in the background inherits that it is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    run = tmp_path / "runs" / "1"
    journal = run / "journal.jsonl"
    while running.poll() is None and not (journal.exists() and b'"trial"' in journal.read_bytes()):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130 and "Traceback" not in said, said
    message = said.strip().splitlines()[-1]
    FAULTS.append(("Ctrl-C", message))
    before, command = journal.read_bytes(), shlex.split(message.split("o go on: ")[1])
    assert command == ["python", "-m", "sealkit", *arguments, "--output", "runs/1"]
    command = [sys.executable, *command[1:]]
    pipes = {"capture_output": True, "text": True, "timeout": 300, "env": ONE_THREAD}
    done = subprocess.run(command, cwd=tmp_path, **pipes)
    assert done.returncode == 0 and "Going on with the run" in done.stdout, done.stderr
    assert journal.read_bytes().startswith(before)
    keys = list(map(key_of, lines_of(run)))
    assert len(keys) == len(set(keys)) and sum(key[0] == "trial" for key in keys) == 6
    assert json.loads((run / "results.json").read_text())["accuracy"]["after iteration 1"]
    assert (run / "figure.png").read_bytes().startswith(b"\x89PNG")


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
        patch.setattr("sealkit.evaluation.answers_to", lambda *arguments: pytest.fail(again))
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


# --- several processes


def launch(folder, count=2, point="none:0"):
    """The small run on so many processes, as a user would start it: (status, what was printed)."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo, by which processes on a CPU talk to each other")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    env = ONE_THREAD | {"CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 300}
    done = subprocess.run([sys.executable, *torchrun, KILLED, folder, point], env=env, **pipes)
    return done.returncode, done.stdout


def policies_of(folder):
    return {name: data for name, data in content(folder).items() if name.startswith("policy_")}


def test_two_processes_give_the_bits_of_one_and_one_goes_on(unbroken, small, tmp_path, capsys):
    run, whole = tmp_path / "run", rows_of(unbroken)
    status, said = launch(run)
    assert status == 0, said
    others = run / "journal-1.jsonl"
    assert policies_of(run) == policies_of(unbroken) and rows_of(run) == whole
    kinds = [{key[0] for key in map(key_of, open(path, "rb"))} for path in run.glob("*.jsonl")]
    assert all(own >= {"trial", "self-edit"} for own in kinds) and len(kinds) == 2
    assert len(lines_of(run)) + len(others.read_bytes().splitlines()) == len(whole)

    # as if both had been killed in the last iteration
    without(run, ("policy", 2))
    (run / "journal.jsonl").write_bytes(b"".join(lines_of(run)[:-1])[:-20])
    others.write_bytes(others.read_bytes()[:-20])
    small(run)
    said = capsys.readouterr().out
    assert said.count("was written by half and is left out") == 2 and "Going on" in said
    assert policies_of(run) == policies_of(unbroken)
    half = others.read_bytes().rindex(b"\n") + 1
    others.write_bytes(others.read_bytes()[:half])
    assert rows_of(run) == whole


def test_three_processes_go_on_with_a_run_of_one(ended, unbroken):
    without_last_pass(ended)
    without(ended, ("self-edit", 2), ("trial", 2))
    status, said = launch(ended, 3)
    assert status == 0 and said.count("Going on with the run") == 1, said
    assert policies_of(ended) == policies_of(unbroken) and rows_of(ended) == rows_of(unbroken)
    assert (ended / "journal-1.jsonl").stat().st_size > 0


def test_a_lost_process_ends_the_run_and_one_goes_on(unbroken, small, tmp_path):
    run, whole = tmp_path / "run", rows_of(unbroken)
    status, said = launch(run, 2, "module:3000")
    assert status != 0 and LOST_PROCESS in said
    FAULTS.append(("one of two processes is killed", LOST_PROCESS))
    assert "-9" in said and rows_of(run).items() < whole.items()
    small(run)
    assert policies_of(run) == policies_of(unbroken) and rows_of(run) == whole


def test_the_sentence_of_a_lost_process_is_not_cut_off_by_torchrun(monkeypatch):
    """Seen on a busy machine: its SIGTERM came when the run was over and nothing told yet."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        "sealkit.runs.processes.distributed_state", lambda: SimpleNamespace(num_processes=2)
    )
    try:
        with sigterm_as_run_error():
            assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.getsignal(signal.SIGTERM) is before
        with (
            pytest.raises(sealkit.RunError, match="Another process of this run has ended"),
            sigterm_as_run_error(),
        ):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_memory_that_runs_out_on_one_process_changes_no_plan_of_another(monkeypatch):
    asked = []
    for rank, room in enumerate((2, 100)):
        state = SimpleNamespace(process_index=rank, num_processes=2)
        monkeypatch.setattr("sealkit.runs.processes.distributed_state", lambda state=state: state)
        monkeypatch.setattr(
            "sealkit.runs.processes.broadcast", lambda own, rank: dict(zip(NUMBERS, SQUARES))
        )
        compute = Squares(room)
        assert compute_missing({}, NUMBERS, compute, 4) == SQUARES
        asked.append(compute.asked)
    assert asked == [[[0, 1, 2, 3], [0, 1], [2, 3], [8, 9], [10]], [[4, 5, 6, 7]]]


# --- a loss that is not finite, memory that runs out


def test_a_diverging_adapter_scores_0_and_harms_nobody(policy, validation, monkeypatch):
    policy = replace(policy, config=replace(policy.config, steps=3))
    pairs, start = [(passage, passage.oracle) for passage in validation[:4]], policy.weights()
    fork, healthy = inner_loop.fork, run_trials(policy, knowledge, pairs)
    order = sorted(range(4), key=lambda i: healthy[i].tokens)

    def fork_with(value):
        def forked(model, k):
            adapters = fork(model, k)
            next(iter(adapters.values()))[1].data[1] = value
            return adapters

        return forked

    reason = "training diverged at step 1: its loss or gradient was not finite"
    for value in (torch.nan, torch.inf, 1e30):
        monkeypatch.setattr(inner_loop, "fork", fork_with(value))
        trials = run_trials(policy, knowledge, pairs)
        bad = trials[order[1]]
        assert bad.reward == 0 and bad.reason == reason and bad.losses == []
        assert bad.answers == [""] * len(validation[order[1]].questions)
        others = [i for i in order if i != order[1]]
        assert [trials[i] for i in others] == [healthy[i] for i in others]
    FAULTS.append(("a loss of nan, or infinite", f"reward 0, {bad.reason}"))
    assert same_tensors(policy.weights(), start)


def steps_in_fp16(factors, first=2.0**16, count=3):
    """Where AdamW goes in `count` steps down loss i, factors[i] times weight i, computed in fp16:
    (weights, diverged, scales)."""
    weights = torch.nn.Parameter(torch.ones(len(factors), 1))
    optimizer = torch.optim.AdamW([weights], lr=0.5, weight_decay=0)
    scale, diverged = torch.full((len(factors),), first), torch.zeros(len(factors), dtype=bool)
    factors = torch.tensor(factors).half()
    for _ in range(count):

        def loss():
            return (weights[:, 0].half() * factors).float().nan_to_num(posinf=1e5)

        optimizer_step(optimizer, scale, [loss], diverged)
    return weights.detach()[:, 0], diverged.tolist(), scale.tolist()


def test_in_fp16_an_overflow_is_not_the_neighbours_business():
    """Gradients of adapters 1 and 3 overflow, at every scale and at first: the others take the
    steps, and keep the scales, that they have without them."""
    rows = [0.01, torch.inf, 3e-4, 100.0, 0.7]
    weights, diverged, scales = steps_in_fp16(rows)
    assert diverged == [False, True, False, False, False]
    assert scales == [2.0**15, 1.0, 2.0**15, 2.0**9, 2.0**15]  # 2.0**16 is infinite in fp16
    for i in (0, 2, 3, 4):
        alone, _, scale = steps_in_fp16(rows[i : i + 1])
        assert torch.equal(weights[i : i + 1], alone) and scale == scales[i : i + 1]
        assert alone != 1
    assert weights[1] == 1, "what diverged has no gradient"


def test_a_run_in_which_everything_diverges_ends_with_the_first_policy(small, policy, tmp_path):
    passages = sealkit.load_passages("bundled", limit=1)
    run, changes = tmp_path / "run", {"learning_rate": 1e30, "steps": 3}
    history = small(run, iterations=1, passages=passages, **changes)
    (iteration,) = history.iterations
    assert iteration.mean_reward == 0 and all(trial.reason for trial in iteration.trials[0])
    assert same_tensors(policy.weights(), history.start)
    assert str(iteration).count("training diverged at step 2") == 2
    assert "policy unchanged" in str(iteration)
    assert same_history(small(run, iterations=1, passages=passages, **changes), history)


def test_a_diverging_m_step_is_an_error_that_keeps_the_trials(tmp_path, small):
    passages, folder = sealkit.load_passages("bundled", limit=1), tmp_path / "run"
    changes = {"steps": 1, "m_step_learning_rate": 1e30, "keep": keep_best, "epochs": 2}
    with pytest.raises(FloatingPointError, match="lower learning rate") as raised:
        small(folder, passages=passages, **changes)
    FAULTS.append(("an M-step that diverges", str(raised.value)))
    assert [key_of(line)[0] for line in lines_of(folder)].count("trial") == 3
    assert not (folder / "policy_1").exists()
    before = content(folder)
    with pytest.raises(FloatingPointError):  # and again, of what is there
        small(folder, passages=passages, **changes)
    assert content(folder) == before


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
    fault, error = "memory runs out with one", torch.OutOfMemoryError
    refused(fault, ended, lambda: small(ended), error, ["CUDA out of memory"])


# --- self-edits are what a stranger wrote

MARKERS = [
    *("</s>", "<s>", "<pad>", "<unk>", "<|endoftext|>", "<|begin_of_text|>"),
    *("Notes:", "Implications:", "Question:", "Answer:", "Title:", "Passage:"),
    *("\n", "\r\n", "\n\n\n", "1. ", "- ", "**", "__", "#", "Sure! ", "\x00"),
    *("\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u202e", "\u200f", "\u2028", "\x85"),
    *("\ud800", "\udfff", "\ufffe", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>"),
    *("&lt;", "$x^", "%s{}\\", "\t", " ", "0", "9" * 40, "é", "漢", "😀"),
]


def strange(passage):
    """{name: a self-edit that nobody should write}."""
    answers = [f"Question: {q.question} Answer: {q.answers[0]}" for q in passage.questions]
    return {
        "empty": "",
        "whitespace": " \t\n\r\n  ",
        "only digits": "1234567890" * 300,
        "one megabyte of a word": "a" * 2**20,
        "one megabyte of lines": "1. x\n" * 2**18,
        "one megabyte of newlines": "\n" * 2**20,
        "question and a megabyte of newlines": "Question: x" + "\n" * 2**20,
        "one megabyte of numbering": "1. " * 2**18,
        "control characters": "".join(map(chr, range(32))) + "word",
        "half surrogate pairs": "Pelvik \ud800 owns \udfff",
        "right to left": "\u202eabc\u200f\u2067def",
        "special tokens": "<s> Pelvik </s></s><pad> owns <unk>",
        "prompt markers": "Question: Who? Answer: me\n\nNotes: x\nTitle: y\nPassage: z",
        "answers pasted in": "\n".join(answers),
        "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>",
        "terminal escapes": "\x1b[2J\x1b]0;owned\x07\x9b31mred",
        "line separators": "one\u2028two\x85three\x0cfour",
    }


def utf16(text):
    """Bytes in which two halves of a surrogate pair are the same as the whole, as in JSON."""
    return text.encode("utf-16", "surrogatepass")


def check_rows(tokenizer, passage, edits, most):
    """Everything between text and batch keeps its bounds."""
    config = replace(sealkit.config_for(tokenizer), max_tokens=most)
    policy, packed, size = Policy(None, tokenizer, config), [], len(tokenizer)
    known = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for edit in edits:
        sequences = sealkit.training_sequences(edit, passage)
        assert sequences[0] == f"{passage.title}\n{passage.text}"
        assert all(line.strip() and "\n" not in line for line in sequences[1:])
        ids, positions = pack(policy, sequences)
        assert 0 < len(ids) == len(positions) <= most and max(ids) < size and positions[0] == 0
        steps = zip(positions, positions[1:])
        assert all(after in (before + 1, 0) for before, after in steps)
        for i, token in enumerate(ids):
            ends = i + 1 == len(ids) or positions[i + 1] == 0
            assert token not in known or ends or positions[i] == 0, "a special token within a text"
        line = json.dumps({"self_edit": edit})
        assert line.isascii() and "\x1b" not in line
        assert utf16(json.loads(line)["self_edit"]) == utf16(edit)
        assert excerpt(edit).isprintable() and len(excerpt(edit)) < 400
        packed.append((ids, positions))
    inputs, labels = collate(packed, tokenizer.pad_token_id, "cpu")
    assert inputs["input_ids"].shape == inputs["position_ids"].shape == labels.shape
    assert (labels >= -100).all() and labels.max() < size
    assert ((labels != -100).sum(1) < torch.tensor([len(ids) for ids, _ in packed])).all()


@pytest.fixture(scope="module")
def tokenizers(loaded):
    return [loaded[1], *map(with_pad, map(tokenizer_like, CONFIGS))]


def with_pad(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_each_strange_self_edit_is_trained_on_within_bounds(policy, tokenizers, tmp_path):
    passage = sealkit.load_passages("bundled", limit=1)[0]
    small_policy(*loaded_of(policy), steps=5, max_tokens=256)
    edits = strange(passage)
    for tokenizer in tokenizers:
        check_rows(tokenizer, passage, edits.values(), 512)
    trials = sealkit.evaluate_self_edits(*loaded_of(policy), passage, list(edits.values()))
    for name, trial in zip(edits, trials, strict=True):
        said = f"{trial.tokens} tokens trained on, reward {trial.reward:.0%}"
        FAULTS.append((f"self-edit: {name}", said))
        assert 0 <= trial.reward <= 1 and trial.tokens <= 256 and not trial.reason
        assert len(trial.losses) == 5 and all(map(isfinite, trial.losses))
    rewards = dict(zip(edits, (trial.reward for trial in trials)))
    assert rewards["answers pasted in"] > rewards["empty"]  # allowed: it is learning
    Journal(tmp_path).update({("trial", name): asdict(one) for name, one in zip(edits, trials)})
    assert Journal(tmp_path) == {("trial", name): asdict(one) for name, one in zip(edits, trials)}
    assert (tmp_path / "journal.jsonl").read_bytes().isascii()
    for edit in edits.values():
        ids, labels = sft_example(policy, knowledge.prompt(passage, policy.config), edit[:2000])
        assert len(ids) == len(labels) and labels[-1] == policy.tokenizer.eos_token_id


def test_html_and_terminal_escapes_are_shown_and_not_obeyed(validation):
    """In the log, which goes to a terminal, as escaped characters; in a notebook, whose cells print
    self-edits, as text."""
    import nbformat
    from nbconvert import HTMLExporter

    edits = list(strange(validation[0]).values())
    trials = tuple(Trial(edit, 0.0, [], [1.0], 1) for edit in edits)
    name = "\x1b[2J<b>\u202e"
    log = str(Iteration(1, (name,), (0.0,), (0.0,), (trials,), (), (), {}))
    lines = log.removesuffix("\n").split("\n")
    assert len(lines) == 3 + len(edits)
    assert all(line.isprintable() and len(line) < 600 for line in lines)
    shown = "".join(edit.encode("utf-8", "replace").decode() for edit in edits if len(edit) < 9999)
    output = nbformat.v4.new_output("stream", name="stdout", text=shown)
    cell = nbformat.v4.new_code_cell("print(edit)", outputs=[output])
    html, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    assert "&lt;script&gt;alert(1)" in html
    assert "<script>alert(1)" not in html and "<img src=x" not in html


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
SELF_EDITS = st.lists(st.one_of(ANY_TEXT, st.sampled_from(MARKERS)), max_size=12).map("".join)


def test_10_000_fuzzed_self_edits(policy, tokenizers, validation, capsys):
    """Parsing and batching of all; the inner loop and the M-step on a sample of them."""
    sample, count = [], 0

    @settings(
        max_examples=520,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(SELF_EDITS, min_size=20, max_size=20),
        st.sampled_from(range(len(tokenizers))),
        st.sampled_from([40, 128, 512]),
    )
    def parse_and_batch(edits, which, most):
        nonlocal count
        check_rows(tokenizers[which], validation[1], edits, most)
        count += len(edits)
        sample.extend(edits[:1])

    parse_and_batch()
    config = replace(policy.config, steps=1, max_tokens=160, adapters_per_pass=25)
    policy, chosen = replace(policy, config=config), sorted(set(sample), key=len)[-120:]
    trials = run_trials(policy, knowledge, [(validation[1], edit) for edit in chosen])
    for trial in trials:
        assert 0 <= trial.reward <= 1 and isfinite(trial.losses[0]) and trial.tokens <= 160
    prompt = knowledge.prompt(validation[1], config)
    losses = m_step(policy, [(prompt, edit) for edit in random.Random(0).sample(chosen, 8)])
    assert len(losses) == 2 and all(map(isfinite, losses))
    with capsys.disabled():
        print(f"\nfuzzed self-edits: {count} parsed and batched, ", end="")
        print(f"{len(trials)} of them trained on and examined, 0 failures")
    assert count >= 10_000


# --- no code runs from data


def test_no_way_from_data_to_code():
    package = Path(sealkit.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    for path in (package.parent / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        sources[path] = "\n".join(code)
    assert len(sources) > 15
    ways = (
        r"trust_remote_code(?!(?:\": |=)False)|pickle|torch\.load\b|weights_only"
        r"|(?<![\w.`])(?:eval|exec|compile|__import__)\(|os\.system|os\.popen|subprocess"
        r"|shell=True|joblib|dill\b|yaml\.load"
    )
    found = {path.name: re.findall(ways, text) for path, text in sources.items()}
    assert not {name: ways for name, ways in found.items() if ways}
    shown = r"HTML\(|Markdown\(|Javascript\(|_repr_html_"
    notebooks = {path.name: text for path, text in sources.items() if path.suffix == ".ipynb"}
    found = {name for name, text in notebooks.items() if re.search(shown, text)}
    assert not found, "a self-edit must never reach a notebook as HTML"


@pytest.mark.parametrize("kind", ["pickle", "code for a known type", "code for a new type"])
def test_a_malicious_checkpoint_runs_nothing(kind, tmp_path, monkeypatch):
    """Not even if the user says yes to whatever is asked."""
    monkeypatch.setattr("builtins.input", lambda *prompt: "y")
    folder = Path(shutil.copytree(BUNDLED_MODEL, tmp_path / "model"))
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    if kind == "pickle":
        for path in folder.glob("*.safetensors"):
            path.unlink()
        torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    else:
        names = "MistralForCausalLM as Evil, MistralConfig as EvilConfig"
        code = f"open({str(marker)!r}, 'w')\nfrom transformers import {names}\n"
        (folder / "evil.py").write_text(code)
        classes = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}
        config = json.loads((folder / "config.json").read_text()) | {"auto_map": classes}
        if kind == "code for a new type":
            config |= {"model_type": "evil", "architectures": ["Evil"]}
        (folder / "config.json").write_text(json.dumps(config))
    if kind == "code for a known type":
        model, _ = sealkit.load_quantized(folder)
        assert type(model).__module__.startswith("transformers.")
    else:
        with pytest.raises(ValueError, match="No model could be loaded") as raised:
            sealkit.load_quantized(folder)
        said = str(raised.value).replace(str(folder), "MODEL")
        FAULTS.append((f"checkpoint with {kind}", said))
    assert not marker.exists()


# --- a run that was killed, and all faults


def test_20_kills_resume_to_the_same_bits(killing, unbroken, capsys):
    said = [process.communicate(timeout=600) for process in killing]
    assert not any(process.returncode for process in killing), said
    lines = [line for printed, _ in said for line in printed.splitlines()]
    killed = [json.loads(line) for line in lines if line.startswith("{")]
    whole = content(unbroken)
    assert len(killed) == len(SEEDS) * sum(POINTS.values()) >= 20
    same = [
        row["signal"] == -signal.SIGKILL
        and row["resumed"] == 0
        and content(Path(row["folder"])) == whole
        for row in killed
    ]
    with capsys.disabled():
        seeds = f"(seeds {SEEDS[0]} and {SEEDS[1]})"
        print(f"\nkilled before, or halfway through | of | resumed to the same bits   {seeds}")
        for row, equal in zip(killed, same):
            print(f"  {row['point']} | {row['of']} | {equal}")
        print(f"  {sum(same)}/{len(same)} kills resumed to the same bits")
    assert all(same)
    halves = [row for row in killed if row["point"].startswith("record")]
    left_out = "was written by half and is left out"
    assert all(any(left_out in line for line in row["log"]) for row in halves)
    going_on = [any("Going on with the run" in line for line in row["log"]) for row in killed]
    assert sum(going_on) >= len(killed) - 6  # a few die before the journal has a whole line


def test_the_table_of_faults(capsys):
    with capsys.disabled():
        print("\nwhat befell | what was said")
        for fault, message in FAULTS:
            print(f"  {fault} | {message}")
