"""Passages from the bundled world and from files; bad rows are named."""

import json
import re

import pytest

import sealkit
from sealkit.passages import save_passages


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


def test_the_paper_sample_of_squad_loads(paper, tmp_path):
    rows = paper("squad_sample.json")
    (tmp_path / "squad.json").write_text(json.dumps(rows))
    passages = sealkit.load_passages(tmp_path / "squad.json")
    assert len(passages) == len(rows) and all(passage.questions for passage in passages)


@pytest.mark.parametrize("text, message", [
    ('{"title": "t", "text": "x"}', "row 1 has no questions"),
    ('{"title": "t", "text": "x", "questions": [{"question": "q?"}]}', "question 1 has no question or no answer"),
    ('{"title": "t", "text": "x", "questions": [{"question": "q?", "answers": ["  "]}]}', "question 1 has no question or no answer"),
    ('{"title": "t", "questions": [{"question": "q?", "answers": ["a"]}]}', "has no text"),
    ('"just a string"', "row 1 is not an object"),
    ('\n{"title": ', "line 2 is not JSON"),
    ('[{"title": "t"},\n', "line 2 is not JSON"),
    ('{"title": "t", "text": "x", "questions": ["q?"]}', "question 1 has no question or no answer"),
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
