"""The journal of a run: what it says is on the disk, and what is damaged is named."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import pytest
from small_runs import (
    FAULTS,
    content,
    ended,
    interrupt,
    key_of,
    lines_of,
    loaded,
    policy,
    print_faults,
    refused,
    rows_of,
    same_history,
    small,
    unbroken,
    without,
)

import sealkit
from sealkit.runs.journal import Journal


def test_what_a_line_speaks_of_is_on_the_disk_before_it(policy, tmp_path, monkeypatch):
    """As the system is told: files, and the lists of files that hold them."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("only /proc says what a descriptor belongs to")
    synchronized, fsync = [], os.fsync

    def noting(handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}")).relative_to(tmp_path.resolve())
        synchronized.append(f"{path.parent}/*.tmp" if path.suffix == ".tmp" else str(path))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    journal = Journal(tmp_path, policy.model.peft_config["default"])
    journal.update({("policy", 0): {"weights": policy.weights()}})
    whole = ["policy_0/*.tmp", "policy_0"]  # a file, and the list that names it
    assert synchronized == [".", *whole, *whole, "journal.jsonl", "."]
    journal.update({("trial", 1, 0, None): 1})
    assert synchronized[-1] == "journal.jsonl"


def test_what_could_not_be_written_is_not_remembered(tmp_path, monkeypatch):
    journal = Journal(tmp_path)
    journal.update({("a", 1): 1})
    before = content(tmp_path)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        journal.update({("a", 2): 2, ("a", 3): 3})
    assert content(tmp_path) == before and journal == {("a", 1): 1}


def test_values_come_back_as_they_were(tmp_path):
    """Also what JSON has no own form for."""
    rows = {
        ("text", "arm, \ud800", 0): "\ud800 \x00 \x1b[2J \u2028 漢 😀",
        ("trial", 1, 0, None): {"losses": [0.1, 1e-30, 1 / 3, float("inf")], "answers": []},
        ("before", 1, 10**12): 0.0,
    }
    Journal(tmp_path).update(rows)
    again = Journal(tmp_path)
    assert again == rows and list(again) == list(rows)
    assert (tmp_path / "journal.jsonl").read_bytes().isascii()


def test_half_of_a_last_line_is_left_out_and_said(ended, small, capsys):
    whole = content(ended)
    path = ended / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    shutil.rmtree(ended / "policy_2")
    small(ended)
    said = capsys.readouterr().out.splitlines()
    half = f"The last line of '{path}' was written by half and is left out."
    assert half in said
    FAULTS.append(("half of a last line", half.replace(str(ended), "RUN")))
    assert content(ended) == whole


@pytest.mark.parametrize("cut", [1, 2])
def test_a_journal_is_cut_anywhere(ended, small, cut):
    """At any byte: what is whole is kept, what is not is left out, nothing is damaged."""
    path, whole = ended / "journal.jsonl", Journal(ended)
    data = path.read_bytes()
    for size in random.Random(cut).sample(range(len(data)), 40):
        path.write_bytes(data[:size])
        count = data[:size].count(b"\n")
        there = Journal(ended)
        assert list(there) == list(whole)[:count] and there.size == data[:size].rfind(b"\n") + 1


DAMAGES = {
    "not json": lambda line: line[:30] + b"\n",
    "not utf-8": lambda line: b"\xff" + line,
    "not an object": lambda line: b"[1, 2]\n",
    "a number": lambda line: b"17\n",
    "nested without end": lambda line: b"[" * 100_000 + b"\n",
    "empty": lambda line: b"\n",
    "a number changed": lambda line: re.sub(rb'"value": [\d.]+', b'"value": 0.75', line),
    "another key": lambda line: line.replace(b'"before", 1', b'"before", 2'),
    "its checksum changed": lambda line: line.replace(b'"crc": ', b'"crc": 1'),
    "no value": lambda line: json.dumps({"key": ["before", 1, 0], "crc": 1}).encode() + b"\n",
    "no key": lambda line: json.dumps({"value": 0.0, "crc": 1}).encode() + b"\n",
    "two lines in one": lambda line: line[:-1] + line,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_is_named(ended, small, damage):
    lines = lines_of(ended)
    assert key_of(lines[1]) == ("before", 1, 0)
    changed = DAMAGES[damage](lines[1])
    assert changed != lines[1]
    path = ended / "journal.jsonl"
    path.write_bytes(b"".join([lines[0], changed, *lines[2:]]))
    fault = f"line 2 of journal.jsonl: {damage}"
    refused(fault, ended, lambda: small(ended), names=[path, "line 2"])


def test_any_changed_bit_is_found(ended, capsys):
    """Named with file and number of the line; but for bits that make no difference (1e-05, 1E-05).

    Without adapters, to be fast: lines with one have their checksum too.
    """
    path, found, harmless = ended / "journal.jsonl", 0, 0
    without(ended, ("policy", 0), ("policy", 1), ("policy", 2))
    data, whole, draw = path.read_bytes(), Journal(ended), random.Random(0)
    for _ in range(1500):
        place, changed = draw.randrange(len(data) - 1), bytearray(data)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        number = data[:place].count(b"\n") + 1
        try:
            assert Journal(ended) == whole
            harmless += 1
        except sealkit.RunError as error:
            found += 1
            assert f"{path}, line {number}: " in str(error)
    with capsys.disabled():
        print(
            f"\nbits of a journal changed: {found} found and named, {harmless} make no difference"
        )
    assert found > 1450


def test_a_line_that_lacks_is_computed_again(ended, small):
    """One of each kind, and all of a kind; the files of a policy stay."""
    whole, expected = rows_of(ended), small(ended)
    for lacking in (
        [("before", 1, 0), ("self-edit", 1, 0, 1), ("trial", 1, 1, 0), ("policy", 1)],
        [("trial", 2, 0, 1)],
        [key for key in whole if key[0] == "self-edit"],
        [("policy", 0)],
    ):
        lines = [line for line in lines_of(ended) if key_of(line) not in lacking]
        (ended / "journal.jsonl").write_bytes(b"".join(lines))
        assert rows_of(ended) != whole
        assert same_history(small(ended), expected)
        assert rows_of(ended) == whole


def test_doubled_lines_are_harmless(ended, small, unbroken):
    path, expected = ended / "journal.jsonl", small(ended)
    path.write_bytes(b"".join(2 * line for line in lines_of(ended)) + b"".join(lines_of(ended)))
    before = content(ended)
    assert same_history(small(ended), expected) and content(ended) == before


def test_the_table_of_faults(capsys):
    with capsys.disabled():
        print_faults()
