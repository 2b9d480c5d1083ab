"""The one command of the README, on a small budget, and its errors."""

import json
import subprocess
import sys

import pytest

from sealkit.__main__ import main


def test_a_small_run_tells_its_story_and_leaves_its_record(tmp_path):
    output = tmp_path / "run"
    command = [sys.executable, "-m", "sealkit", "--passages", "2", "--self-edits", "2", "--iterations", "1", "--held-out", "4", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "in 4 bits" in done.stdout and "SEAL iteration 1 of 1" in done.stdout and "95% interval" in done.stdout
    assert "Failed" not in done.stderr and "Warning" not in done.stderr and "Traceback" not in done.stderr
    results = json.loads((output / "results.json").read_text())
    assert list(results) == ["no adaptation", "passage in context", "passage only", "self-edits before RL", "after iteration 1", "oracle"]
    assert sorted(path.name for path in output.iterdir()) == ["figure.png", "policy_1", "results.json", "run.json", "trials.jsonl"]
    assert (output / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["--output", str(output)]) == 2


@pytest.mark.parametrize("arguments, message", [
    (["--self-edits", "0"], "at least 1"),
    (["--passages", "0"], "at least one passage"),
    (["--model", "/no/such/folder"], "give 'bundled'"),
])
def test_bad_input_is_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not (tmp_path / "runs").exists()
