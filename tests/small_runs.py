"""A small run for the tests of what can befall one: fixtures, and questions about its folder.

Model and unbroken run are made once in a process, for all files that import these fixtures.
"""

import json
import os
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from killed import small_policy, small_run

import sealkit
from sealkit.policy import Policy

FAULTS = []  # (what befell, what was said)
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@cache
def load():
    """A policy's model with its tokenizer."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    return small_policy(model, tokenizer), tokenizer


@pytest.fixture(scope="module")
def loaded():
    """A policy's model with its tokenizer; one thread, as in `killed.py`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load()
    torch.set_num_threads(threads)


@pytest.fixture
def policy(loaded):
    """The Policy of the small run; its weights are put back after the test."""
    own = Policy(*loaded, small_policy(*loaded).seal_config)
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
    folder = tmp_path_factory.getbasetemp() / "unbroken"
    if not (folder / "policy_2").exists():
        policy = Policy(*loaded, None)
        start = policy.weights()
        small_run(*loaded, folder)
        policy.load(start)
    return folder


@pytest.fixture
def ended(unbroken, tmp_path):
    """A copy of the unbroken run."""
    return Path(shutil.copytree(unbroken, tmp_path / "run"))


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


def loaded_of(policy):
    return policy.model, policy.tokenizer


def print_faults():
    """The table of what befell and what was said, of the tests that ran in this process."""
    print("\nwhat befell | what was said")
    for fault, message in FAULTS:
        print(f"  {fault} | {message}")
    FAULTS.clear()
