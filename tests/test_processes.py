"""Several processes give the bits of one, and a run that was killed goes on to them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from killed import ENDED, POINTS
from small_runs import (
    FAULTS,
    ONE_THREAD,
    content,
    ended,
    key_of,
    lines_of,
    loaded,
    policy,
    print_faults,
    rows_of,
    small,
    unbroken,
    without,
    without_last_pass,
)

import sealkit
from sealkit.runs.processes import LOST_PROCESS, sigterm_as_run_error

SEEDS = 2026, 2027
KILLED = Path(__file__).with_name("killed.py")


# --- several processes


def launch(count, *arguments):
    """`killed.py` on so many processes, as a user would start it: (status, what was printed)."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo, by which processes on a CPU talk to each other")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    env = ONE_THREAD | {"CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 300}
    done = subprocess.run([sys.executable, *torchrun, KILLED, *arguments], env=env, **pipes)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Of one launch on two processes: (folder of a run that they end, folder of another in which
    one of them is killed, status, what was printed)."""
    folder = tmp_path_factory.mktemp("two")
    run, broken = folder / "run", folder / "broken"
    return run, broken, *launch(2, run, broken, "module:3000")


def policies_of(folder):
    return {name: data for name, data in content(folder).items() if name.startswith("policy_")}


def test_two_processes_give_the_bits_of_one_and_one_goes_on(unbroken, small, two, capsys):
    (run, _, _, said), whole = two, rows_of(unbroken)
    assert said.count(ENDED) == 2, said
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
    status, said = launch(3, ended)
    assert status == 0 and said.count(ENDED) == 3, said
    assert said.count("Going on with the run") == 1, said
    assert policies_of(ended) == policies_of(unbroken) and rows_of(ended) == rows_of(unbroken)
    assert (ended / "journal-1.jsonl").stat().st_size > 0


def test_a_lost_process_ends_the_run_and_one_goes_on(unbroken, small, two):
    (_, run, status, said), whole = two, rows_of(unbroken)
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


# --- a run that was killed


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
        print_faults()
