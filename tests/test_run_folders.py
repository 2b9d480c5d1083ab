"""What can befall a run: it goes on to the same bits, or says what is wrong and changes nothing."""

import json
import os
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
from dataclasses import replace
from pathlib import Path

import pytest
from killed import small_run
from small_runs import (
    FAULTS,
    ONE_THREAD,
    content,
    ended,
    interrupt,
    key_of,
    lines_of,
    loaded,
    loaded_of,
    policy,
    print_faults,
    refused,
    rows_of,
    same_history,
    same_tensors,
    small,
    unbroken,
    without_last_pass,
)

import sealkit
from sealkit import inner_loop, outer_loop
from sealkit.cli.main import main
from sealkit.outer_loop import m_step
from sealkit.runs import folder as run_folder
from sealkit.runs.folder import lock_run_folder
from sealkit.runs.journal import ADAPTER
from sealkit.selection import keep_best
from sealkit.tasks import knowledge

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
        (
            "rule",
            {"keep": keep_best},
            ["keep is keep_best_above_baseline there and keep_best here"],
        ),
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


def test_a_folder_of_something_else_is_refused(tmp_path, small):
    (tmp_path / "thesis.txt").write_text("years of work")
    names = [tmp_path, "other files"]
    refused("a folder with other files", tmp_path, lambda: small(tmp_path), names=names)


def test_a_folder_of_the_old_format_is_told(tmp_path, small):
    (tmp_path / "run.json").write_text('{"seed": 3, "machine": {}}')
    (tmp_path / "trials.jsonl").write_text("{}\n")
    names = [tmp_path / "run.json", "settings", "new folder"]
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
    "runs.journal.write_atomically",  # saving a policy
)


def test_an_interrupt_leaves_model_and_folder_ready_for_the_same_call(
    unbroken, loaded, tmp_path, monkeypatch
):
    """Ctrl-C in a notebook, several times on one model, at other places each time."""
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    passages, folder = sealkit.load_passages("bundled", limit=2), tmp_path / "run"
    monkeypatch.setattr(knowledge, "BUNDLED_CONFIG", loaded[0].seal_config)

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


def test_ctrl_c_names_the_command_that_goes_on(tmp_path, monkeypatch, capsys):
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
    monkeypatch.chdir(tmp_path)
    assert not main(command[3:])
    assert "Going on with the run" in capsys.readouterr().out
    assert journal.read_bytes().startswith(before)
    keys = list(map(key_of, lines_of(run)))
    assert len(keys) == len(set(keys)) and sum(key[0] == "trial" for key in keys) == 6
    assert json.loads((run / "results.json").read_text())["accuracy"]["after iteration 1"]
    assert (run / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_of_faults(capsys):
    with capsys.disabled():
        print_faults()


def test_a_run_in_a_drive_that_is_not_mounted_is_refused(tmp_path, monkeypatch):
    """A folder made there would end with Colab's session."""
    drive = tmp_path / "content" / "drive"
    drive.mkdir(parents=True)
    monkeypatch.setattr(run_folder, "DRIVE", drive)
    for run_dir in (drive / "MyDrive" / "seal", drive / "MyDrive" / "a" / "b"):
        with pytest.raises(
            run_folder.RunError, match="not mounted: run `from google.colab import drive;"
        ):
            with run_folder.open_run(run_dir, {}, {}):
                pass
        assert not list(drive.iterdir())
    (drive / "MyDrive").mkdir()
    with run_folder.open_run(drive / "MyDrive" / "seal", {}, {}) as cache:
        cache.update({("trial", 1): 1})
    with run_folder.open_run(tmp_path / "elsewhere", {}, {}):
        pass
