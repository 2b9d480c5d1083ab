"""CSV files of passages: cells are texts as they stand, and what cannot be one is refused."""

import csv

import pytest
from conftest import PAPER

import sealkit

CASES = PAPER.parent / "cases" / "files"
HEAD = "title,context,question,answer\n"
TEXT = "It was lit in 1891."


def written(path, *answers):
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(f"T{n}", f"{TEXT} {n}", "When?", answer) for n, answer in enumerate(answers)]
        csv.writer(file).writerows([HEAD.strip().split(","), *rows])
    return path


def answers_of(passages):
    return [question.answers for passage in passages for question in passage.questions]


def test_cells_are_texts_as_they_stand(tmp_path):
    cells = "007", "3.10", "12345678901234567890123", "1e5", "1891-05-04", "12:30", "NA", "true"
    passages = sealkit.load_passages(written(tmp_path / "p.csv", *cells))
    assert answers_of(passages) == [(cell,) for cell in cells]


def test_quoted_newlines_in_a_file_over_a_megabyte(tmp_path):
    path = tmp_path / "p.csv"
    text = "It was lit in 1891.\n" * 60
    rows = "".join(f'T{n},"{n}. {text}",When?,1891\n' for n in range(1000))
    path.write_text(HEAD + rows, "utf-8")
    passages = sealkit.load_passages(path)
    assert len(passages) == 1000 and passages[0].text == f"0. {text}"


def test_structures_in_a_cell_are_squads_answers_or_refused(tmp_path):
    cells = "{'text': ['1891'], 'answer_start': [56]}", '{"text": ["1891"]}', '["1891"]'
    passages = sealkit.load_passages(written(tmp_path / "p.csv", *cells))
    assert answers_of(passages) == [("1891",)] * 3
    for cell in ("{'text': array(['1891'], dtype=object)}", '{"a": 1}', "[x]", "[" * 99 + "]"):
        with pytest.raises(ValueError, match=r"p.csv', row 1, answer: neither .*\.$"):
            sealkit.load_passages(written(tmp_path / "p.csv", cell))


def test_another_encoding_is_named_with_the_remedy(tmp_path):
    (tmp_path / "p.csv").write_bytes((HEAD + "T,A text.,What?,Café\n").encode("cp1252"))
    with pytest.raises(ValueError, match=r"p.csv' is .* perhaps in cp1252 .*: save it in UTF-8\.$"):
        sealkit.load_passages(tmp_path / "p.csv")


@pytest.mark.skipif(not CASES.is_dir(), reason="shared/cases/files is not beside this checkout")
def test_files_of_people_who_do_this_job():
    read = {path.name: path for path in CASES.iterdir()}
    assert answers_of(sealkit.load_passages(read["zeros.csv"]))[0] == ("007",)
    assert answers_of(sealkit.load_passages(read["bigints.csv"]))[1] == ("98765432109876543210",)
    assert answers_of(sealkit.load_passages(read["dates.csv"]))[0] == ("1891-05-04",)
    assert set(answers_of(sealkit.load_passages(read["hf_to_csv.csv"]))) == {("1891",)}
    assert ("CANNOTANSWER",) not in answers_of(sealkit.load_passages(read["quac.json"]))
    with pytest.raises(ValueError, match="cp1252"):
        sealkit.load_passages(read["cp1252.csv"])


def test_a_data_set_is_a_source():
    datasets = pytest.importorskip("datasets")
    rows = [{"title": "T", "context": TEXT, "question": "When?", "answers": {"text": ["1891"]}}]
    (passage,) = sealkit.load_passages(datasets.Dataset.from_list(rows))
    assert passage.questions[0].answers == ("1891",)
