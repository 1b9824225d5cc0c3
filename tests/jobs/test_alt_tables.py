"""A table of alt texts: what is there, a person's words and columns above all, stays; what is no such table is not touched."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from paligemma.errors import InputError, UsageError
from paligemma.jobs.alt_tables import AltTable
from paligemma.jobs.alt_texts import AltText
from paligemma.jobs.items import items

from .making import album, lines

OWL = AltText("0.png", "en", "an owl", 0.9, False, False)
EULE = AltText("0.png", "de", "Eule, „grün“", 0.4, True, False)
FISH = AltText("1.png", "en", "a fish", 0.8, False, True)


@pytest.fixture(params=["csv", "jsonl", "parquet"])
def out(request, tmp_path) -> Path:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"alt.{request.param}"


def read(path: Path) -> list[dict]:
    if path.suffix == ".csv":
        return list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def test_a_table_keeps_its_rows_and_takes_new_ones(out, tmp_path):
    first, second = items(album(tmp_path / "a", 2))
    assert AltTable(out).add([OWL, EULE]).taken == [OWL, EULE]
    place = AltTable(out)
    assert not place.lacks(first, ["en", "de"])
    assert place.lacks(second, ["en"])
    assert place.add([AltText("0.png", "en", "a duck", 0.9, False, False), FISH]).taken == [FISH]
    assert not place.lacks(second, ["en"])
    found = read(out)
    assert [(row["id"], row["lang"], row["alt"]) for row in found] == [
        ("0.png", "en", "an owl"),
        ("0.png", "de", "Eule, „grün“"),
        ("1.png", "en", "a fish"),
    ]
    assert [str(row["doubtful"]).lower() for row in found] == ["false", "true", "false"]
    anew = AltTable(out, overwrite=True)
    assert anew.lacks(first, ["en"])
    assert anew.add([AltText("0.png", "en", "a duck", 0.9, False, False)]).taken
    assert [row["alt"] for row in read(out)] == ["a duck", "Eule, „grün“", "a fish"]


def write(path: Path, rows: list[dict]) -> None:
    """As a person's own program does."""
    if path.suffix == ".csv":
        cells = [list(rows[0]), *(list(row.values()) for row in rows)]
        path.write_bytes(("\ufeff" + "".join(",".join(map(str, row)) + "\n" for row in cells)).encode())  # as spreadsheets save it
    elif path.suffix == ".jsonl":
        lines(path, *rows)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_what_a_person_added_to_a_table_stays(out):
    there = {"id": "0.png", "note": "checked", "lang": "en", "alt": "my owl", "by": "ann"}
    write(out, [there])
    assert AltTable(out).add([OWL, FISH]).taken == [FISH]
    old, new = read(out)
    assert {name: old[name] for name in there} == there
    assert (new["id"], new["alt"], new.get("note") or "", new.get("by") or "") == ("1.png", "a fish", "", "")
    AltTable(out, overwrite=True).add([OWL])
    assert [(row["alt"], row.get("note") or "") for row in read(out)] == [("an owl", "checked"), ("a fish", "")]


def test_other_columns_of_a_parquet_table_keep_their_types(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    out = tmp_path / "alt.parquet"
    others = {
        "when": arrow.array([1, 2], arrow.timestamp("ns", "UTC")),
        "boxes": arrow.array([[{"x": 1}], None], arrow.list_(arrow.struct([("x", arrow.int8())]))),
        "kind": arrow.array(["a", "b"]).dictionary_encode(),
        "raw": arrow.array([b"\xff", b""], arrow.large_binary()),
    }
    own = {"id": ["0.png", "1.png"], "lang": ["en", "en"], "alt": ["my owl", None]}
    pyarrow.parquet.write_table(arrow.table(own | others), out)
    AltTable(out).add([EULE])
    found = pyarrow.parquet.read_table(out)
    assert found["alt"].to_pylist() == ["my owl", None, "Eule, „grün“"]
    for name, column in others.items():
        assert found[name].type == column.type
        assert found[name].slice(0, 2).combine_chunks().equals(column)
        assert found[name].slice(2).null_count == 1


def test_a_row_for_each_place_in_a_page(out, tmp_path):
    first, second = items(album(tmp_path / "a", 2))
    uses = {"0.png": [{"page": "a.html", "src": "0.png"}, {"page": "b/c.html", "src": "../0.png"}]}
    assert AltTable(out, uses={"0.png": uses["0.png"][:1]}).add([OWL, FISH]).taken == [OWL], "no page has the other one"
    place = AltTable(out, uses=uses)
    assert place.lacks(first, ["en"])
    assert not place.lacks(second, ["en"])
    assert place.add([OWL]).taken == [OWL]
    found = [(row["page"], row["src"], row["alt"]) for row in read(out)]
    assert found == [("a.html", "0.png", "an owl"), ("b/c.html", "../0.png", "an owl")]


def test_a_header_alone_stays(tmp_path):
    out = tmp_path / "alt.csv"
    out.write_text("id,lang,alt,note\n")
    AltTable(out).add([OWL])
    assert read(out)[0]["note"] == ""


def test_what_a_person_changes_meanwhile_stays(out):
    AltTable(out).add([OWL])
    place = AltTable(out)
    mine = [("0.png", "my owl", "checked"), ("2.png", "mine", "")]
    write(out, [{"id": id, "lang": "en", "alt": alt, "note": note} for id, alt, note in mine])
    assert place.add([OWL, FISH]).taken == [FISH]
    found = [(row["id"], row["alt"], row.get("note") or "") for row in read(out)]
    assert found == [*mine, ("1.png", "a fish", "")]
    out.unlink()
    assert place.add([OWL]).taken == [OWL], "a table that was moved away is made anew, without its other columns"
    assert [(row["id"], "note" in row) for row in read(out)] == [("0.png", False)]


def test_what_is_no_table_any_more_is_not_written_over(out):
    place = AltTable(out)
    out.write_bytes(b"{ half\na table\n")
    with pytest.raises(InputError, match="table") as caught:
        place.add([OWL])
    assert "the same command goes on" in (caught.value.hint or "")
    assert out.read_bytes() == b"{ half\na table\n"


def test_nothing_new_writes_nothing(out):
    assert AltTable(out).add([]).taken == []
    assert not out.exists()
    AltTable(out).add([OWL])
    before = out.stat()
    assert AltTable(out).add([OWL]).taken == []
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_two_rows_of_one_picture_are_refused(out):
    write(out, [{"id": "0.png", "lang": "en", "alt": alt} for alt in ("mine", "yours")])
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"2 rows of 0\.png, en") as caught:
        AltTable(out)
    assert caught.value.code == "bad_table"
    assert out.read_bytes() == before


def test_two_columns_of_one_name_are_refused(tmp_path):
    out = tmp_path / "alt.csv"
    out.write_text("id,lang,alt,note,note\n0.png,en,owl,a,b\n")
    with pytest.raises(InputError, match="2 columns are named 'note'"):
        AltTable(out)


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "id,lang,alt\n1,en,x,y\n", "id,alt,lang\n1,x\n"])
def test_another_table_is_not_touched(tmp_path, content):
    out = tmp_path / "alt.csv"
    out.write_text(content)
    with pytest.raises(InputError, match="holds another table"):
        AltTable(out)
    assert out.read_text() == content


@pytest.mark.parametrize("out", ["jsonl", "parquet"], indirect=True)
@pytest.mark.parametrize("wrong", [{"id": ["0.png"]}, {"id": 7}, {"lang": ["en"]}, {"lang": None}])
def test_what_says_which_picture_is_text(out, wrong):
    row = {"id": "0.png", "lang": "en", "alt": "an owl"}
    write(out, [row | wrong])
    before = out.read_bytes()
    with pytest.raises(InputError, match="table") as caught:
        AltTable(out)
    assert caught.value.code == "bad_table"
    assert out.read_bytes() == before


def test_lines_that_are_no_table(tmp_path):
    out = tmp_path / "alt.jsonl"
    for content in ("[1]\n", "{\n"):
        out.write_text(content)
        with pytest.raises(InputError, match="table"):
            AltTable(out)
    with pytest.raises(UsageError, match=r"one of \.csv, \.jsonl, \.parquet"):
        AltTable(tmp_path / "alt.xlsx")
