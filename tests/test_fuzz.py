"""Files that are broken in one to four places: passages or puzzles, or one sentence on the fault.

`pytest -m fuzz` tries all 5,000 of each reader, the default a fifth of them.
"""

import copy
import dataclasses
import json
import logging
import random

import pytest

import sealkit
from sealkit.tasks.arc import load_puzzles
from sealkit.tasks.passages import group_questions

WHOLE = 5000
TEXT = "The Orra lighthouse stands on Kell rock. It was lit in 1891 by Mara Venn."
ASKED = [{"question": "When?", "answers": ["1891", 3]}, {"question": "Lit?", "answer": True}]
ROW = {"title": "Orra", "text": TEXT, "questions": ASKED, "oracle": "Ünïcödé 🙂"}
FLAT = {"title": "Orra", "context": TEXT, "question": "Who?", "answers": {"text": ["Mara"]}}
SQUAD = {"title": "Orra", "paragraphs": [{"context": TEXT, "qas": [ASKED[0]]}]}
PAIR = {"input": [[1, 0], [0, 2]], "output": [[0, 1], [2, 0]]}
TASK = {"train": [PAIR, PAIR], "test": [PAIR]}
CELLS = "007", "{'text': ['1891']}", "'Mara, Venn'", "[1, 2]", "''"
CSV = "title,context,question,answer\n" + "".join(f'T,"{TEXT}",When?,"{c}"\n' for c in CELLS)
FILES = {  # {suffix: (reader, JSON values or a text)}
    "json": (sealkit.load_passages, [[ROW, ROW], {"data": [FLAT, SQUAD], "version": "0.1"}, ROW]),
    "jsonl": (sealkit.load_passages, [ROW, FLAT, SQUAD]),
    "csv": (sealkit.load_passages, [CSV]),
    "puzzle.json": (
        load_puzzles,
        [TASK, {"a": TASK, "b": TASK}, [TASK | {"id": "a"}], {"train": {"a": TASK}}, [PAIR] * 4],
    ),
}
NESTED = "a value in 2,000 lists"
JUNK = [
    *(None, True, False, 0, -1, 3, 1.5, 10**400, float("nan"), float("inf"), "", " ", "x", "1e5"),
    *("\0", "\ud800", "\u200b", "\u2028", "a\nb", "y" * 5000, "[" * 5000, "{'text': " * 300),
    *([], {}, [[]], [None], [{}], [[["x"]]], {"text": None}, {"text": ["x"]}, {"a": {"b": 1}}),
    *({"data": []}, {"paragraphs": None}, {"train": []}, {"\ud800": 1}, {"a\nb": [1]}, NESTED),
]
FIELDS = (
    """title text context passage questions qas question answers answer oracle is_impossible
data paragraphs id task_id name train test input output""".split()
    + ["\ud800", "a\nb", "\0", ""]
)
BITS = [
    *(b"", b"\0", b"\xff", b"\xe9", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\ud800", b"\\u0000"),
    *(b"\\", b'"', b"'", b"{", b"}", b"{}", b"[" * 3000, b"]", b",", b":", b"\n", b"\r", b"\r\n"),
    *(b"null", b"NaN", b"-", b"1e999", b"9" * 5000, b"//", b"\xe2\x80\xa8", b"PAR1", b"\x1f\x8b"),
    *(b"\xff\xfe", b'"""', b"(" * 300),
]


def places(value):
    """(container, key) of everything in a JSON value, but for what is deep in it."""
    waiting = [(value, 0)]
    while waiting:
        holder, depth = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], (dict, list)) and depth < 9:
                waiting.append((holder[key], depth + 1))


def with_another_structure(value, chance):
    """A copy of a JSON value with one to four values exchanged, renamed, wrapped, added or lost."""
    root = [copy.deepcopy(value)]
    for _ in range(chance.randint(1, 4)):
        holder, key = chance.choice(list(places(root)) or [(root, 0)])
        change = chance.randrange(5)
        junk = copy.deepcopy(chance.choice(JUNK))
        if change < 2:
            holder[key] = junk
        elif change == 2:
            holder[key] = [holder[key]] if chance.random() < 0.5 else {"text": holder[key]}
        elif isinstance(holder, dict):
            taken = holder.pop(key)
            holder |= {chance.choice(FIELDS): taken} if change == 3 else {}
        elif change == 3 or len(holder) == 1:
            holder.insert(key, junk)
        else:
            del holder[key]
    return root[0]


def with_other_bytes(data, chance):
    """Bytes exchanged, added, lost, doubled or cut off in one to four places."""
    data = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        start, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
        change = chance.randrange(6)
        if change == 0:
            data[start : start + 1] = bytes([chance.randrange(256)])
        elif change < 3:
            data[start : start + chance.randrange(4)] = chance.choice(BITS)
        elif change == 3:
            del data[start : min(end, start + chance.choice([1, 10, 10000]))]
        elif change == 4:
            data[start:start] = data[start:end]
        elif chance.random() < 0.3:
            del data[end:]
    return bytes(data)


def broken(suffix, chance):
    """The bytes of a good file of this kind, broken."""
    values = FILES[suffix][1]
    if suffix == "csv":
        return with_other_bytes(values[0].encode(), chance)
    chosen = [chance.choice(values)] if suffix != "jsonl" else values
    structure = chance.random() < 0.7
    if structure:
        chosen = [with_another_structure(value, chance) for value in chosen]
    end = chance.choice(["\n", "\n", "\n", "", "\r\n", ","])
    data = end.join(map(json.dumps, chosen)).encode()
    data = data.replace(json.dumps(NESTED).encode(), b"[" * 2000 + b"]" * 2000)
    return data if structure and chance.random() < 0.8 else with_other_bytes(data, chance)


def check_passages(passages):
    texts = [t for p in passages for q in p.questions for t in (p.text, q.question, *q.answers)]
    assert all(type(text) is str and text.strip() for text in texts)
    texts += [text for p in passages for text in (p.title, p.oracle)]
    assert "\0" not in "".join(texts).encode().decode()
    assert all(p.questions and all(q.answers for q in p.questions) for p in passages)
    assert group_questions(map(dataclasses.asdict, passages)) == passages


def check_puzzles(puzzles):
    for puzzle in puzzles:
        assert puzzle.title.isprintable() and puzzle.demonstrations and puzzle.tests
        for grid in (grid for pair in puzzle.demonstrations + puzzle.tests for grid in pair):
            assert len(set(map(len, grid))) == 1
            assert all(type(cell) is int and 0 <= cell < 10 for row in grid for cell in row)


@pytest.mark.parametrize("count", [WHOLE // 5, pytest.param(WHOLE, marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("suffix", FILES)
def test_a_broken_file_is_read_or_refused_in_one_sentence(tmp_path, suffix, count):
    chance, counts, read = random.Random(0), [0, 0], FILES[suffix][0]
    logging.disable(logging.WARNING)
    try:
        for number in range(count):
            path = tmp_path / f"{number}.{suffix}"
            path.write_bytes(data := broken(suffix, chance))
            try:
                result = read(path)
            except ValueError as error:
                message = str(error)
                assert type(error) is ValueError and path.name in message, data
                assert message.isprintable() and message.endswith("."), (message, data)
                assert len(message) < 600, message
                counts[1] += 1
            else:
                assert isinstance(result, list) and result, data
                (check_puzzles if read is load_puzzles else check_passages)(result)
                counts[0] += 1
            path.unlink()
    finally:
        logging.disable(logging.NOTSET)
    assert min(counts) > count / 50, counts
