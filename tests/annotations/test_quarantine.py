"""The list of what was left out: written whole, read back, summed up."""

from __future__ import annotations

import json
import os

import pytest

from paligemma.data.quarantine import read_quarantine, summary, write_quarantine
from paligemma.data.records import FAULTS, DataSet, Fault, Record
from paligemma.errors import InputError, ResourceError

FAULT = Fault("x.jsonl:3", "box", "the box is inside out: (4, 3, 2, 1)", "3", "ä.png")
FAULTY = [FAULT, *(Fault(f"x.jsonl:{i}", "missing", "no such file: \udcff\n", str(i)) for i in range(5))]


def test_there_and_back(tmp_path):
    write_quarantine(FAULTY, tmp_path / "q.jsonl")
    first = (tmp_path / "q.jsonl").read_text("utf-8").splitlines()[0]
    assert json.loads(first) == {"where": "x.jsonl:3", "id": "3", "path": "ä.png", "code": "box", "detail": FAULT.detail}
    found = read_quarantine(tmp_path / "q.jsonl")
    assert found[0] == FAULT
    assert [fault.id for fault in found] == [fault.id for fault in FAULTY]
    assert os.listdir(tmp_path) == ["q.jsonl"]


def test_what_cannot_be_written_or_read(tmp_path):
    with pytest.raises(ResourceError, match="cannot be written"):
        write_quarantine(FAULTY, tmp_path / "none" / "q.jsonl")
    for text in ("{", '{"where": 1}', "[]"):
        (tmp_path / "q.jsonl").write_text(text)
        with pytest.raises(InputError):
            read_quarantine(tmp_path / "q.jsonl")
    with pytest.raises(InputError):
        read_quarantine(tmp_path / "none.jsonl")


def test_summary(tmp_path):
    records = tuple(Record(str(i), "run", (tmp_path,), "") for i in range(1200))
    data = DataSet(tmp_path, "jsonl", "run", records, tuple(FAULTY), notes={"boxes were cut": 7})
    assert summary(data).splitlines() == [
        "1,200 records are usable, 6 are not",
        f"  5 missing: {FAULTS['missing']}",
        *(f"    x.jsonl:{i}: no such file: \\udcff\\n" for i in range(3)),
        "    and 2 more",
        f"  1 box: {FAULTS['box']}",
        f"    x.jsonl:3: {FAULT.detail}",
        "  7 boxes were cut",
    ]
