"""CSV, TSV and Parquet say what JSON lines say."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from paligemma.data.opening import open_data, splits
from paligemma.errors import InputError, UsageError
from tests.annotations.world import picture, pictures

ROWS = [
    {"image": "a.png", "prefix": "caption en", "suffix": 'a "cat",\nand ; more'},
    {"image": "b.png", "task": "answer", "question": "why?", "answers": ["so", "so"], "question_type": "why"},
    {"image": "c.png", "task": "detect", "target": [{"label": "dog", "box": [5, 5, 25, 20]}], "width": 64, "height": 48},
    {"image": "d.png", "prefix": "detect cat", "suffix": ""},
    {"image": "a.png", "prefix": "json", "suffix": '["a", "b"]'},
]


def write_csv(path: Path, rows=ROWS, delimiter: str = ",", encoding: str = "utf-8") -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, columns, delimiter=delimiter)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()})
    return path


def comparable(data):
    return [(r.id, r.task, r.prompt, r.answers, r.things, r.asked, r.about, r.pictures) for r in data.records]


@pytest.fixture
def expected(tmp_path):
    pictures(tmp_path)
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return comparable(open_data(tmp_path / "x.jsonl"))


@pytest.mark.parametrize(
    ("name", "delimiter", "encoding"), [("x.csv", ",", "utf-8"), ("x.csv", ";", "utf-8-sig"), ("x.tsv", "\t", "utf-8")]
)
def test_csv(tmp_path, expected, name, delimiter, encoding):
    rows = [{"prefix": "", "suffix": "", **row} if "prefix" in row else row for row in ROWS]
    for row in rows:  # a task has no prefix: its cells are empty, and taken for what is not there
        if "task" in row:
            row.pop("prefix", None)
    data = open_data(write_csv(tmp_path / name, [row for row in rows if "prefix" in row], delimiter, encoding))
    others = open_data(write_csv(tmp_path / f"y{name[1:]}", [row for row in rows if "prefix" not in row], delimiter, encoding))
    assert data.format == "table"
    assert [row[1:] for row in comparable(data)] == [row[1:] for row in expected if row[1] == "run"]
    assert [row[1:] for row in comparable(others)] == [row[1:] for row in expected if row[1] != "run"]
    assert data.records[1].where == f"{name}:4"  # the first row has two lines


def test_parquet(tmp_path, expected):
    import pyarrow
    import pyarrow.parquet

    for number, row in enumerate(ROWS):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "x.parquet")
        data = open_data(tmp_path / "x.parquet")
        assert data.format == "table"
        assert [row[1:] for row in comparable(data)] == [expected[number][1:]]
        assert data.records[0].where == "x.parquet: row 0"


def test_broken_rows(tmp_path):
    pictures(tmp_path)
    lines = [
        b"image,prefix,suffix",
        b"a.png,x,y",
        b"a.png,x",
        b"a.png,x,y,z",
        b"",
        b"none.png,x,y",
        b"a.png,x,\xe4",
        b'a.png,x,"y"z',
        b",x,y",
        b"a.png,x,",
    ]
    (tmp_path / "x.csv").write_bytes(b"\n".join(lines))
    data = open_data(tmp_path / "x.csv", max_bad_share=1)
    expected = {3: "json", 4: "json", 6: "missing", 7: "encoding", 8: "json", 9: "field", 10: "answer"}
    assert {fault.where: fault.code for fault in data.faults} == {f"x.csv:{line}": code for line, code in expected.items()}
    assert len(data) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('image,prefix,suffix\na.png,x,y\na.png,x,"y\na.png,x,y\n', "x.csv:3: a quote is opened"),
        ("image,prefix,suffix,suffix\n", "each column once"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
    pictures(tmp_path)
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        open_data(tmp_path / "x.csv")


def test_a_header_that_is_none(tmp_path):
    (tmp_path / "x.csv").write_text('image,"pre"fix,suffix\n')
    with pytest.raises(InputError, match="the header cannot be read"):
        open_data(tmp_path / "x.csv", format="table")


def test_a_broken_parquet_file(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(InputError, match="no Parquet"):
        open_data(tmp_path / "x.parquet")


def test_without_the_library(tmp_path, monkeypatch):
    import sys

    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError) as caught:
        open_data(tmp_path / "x.parquet")
    assert caught.value.hint == "pip install 'paligemma[data]'"


def test_folders(tmp_path):
    for split in ("train", "test"):
        picture(tmp_path / split / "a.png")
        write_csv(tmp_path / split / "metadata.csv", [{"file_name": "a.png", "text": split}])
    assert splits(tmp_path) == ("train", "test")
    assert open_data(tmp_path, split="test").records[0].answers == ("test",)
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert splits(tmp_path) == ("train", "test")
    with pytest.raises(InputError, match="no known format"):
        open_data(tmp_path / "notes.csv")
