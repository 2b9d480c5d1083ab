"""Passages from the bundled world and from files; bad rows are named."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest

import sealkit
from conftest import PAPER
from sealkit.tasks.passages import hold_out, save_passages, source_for


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_bundled_splits_have_questions_about_several_subjects(split):
    passages = sealkit.load_passages("bundled", split)
    assert len(passages) >= 100
    for passage in passages:
        names = passage.title.split(" and ")
        assert len(names) >= 2 and all(any(name in q.question for q in passage.questions) for name in names)
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
    row = {"title": "T", "context": "A text.", "questions": [{"question": "What?", "answer": "a text"}]}
    (tmp_path / "p.json").write_text(json.dumps([row]))
    (passage,) = sealkit.load_passages(tmp_path / "p.json")
    assert passage == sealkit.Passage("T", "A text.", (sealkit.Question("What?", ("a text",)),))


def test_the_paper_sample_of_squad_loads(paper):
    rows = paper("squad_sample.json")
    passages = sealkit.load_passages(PAPER / "squad_sample.json")
    assert [p.text for p in passages] == [row["context"] for row in rows]
    assert [[q.question for q in p.questions] for p in passages] == [[q["question"] for q in row["questions"]] for row in rows]


def nested(rows):
    """Rows of the paper's sample in SQuAD's own nested form."""
    def paragraph(row):
        asked = [{"id": "x", "question": q["question"], "answers": [{"text": q["answer"], "answer_start": 0}] * 2} for q in row["questions"]]
        return {"context": row["context"], "qas": asked}

    return {"version": "1.1", "data": [{"title": row["title"].replace(" ", "_"), "paragraphs": [paragraph(row)]} for row in rows]}


def test_squads_own_file_loads_like_the_sample(paper, tmp_path):
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(nested(paper("squad_sample.json"))))
    assert sealkit.load_passages(tmp_path / "dev-v1.1.json", limit=7) == capped(sealkit.load_passages(PAPER / "squad_sample.json", limit=7))


def capped(passages):
    return [dataclasses.replace(p, questions=p.questions[:5]) for p in passages]


def test_squad_through_datasets_is_grouped_by_passage_and_capped(paper, tmp_path, monkeypatch):
    """The rows of rajpurkar/squad, one a question, from a local file through the same `datasets.load_dataset`."""
    datasets = pytest.importorskip("datasets")
    rows = [
        {"id": str(i), "title": row["title"].replace(" ", "_") + "_City", "context": row["context"], "question": q["question"] + " ",
         "answers": {"text": [q["answer"], q["answer"]], "answer_start": [0, 0]}}
        for row in paper("squad_sample.json") for i, q in enumerate(row["questions"] * 2)
    ]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    real, asked = datasets.load_dataset, []

    def local(name, split):
        asked.append((name, split))
        return real("json", data_files={s: str(tmp_path / f"{s}.jsonl") for s in ("train", "validation")}, split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", local)
    passages = sealkit.load_passages("squad", split="test", limit=6)
    expected = sealkit.load_passages(PAPER / "squad_sample.json", limit=6)
    assert asked == [("rajpurkar/squad", "validation")]
    assert [(p.text, p.title) for p in passages] == [(p.text, p.title + " City") for p in expected]
    for passage, other in zip(passages, expected):
        twice = (other.questions * 2)[:5]
        assert passage.questions == tuple(sealkit.Question(q.question.strip(), q.answers) for q in twice)
    assert sealkit.load_passages("squad", "validation", 6) == passages and len(sealkit.load_passages("squad")) == 24
    assert [split for _, split in asked] == ["validation", "validation", "train"]


def test_squad_without_a_network_is_one_sentence(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def fail(name, split):
        raise ConnectionError("Couldn't reach 'rajpurkar/squad' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(RuntimeError, match="SQuAD could not be loaded .* connect to the network"):
        sealkit.load_passages("squad")


def test_squad_without_a_network_is_not_asked_for_again_and_again(tmp_path):
    """In a process of its own, with an empty cache and an address where nobody listens: the message, and no line of retries."""
    code = "import sealkit\ntry: sealkit.load_passages('squad')\nexcept RuntimeError as error: print(error)"
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env={k: v for k, v in env.items() if "proxy" not in k.lower()}, capture_output=True, text=True, timeout=120)
    assert "connect to the network" in done.stdout and "Retry" not in done.stderr, done.stderr


def test_a_line_separator_inside_a_text_ends_no_row(tmp_path):
    passage = sealkit.Passage("T", "one\u2028two\x85three", (sealkit.Question("Which?", ("this",)),))
    save_passages(tmp_path / "p.jsonl", [passage] * 2)
    assert sealkit.load_passages(tmp_path / "p.jsonl") == [passage] * 2


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"text": "\xff"}')
    with pytest.raises(ValueError, match="p.jsonl is not UTF-8 text"):
        sealkit.load_passages(tmp_path / "p.jsonl")


def test_held_out_passages_share_neither_text_nor_title_with_training():
    passages = [sealkit.Passage(f"T{i // 3}", f"text {i}", ()) for i in range(12)] + [sealkit.Passage("T9", "text 1", ())]
    for count in (1, 2, 5, 100):
        train, test = hold_out(passages, count)
        assert 1 <= len(test) <= count and train
        assert not {p.title for p in train} & {p.title for p in test} and not {p.text for p in train} & {p.text for p in test}
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
    assert sealkit.load_passages(tmp_path / "p.jsonl", "test", 1) == sealkit.load_passages(tmp_path / "p.jsonl", "validation", 1) == passages[6:7]


def test_passages_go_with_the_model_unless_a_variable_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("SEALKIT_DATA", raising=False)
    assert source_for() == source_for("bundled") == "bundled" and source_for("some/model") == "squad"
    assert sealkit.load_passages(limit=3) == sealkit.load_passages("bundled", "train", 3)
    assert sealkit.load_passages(split="test", limit=3) == sealkit.load_passages("bundled", "test", 3)
    monkeypatch.setenv("SEALKIT_MODEL", "some/model")
    assert source_for() == "squad" and source_for("bundled") == "bundled"
    save_passages(tmp_path / "p.jsonl", sealkit.load_passages("bundled", limit=4))
    monkeypatch.setenv("SEALKIT_DATA", str(tmp_path / "p.jsonl"))
    assert source_for("bundled") == source_for() == str(tmp_path / "p.jsonl")
    assert [len(sealkit.load_passages(split=split)) for split in (None, "train", "test")] == [3, 3, 1]


@pytest.mark.parametrize("text, message", [
    ('{"title": "t", "text": "x"}', "row 1 has no questions"),
    ('{"title": "t", "text": "x", "questions": [{"question": "q?"}]}', "question 1 has no question or no answer"),
    ('{"title": "t", "text": "x", "questions": [{"question": "q?", "answers": ["  "]}]}', "question 1 has no question or no answer"),
    ('{"title": "t", "questions": [{"question": "q?", "answers": ["a"]}]}', "has no text"),
    ('"just a string"', "row 1 is not an object"),
    ('\n{"title": ', "line 2 is not JSON"),
    ('[{"title": "t"},\n', "line 2 is not JSON"),
    ('{"title": "t", "text": "x", "questions": ["q?"]}', "question 1 has no question or no answer"),
    ('{"data": [{"title": "t", "paragraphs": [{"context": "x", "qas": []}]}]}', "article 1, paragraph 1 has no questions"),
    ('{"data": [{"title": "t", "paragraphs": [{"context": "x"}]}]}', "article 1, paragraph 1 has no list of questions"),
    ('{"data": [{"title": "t"}, {"paragraphs": []}]}', "article 1 has no list of paragraphs"),
    ('{"data": [{"title": "t", "paragraphs": [{"qas": [{"question": "q", "answers": [{"text": "a"}]}]}]}]}', "paragraph 1 has no text"),
])
def test_bad_rows_are_named(tmp_path, text, message):
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        sealkit.load_passages(tmp_path / "bad.jsonl")


def test_wrong_source_split_and_limit():
    with pytest.raises(FileNotFoundError, match="No file 'nowhere.json'"):
        sealkit.load_passages("nowhere.json")
    with pytest.raises(ValueError, match="no split 'dev'"):
        sealkit.load_passages("bundled", "dev")
    with pytest.raises(ValueError, match="at least one passage"):
        sealkit.load_passages("bundled", limit=0)
