"""The one command of the README, on a small budget, and its errors."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from families import save
from huggingface_hub import constants

import sealkit
from sealkit.cli.main import Log, load_inputs, main, parse_arguments
from sealkit.tasks import knowledge
from sealkit.tasks.passages import save_passages

ARMS = "no adaptation", "passage in context", "passage only", "self-edits before RL"
FILES = "command.json", "figure.png", "journal.jsonl", "log.txt", "policy_0", "policy_1"
FILES += "report.html", "results.json", "run.json", "test.jsonl", "train.jsonl"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """(folder, what the command that made it said) of a small run."""
    folder = tmp_path_factory.mktemp("small")
    sizes = ["--passages", "2", "--self-edits", "2", "--iterations", "1", "--held-out", "4"]
    command = [sys.executable, "-m", "sealkit", *sizes, "--output", "run"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder / "run", done


def test_a_small_run_tells_its_story_and_leaves_its_record(small, capsys):
    output, done = small
    for part in ("4 bits", "Estimate, from", "reward  passage only", "95% interval", "points"):
        assert part in done.stdout
    for part in ("Failed", "Warning", "Traceback"):
        assert part not in done.stderr
    results = json.loads((output / "results.json").read_text())["accuracy"]
    assert tuple(results) == (*ARMS, "after iteration 1", "oracle")
    assert sorted(path.name for path in output.iterdir()) == [".lock", *FILES]
    assert (output / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["--output", str(output)]) == 2
    said = capsys.readouterr().err
    assert "--self-edits is 2 there and 5 here" in said
    assert "what --data and --passages give is 2, " in said


def test_the_terminal_shows_a_row_an_iteration_and_the_log_all(small):
    output, done = small
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    head = next(i for i, line in enumerate(lines) if line.startswith("iter  reward"))
    one = re.fullmatch(r" +1 +\d+\.\d% +\d+\.\d% +\d/4 .* \d+( +\d+%){4}", lines[head + 1])
    assert one and not lines[head + 2], lines[head : head + 3]
    assert "self-edit before RL, reward" in done.stdout
    assert "self-edit after iteration 1, reward" in done.stdout
    assert "QLoRA SFT on self-edit" not in done.stdout
    log = (output / "log.txt").read_text("utf-8")
    assert log.count("QLoRA SFT on self-edit") == 4 and lines[head + 1] in log
    assert "SEAL iteration 1 (ReSTEM)" in log


def test_a_past_run_is_shown_without_a_model(small, capsys, monkeypatch):
    output, done = small
    files = {path: path.read_bytes() for path in output.glob("*.*")}
    monkeypatch.setattr("sealkit.cli.main.load_quantized", None)
    assert not main(["show", str(output)])
    shown = capsys.readouterr().out
    assert " ".join(shown.split()).startswith(f"{output}: python -m sealkit --model bundled")
    shown, start = shown[shown.index("iter  reward") :], done.stdout.index("iter  reward")
    assert done.stdout[start:].startswith(shown.rpartition("\nOpen ")[0].replace("\n\n\n", "\n\n"))
    assert {path: path.read_bytes() for path in output.glob("*.*")} == files


def test_a_terminal_that_knows_no_arrows_shows_a_run_all_the_same(small):
    output, _ = small
    command = [sys.executable, "-m", "sealkit", "show", str(output)]
    plain = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    assert not done.returncode and "Open " in done.stdout, done.stderr
    assert done.stdout.isascii() and re.search(r"unchanged|\d \? \d", done.stdout)


def test_the_adapted_model_of_a_past_run_answers(small, capsys, monkeypatch):
    output, _ = small
    (passage,) = sealkit.load_passages("bundled", "test", 1)
    asked = [question.question for question in passage.questions]
    numbers = [str(n + 1) for n in range(len(asked))]
    lines = ["", *asked, " ", *numbers, "9", "q", "never asked"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert not main(["ask", str(output)])
    said = capsys.readouterr().out
    adapted = re.findall(r"adapted: (.*)  . (right|wrong)\n +without: (.*)", said)
    journal = sealkit.Journal(output)
    trial = next(
        v for k, v in journal.items() if k[:2] == ("arm", "after iteration 1") and not k[3]
    )
    assert [answer for answer, _, _ in adapted] == 2 * trial["answers"]
    assert [mark for _, mark, _ in adapted].count("right") == 2 * len(asked) * trial["reward"]
    assert said.count(f"right is {passage.questions[0].answers[0]}\n") == 2
    assert "There is no question 9: type a number from 1 to 4." in said
    assert trial["self_edit"].splitlines()[0][:60] in said
    assert main(["ask", str(output), "--passage", "5"]) == 2
    assert "--passage 5: there are 4 held out" in capsys.readouterr().err


def test_a_question_too_long_is_told_and_the_next_one_answered(small, capsys, monkeypatch):
    output, _ = small
    questions = "What is near " * 2000 + "Pelvik?\nWhat is near Pelvik?"
    monkeypatch.setattr("sys.stdin", io.StringIO(questions))
    assert not main(["ask", str(output)])
    told = " ".join(capsys.readouterr().out.split())
    assert "is longer than this model's 1024 positions" in told
    assert told.index("adapted: ") > told.index("positions")


@pytest.mark.parametrize("closed", [True, False])
def test_a_closed_standard_input_is_told_before_anything_is_loaded(
    small, capsys, monkeypatch, closed
):
    stdin = io.StringIO()
    stdin.close()
    monkeypatch.setattr("sys.stdin", stdin if closed else None)
    monkeypatch.setattr("sealkit.cli.talk.load_quantized", None)
    assert main(["ask", str(small[0])]) == 2
    assert "standard input, which is closed" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["/gone/model", "gone/model"])
def test_a_model_that_is_gone_is_told(small, capsys, monkeypatch, model, tmp_path):
    run = shutil.copytree(small[0], tmp_path / "run")
    command = json.loads((run / "command.json").read_text()) | {"model": model}
    (run / "command.json").write_text(json.dumps(command))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("sys.stdin", io.StringIO("Who?"))
    assert main(["ask", str(run)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(f"{model!r} (does not exist here: check|is neither a folder here nor)", said)


def test_a_reader_that_closes_the_pipe_is_no_error(small):
    """As `| head -1`: Python would say "Broken pipe", and again at its end."""
    command = [sys.executable, "-m", "sealkit", "show", str(small[0])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as running:
        running.stdout.close()
        assert running.stderr.read() == "" and running.wait() == 130


def test_a_real_model_on_a_file_of_passages(tmp_path, capsys, monkeypatch):
    """A tiny random Qwen2, passages of four titles: another model's recipe, a held-out split."""
    short = replace(
        knowledge.GENERAL_CONFIG, max_new_tokens=16
    )  # a random model hardly ever ends a text
    monkeypatch.setattr(knowledge, "GENERAL_CONFIG", short)
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
    for part in ("2 others to test on", "Model: ", "because it was asked for"):
        assert part in " ".join(told.split())
    assert "Passage 2/2 'Title 0'" in (output / "log.txt").read_text("utf-8")
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
        (["--data", "."], "no file '.'"),
        (["--data", ".", "--task", "stream"], "no file '.'"),
        (["--passages", "0", "--data", "nowhere.json"], "--passages: '0'"),  # the first one first
        (["--data", "nowhere.json", "--passages", "0"], "--data: there is no file"),
        (["show", "nowhere"], "'nowhere' holds no run: give a run's folder"),
        (["ask", "nowhere"], "'nowhere' holds no run: give a run's folder"),
        (["ask", "nowhere", "--passage", "0"], "--passage: '0' is not a number from 1 on"),
        (["--held-out", "0"], "--held-out: '0' is not a number from 1 on"),
        (["--itertions", "3"], "there is no option --itertions: did you mean --iterations?"),
        (["--selfedits=3"], "there is no option --selfedits: did you mean --self-edits?"),
        (["ask", "runs/1", "--wbe"], "there is no option --wbe: did you mean --web?"),
        (["--zzzzzz"], "there is no option --zzzzzz: --help lists all"),
        (["--streams", "16"], "--streams: --task knowledge does not use it; leave it out"),
        (["--task", "stream", "--iterations", "2"], "--iterations: --task stream does not use it"),
        (["--task", "puzzles", "--controls"], "--controls: --task puzzles does not use it"),
        (["--seed", "0", "show", "runs/1"], "--seed: show does not use it; leave it out"),
        (["--model", "bundled", "estimate"], "--model: estimate does not use it; leave it out"),
        (["--self-edits", "0"], "--self-edits: '0' is not a number from 1 on"),
        (["--passages", "-1"], "--passages: '-1' is not a number from 1 on"),
        (["--iterations", "two"], "--iterations: 'two' is not a number from 1 on"),
        (["--model", "/no/such/folder", "--data", "bundled"], "give 'bundled'"),
        (["--output", "/content/drive/MyDrive/seal"], "a Google Drive that is not mounted: run"),
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

    monkeypatch.setattr("sealkit.cli.main.run", run)
    assert main(["--output", "nowhere"]) == 2
    assert "smaller model" in capsys.readouterr().err


def test_help_shows_examples_that_parse(capsys):
    assert status_of(["--help"]) == 0
    told = capsys.readouterr().out
    examples = re.findall(r"python -m sealkit(.*)", told.split("examples:")[1])
    assert len(examples) > 5 and max(map(len, told.splitlines())) <= 80
    for example in examples:
        words = re.split(r" {3,}", example)[0].split()
        parse_arguments([word.replace("mine.jsonl", __file__) for word in words])


def test_passages_too_long_for_max_tokens_are_counted_before_the_run(tmp_path):
    question = [{"question": "What flies?", "answers": ["a flag"]}]
    rows = [
        {"title": f"{n}", "text": f"{n}: {text * count}", "questions": question}
        for n, (text, count) in enumerate([("It flies a flag. ", 200), *[("It flies. ", 1)] * 3])
    ]
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    log = Log(verbose=False)
    load_inputs(parse_arguments(["--data", str(tmp_path / "mine.json")]), log)
    assert "1 of 4 passages have more than 256 tokens" in "\n".join(log.messages)
    assert "questions have answers" not in "\n".join(log.messages)


def test_questions_whose_answers_are_too_long_to_write_are_counted_before_the_run(tmp_path):
    long = "a flag with a lion and a crown on it " * 4
    rows = [
        {"title": f"{n}", "text": f"{n}: It flies.", "questions": [{"question": "What?"}]}
        for n in range(4)
    ]
    for row, answers in zip(rows, [[long], [long, "a flag"], ["a flag"], [long + "too", long]]):
        row["questions"][0]["answers"] = answers
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    log = Log(verbose=False)
    load_inputs(parse_arguments(["--data", str(tmp_path / "mine.json")]), log)
    assert "2 of 4 questions have answers longer than the 16 tokens" in "\n".join(log.messages)
