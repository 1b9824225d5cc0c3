"""Alt texts go where they belong; what is there, a person's words above all, stays."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from paligemma.errors import InputError, UsageError
from paligemma.jobs.alt_texts import AltTable, AltText, Rules, SideFiles, alt_texts, beside, picture_files
from paligemma.jobs.items import items

from .making import album, lines

OWL = AltText("0.png", "en", "an owl", 0.9, False, False)
EULE = AltText("0.png", "de", "Eule, „grün“", 0.4, True, False)
FISH = AltText("1.png", "en", "a fish", 0.8, False, True)


def row(text: str = "an owl", score: float = 0.9, stop: str = "eos", task: str = "caption:de:normal") -> dict:
    return {"id": "0.png", "task": task, "kept": {}, "result": {"text": text, "score": score, "stop": stop}}


@pytest.mark.parametrize(
    ("found", "doubtful"),
    [
        (row(), False),
        (row(score=0.49), True),
        (row(stop="length"), True),
        (row(""), True),
        (row("an owl <loc0012><seg001>"), True),
        (row("left"), True),
        (row("猫头鹰"), False),
    ],
)
def test_doubtful_ones(found: dict, doubtful: bool):
    (one,) = alt_texts([found], Rules(most=125, doubt=0.5))
    assert (one.doubtful, one.lang, one.cut) == (doubtful, "de", False)


@pytest.mark.parametrize(
    ("answer", "most", "text"),
    [
        ("<loc0012><loc0400><loc0100><loc0500> an owl", 125, "an owl"),
        ("an <loc0012>owl<seg001>", 125, "an owl"),
        ("<loc0012><loc0400>", 125, ""),
        ("an owl and a fish <loc0012>", 20, "an owl and a fish"),
        ("an owl <loc0012><loc0400>", 12, "an owl"),
    ],
)
def test_places_are_taken_out_before_anything_is_cut(answer: str, most: int, text: str):
    (one,) = alt_texts([row(answer)], Rules(most=most))
    assert (one.text, one.cut, one.doubtful) == (text, False, True)


def test_long_ones_are_cut_and_say_so():
    (one,) = alt_texts([row("an owl and a fish")], Rules(most=10))
    assert (one.text, one.cut) == ("an owl…", True)


def test_side_files_are_named_after_the_whole_picture_and_stay_when_edited(tmp_path):
    base, pictures = picture_files(album(tmp_path / "a", 2))
    assert pictures == {"0.png": base / "0.png", "1.png": base / "1.png"}
    beside(base / "0.png", "en").write_text("a person's words\n")
    place = SideFiles(pictures)
    first, second = items(base)
    assert not place.lacks(first, ["en"])
    assert place.lacks(first, ["en", "de"])
    assert place.add([OWL, EULE, FISH, AltText("gone.png", "en", "", 0.0, True, False)]) == [EULE, FISH]
    assert {path.name: path.read_text() for path in base.glob("*.txt")} == {
        "0.png.en.txt": "a person's words\n",
        "0.png.de.txt": "Eule, „grün“\n",
        "1.png.en.txt": "a fish\n",
    }
    assert not place.lacks(first, ["en", "de"])
    assert place.lacks(second, ["de"])
    anew = SideFiles(pictures, overwrite=True)
    assert anew.lacks(first, ["en"])
    assert anew.add([OWL]) == [OWL]
    assert beside(base / "0.png", "en").read_text() == "an owl\n"


def test_no_side_files_beside_tables_nor_videos(tmp_path):
    folder = album(tmp_path / "a", 1)
    (folder / "film.mp4").write_bytes(b"video")
    _, pictures = picture_files(folder)
    assert list(pictures) == ["0.png"]
    assert [SideFiles(pictures).lacks(item, ["en"]) for item in items(folder)] == [True, False]
    with pytest.raises(UsageError, match="no text can lie"):
        picture_files(lines(tmp_path / "t.jsonl", {"image": "a/0.png"}))


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
    assert AltTable(out).add([OWL, EULE]) == [OWL, EULE]
    place = AltTable(out)
    assert not place.lacks(first, ["en", "de"])
    assert place.lacks(second, ["en"])
    assert place.add([AltText("0.png", "en", "a duck", 0.9, False, False), FISH]) == [FISH]
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
    assert anew.add([AltText("0.png", "en", "a duck", 0.9, False, False)])
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
    assert AltTable(out).add([OWL, FISH]) == [FISH]
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
    assert AltTable(out, uses={"0.png": uses["0.png"][:1]}).add([OWL, FISH]) == [OWL], "no page has the other one"
    place = AltTable(out, uses=uses)
    assert place.lacks(first, ["en"])
    assert not place.lacks(second, ["en"])
    assert place.add([OWL]) == [OWL]
    assert [(row["page"], row["src"], row["alt"]) for row in read(out)] == [("a.html", "0.png", "an owl"), ("b/c.html", "../0.png", "an owl")]


def test_a_header_alone_stays(tmp_path):
    out = tmp_path / "alt.csv"
    out.write_text("id,lang,alt,note\n")
    AltTable(out).add([OWL])
    assert read(out)[0]["note"] == ""


def test_nothing_new_writes_nothing(out):
    assert AltTable(out).add([]) == []
    assert not out.exists()
    AltTable(out).add([OWL])
    before = out.stat()
    assert AltTable(out).add([OWL]) == []
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_two_rows_of_one_picture_are_refused(out):
    write(out, [{"id": "0.png", "lang": "en", "alt": alt} for alt in ("mine", "yours")])
    before = out.read_bytes()
    with pytest.raises(InputError, match="2 rows of 0.png, en") as caught:
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
