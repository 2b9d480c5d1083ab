"""What can befall a run: it goes on to the same bits, or says what is wrong and leaves everything as it was."""

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
from math import isfinite
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sealkit
from families import CONFIGS, tokenizer_like
from killed import CACHE_BYTES, POINTS, small_run
from sealkit import inner_loop, outer_loop, runs, self_edits
from sealkit.exam import MAX_ANSWER_TOKENS
from sealkit.inner_loop import attach_policy, collate, descend, pack, run_trials
from sealkit.loading import BUNDLED_MODEL
from sealkit.outer_loop import excerpt, m_step, policy_tensors, supervised_ids

FAULTS = []  # (what befell, what was said)
SEEDS = 2026, 2027


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """(folder of an unbroken run, what two processes of `killed.py` printed, a row for each point)."""
    folders, script = [tmp_path_factory.mktemp("killed") for _ in SEEDS], Path(__file__).with_name("killed.py")
    running = [subprocess.Popen([sys.executable, script, folder, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=os.environ | {"OMP_NUM_THREADS": "1"}) for folder, seed in zip(folders, SEEDS)]
    said = [process.communicate(timeout=600) for process in running]
    assert not any(process.returncode for process in running), said
    return folders[0] / "unbroken", [json.loads(line) for printed, _ in said for line in printed.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def loaded():
    """A model for runs that end early and so leave it as it was; one thread, as in `killed.py`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield sealkit.load_quantized("bundled", "cpu")
    torch.set_num_threads(threads)


@pytest.fixture
def ended(killed, tmp_path, monkeypatch):
    """A copy of the unbroken run."""
    monkeypatch.setattr("sealkit.self_edits.CACHE_BYTES", CACHE_BYTES)
    return Path(shutil.copytree(killed[0], tmp_path / "run"))


def content(folder):
    """{path: bytes} of a run, but for the order of PEFT's set of module names and its card."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in ("adapter_config.json", "README.md", ".lock")}


def refused(fault, folder, act, error=sealkit.RunError, names=()):
    """Check that `act` raises one error that names what it should, and changes no byte of the folder."""
    before = content(folder)
    with pytest.raises(error) as raised:
        act()
    message = str(raised.value)
    FAULTS.append((fault, message.replace(str(folder), "RUN")))
    assert all(str(name) in message for name in names), message
    assert content(folder) == before


def test_20_kills_resume_to_the_same_bits(killed, capsys):
    unbroken, rows = content(killed[0]), killed[1]
    assert len(rows) == len(SEEDS) * sum(POINTS.values()) >= 20
    same = [row["signal"] == -signal.SIGKILL and row["resumed"] == 0 and content(Path(row["folder"])) == unbroken for row in rows]
    with capsys.disabled():
        print(f"\nkilled before, or halfway through | of | resumed to the same bits   (seeds {SEEDS[0]} and {SEEDS[1]})")
        for row, equal in zip(rows, same):
            print(f"  {row['point']} | {row['of']} | {equal}")
        print(f"  {sum(same)}/{len(same)} kills resumed to the same bits")
    assert all(same)
    halves = [row for row in rows if row["point"].startswith("record")]
    assert any("was written by half and is left out" in line for row in halves for line in row["log"])
    assert sum(any("Going on with the run" in line for line in row["log"]) for row in rows) >= len(rows) - 3  # a few die before there is a run


def test_a_finished_run_is_read_back_whole(ended, loaded):
    lines, before = [], content(ended)
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    history = small_run(model, tokenizer, ended, log=lines.append)
    assert content(ended) == before and len(lines) <= 2 and "2 iterations and 12 trials" in lines[0]
    fresh = small_run(*sealkit.load_quantized("bundled", "cpu"), None)
    for a, b in zip(history.iterations, fresh.iterations, strict=True):
        assert (a.before, a.passage_only, a.trials, a.kept, a.losses) == (b.before, b.passage_only, b.trials, b.kept, b.losses)
        assert all(torch.equal(a.policy[name], b.policy[name]) for name in b.policy)
    assert all(torch.equal(policy_tensors(history.policy)[name], tensor) for name, tensor in fresh.iterations[-1].policy.items())
    assert all(torch.equal(history.start[name], tensor) for name, tensor in fresh.start.items())


def test_half_of_a_last_line_is_cut_off_and_said(ended, loaded):
    whole, lines = content(ended), []
    path = ended / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    shutil.rmtree(ended / "policy_2")
    small_run(*sealkit.load_quantized("bundled", "cpu"), ended, log=lines.append)
    FAULTS.append(("half of a last line", next(line for line in lines if "half" in line).replace(str(ended), "RUN")))
    assert content(ended) == whole


@pytest.mark.parametrize("damage", ["not json", "not utf-8", "not an object", "a number changed", "twice", "a field lacks", "no iteration"])
def test_a_damaged_line_is_named(ended, loaded, damage):
    path = ended / "trials.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    row = json.loads(lines[4])
    lines[4] = {
        "not json": lines[4][:30] + b"\n", "not utf-8": b"\xff" + lines[4], "not an object": b"[1, 2]\n", "twice": lines[3],
        "no iteration": json.dumps(row | {"iteration": "two"}).encode() + b"\n",
        "a number changed": json.dumps(row | {"reward": row["reward"] + 1 / 6}).encode() + b"\n",
        "a field lacks": json.dumps({name: value for name, value in row.items() if name != "answers"}).encode() + b"\n",
    }[damage]
    path.write_bytes(b"".join(lines))
    refused(f"line 5 of trials.jsonl: {damage}", ended, lambda: small_run(*loaded, ended), names=[path, "line 5"])


def test_missing_and_truncated_policies_are_named(ended, loaded):
    adapter = ended / "policy_1" / "adapter_model.safetensors"
    data = bytearray(adapter.read_bytes())
    for fault, change in (("adapter cut short", data[: len(data) // 2]), ("adapter empty", b""), ("one bit of an adapter flipped", data[:-1] + bytes([data[-1] ^ 1]))):
        adapter.write_bytes(change)
        refused(fault, ended, lambda: small_run(*loaded, ended), names=[adapter])
    adapter.unlink()
    refused("adapter file missing", ended, lambda: small_run(*loaded, ended), names=[adapter])
    shutil.rmtree(adapter.parent)
    refused("policy_1 missing", ended, lambda: small_run(*loaded, ended), names=[adapter.parent])
    (ended / "run.json").write_text('{"seed": 3,')
    refused("run.json cut short", ended, lambda: small_run(*loaded, ended), names=[ended / "run.json"])


def test_other_settings_are_refused_by_name(ended, loaded):
    other = {"seed": 4}, {"settings": sealkit.Settings(steps=3, adapters_per_pass=4)}, {"keep": outer_loop.best}
    for changes, names in zip(other, (["seed is 3 there and 4 here"], ["inner_loop.steps is 2 there and 3 here"], ["keep", "best"])):
        refused(f"other {next(iter(changes))}", ended, lambda: small_run(*loaded, ended, **changes), names=names)
    refused("other passages", ended, lambda: sealkit.run_seal(
        *loaded, sealkit.load_passages("bundled", limit=3)[1:], 2, 2, ended, 3, sealkit.Settings(steps=2, adapters_per_pass=4),
        sealkit.Reinforcement(epochs=1)), names=["passages"])


def test_a_folder_with_other_files_is_refused(tmp_path, loaded):
    (tmp_path / "thesis.txt").write_text("years of work")
    refused("a folder with other files", tmp_path, lambda: small_run(*loaded, tmp_path), names=[tmp_path, "other files"])


def test_other_versions_are_told(ended):
    record = json.loads((ended / "run.json").read_text())
    record["machine"]["torch"] = "1.0"
    (ended / "run.json").write_text(json.dumps(record))
    lines = []
    small_run(*sealkit.load_quantized("bundled", "cpu"), ended, log=lines.append)
    FAULTS.append(("resumed with other versions", next(line for line in lines if "torch is 1.0 there" in line)))


def test_two_runs_on_one_folder(ended, loaded):
    holder = subprocess.Popen([sys.executable, "-c", "import sys; from sealkit.runs import hold\nwith hold(__import__('pathlib').Path(sys.argv[1])): "
                               "print('held', flush=True); sys.stdin.read()", str(ended)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        refused("two runs on one folder", ended, lambda: small_run(*loaded, ended), names=[ended, "Another process"])
    finally:
        holder.kill()
        holder.wait()
    small_run(*sealkit.load_quantized("bundled", "cpu"), ended)  # a killed process holds nothing


def without_last_pass(folder):
    """Take the last pass and the last policy from a finished run."""
    path = folder / "trials.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    shutil.rmtree(folder / "policy_2")


def test_what_is_there_is_not_done_again(ended, loaded, monkeypatch):
    """One pass of the second iteration is missing: that one is run, and no self-edit is sampled."""
    whole, passes = content(ended), []
    without_last_pass(ended)
    one_pass, complete = inner_loop.one_pass, self_edits.complete

    def answers_alone(model, tokenizer, prompts, most, *arguments, **options):
        assert most == MAX_ANSWER_TOKENS, "a self-edit sampled again"
        return complete(model, tokenizer, prompts, most, *arguments, **options)

    monkeypatch.setattr(inner_loop, "one_pass", lambda *arguments: passes.append(len(arguments[2])) or one_pass(*arguments))
    monkeypatch.setattr(self_edits, "complete", answers_alone)
    small_run(*sealkit.load_quantized("bundled", "cpu"), ended)
    assert passes == [2] and content(ended) == whole


@contextmanager
def files_of_at_most(size):
    """Within this context the system refuses to let a file grow beyond `size` bytes: a write fails halfway, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(ended, loaded):
    whole, model = content(ended), loaded
    without_last_pass(ended)

    def run_with_at_most(size):
        with files_of_at_most(size):
            small_run(*model, ended)

    refused("no room for a trial", ended, lambda: run_with_at_most((ended / "trials.jsonl").stat().st_size + 300), names=["trials.jsonl", "free some space"])
    lines = whole["trials.jsonl"]
    (ended / "trials.jsonl").write_bytes(lines)
    refused("no room for an adapter", ended, lambda: run_with_at_most(100_000), names=["policy_2", "free some space"])
    small_run(*sealkit.load_quantized("bundled", "cpu"), ended)
    assert content(ended) == whole


def test_a_folder_that_cannot_be_written(killed, loaded):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        run = Path(shutil.copytree(killed[0], Path(folder) / "run"))
        os.chmod(run, 0o555)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)  # root may write anywhere
            before = {path.name: path.stat().st_mtime for path in run.iterdir()}
            with pytest.raises(sealkit.RunError, match="allow writing") as raised:
                small_run(*loaded, run)
            with pytest.raises(sealkit.RunError, match="allow writing"):
                small_run(*loaded, run / "new")
        finally:
            if root:
                os.seteuid(0)
        FAULTS.append(("a read-only folder", str(raised.value).replace(str(run), "RUN")))
        assert {path.name: path.stat().st_mtime for path in run.iterdir()} == before and content(run) == content(killed[0])
        os.chmod(run, stat.S_IRWXU)


def test_an_interrupt_leaves_model_and_folder_ready_for_the_same_call(killed, loaded, tmp_path, monkeypatch):
    """Ctrl-C in a notebook, three times on one model, at other places each time."""
    monkeypatch.setattr("sealkit.self_edits.CACHE_BYTES", CACHE_BYTES)
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    for place in ("sealkit.inner_loop.examine", "sealkit.inner_loop.row_losses", "sealkit.outer_loop.row_losses"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupt)
            with pytest.raises(KeyboardInterrupt):
                small_run(model, tokenizer, tmp_path / "run")
        assert not any("lora" in name for name, _ in model.named_parameters())
    small_run(model, tokenizer, tmp_path / "run")
    assert content(tmp_path / "run") == content(killed[0])


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


def test_ctrl_c_names_the_command_that_goes_on(tmp_path):
    arguments = ["--passages", "2", "--self-edits", "2", "--iterations", "1", "--held-out", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([sys.executable, "-m", "sealkit", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # a job in the background inherits that it is ignored
    trials = tmp_path / "runs" / "1" / "trials.jsonl"
    while not trials.exists() and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130 and "Traceback" not in said, said
    message = said.strip().splitlines()[-1]
    FAULTS.append(("Ctrl-C", message))
    before, command = trials.read_bytes(), shlex.split(message.split("To go on: ")[1])
    assert command == ["python", "-m", "sealkit", *arguments, "--output", "runs/1"]
    done = subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0 and "Going on with the run" in done.stdout, done.stderr
    assert trials.read_bytes().startswith(before) and len(trials.read_text().splitlines()) == 6


def test_a_comparison_goes_on_where_it_stopped(loaded, validation, tmp_path, monkeypatch):
    _, tokenizer = loaded
    policy, quick, path = attach_policy(sealkit.load_quantized("bundled", "cpu")[0]), sealkit.Settings(steps=1), tmp_path / "results.json"
    whole = sealkit.compare(policy, tokenizer, validation[:2], settings=quick).scores
    with monkeypatch.context() as patch:
        patch.setattr("sealkit.evaluation.generate_self_edits", interrupt)
        with pytest.raises(KeyboardInterrupt):
            sealkit.compare(policy, tokenizer, validation[:2], settings=quick, save_to=path)
    assert list(json.loads(path.read_text())["accuracy"]) == ["no adaptation", "passage in context", "passage only"]
    with monkeypatch.context() as patch:
        patch.setattr("sealkit.evaluation.answer_questions", lambda *arguments: pytest.fail("an arm that is there was run again"))
        assert sealkit.compare(policy, tokenizer, validation[:2], settings=quick, save_to=path).scores == whole
    refused("results of other settings", tmp_path, lambda: sealkit.compare(policy, tokenizer, validation[:2], settings=quick, seed=1, save_to=path),
            names=[path, "seed is 0 there and 1 here"])


# --- a loss that is not finite, memory that runs out


def test_a_diverging_adapter_scores_0_and_harms_nobody(loaded, validation, monkeypatch):
    _, tokenizer = loaded
    policy, quick = attach_policy(sealkit.load_quantized("bundled", "cpu")[0]), sealkit.Settings(steps=3)
    pairs, start, fork = [(p, p.oracle) for p in validation[:4]], policy_tensors(policy), inner_loop.fork
    healthy = run_trials(policy, tokenizer, pairs, quick)
    order = sorted(range(4), key=lambda i: healthy[i].tokens)

    def fork_with(value):
        def forked(policy, k):
            adapters = fork(policy, k)
            next(iter(adapters.values()))[1].data[1] = value
            return adapters
        return forked

    for value in (torch.nan, torch.inf, 1e30):
        monkeypatch.setattr(inner_loop, "fork", fork_with(value))
        trials = run_trials(policy, tokenizer, pairs, quick)
        bad = trials[order[1]]
        assert bad.reward == 0 and bad.reason == "training diverged at step 1: its loss or gradient was not finite" and bad.losses == ()
        assert [trials[i] for i in order if i != order[1]] == [healthy[i] for i in order if i != order[1]]
    FAULTS.append(("a loss of nan, or infinite", f"reward 0, {bad.reason}"))
    assert all(torch.equal(start[name], tensor) for name, tensor in policy_tensors(policy).items())


def test_in_fp16_what_overflows_at_every_scale_holds_nobody_up():
    """Adapter 1's gradient is infinite at every scale; adapters 0 and 2 take the steps that they take without it."""
    def steps(rows):
        weights = torch.nn.Parameter(torch.ones(len(rows), 1))
        optimizer, scaler = torch.optim.AdamW([weights], lr=0.5), torch.amp.GradScaler("cpu", init_scale=2.0**16)
        diverged = torch.zeros(len(rows), dtype=torch.bool)
        for _ in range(3):
            descend(optimizer, scaler, [lambda: (weights[:, 0].half() * torch.tensor(rows).half()).float().nan_to_num(posinf=1e5)], diverged)
        return weights.detach()[:, 0], diverged.tolist(), scaler.get_scale()

    weights, diverged, scale = steps([0.01, torch.inf, 100.0])
    alone, none, alone_scale = steps([0.01, 100.0])
    assert diverged == [False, True, False] and none == [False, False] and scale == alone_scale
    assert torch.equal(weights[[0, 2]], alone)


def test_a_run_in_which_everything_diverges_ends_with_the_first_policy(tmp_path):
    lines = []
    settings = sealkit.Settings(steps=3, learning_rate=1e30)
    history = sealkit.run_seal(*sealkit.load_quantized("bundled", "cpu"), sealkit.load_passages("bundled", limit=1), 1, 2, tmp_path / "run",
                               settings=settings, log=lines.append)
    assert history.iterations[0].mean_reward == 0 and all(trial.reason for trial in history.iterations[0].trials[0])
    assert all(torch.equal(history.start[name], tensor) for name, tensor in policy_tensors(history.policy).items())
    assert sum("training diverged at step 2" in line for line in lines) == 2 and "policy unchanged" in lines[-1]


def test_a_diverging_m_step_is_an_error_that_keeps_the_trials(tmp_path):
    model, tokenizer = sealkit.load_quantized("bundled", "cpu")
    folder = tmp_path / "run"
    with pytest.raises(FloatingPointError, match="lower learning rate") as raised:
        sealkit.run_seal(model, tokenizer, sealkit.load_passages("bundled", limit=1), 1, 1, folder, settings=sealkit.Settings(steps=1),
                         reinforcement=sealkit.Reinforcement(learning_rate=1e30), keep=outer_loop.best)
    FAULTS.append(("an M-step that diverges", str(raised.value)))
    assert len((folder / "trials.jsonl").read_text().splitlines()) == 2 and not (folder / "policy_1").exists()
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_memory_that_runs_out_is_told_once(ended, monkeypatch):
    expected = small_run(*sealkit.load_quantized("bundled", "cpu"), ended)
    lines, row_losses = [], inner_loop.row_losses

    def no_room(model, inputs, labels):
        if len(labels) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return row_losses(model, inputs, labels)

    without_last_pass(ended)
    path = ended / "trials.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:6]))
    monkeypatch.setattr(inner_loop, "row_losses", no_room)
    history = small_run(*sealkit.load_quantized("bundled", "cpu"), ended, log=lines.append)
    told = [line for line in lines if "Memory ran out" in line]
    FAULTS.append(("memory runs out in a pass", told[0]))
    assert told == ["Memory ran out with 4 self-edits side by side: going on with 2."]
    assert [t.reward for g in history.iterations[1].trials for t in g] == [t.reward for g in expected.iterations[1].trials for t in g]


# --- self-edits are what a stranger wrote

MARKERS = ["</s>", "<s>", "<pad>", "<unk>", "<|endoftext|>", "<|begin_of_text|>", "Notes:", "Implications:", "Question:", "Answer:", "Title:", "Passage:",
           "\n", "\r\n", "\n\n\n", "1. ", "- ", "**", "__", "#", "Sure! ", "\x00", "\x1b[2J", "\x1b]0;owned\x07", "\x9b31m", "\u202e", "\u200f", "\u2028", "\x85",
           "\ud800", "\udfff", "\ufffe", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;", "$x^", "%s{}\\", "\t", " ", "0", "9" * 40, "é", "漢", "😀"]


def strange(passage):
    """{name: a self-edit that nobody should write}."""
    answers = "\n".join(f"Question: {q.question} Answer: {q.answers[0]}" for q in passage.questions)
    return {
        "empty": "", "whitespace": " \t\n\r\n  ", "only digits": "1234567890" * 300, "one megabyte of a word": "a" * 2**20, "one megabyte of lines": "1. x\n" * 2**18,
        "one megabyte of newlines": "\n" * 2**20, "question and a megabyte of newlines": "Question: x" + "\n" * 2**20, "one megabyte of numbering": "1. " * 2**18,
        "control characters": "".join(map(chr, range(32))) + "word", "half surrogate pairs": "Pelvik \ud800 owns \udfff", "right to left": "\u202eabc\u200f\u2067def",
        "special tokens": "<s> Pelvik </s></s><pad> owns <unk>", "prompt markers": "Question: Who? Answer: me\n\nNotes: x\nTitle: y\nPassage: z", "answers pasted in": answers,
        "HTML": "<script>alert(1)</script><img src=x onerror=alert(1)>", "terminal escapes": "\x1b[2J\x1b]0;owned\x07\x9b31mred", "line separators": "one\u2028two\x85three\x0cfour",
    }


def utf16(text):
    """Bytes in which two halves of a surrogate pair are the same as the whole, as they are in JSON."""
    return text.encode("utf-16", "surrogatepass")


def check_rows(tokenizer, passage, edits, most, known_size):
    """Everything between text and batch keeps its bounds."""
    packed = []
    for edit in edits:
        sequences = sealkit.training_sequences(edit, passage)
        assert sequences[0] == f"{passage.title}\n{passage.text}" and all(s.strip() and "\n" not in s for s in sequences[1:])
        ids, segments = pack(tokenizer, sequences, most)
        assert 0 < len(ids) == len(segments) <= most and max(ids) < known_size
        special = [i for i, token in enumerate(ids) if token in tokenizer.all_special_ids and token != tokenizer.unk_token_id]
        assert all(i + 1 == len(ids) or segments[i] != segments[i + 1] or i == 0 or segments[i] != segments[i - 1] for i in special), "a special token within a text"
        line = json.dumps({"self_edit": edit})
        assert line.isascii() and "\x1b" not in line and utf16(json.loads(line)["self_edit"]) == utf16(edit) and excerpt(edit).isprintable() and len(excerpt(edit)) < 400
        packed.append((ids, segments))
    inputs, labels = collate(packed, tokenizer.pad_token_id, "cpu")
    assert inputs["input_ids"].shape == labels.shape and (labels >= -100).all() and labels.max() < known_size
    assert ((labels != -100).sum(1) < torch.tensor([len(ids) for ids, _ in packed])).all()


@pytest.fixture(scope="module")
def tokenizers(loaded):
    return [loaded[1], *map(with_pad, map(tokenizer_like, CONFIGS))]


def with_pad(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_each_strange_self_edit_is_trained_on_within_bounds(loaded, tokenizers, tmp_path):
    model, tokenizer = loaded
    passage, quick = sealkit.load_passages("bundled", limit=1)[0], sealkit.Settings(max_tokens=256)
    edits = strange(passage)
    for other in tokenizers:
        check_rows(other, passage, edits.values(), 512, len(other))
    trials = sealkit.evaluate_self_edits(model, tokenizer, passage, list(edits.values()), quick)
    for name, trial in zip(edits, trials, strict=True):
        FAULTS.append((f"self-edit: {name}", f"{trial.tokens} tokens trained on, reward {trial.reward:.0%}"))
        assert 0 <= trial.reward <= 1 and trial.tokens <= quick.max_tokens and all(map(isfinite, trial.losses)) and not trial.reason
    rewards = dict(zip(edits, (trial.reward for trial in trials)))
    assert rewards["answers pasted in"] > rewards["empty"]  # allowed: it is learning
    journal = runs.Journal(tmp_path / "trials.jsonl")
    journal.append([{"iteration": 1, "self_edit": edit} for edit in edits.values()])
    assert [row["self_edit"] for row in runs.Journal(journal.path).rows] == list(edits.values()) and journal.path.read_bytes().isascii()
    for edit in edits.values():
        supervised_ids(tokenizer, passage, edit[:2000])


def test_html_and_terminal_escapes_are_shown_and_not_obeyed(validation):
    """In the log, which goes to a terminal, as escaped characters; in a notebook, whose cells print self-edits, as text."""
    import nbformat
    from nbconvert import HTMLExporter

    edits, lines = list(strange(validation[0]).values()), []
    passage = sealkit.Passage("\x1b[2J<b>\u202e", validation[0].text, validation[0].questions)
    outer_loop.tell(lines.append, [passage], [0.0], [0.0], [[inner_loop.Trial(edit, 0.0, (), (1.0,), 1) for edit in edits]], [])
    assert len(lines) == 1 + len(edits) and all(line.isprintable() and len(line) < 600 for line in lines)
    shown = "".join(edit.encode("utf-8", "replace").decode() for edit in edits if len(edit) < 10_000)
    output = nbformat.v4.new_output("stream", name="stdout", text=shown)
    html, _ = HTMLExporter().from_notebook_node(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(edit)", outputs=[output])]))
    assert "&lt;script&gt;alert(1)" in html and "<script>alert(1)" not in html and "<img src=x" not in html


SELF_EDITS = st.lists(st.one_of(st.text(st.characters(exclude_categories=()), max_size=60), st.sampled_from(MARKERS)), max_size=12).map("".join)


def test_10_000_fuzzed_self_edits(loaded, tokenizers, validation, capsys):
    """Parsing and batching of all; the inner loop and the M-step on a sample of them."""
    sample, count = [], 0

    @settings(max_examples=520, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(SELF_EDITS, min_size=20, max_size=20), st.sampled_from(range(len(tokenizers))), st.sampled_from([40, 128, 512]))
    def parse_and_batch(edits, which, most):
        nonlocal count
        check_rows(tokenizers[which], validation[1], edits, most, len(tokenizers[which]))
        count += len(edits)
        sample.extend(edits[:1])

    parse_and_batch()
    policy = attach_policy(sealkit.load_quantized("bundled", "cpu")[0])
    chosen = sorted(set(sample), key=len)[-120:]
    trials = run_trials(policy, loaded[1], [(validation[1], edit) for edit in chosen], sealkit.Settings(steps=1, max_tokens=160))
    assert all(0 <= trial.reward <= 1 and isfinite(trial.losses[0]) and trial.tokens <= 160 for trial in trials)
    losses = m_step(policy, loaded[1], [(validation[1], edit) for edit in random.Random(0).sample(chosen, 8)], sealkit.Reinforcement(epochs=1))
    assert all(map(isfinite, losses))
    with capsys.disabled():
        print(f"\nfuzzed self-edits: {count} parsed and batched, {len(trials)} of them trained on and examined, 0 failures")
    assert count >= 10_000


# --- no code runs from data


def test_no_way_from_data_to_code():
    root = Path(sealkit.__file__).parents[1]
    sources = {path: path.read_text(encoding="utf-8") for path in Path(sealkit.__file__).parent.rglob("*.py")}
    for path in (root / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[path] = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert len(sources) > 15
    ways = r"trust_remote_code(?!\": False)|pickle|torch\.load\b|weights_only|(?<![\w.])(?:eval|exec|compile|__import__)\(|os\.system|os\.popen|subprocess|shell=True|joblib|dill\b|yaml\.load"
    found = {str(path.name): re.findall(ways, text) for path, text in sources.items() if re.search(ways, text)}
    assert not found
    shown = {path.name for path, text in sources.items() if path.suffix == ".ipynb" and re.search(r"HTML\(|Markdown\(|Javascript\(|_repr_html_", text)}
    assert not shown, "a self-edit must never reach a notebook as HTML"


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
        (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\nfrom transformers import MistralForCausalLM as Evil, MistralConfig as EvilConfig\n")
        config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"}}
        if kind == "code for a new type":
            config |= {"model_type": "evil", "architectures": ["Evil"]}
        (folder / "config.json").write_text(json.dumps(config))
    if kind == "code for a known type":
        model, _ = sealkit.load_quantized(folder)
        assert type(model).__module__.startswith("transformers.")
    else:
        with pytest.raises(ValueError, match="No model could be loaded") as raised:
            sealkit.load_quantized(folder)
        FAULTS.append((f"checkpoint with {kind}", str(raised.value).replace(str(folder), "MODEL")))
    assert not marker.exists()


def test_the_table_of_faults(capsys):
    with capsys.disabled():
        print("\nwhat befell | what was said")
        for fault, message in FAULTS:
            print(f"  {fault} | {message}")
