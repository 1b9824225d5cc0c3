"""Rows as lines and as a table: the same values in both, one form for every task, and what is joined reads as if written at once."""

from __future__ import annotations

import datetime
import json
import math

import numpy as np
import pytest

from paligemma.errors import InputError
from paligemma.jobs.rows import FORMS, Lines, Row, Table
from paligemma.results import Answer, Box, Detections, Mask, Masks

pyarrow = pytest.importorskip("pyarrow")

MASK = np.zeros((6, 8), bool)
MASK[1:4, 2:5] = True
BOX = Box("cat", 2, 1, 5, 4, 0.25)
ROWS = [
    Row("a", "a.png", "ask:what?", {"price": 1.5}, Answer("ein Übel 猫", 0.5, "answer en what?", "length")),
    Row(
        "b", "b.png", "detect:cat", {}, Detections((BOX, Box("dog", 0, 0, 1, 1)), 8, 6, "<loc> cat", "detect cat", leftover="x", invalid=2)
    ),
    Row("c", "c.png", "segment:cat", {}, Masks((Mask("cat", BOX, MASK, 0.125, tuple(range(16))),), 8, 6)),
    Row("d", "d.mp4", "detect:cat", {}, Detections((BOX,), 8, 6), seconds=1.5, tracks=(7,)),
]


def test_a_line_holds_the_whole_result():
    lines = [json.loads(line) for line in Lines().written([row.to_dict() for row in ROWS]).decode().splitlines()]
    assert [line["id"] for line in lines] == list("abcd")
    assert Answer.from_dict(lines[0]["result"]) == ROWS[0].result
    assert Detections.from_dict(lines[1]["result"]) == ROWS[1].result
    assert Masks.from_dict(lines[2]["result"]) == ROWS[2].result
    assert (lines[0]["kept"], lines[3]["seconds"], lines[3]["tracks"]) == ({"price": 1.5}, 1.5, [7])
    assert "seconds" not in lines[0]


def test_an_error_is_a_row_too():
    row = Row("a", "a.png", None, {"x": 1}, error=InputError("no such file", hint="look", code="missing")).to_dict()
    assert row == {
        "id": "a", "where": "a.png", "task": None, "kept": {"x": 1}, "error": {"code": "missing", "message": "no such file", "hint": "look"}
    }  # fmt: skip


def test_what_json_cannot_say_is_said_in_another_way():
    kept = {"nan": math.nan, "when": datetime.date(2024, 5, 1), "list": [math.inf, b"x", None, True], 3: {"a": (1,)}}
    row = Row("\udcff", "w", "caption", kept, Answer("half \ud800")).to_dict()
    assert row["kept"] == {"nan": None, "when": "2024-05-01", "list": [None, "b'x'", None, True], "3": {"a": [1]}}
    (line,) = Lines().written([row]).decode("utf-8").splitlines()
    assert json.loads(line)["result"]["text"] == "half \ud800"
    assert Table().written([row])


def table(data: bytes) -> list[dict]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()


def test_a_table_has_columns_of_one_type():
    import pyarrow.parquet

    answer, boxes, masks, followed = table(Table().written([row.to_dict() for row in ROWS]))
    assert (answer["text"], answer["score"], answer["stop"], answer["objects"]) == ("ein Übel 猫", 0.5, "length", None)
    assert (json.loads(answer["kept"]), answer["width"]) == ({"price": 1.5}, None)
    assert (boxes["width"], boxes["height"], boxes["invalid"], boxes["leftover"]) == (8, 6, 2, "x")
    assert [one["label"] for one in boxes["objects"]] == ["cat", "dog"]
    assert [one["score"] for one in boxes["objects"]] == [0.25, None]
    (found,) = masks["objects"]
    assert (found["x0"], found["score"], found["mask_score"], found["rle"]) == (2.0, 0.25, 0.125, ROWS[2].result.masks[0].rle)
    assert (followed["seconds"], followed["objects"][0]["track"]) == (1.5, 7)
    empty = pyarrow.parquet.read_schema(pyarrow.BufferReader(Table().written([])))
    assert empty == pyarrow.parquet.read_schema(pyarrow.BufferReader(Table().written([row.to_dict() for row in ROWS])))


@pytest.mark.parametrize("form", FORMS)
def test_joined_is_as_written_at_once(form, tmp_path):
    made = FORMS[form]()
    rows = [row.to_dict() for row in ROWS]
    parts = [rows[:1], [], rows[1:]]
    files = []
    for number, part in enumerate(parts):
        files.append(tmp_path / f"{number}{made.ending}")
        files[-1].write_bytes(made.written(part))
    joined = bytearray()
    made.join(files, joined.extend)
    if form == "jsonl":
        assert bytes(joined) == made.written(rows)
    else:
        assert table(bytes(joined)) == table(made.written(rows))
    nothing = bytearray()
    made.join([], nothing.extend)
    assert bytes(nothing) == b"" if form == "jsonl" else table(bytes(nothing)) == []
