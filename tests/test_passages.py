"""Passages from the bundled world, SQuAD and files: those that people have are read, the others
refused in one sentence."""

import base64
import dataclasses
import doctest
import errno
import gzip
import io
import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import PAPER

import sealkit
from sealkit.runs import files
from sealkit.tasks import passages as module
from sealkit.tasks.passages import group_questions, hold_out, save_passages, source_for

CASES = Path(__file__).parents[2] / "shared" / "cases" / "data.jsonl"
TEXT = "The Orra lighthouse stands on Kell rock. It was lit in 1891 by Mara Venn."
WHEN, WHO = "When was it lit?", "Who lit it?"


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_bundled_splits_have_questions_about_several_subjects(split):
    passages = sealkit.load_passages("bundled", split)
    assert len(passages) >= 100
    for passage in passages:
        names = passage.title.split(" and ")
        assert len(names) >= 2 and all(
            any(name in q.question for q in passage.questions) for name in names
        )
        assert all(name in passage.text and passage.text.count(name) == 1 for name in names)
        assert all(answer in passage.text for q in passage.questions for answer in q.answers)
        told = set(re.findall(r"\w{5,}", passage.text)) - set(names)
        assert not any(told & set(re.findall(r"\w{5,}", q.question)) for q in passage.questions)
    assert len({passage.text for passage in passages}) == len(passages)


def test_limit_and_round_trip(tmp_path):
    passages = sealkit.load_passages("bundled", "test", limit=3)
    assert len(passages) == 3
    save_passages(tmp_path / "p.jsonl", passages)
    assert sealkit.load_passages(tmp_path / "p.jsonl") == passages


def test_squad_words_and_json_lists(tmp_path):
    row = {
        "title": "T",
        "context": "A text.",
        "questions": [{"question": "What?", "answer": "a text"}],
    }
    (tmp_path / "p.json").write_text(json.dumps([row]))
    (passage,) = sealkit.load_passages(tmp_path / "p.json")
    assert passage == sealkit.Passage("T", "A text.", (sealkit.Question("What?", ("a text",)),))


def test_the_paper_sample_of_squad_loads(paper):
    rows = paper("squad_sample.json")
    passages = sealkit.load_passages(PAPER / "squad_sample.json")
    assert [p.text for p in passages] == [row["context"] for row in rows]
    assert [[q.question for q in p.questions] for p in passages] == [
        [q["question"] for q in row["questions"]] for row in rows
    ]


def nested(rows):
    """Rows of the paper's sample in SQuAD's own nested form."""

    def paragraph(row):
        asked = [
            {
                "id": "x",
                "question": q["question"],
                "answers": [{"text": q["answer"], "answer_start": 0}] * 2,
            }
            for q in row["questions"]
        ]
        return {"context": row["context"], "qas": asked}

    return {
        "version": "1.1",
        "data": [
            {"title": row["title"].replace(" ", "_"), "paragraphs": [paragraph(row)]}
            for row in rows
        ],
    }


def test_squads_own_file_loads_like_the_sample(paper, tmp_path):
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(nested(paper("squad_sample.json"))))
    assert sealkit.load_passages(tmp_path / "dev-v1.1.json", limit=7) == capped(
        sealkit.load_passages(PAPER / "squad_sample.json", limit=7)
    )


def capped(passages):
    return [dataclasses.replace(p, questions=p.questions[:5]) for p in passages]


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download of one file asks for: SQuAD's training split, whose name
    stands in its URL."""

    data, asked = b"", []

    def do_HEAD(self):
        found = self.path.endswith(
            ("/stop", "rajpurkar/squad/resolve/main/plain_text/train-00000-of-00001.parquet")
        )
        self.asked.append(f"{self.command} {self.path}")
        self.send_response(200 if found else 404)
        for key, value in {
            "X-Repo-Commit": "c" * 40,
            "ETag": '"squad"',
            "Content-Length": str(len(self.data)),
        }.items():
            self.send_header(key, value)
        self.end_headers()

    def do_GET(self):
        if self.path == "/stop":  # from now on it listens, but says nothing
            self.server.shutdown()
        self.do_HEAD()
        self.wfile.write(self.data)

    def log_message(self, *args):
        pass


def test_squad_is_downloaded_once_and_then_comes_from_the_cache(paper, tmp_path):
    """From a hub on this machine, in a process of its own. When the hub falls silent, the split
    that was asked for is there, the other fails soon."""
    rows = squad_rows(paper)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    Hub.data = (tmp_path / "train.parquet").read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = (
        "import time, urllib.request, sealkit\n"
        "for split in ('train', 'train', 'stop', 'train', 'test'):\n"
        "    start = time.time()\n"
        f"    if split == 'stop': urllib.request.urlopen('{address}/stop').read(); continue\n"
        "    try: passages = sealkit.load_passages('squad', split); print(len(passages), passages[-1])\n"
        "    except RuntimeError as error: print(round(time.time() - start), error)\n"
    )
    env = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    env |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=240
    )
    server.shutdown()
    server.server_close()
    assert not done.returncode and "Retry" not in done.stderr, done.stderr
    *loaded, failed = done.stdout.splitlines()
    expected = group_questions(rows)
    assert loaded == [f"{len(expected)} {expected[-1]}"] * 3
    assert sum("GET" in asked and "train" in asked for asked in Hub.asked) == 1
    seconds, message = failed.split(" ", 1)
    assert int(seconds) < 20 and re.fullmatch(
        "SQuAD is not in the local cache, and .*: .*, or give the path of a file of .*\\.", message
    )


def squad_rows(paper):
    """The paper's sample as rows of rajpurkar/squad, one a question, each question twice."""
    return [
        {
            "id": str(i),
            "title": row["title"].replace(" ", "_") + "_City",
            "context": row["context"],
            "question": q["question"] + " ",
            "answers": {"text": [q["answer"], q["answer"]], "answer_start": [0, 0]},
        }
        for row in paper("squad_sample.json")
        for i, q in enumerate(row["questions"] * 2)
    ]


def test_squads_rows_are_grouped_by_passage_and_capped(paper):
    passages, sample = (
        group_questions(squad_rows(paper)),
        sealkit.load_passages(PAPER / "squad_sample.json"),
    )
    assert [(p.text, p.title) for p in passages] == [(p.text, p.title + " City") for p in sample]
    assert [p.questions for p in passages] == [p.questions[:5] for p in sample] and len(
        passages
    ) == 24


def test_a_line_separator_inside_a_text_ends_no_row(tmp_path):
    question = (sealkit.Question("Which?", ("this",)),)
    passages = [sealkit.Passage(title, "one\u2028two\x85three", question) for title in "TU"]
    save_passages(tmp_path / "p.jsonl", passages)
    assert sealkit.load_passages(tmp_path / "p.jsonl") == passages


def test_held_out_passages_share_neither_text_nor_title_with_training():
    passages = [sealkit.Passage(f"T{i // 3}", f"text {i}", ()) for i in range(12)] + [
        sealkit.Passage("T9", "text 1", ())
    ]
    for count in (1, 2, 5, 100):
        train, test = hold_out(passages, count)
        assert 1 <= len(test) <= count and train
        assert not {p.title for p in train} & {p.title for p in test} and not {
            p.text for p in train
        } & {p.text for p in test}
    untitled = [sealkit.Passage("", text, ()) for text in "abcda"]
    train, test = hold_out(untitled, 2)
    assert [p.text for p in train] == ["a", "a", "b"] and [p.text for p in test] == ["c", "d"]
    with pytest.raises(ValueError, match="at least two titles"):
        hold_out(passages[:3], 1)


def test_a_files_splits_hold_whatever_the_limits(tmp_path):
    question = (sealkit.Question("Which?", ("this",)),)
    passages = [sealkit.Passage(f"T{i // 2}", f"text {i}", question) for i in range(8)]
    save_passages(tmp_path / "p.jsonl", passages)
    assert sealkit.load_passages(tmp_path / "p.jsonl") == passages
    assert sealkit.load_passages(tmp_path / "p.jsonl", "train") == passages[:6]
    assert sealkit.load_passages(tmp_path / "p.jsonl", "train", 2) == passages[:2]
    assert (
        sealkit.load_passages(tmp_path / "p.jsonl", "test", 1)
        == sealkit.load_passages(tmp_path / "p.jsonl", "validation", 1)
        == passages[6:7]
    )


def test_passages_go_with_the_model_unless_a_variable_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("SEALKIT_DATA", raising=False)
    assert (
        source_for() == source_for("bundled") == "bundled" and source_for("some/model") == "squad"
    )
    assert sealkit.load_passages(limit=3) == sealkit.load_passages("bundled", "train", 3)
    assert sealkit.load_passages(split="test", limit=3) == sealkit.load_passages(
        "bundled", "test", 3
    )
    monkeypatch.setenv("SEALKIT_MODEL", "some/model")
    assert source_for() == "squad" and source_for("bundled") == "bundled"
    save_passages(tmp_path / "p.jsonl", sealkit.load_passages("bundled", limit=4))
    monkeypatch.setenv("SEALKIT_DATA", str(tmp_path / "p.jsonl"))
    assert source_for("bundled") == source_for() == str(tmp_path / "p.jsonl")
    assert [len(sealkit.load_passages(split=split)) for split in (None, "train", "test")] == [
        3,
        3,
        1,
    ]


def read(path, data):
    """(passages, None) or (None, message) of a file of these bytes: a ValueError of one sentence is
    the only error there may be."""
    path.unlink(
        missing_ok=True
    )  # a file cut to nothing and written anew waits for the disk on some systems
    path.write_bytes(data)
    try:
        return sealkit.load_passages(path), None
    except ValueError as error:
        message = str(error)
        assert (
            type(error) is ValueError
            and "\n" not in message
            and message.endswith(".")
            and repr(path.name) in message
        ), message
        return None, message


def cases():
    return (
        [json.loads(line) for line in CASES.read_text("utf-8").splitlines()]
        if CASES.is_file()
        else []
    )


@pytest.mark.skipif(
    not CASES.is_file(),
    reason="the files of people who do this job, shared/cases/data.jsonl, are not beside this checkout",
)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case["name"])
def test_files_of_people_who_do_this_job(tmp_path, case):
    data = (
        base64.b64decode(case["base64"])
        if "base64" in case
        else (case["repeat"][0] * case["repeat"][1]).encode()
    )
    passages, message = read(tmp_path / ("p" + case["suffix"]), data)
    if case["expect"] == "error":
        assert message
        return
    counts, *details = case["expect"].split(", answer ")
    assert not message, message
    counts, *title = counts.split(", title ")
    asked = [q for p in passages for q in p.questions]
    assert (
        counts
        == f"{len(passages)} passage{'s' * (len(passages) > 1)}, {len(asked)} question{'s' * (len(asked) > 1)}"
    )
    assert details in ([], [asked[0].answers[0]]) and title in ([], [repr(passages[0].title)])


def own(questions=({"question": WHEN, "answers": ["1891"]},), **fields):
    return {"title": "Orra", "text": TEXT, "questions": list(questions)} | fields


def flat(question=WHEN, answers=("1891",), **fields):
    """A row as `datasets` has SQuAD."""
    return {
        "id": "1",
        "title": "Orra_light",
        "context": TEXT,
        "question": question,
        "answers": {"text": list(answers), "answer_start": [56] * len(answers)},
    } | fields


def answered(answers, key="answers"):
    return own([{"question": WHEN, key: answers}])


def squad(*qas, **fields):
    qas = qas or (
        {"id": "1", "question": WHEN, "answers": [{"text": "1891", "answer_start": 56}] * 3},
    )
    return {
        "version": "1.1",
        "data": [
            {"title": "Orra_light", "paragraphs": [{"context": TEXT, "qas": list(qas)} | fields]}
        ],
    }


def lines(*rows, end="\n"):
    return "".join(json.dumps(row) + end for row in rows)


def test_csv_of_one_question_a_row(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(
        f'title,context,question,answer\nOrra,"{TEXT}",{WHEN},1891\nOrra,"{TEXT}",{WHO},Mara Venn\n'
    )
    (passage,) = sealkit.load_passages(path)
    assert [q.answers for q in passage.questions] == [("1891",), ("Mara Venn",)]
    path.write_text('title,context\n"Orra')
    with pytest.raises(ValueError, match="'p.csv'"):
        sealkit.load_passages(path)


def parquet(rows):
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


IMPOSSIBLE = {
    "id": "2",
    "question": WHO,
    "answers": [],
    "plausible_answers": [{"text": "Mara Venn", "answer_start": 64}],
    "is_impossible": True,
}
PANDAS = json.loads(
    lines(*[flat() | {"answers": "1891"}, flat(WHO, title=None) | {"answers": "Mara Venn"}])
    .replace("\n", ",")
    .join(["[", "{}]"])
)[:2]
# what a file holds (text, bytes or what json.dumps takes) -> {question: answers} of its passages,
# or what the error says
KINDS = {
    # forms
    "a list of rows": ([own()], [{WHEN: ("1891",)}]),
    "one object, compact": (own(), [{WHEN: ("1891",)}]),
    "one object, indented": (json.dumps(own(), indent=4), [{WHEN: ("1891",)}]),
    "objects, indented, one after the other": (
        json.dumps(own(), indent=2) + "\n" + json.dumps(own(title="B"), indent=2),
        [{WHEN: ("1891",)}] * 2,
    ),
    "objects without a line end between them": (
        lines(own(), own(title="B"), end=""),
        [{WHEN: ("1891",)}] * 2,
    ),
    "JSON lines with empty ones": (
        "\n\n" + lines(own(), own(title="B"), end="\n\n \n"),
        [{WHEN: ("1891",)}] * 2,
    ),
    "JSON lines with CRLF": (lines(own(), own(title="B"), end="\r\n"), [{WHEN: ("1891",)}] * 2),
    "JSON lines with a BOM": (
        lines(own(), own(title="B")).encode("utf-8-sig"),
        [{WHEN: ("1891",)}] * 2,
    ),
    "two files with BOMs put together": (
        lines(own()).encode("utf-8-sig") + lines(own(title="B")).encode("utf-8-sig"),
        [{WHEN: ("1891",)}] * 2,
    ),
    "data of rows": ({"data": [own(), own(title="B")], "version": 3}, [{WHEN: ("1891",)}] * 2),
    "SQuAD 1": (squad(), [{WHEN: ("1891",)}]),
    "SQuAD 1, indented, with CRLF": (
        json.dumps(squad(), indent=1).replace("\n", "\r\n"),
        [{WHEN: ("1891",)}],
    ),
    "SQuAD's articles as a list": (squad()["data"], [{WHEN: ("1891",)}]),
    "SQuAD's articles as JSON lines": (lines(*squad()["data"] * 2), [{WHEN: ("1891",)}]),
    "one of SQuAD's paragraphs a line": (
        lines(*squad()["data"][0]["paragraphs"]),
        [{WHEN: ("1891",)}],
    ),
    "SQuAD 2": (
        squad(IMPOSSIBLE, squad()["data"][0]["paragraphs"][0]["qas"][0] | {"is_impossible": False}),
        [{WHEN: ("1891",)}],
    ),
    "datasets to_json": (
        lines(flat(), flat(WHO, ["Mara Venn", "Venn", "Mara Venn"])),
        [{WHEN: ("1891",), WHO: ("Mara Venn", "Venn")}],
    ),
    "datasets to_json(lines=False)": (
        [flat(), flat(WHO, ["Mara Venn"])],
        [{WHEN: ("1891",), WHO: ("Mara Venn",)}],
    ),
    "datasets of SQuAD 2": (lines(flat(), flat(WHO, [])), [{WHEN: ("1891",)}]),
    "datasets to_parquet": (
        parquet([flat(), flat(WHO, ["Mara Venn"])]),
        [{WHEN: ("1891",), WHO: ("Mara Venn",)}],
    ),
    "own rows as Parquet": (parquet([own(), own(title="B")]), [{WHEN: ("1891",)}] * 2),
    "a damaged Parquet file": (parquet([flat()])[:-40], "no JSON, JSON lines, CSV or Parquet"),
    "pandas, records": (PANDAS, [{WHEN: ("1891",)}, {WHO: ("Mara Venn",)}]),
    "pandas, columns": (
        {key: {str(i): row[key] for i, row in enumerate(PANDAS)} for key in PANDAS[0]},
        "row 1, title: .* valid string",
    ),
    "pandas, index": ({str(i): row for i, row in enumerate(PANDAS)}, "row 1, text: field required"),
    "pandas, split": (
        {
            "columns": list(PANDAS[0]),
            "index": [0, 1],
            "data": [list(row.values()) for row in PANDAS],
        },
        "row 1: .* valid dictionary",
    ),
    "pandas, table": (
        {"schema": {"fields": []}, "data": PANDAS},
        [{WHEN: ("1891",)}, {WHO: ("Mara Venn",)}],
    ),
    "columns as lists": (
        {"title": ["a"], "context": [TEXT], "question": [WHEN], "answers": ["1891"]},
        "row 1, title: .* valid string",
    ),
    "BoolQ": (
        lines({"question": "was it lit in 1891", "title": "Orra", "answer": True, "passage": TEXT}),
        [{"was it lit in 1891": ("true", "yes")}],
    ),
    "MRQA without its header": (
        lines(
            {
                "context": TEXT,
                "qas": [
                    {"qid": "1", "question": WHEN, "answers": ["1891"], "detected_answers": []}
                ],
            }
        ),
        [{WHEN: ("1891",)}],
    ),
    "MRQA with its header": (
        lines({"header": {"dataset": "x"}}, own()),
        "row 1, text: field required",
    ),
    "TriviaQA": (
        {"Data": [{"Question": WHEN, "Answer": {"Value": "1891"}}], "Version": 1},
        "row 1, text: field required",
    ),
    "NewsQA": (
        {"data": [{"text": TEXT, "questions": [{"q": WHEN, "consensus": {"s": 5, "e": 7}}]}]},
        "row 1, question 1, question: field required",
    ),
    "Natural Questions": (
        lines({"document_text": TEXT, "question_text": WHEN, "annotations": []}),
        "row 1, text: field required",
    ),
    "RACE": (own(["When?"]), "row 1, question 1: .* valid dictionary"),
    "splits in one file": ({"train": [own()], "test": [own()]}, "row 1, text: field required"),
    "data is an object": ({"data": {"0": own()}}, "row 1, text: field required"),
    "a number": ("17", "row 1: .* valid dictionary"),
    "a list of lists": ([[own()]], "row 1: .* valid dictionary"),
    "a row is null": ([own(), None], "row 2: .* valid dictionary"),
    "no paragraphs": ({"data": [{"title": "t"}]}, "row 1, text: field required"),
    "paragraphs is a number": (
        {"data": [{"title": "t", "paragraphs": 3}]},
        "row 1, text: field required",
    ),
    "a paragraph is a text": (
        {"data": [{"title": "t", "paragraphs": [TEXT]}]},
        "row 1, paragraph 1: .* valid dictionary",
    ),
    "a paragraph without qas": (
        {"data": [{"title": "t", "paragraphs": [{"context": TEXT}]}]},
        "row 1, paragraph 1, questions: field required",
    ),
    "a paragraph with empty qas": (
        squad(qas=[]),
        "row 1, paragraph 1, qas: list should have at least 1 item",
    ),
    "a paragraph without context": (
        squad(context=None),
        "row 1, paragraph 1, context: .* valid string",
    ),
    # what is no JSON
    "blank": (" \n\t\n", "no question to answer"),
    "only a BOM": (b"\xef\xbb\xbf", "no question to answer"),
    "an empty object": ({}, "row 1, text: field required"),
    "no rows": ({"data": []}, "no question to answer"),
    "an article without paragraphs": (
        {"data": [{"title": "t", "paragraphs": []}]},
        "no question to answer",
    ),
    "UTF-16": (json.dumps([own()]).encode("utf-16"), "no JSON, JSON lines, CSV or Parquet"),
    "latin-1": (
        json.dumps([own(text="Caf\xe9")], ensure_ascii=False).encode("latin-1"),
        "perhaps in cp1252",
    ),
    "gzip": (gzip.compress(lines(own()).encode()), "no JSON, JSON lines, CSV or Parquet"),
    "CSV without its suffix": (
        f'title,context,question,answer\nOrra,"{TEXT}",{WHEN},1891\n',
        "no JSON, JSON lines, CSV or Parquet .*save it as such",
    ),
    "a web page": ("<!DOCTYPE html>\n<html></html>\n", "line 1 column 1"),
    "a trailing comma in a list": ("[" + json.dumps(own()) + ",\n]", "line [12] column"),
    "a trailing comma in an object": (json.dumps(own())[:-1] + ",}", "line 1 column"),
    "commas after the lines": (lines(own(), own(), end=",\n"), "line 1 column"),
    "a comment": ("[\n// the lighthouse\n" + json.dumps(own()) + "]", "line 2 column 1"),
    "single quotes": (str(own()), "line 1 column 2"),
    "a line cut off": (lines(own(), own(title="B"))[:-20], "line 2 column"),
    "a line end inside a text": (
        lines(own()).replace("rock. ", "rock.\n"),
        "control character .*line 1",
    ),
    "NULs after the end": (lines(own()).encode() + bytes(512), "line 2 column 1"),
    "objects nested 50,000 deep": ('{"a":' * 50000, "recursion"),
    "closed brackets, 100,000": ("[" * 100000 + "]" * 100000, "recursion"),
    "an integer of 5,000 digits": (lines(answered(0)).replace("0", "9" * 5000, 1), "no JSON|.*"),
    "a field nested 200 deep": (
        lines(own(extra=0))[:-3] + "[" * 200 + "]" * 200 + "}",
        [{WHEN: ("1891",)}],
    ),
    "a field nested 200 deep for the answer": (
        lines(answered(0)).replace(": 0", ": " + "[" * 200 + "]" * 200),
        "question 1, answer 1: .* valid string",
    ),
    "a line of 2,000,000 characters": (lines(own(text="word " * 400000)), [{WHEN: ("1891",)}]),
    "a key twice": ('{"title": "a", ' + lines(own())[1:], [{WHEN: ("1891",)}]),
    # answers
    "answer is a text": (answered("1891", "answer"), [{WHEN: ("1891",)}]),
    "answer is a list": (answered(["1891", "in 1891"], "answer"), [{WHEN: ("1891", "in 1891")}]),
    "answers is a text": (answered("1891"), [{WHEN: ("1891",)}]),
    "answers is an object": (answered({"text": "1891", "answer_start": 56}), [{WHEN: ("1891",)}]),
    "answers is an object of lists": (
        answered({"text": ["1891", "1891"], "answer_start": [56, 56]}),
        [{WHEN: ("1891",)}],
    ),
    "answers are objects": (
        answered([{"text": "1891"}, {"text": 1891.5}]),
        [{WHEN: ("1891", "1891.5")}],
    ),
    "numbers": (answered([0, -3, 1.5, 10**30]), [{WHEN: ("0", "-3", "1.5", str(10**30))}]),
    "a number of 400 digits": (answered(10**400), [{WHEN: (str(10**400),)}]),
    "false": (answered(False, "answer"), [{WHEN: ("false", "no")}]),
    "blank ones beside others": (answered(["", " ", "\u200b", "1891"]), [{WHEN: ("1891",)}]),
    "accents, signs and other scripts": (
        answered(["é", "+", "八", "🙂"]),
        [{WHEN: ("é", "+", "八", "🙂")}],
    ),
    "too large a number": (
        lines(answered(0)).replace(": 0", ": 1e999"),
        "question 1, answer 1: .*inf",
    ),
    "minus infinity": (
        lines(answered([0])).replace("[0]", "[-Infinity]"),
        "question 1, answer 1: .*inf",
    ),
    "NaN": (lines(answered(math.nan, "answer")), "question 1, answer 1: .*nan"),
    "null": (answered(None), "question 1, answer 1: .*None"),
    "missing": (own([{"question": WHEN}]), "question 1, answer 1: .*None"),
    "null in an object": (answered({"text": None}), "question 1, answer 1: .*None"),
    "an object without text": (answered({"value": "1891"}), "question 1, answer 1: .*None"),
    "null beside others": (answered(["1891", None]), "question 1, answer 2: .*None"),
    "a list in a list": (answered([["1891"]]), "question 1, answer 1: .*1891"),
    "a list in an object in a list": (
        answered([{"text": ["1891"]}]),
        "question 1, answer 1: .*1891",
    ),
    "only blank ones": (answered(["", " \t"]), "question 1, answer 1: text should"),
    "only zero width": (answered("\u200b\u2060\ufeff"), "question 1, answer 1: text should"),
    "only NUL": (answered("\0"), "question 1, answer 1: text should"),
    "NUL inside": (answered("18\x0091"), "question 1, answer 1: text should"),
    "half a surrogate pair": (answered("\ud83d"), "question 1, answer 1: text should"),
    "a whole surrogate pair": (lines(answered("🙂")), [{WHEN: ("🙂",)}]),
    # questions
    "questions is null": (own() | {"questions": None}, "row 1, questions: .* valid list"),
    "no questions": (own([]), "row 1, questions: list should have at least 1 item"),
    "questions is an object": (own() | {"questions": {"0": {}}}, "row 1, questions: .* valid list"),
    "a question is null": (own([None]), "row 1, question 1: .* valid dictionary"),
    "a question's words are a number": (
        own([{"question": 3, "answers": ["x"]}]),
        "question 1, question: .* valid string",
    ),
    "a question's words are blank": (
        own([{"question": "\u3000 ", "answers": ["x"]}]),
        "question 1, question: text should",
    ),
    "a question's words have half a pair": (
        own([{"question": "\udc00?", "answers": ["x"]}]),
        "question 1, question: text should",
    ),
    "the second question": (
        own([own()["questions"][0], {"question": "Why?", "answers": 3.5}, {"answers": ["x"]}]),
        "row 1, question 3, question: field required",
    ),
    "one unanswerable among others": (
        own([own()["questions"][0], {"question": WHO, "answers": []}]),
        [{WHEN: ("1891",)}],
    ),
    "one impossible among others, without answers": (
        own([own()["questions"][0], {"question": WHO, "is_impossible": True}]),
        [{WHEN: ("1891",)}],
    ),
    "impossible says 'False', 0 and null": (
        [
            own([own()["questions"][0] | {"is_impossible": flag}], title=str(flag))
            for flag in ("False", 0, None)
        ],
        [{WHEN: ("1891",)}] * 3,
    ),
    "impossible says 'TRUE' and 1": (
        squad(IMPOSSIBLE | {"is_impossible": "TRUE"}, IMPOSSIBLE | {"is_impossible": 1}),
        "no question to answer",
    ),
    "impossible says perhaps": (
        squad(IMPOSSIBLE | {"is_impossible": "perhaps"}),
        "row 1, paragraph 1, qa 1, is_impossible: .* boolean",
    ),
    "impossible is a list": (
        squad(IMPOSSIBLE | {"is_impossible": []}),
        "qa 1, is_impossible: .* boolean",
    ),
    "flat, only unanswerable": (lines(flat(answers=[])), "no question to answer"),
    "flat, question is null": (lines(flat(None)), "row 1, question 1, question: .* valid string"),
    "flat, answers are missing": (
        lines({"context": TEXT, "question": WHEN}),
        "row 1, question 1, answer 1",
    ),
    # other fields
    "text is missing": (
        {"title": "t", "questions": own()["questions"]},
        "row 1, text: field required",
    ),
    "text is a number": (own(text=5), "row 1, text: .* valid string"),
    "text is a list": (own(text=[TEXT]), "row 1, text: .* valid string"),
    "text is blank": (own(text=" \n"), "row 1, text: text should"),
    "text has half a pair": (own(text=TEXT + "\udfff"), "row 1, text: text should"),
    "title is missing": ({"text": TEXT, "questions": own()["questions"]}, [{WHEN: ("1891",)}]),
    "title is a number": (own(title=1984), [{WHEN: ("1891",)}]),
    "title is a list": (own(title=["a"]), "row 1, title: .* valid string"),
    "title has half a pair": (own(title="\ud800"), "row 1, title: text should"),
    "title has a NUL": (own(title="a\0"), "row 1, title: text should"),
    "oracle is null": (own(oracle=None), [{WHEN: ("1891",)}]),
    "oracle is an object": (own(oracle={}), "row 1, oracle: .* valid string"),
    "oracle has half a pair": (own(oracle="\ud800"), "row 1, oracle: text should"),
    "fields that nobody knows": (
        own(**{"": 1, "flat": 7, "model_config": {}, "self": None, "\ud800": "\ud800"}),
        [{WHEN: ("1891",)}],
    ),
    "the third row": (
        [own(), own(title="B"), own(title="C", text=None)],
        "row 3, text: .* valid string",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_files(tmp_path, kind):
    data, expected = KINDS[kind]
    data = data if isinstance(data, (str, bytes)) else json.dumps(data)
    passages, message = read(
        tmp_path / "p.json", data if isinstance(data, bytes) else data.encode()
    )
    if isinstance(expected, str):
        assert passages is None and re.search(expected, message), (passages, message)
    else:
        assert message is None, message
        assert [{q.question: q.answers for q in p.questions} for p in passages] == expected


def test_titles_oracles_and_texts_are_kept_as_they_are(tmp_path):
    rows = [
        own(title=1984),
        own(title=None),
        own(title=" \u200b"),
        own(title="a_b", oracle=" It was lit.\n"),
        own(text=" a\nb "),
    ]
    passages, _ = read(tmp_path / "p.jsonl", lines(*rows).encode())
    assert [(p.title, p.text, p.oracle) for p in passages] == [
        ("1984", TEXT, ""),
        ("", TEXT, ""),
        ("a_b", TEXT, " It was lit.\n"),
        ("Orra", " a\nb ", ""),
    ]
    (passage,), _ = read(tmp_path / "p.jsonl", lines(flat(" " + WHEN + " ")).encode())
    assert passage.title == "Orra light" and passage.questions[0].question == WHEN


def test_what_is_merged_or_left_out_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read(tmp_path / "plain.jsonl", lines(flat(), flat(WHO), own()).encode())
        assert not caplog.messages
        rows = [
            own(),
            own(),
            own([{"question": WHO, "answers": ["Venn"]}, IMPOSSIBLE]),
            *(flat(f"Q{i}?") for i in range(7)),
        ]
        passages, _ = read(tmp_path / "p.jsonl", lines(*rows).encode())
    assert [len(p.questions) for p in passages] == [2, 5]
    assert caplog.messages == [
        "'p.jsonl': left out or merged 2 repeated passages, 1 repeated questions, 1 unanswerable questions, 2 questions beyond 5 of a passage."
    ]


def save_over(folder, error, monkeypatch, place):
    """Save over a file with `error` from `place`; the file is what it was and nothing lies beside
    it."""
    old, new = sealkit.load_passages("bundled", limit=3), sealkit.load_passages("bundled", limit=5)
    save_passages(folder / "p.jsonl", old)
    before = (folder / "p.jsonl").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(type(error)):

        def fail(*args, **kwargs):
            raise error

        patch.setattr(*place, fail)
        save_passages(folder / "p.jsonl", new)
    assert (folder / "p.jsonl").read_bytes() == before and [
        path.name for path in folder.iterdir()
    ] == ["p.jsonl"]
    save_passages(folder / "p.jsonl", new)
    assert sealkit.load_passages(folder / "p.jsonl") == new


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), MemoryError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    "place",
    [(files.os, "fsync"), (files.os, "replace"), (files.shutil, "copymode")],
    ids=lambda place: place[1],
)
def test_an_interrupted_save_leaves_the_file_as_it_was(tmp_path, monkeypatch, error, place):
    save_over(tmp_path, error, monkeypatch, place)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\0", " ", None, 3])
@pytest.mark.parametrize("field", ["text", "question", "answer"])
def test_passages_that_could_not_be_read_again_are_not_saved(tmp_path, field, text):
    fields = {"text": "It rains.", "question": "Does it?", "answer": "yes"} | {field: text}
    bad = sealkit.Passage(
        "T", fields["text"], (sealkit.Question(fields["question"], (fields["answer"],)),)
    )
    good = sealkit.load_passages("bundled", limit=2)
    save_passages(tmp_path / "p.jsonl", good)
    if field == "answer" and text == 3:
        return  # a number is an answer
    with pytest.raises(
        ValueError, match=r"p.jsonl' is not written, passage 3, .* so mend it or omit it\.$"
    ):
        save_passages(tmp_path / "p.jsonl", [*good, bad])
    assert sealkit.load_passages(tmp_path / "p.jsonl") == good


@pytest.mark.skipif(os.name != "posix", reason="limits and signals of POSIX")
@pytest.mark.parametrize(
    "death, code",
    [
        ("resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))", 1),
        ("os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        (
            "real = os.fsync; os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL) if os.path.isdir(f'/dev/fd/{file}') else real(file)",
            -signal.SIGKILL,
        ),
    ],
    ids=[
        "file too large",
        "killed while writing",
        "killed before the renaming",
        "killed after the renaming",
    ],
)
def test_a_killed_or_failed_write_leaves_all_or_what_was_there(tmp_path, death, code):
    """In a process that dies of it; all of sealkit is imported before."""
    (tmp_path / "f").write_bytes(b"old" * 100)
    program = f"import os, resource, signal, sys; from sealkit.runs.files import write_atomically\n{death}\nwrite_atomically(sys.argv[1], b'new' * 1000)"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "f")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    renamed = "isdir" in death
    assert (tmp_path / "f").read_bytes() == (b"new" * 1000 if renamed else b"old" * 100)
    left = [path.name for path in tmp_path.iterdir() if path.name != "f"]
    assert len(left) == (code < 0 and not renamed) and all(name.endswith(".tmp") for name in left)


def test_a_written_file_keeps_its_permissions_and_its_links(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    files.write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640
    files.write_atomically(str(tmp_path / "fresh"), b"")
    os.umask(mask := os.umask(0))
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o666 & ~mask
    with pytest.raises(OSError):
        files.write_atomically(tmp_path, b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "link", "real"]


def test_the_examples_in_the_docstrings(monkeypatch):
    monkeypatch.delenv("SEALKIT_DATA", raising=False)
    failed, tried = doctest.testmod(module)
    assert not failed and tried >= 6


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="No file .* give 'bundled', 'squad' or the path of a file"
    ):
        sealkit.load_passages(tmp_path)


def test_wrong_source_split_and_limit():
    with pytest.raises(FileNotFoundError, match="No file 'nowhere.json'"):
        sealkit.load_passages("nowhere.json")
    with pytest.raises(ValueError, match="no split 'dev'"):
        sealkit.load_passages("bundled", "dev")
    with pytest.raises(ValueError, match="at least one passage"):
        sealkit.load_passages("bundled", limit=0)
