"""The one command of the README, on a small budget, and its errors."""

import html
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from http.client import HTTPConnection
from threading import Thread
from urllib.parse import urlencode

import pytest
import torch
from families import save
from huggingface_hub import constants

import sealkit
from sealkit.cli.main import Log, load_inputs, main, parse_arguments
from sealkit.cli.record import read_record
from sealkit.cli.web import make_server
from sealkit.tasks import knowledge
from sealkit.tasks.passages import save_passages

ARMS = "no adaptation", "passage in context", "passage only", "self-edits before RL"
FILES = "command.json", "figure.png", "journal.jsonl", "log.txt", "policy_0", "policy_1"
FILES += "report.html", "results.json", "run.json", "test.jsonl", "train.jsonl"

BITS_OF_LINES = "1 2. #3 4) 0 9 -1 ٣ ² q? . ? … → 🙂 Who is What does Bello Selley %s {} \\".split()
BITS_OF_LINES += [" ", "\t", "\x00", "\x1b[31m", "\ud800", "\u2028", "9" * 5000, "who " * 1200]


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
    monkeypatch.setattr("sealkit.cli.talk.wrap", lambda text, indent="": text)
    assert not main(["ask", str(output)])
    said = capsys.readouterr().out
    adapted = re.findall(r"adapted: (.*)  . (right|wrong)\nwithout: (.*)", said)
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


def test_a_question_of_ones_own_is_answered_and_told_what_the_model_knows(
    small, capsys, monkeypatch
):
    output, _ = small
    (passage,) = sealkit.load_passages("bundled", "test", 1)
    question, answer = re.match("Question: (.*) Answer: (.*)", passage.oracle).groups()
    exam = passage.questions[1].question
    lines = [question.upper().rstrip("?"), f"tell me: {exam.lower()}"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert not main(["ask", str(output)])
    told = " ".join(capsys.readouterr().out.split())
    known, free = told.split("> ")[1:]
    assert f"right is {answer}" in known and "nearest" not in known
    assert "right is" not in free and "knows questions in few wordings" in free
    assert free.endswith(f"Of the exam, number 2 is nearest: {exam}")
    for word in ("What does … have as a leader?", "Who is in charge of …?"):
        assert word in free


def test_a_thousand_random_lines_are_all_answered(small, capsys, monkeypatch):
    rng = random.Random(0)
    parts = [*BITS_OF_LINES, *(chr(rng.randrange(1, 0x3000)) for _ in range(40))]
    lines = ["".join(rng.choices(parts, k=rng.randrange(1, 9))) for _ in range(1000)]
    lines = [re.sub("[\r\n]", " ", line) for line in lines]
    short = replace(knowledge.BUNDLED_CONFIG, answer_tokens=1)
    monkeypatch.setattr(knowledge, "BUNDLED_CONFIG", short)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    assert not main(["ask", str(small[0])])
    told = capsys.readouterr().out
    asked = [line for line in lines if line.strip()]
    assert len(asked) > 900 and "\x1b" not in told and "\ud800" not in told
    replies = told.count("adapted: ") + told.count("There is no question ")
    assert replies + told.count("is longer than this") == len(asked)


def send(server, body, path="/", method="POST", **headers):
    """(status, text) of the answer of `ask --web`. body: a form, or bytes."""
    body = body if isinstance(body, bytes) else urlencode(body).encode("utf-8", "replace")
    connection = HTTPConnection(*server.server_address)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    source = response.read().decode()
    assert "<script" not in source
    return response.status, html.unescape(source)


@pytest.fixture(scope="module")
def server(small):
    with make_server(read_record(small[0]), 2) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_the_page_teaches_and_asks_as_a_trial_does(small, server):
    record = read_record(small[0])
    first, trial = record.test[0], record.tried["after iteration 1"][0]
    status, opened = send(server, b"", method="GET")
    assert status == 200 and record.test[1].text in opened and "The policy wrote it." in opened
    _, chosen = send(server, {"passage": 1, "do": "choose"})
    assert first.text in chosen and f"\n{trial.self_edit}</textarea>" in chosen
    form = {"shown": 1, "edit": trial.self_edit.replace("\n", "\r\n")}
    _, learned = send(server, form | {"do": "learn"})
    loss = f"Learned in 3 steps: loss {trial.losses[0]:.2f} → {trial.losses[-1]:.2f}."
    assert loss in learned and "What it said" not in learned
    _, asked = send(server, form | {"do": "all"})
    rows = re.findall("<tr><td>(.*)</td><td>(.*) ([✓✗])</td><td>.*</td><td>(.*)</td></tr>", asked)
    assert [row[1] for row in rows] == trial.answers
    assert [row[2] for row in rows].count("✓") == len(rows) * trial.reward
    assert [row[::3] for row in rows] == [(q.question, q.answers[0]) for q in first.questions]
    _, one = send(server, form | {"do": "2"})
    assert one.count("<tr>") == 2 and f"<tr><td>{first.questions[1].question}" in one
    _, own = send(server, form | {"do": "ask", "question": "Why <b>?"})
    assert "nobody knows" in own and "is nearest" in own


@pytest.mark.parametrize(
    "form, message",
    [
        ({"do": "learn", "shown": 1, "edit": " \n"}, "no line in the self-edit to learn from"),
        ({"do": "1", "shown": 1, "edit": ""}, "no line in the self-edit to learn from"),
        ({"do": "learn", "shown": 1, "edit": "It is. " * 9000}, "too long: with the passage it"),
        ({"do": "ask", "shown": 1, "edit": "It is.", "question": " "}, "Type a question of your"),
        ({"do": "ask", "shown": 1, "edit": "It is.", "question": "Who? " * 2000}, "positions"),
        ({"do": "choose", "passage": "5"}, "no passage '5': choose one of the 4"),
        ({"do": "all", "shown": "9" * 5000}, "no passage '999999999'"),
        ({"do": "learn", "edit": "x"}, "Learned in 3 steps"),  # of the first one
        ({"do": "\x00", "edit": "</textarea><script>"}, "What it said"),
        (b"do=%ff&shown=%f0&edit=\xff", "There is no passage"),
    ],
)
def test_the_page_says_in_a_sentence_what_it_cannot_do(server, form, message):
    status, page = send(server, form)
    assert status == 200 and message in page
    kept = form["edit"].strip() if isinstance(form, dict) and "edit" in form else ""
    assert kept in page, "what was typed is lost"


def test_the_page_is_for_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert send(server, b"", method="GET", Host="evil.example:80")[0] == 404
    assert send(server, b"", "/etc/passwd", "GET")[0] == 404
    many = "&".join(f"x{n}=1" for n in range(20)).encode()
    assert send(server, many)[0] == 400
    for size in ("", "-1", "1e3", "9" * 5000):
        assert send(server, b"", **{"Content-Length": size})[0] == 413


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
