"""The one command of the README, on a small budget, and its errors."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from families import save

import sealkit
from sealkit.__main__ import main
from sealkit.tasks import knowledge
from sealkit.tasks.passages import save_passages

ARMS = "no adaptation", "passage in context", "passage only", "self-edits before RL"
FILES = "figure.png", "journal.jsonl", "policy_0", "policy_1", "results.json", "run.json"


def test_a_small_run_tells_its_story_and_leaves_its_record(tmp_path, capsys):
    output = tmp_path / "run"
    sizes = ["--passages", "2", "--self-edits", "2", "--iterations", "1", "--held-out", "4"]
    command = [sys.executable, "-m", "sealkit", *sizes, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    for part in ("4 bits", "Estimate, from", "SEAL iteration 1 (ReSTEM)", "95% interval", "points"):
        assert part in done.stdout
    for part in ("Failed", "Warning", "Traceback"):
        assert part not in done.stderr
    results = json.loads((output / "results.json").read_text())["accuracy"]
    assert tuple(results) == (*ARMS, "after iteration 1", "oracle")
    assert sorted(path.name for path in output.iterdir()) == [".lock", *FILES]
    assert (output / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["--output", str(output)]) == 2
    assert "k is 2 there and 5 here" in capsys.readouterr().err


def test_a_real_model_on_a_file_of_passages(tmp_path, capsys, monkeypatch):
    """A tiny random Qwen2, passages of four titles: another model's recipe, a held-out split."""
    short = replace(knowledge.GENERAL, max_new_tokens=16)  # a random model hardly ever ends a text
    monkeypatch.setattr(knowledge, "GENERAL", short)
    passages = []
    for i in range(8):
        question = sealkit.Question(f"How high is tower {i}?", (f"{i + 10} m",))
        text = f"The tower number {i} is {i + 10} m high."
        passages.append(sealkit.Passage(f"Title {i // 2}", text, (question,)))
    save_passages(tmp_path / "towers.jsonl", passages)
    folder, output = save("qwen2", tmp_path / "model"), tmp_path / "run"
    words = ["--model", str(folder), "--data", str(tmp_path / "towers.jsonl"), "--passages", "2"]
    words += ["--held-out", "2", "--self-edits", "1", "--iterations", "1", "--output", str(output)]
    assert not main(words)
    told = capsys.readouterr().out
    for part in ("2 others to test on", "SEAL iteration 1", "Model: ", "because it was asked for"):
        assert part in told
    assert "Passage 2/2 'Title 0'" in told
    trials = {key for key in sealkit.Journal(output) if key[0] == "trial"}
    assert trials == {("trial", 1, i, j) for i in (0, 1) for j in (None, 0)}
    settings = json.loads((output / "run.json").read_text())["settings"]
    assert settings["steps"] == 10 and settings["m_step_learning_rate"] == 3e-4
    results = json.loads((output / "results.json").read_text())["accuracy"]
    assert tuple(results) == (*ARMS, "after iteration 1")
    assert all(len(scores) == 2 for scores in results.values())


def status_of(words):
    """What the command line ends with; argparse ends the process by itself."""
    try:
        return main(words)
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize(
    "words, message",
    [
        (["--data", "nowhere.json"], "no file 'nowhere.json'"),
        (["--held-out", "0"], "--held-out: '0' is not a number from 1 on"),
        (["--self-edits", "0"], "--self-edits: '0' is not a number from 1 on"),
        (["--passages", "-1"], "--passages: '-1' is not a number from 1 on"),
        (["--iterations", "two"], "--iterations: 'two' is not a number from 1 on"),
        (["--model", "/no/such/folder", "--data", "bundled"], "give 'bundled'"),
    ],
)
def test_bad_input_is_one_sentence(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert status_of(words) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1] and "Traceback" not in error
    assert not (tmp_path / "runs").exists()


def test_memory_that_runs_out_altogether_is_one_sentence(monkeypatch, capsys):
    def run(args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("sealkit.__main__.run", run)
    assert main(["--output", "nowhere"]) == 2
    assert "smaller model" in capsys.readouterr().err
