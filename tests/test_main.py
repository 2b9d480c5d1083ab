"""The one command of the README, on a small budget, and its errors."""

import json
import subprocess
import sys

import pytest
import torch

import sealkit
from families import save
from sealkit.__main__ import main
from sealkit.tasks.passages import save_passages


def test_a_small_run_tells_its_story_and_leaves_its_record(tmp_path):
    output = tmp_path / "run"
    command = [sys.executable, "-m", "sealkit", "--passages", "2", "--self-edits", "2", "--iterations", "1", "--held-out", "4", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "in 4 bits" in done.stdout and "SEAL iteration 1 of 1" in done.stdout and "95% interval" in done.stdout
    assert "Failed" not in done.stderr and "Warning" not in done.stderr and "Traceback" not in done.stderr
    results = json.loads((output / "results.json").read_text())["accuracy"]
    assert list(results) == ["no adaptation", "passage in context", "passage only", "self-edits before RL", "after iteration 1", "oracle"]
    assert sorted(path.name for path in output.iterdir()) == [
        ".lock", "figure.png", "policy_0", "policy_1", "results.json", "run.json", "self_edits.jsonl", "trials.jsonl"]
    assert (output / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["--output", str(output)]) == 2


def test_a_real_model_on_a_file_of_passages(tmp_path, capsys):
    """A tiny random Qwen2 on passages of four titles: prompts, settings and held-out split of models outside the bundled world."""
    passages = [sealkit.Passage(f"Title {i // 2}", f"The tower number {i} is {i + 10} m high.",
                                (sealkit.Question(f"How high is tower {i}?", (f"{i + 10} m",)),)) for i in range(8)]
    save_passages(tmp_path / "towers.jsonl", passages)
    folder, output = save("qwen2", tmp_path / "model"), tmp_path / "run"
    arguments = ["--model", str(folder), "--data", str(tmp_path / "towers.jsonl"), "--passages", "2", "--held-out", "2"]
    assert not main([*arguments, "--self-edits", "1", "--iterations", "1", "--output", str(output)])
    told = capsys.readouterr().out
    assert "2 others to test on" in told and "SEAL iteration 1 of 1" in told and "Model: " in told and "because it was asked for" in told
    rows = [json.loads(line) for line in (output / "trials.jsonl").read_text().splitlines()]
    assert [row["title"] for row in rows] == ["Title 0"] * 4
    settings = json.loads((output / "run.json").read_text())
    assert settings["inner_loop"]["steps"] == 10 and settings["m_step"]["learning_rate"] == 3e-4
    results = json.loads((output / "results.json").read_text())["accuracy"]
    assert "oracle" not in results and all(len(scores) == 2 for scores in results.values())


@pytest.mark.parametrize("arguments, message", [
    (["--data", "nowhere.json"], "No file 'nowhere.json'"),
    (["--held-out", "0"], "at least one passage"),
    (["--self-edits", "0"], "at least 1"),
    (["--passages", "0"], "at least one passage"),
    (["--model", "/no/such/folder", "--data", "bundled"], "give 'bundled'"),
])
def test_bad_input_is_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not (tmp_path / "runs").exists()


def test_memory_that_runs_out_altogether_is_one_sentence(monkeypatch, capsys):
    def run(args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("sealkit.__main__.run", run)
    assert main(["--output", "nowhere"]) == 2
    assert "take a smaller model" in capsys.readouterr().err
