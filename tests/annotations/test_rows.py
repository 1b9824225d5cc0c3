"""Rows: what each form of a row means, and what each broken one is. Read as JSON lines, as people write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from paligemma.data.opening import open_data
from paligemma.data.outlines import Polygons
from paligemma.data.records import DataSet, Thing
from paligemma.errors import InputError
from paligemma.mask_formats import compress, run_lengths
from tests.annotations.world import SIZE, codes, ellipse, picture, pictures

BOX = [4, 6, 20, 30]
LEFT = [0, 0, 32, 48]
THING = {"label": "cat", "box": BOX}
POLYGON = {**THING, "polygon": [[4, 6, 20, 6, 20, 30]]}
RLE = {"label": "cat", "rle": {"size": [48, 64], "counts": compress(run_lengths(ellipse((4, 6, 20, 30))))}}


def rows(folder: Path, *values: object, **options) -> DataSet:
    pictures(folder)
    lines = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    (folder / "rows.jsonl").write_text("\n".join(lines), "utf-8", "surrogatepass")
    return open_data(folder / "rows.jsonl", max_bad_share=1, **options)


@pytest.mark.parametrize(
    ("row", "task", "prompt", "answers"),
    [
        ({"prefix": "caption en", "suffix": "a cat"}, "run", "caption en", ("a cat",)),
        ({"prefix": "", "suffix": " a cat "}, "run", "", (" a cat ",)),
        ({"prefix": "detect cat", "suffix": ""}, "run", "detect cat", ("",)),
        ({"prefix": "x", "suffix": ["a", "b"]}, "run", "x", ("a", "b")),
        ({"prefix": "x", "suffix": '["a", "b"]'}, "run", "x", ('["a", "b"]',)),  # a text that is JSON stays a text
        ({"prefix": "how many?", "suffix": 7}, "run", "how many?", ("7",)),
        ({"task": "caption", "target": "a cat"}, "caption", "caption en", ("a cat",)),
        ({"task": "caption", "target": "Katze", "lang": "de", "length": "short"}, "caption", "cap de", ("Katze",)),
        ({"task": "caption", "answers": ["a cat", "one cat"]}, "caption", "caption en", ("a cat", "one cat")),
        ({"task": "answer", "question": "why?", "target": " so "}, "answer", "answer en why?", ("so",)),
        ({"task": "answer", "question": "why?", "lang": None, "target": "so"}, "answer", "why?", ("so",)),
        ({"task": "answer", "question": "?", "choices": ["a", "b"], "target": "a"}, "answer", "answer en  ? choose from: a \t b", ("a",)),
        ({"question": "why?", "answer": "so"}, "answer", "answer en why?", ("so",)),
        ({"question": "why?", "answers": ["so", "so", "no"]}, "answer", "answer en why?", ("so", "so", "no")),
        ({"question": "why?", "answers": [{"answer": "so", "answer_id": 1}]}, "answer", "answer en why?", ("so",)),
        ({"task": "answer", "prompt": "why?", "target": "so"}, "answer", "why?", ("so",)),
        ({"task": "question", "answer": "so", "target": "why?"}, "question", "question en so", ("why?",)),
        ({"task": "ocr", "target": "STOP"}, "ocr", "ocr", ("STOP",)),
        ({"task": "run", "prefix": "x", "target": "y"}, "run", "x", ("y",)),
        (
            {"task": "describe_box", "box": [0, 0, 32, 48], "target": "left"},
            "describe_box",
            "caption <loc0000><loc0000><loc1023><loc0512>",
            ("left",),
        ),
        ({"text": "a cat"}, "caption", "caption en", ("a cat",)),
        ({"captions": ["a cat", "one cat"]}, "caption", "caption en", ("a cat", "one cat")),
    ],
)
def test_words(tmp_path, row, task, prompt, answers):
    (record,) = rows(tmp_path, {"image": "a.png", **row}).records
    assert (record.task, record.prompt, record.answers, record.things) == (task, prompt, answers, ())
    assert record.pictures == (tmp_path / "a.png",)
    assert (record.id, record.where) == ("1", "rows.jsonl:1")


@pytest.mark.parametrize(
    ("row", "task", "asked", "things"),
    [
        ({"task": "detect", "target": [THING]}, "detect", (), [Thing("cat", (4, 6, 20, 30))]),
        ({"task": "detect", "target": []}, "detect", (), []),
        ({"task": "detect", "classes": "dog ; cat", "target": [THING]}, "detect", ("dog", "cat"), [Thing("cat", (4, 6, 20, 30))]),
        ({"task": "segment", "target": [POLYGON]}, "segment", (), [Thing("cat", (4, 6, 20, 30), Polygons((((4, 6), (20, 6), (20, 30)),)))]),
        (
            {"task": "refer", "sentence": "the cat", "target": {**POLYGON, "label": "ignored"}}, "refer", ("the cat",),
            [Thing("the cat", (4, 6, 20, 30), Polygons((((4, 6), (20, 6), (20, 30)),)))],
        ),
        ({"objects": {"bbox": [[4, 6, 16, 24]], "categories": ["cat"]}}, "detect", (), [Thing("cat", (4, 6, 20, 30))]),
        ({"objects": [{"bbox": [4, 6, 16, 24], "category": "cat"}]}, "detect", (), [Thing("cat", (4, 6, 20, 30))]),
    ],
)  # fmt: skip
def test_places(tmp_path, row, task, asked, things):
    (record,) = rows(tmp_path, {"image": "a.png", **row}).records
    assert (record.task, record.asked, list(record.things)) == (task, asked, things)


def test_run_lengths_give_the_box(tmp_path):
    (record,) = rows(tmp_path, {"image": "a.png", "task": "segment", "target": [RLE]}).records
    (thing,) = record.things
    assert thing.box == (4, 6, 20, 30)
    assert thing.outline is not None
    assert (thing.outline.mask(*SIZE) == ellipse((4, 6, 20, 30))).all()


def test_boxes_of_a_suffix(tmp_path):
    """What PaliGemma's own rows say, read back, to the width of a bin."""
    row = {"image": "a.png", "prefix": "detect cat ; dog", "suffix": "<loc0128><loc0064><loc0639><loc0320> cat"}
    data = rows(tmp_path, row, {**row, "suffix": ""}, task="detect")
    assert [record.asked for record in data.records] == [("cat", "dog")] * 2
    assert data.classes == ("cat", "dog")
    assert data.records[0].things[0].box == pytest.approx((4, 6, 20, 30), abs=0.05)
    assert data.records[1].things == ()
    broken = [{**row, "suffix": "<loc0128><loc0064><loc0639> cat"}, {**row, "suffix": "<loc0128><loc0064><loc0639><loc0320> cow"}]
    data = rows(tmp_path, row, *broken, {**row, "prefix": "caption en"}, task="detect")
    assert codes(data) == {"2": "answer", "3": "answer", "4": "task"}


def test_several_pictures_and_videos(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"...")
    two = {"images": ["a.png", "b.png"], "prefix": "same?", "suffix": "no"}
    places = {"images": two["images"], "task": "detect", "target": []}
    data = rows(tmp_path, two, {"image": "x.mp4", "prefix": "caption en", "suffix": "a film"}, places)
    assert [path.name for path in data.records[0].pictures] == ["a.png", "b.png"]
    assert data.records[1].pictures == (tmp_path / "x.mp4",)
    assert codes(data) == {"3": "task"}


def test_empty_answers_beside_others(tmp_path):
    """Real sets of ten answers have them; a list of nothing else is a fault."""
    asked = {"image": "a.png", "question": "?"}
    data = rows(tmp_path, {**asked, "answers": ["yes", "", "yes", {"answer": " "}]}, {**asked, "answers": ["", " "]})
    assert data.records[0].answers == ("yes", "yes")
    assert codes(data) == {"2": "answer"}
    assert data.notes == {"answers were empty and left out beside others": 2}


def test_about_and_ids(tmp_path):
    row = {"image": "a.png", "prefix": "x", "suffix": "y", "question_type": "how", "nested": {"not": "kept"}, "width": 64}
    data = rows(tmp_path, {**row, "id": 17}, {**row, "id": "seven"}, row)
    assert [record.id for record in data.records] == ["17", "seven", "3"]
    assert data.records[0].about == {"question_type": "how"}
    assert data.task == "run"
    assert rows(tmp_path, row, {"image": "a.png", "text": "z"}).task == "mixed"


GOOD = {"image": "a.png", "prefix": "x", "suffix": "y"}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ('{"image": "a.png", "prefix": "x", "suffix": "y"', "json"),
        ("not json", "json"),
        ("\ufeff" + json.dumps(GOOD), "encoding"),
        ([1, 2], "field"),
        ("3", "field"),
        ({"prefix": "x", "suffix": "y"}, "field"),
        ({"image": "a.png", "prefix": "x"}, "field"),
        ({"image": "a.png", "sufix": "y", "prefix": "x"}, "field"),
        ({"image": "a.png", "suffix": "y"}, "field"),
        ({"image": "a.png"}, "field"),
        ({**GOOD, "image": ["a.png"]}, "field"),
        ({**GOOD, "id": [1]}, "field"),
        ({**GOOD, "id": True}, "field"),
        ({**GOOD, "prefix": 1.5e400}, "field"),
        ({**GOOD, "prefix": "<image>x"}, "field"),
        ({**GOOD, "suffix": ""}, "answer"),
        ({**GOOD, "suffix": None}, "answer"),
        ({**GOOD, "suffix": []}, "answer"),
        ({**GOOD, "suffix": "y<eos>"}, "answer"),
        ({**GOOD, "suffix": {"a": 1}}, "answer"),
        ({**GOOD, "suffix": "a\ud800"}, "encoding"),
        ({**GOOD, "image": "none.png"}, "missing"),
        ({**GOOD, "image": "/etc/passwd"}, "path"),
        ({**GOOD, "image": "../a.png"}, "path"),
        ({"image": "a.png", "task": "detekt", "target": []}, "task"),
        ({"image": "a.png", "task": ["detect"], "target": []}, "task"),
        ({"image": "a.png", "task": "caption", "target": "x", "lang": "german"}, "field"),
        ({"image": "a.png", "task": "answer", "target": "x"}, "field"),
        ({"image": "a.png", "task": "answer", "question": 3.5, "target": "x", "choices": 7}, "field"),
        ({"image": "a.png", "task": "describe_box", "box": [1, 2, 3], "target": "x"}, "box"),
        ({"image": "a.png", "task": "detect"}, "field"),
        ({"image": "a.png", "task": "detect", "target": "cat"}, "field"),
        ({"image": "a.png", "task": "detect", "target": [3]}, "field"),
        ({"image": "a.png", "task": "detect", "target": [{"label": "cat"}]}, "field"),
        ({"image": "a.png", "task": "detect", "target": [{"label": "cat", "box": [20, 6, 4, 30]}]}, "box"),
        ({"image": "a.png", "task": "detect", "target": [{"label": "cat", "box": [0, 0, 1, float("nan")]}]}, "box"),
        ({"image": "a.png", "task": "detect", "target": [{"label": "cat", "box": "4,6,20,30"}]}, "box"),
        ({"image": "a.png", "task": "detect", "target": [{"box": BOX}]}, "label"),
        ({"image": "a.png", "task": "detect", "target": [{"label": "a;b", "box": BOX}]}, "label"),
        ({"image": "a.png", "task": "detect", "target": [THING], "classes": ["dog"]}, "category"),
        ({"image": "a.png", "task": "detect", "target": [THING], "classes": {"cat": 1}}, "field"),
        ({"image": "a.png", "task": "detect", "target": [{**THING, "polygon": [[1, 1, 2, 2]]}]}, "outline"),
        ({"image": "a.png", "task": "detect", "target": [{**THING, "rle": "xyz"}]}, "outline"),
        ({"image": "a.png", "task": "segment", "target": [THING]}, "outline"),
        ({"image": "a.png", "task": "refer", "target": POLYGON}, "field"),
        ({"image": "a.png", "task": "refer", "sentence": "x", "target": [POLYGON, POLYGON]}, "field"),
        ({"image": "a.png", "task": "detect", "target": [], "width": 65, "height": 48}, "size"),
        ({"image": "a.png", "objects": {"bbox": [BOX], "categories": []}}, "field"),
        ({"image": "a.png", "objects": {"categories": ["cat"]}}, "field"),
    ],
)
def test_broken_rows(tmp_path, row, code):
    data = rows(tmp_path, GOOD, row, GOOD)
    assert [(fault.id, fault.code, fault.where) for fault in data.faults] == [("2", code, "rows.jsonl:2")]
    assert data.faults[0].detail
    assert len(data.records) == 2


def test_a_typing_mistake_is_recognised(tmp_path):
    data = rows(tmp_path, GOOD, {"image": "a.png", "sufix": "y", "prefix": "x"}, {**GOOD, "image": None, "imagge": "a.png"})
    assert "did you mean 'sufix'" in data.faults[0].detail
    assert "did you mean 'imagge'" in data.faults[1].detail


def test_the_same_id_twice(tmp_path):
    data = rows(tmp_path, {**GOOD, "id": 1}, {**GOOD, "id": "1"}, {**GOOD, "id": 2})
    assert [(fault.id, fault.code, fault.where) for fault in data.faults] == [("1", "duplicate", "rows.jsonl:2")]
    assert len(data.records) == 2


def test_a_thing_that_stands_there_twice_is_taken_once_and_counted(tmp_path):
    data = rows(tmp_path, {"image": "a.png", "task": "detect", "target": [THING, THING, {**THING, "box": [4, 6, 20, 49]}]})
    assert len(data.records[0].things) == 2
    assert sorted(data.notes.values()) == [1, 1]


def test_a_task_fills_in_and_contradicts(tmp_path):
    row = {"image": "a.png", "question": "why?", "target": "so"}
    assert rows(tmp_path, row, task="answer").records[0].task == "answer"
    with pytest.raises(InputError, match="asked for was 'caption'"):
        rows(tmp_path, {**row, "task": "answer"}, task="caption")


def test_lines_of_another_encoding(tmp_path):
    pictures(tmp_path)
    good = json.dumps(GOOD).encode()
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\r\n" + good.replace(b'"y"', b'"\xe4"') + b"\n" + good)
    data = open_data(tmp_path / "x.jsonl", max_bad_share=1)
    assert [record.where for record in data.records] == ["x.jsonl:1", "x.jsonl:4"]
    assert [(fault.where, fault.code) for fault in data.faults] == [("x.jsonl:3", "encoding")]


def test_a_list_of_rows(tmp_path):
    pictures(tmp_path)
    (tmp_path / "x.json").write_text(json.dumps([GOOD, 3, {**GOOD, "suffix": "z"}]))
    data = open_data(tmp_path / "x.json", max_bad_share=1)
    assert (data.format, [record.answers for record in data.records]) == ("jsonl", [("y",), ("z",)])
    assert codes(data) == {"2": "field"}


@pytest.mark.parametrize("name", ["{}.jsonl", "_annotations.{}.jsonl", "{}/annotations.jsonl", "{}/metadata.jsonl"])
def test_folders(tmp_path, name):
    for split in ("train", "valid", "test"):
        file = tmp_path / name.format(split)
        picture(file.parent / "a.png")
        file.write_text(json.dumps({**GOOD, "suffix": split}))
    data = open_data(tmp_path, split="val")
    assert (data.format, data.split, [record.answers for record in data.records]) == ("jsonl", "valid", [("valid",)])
    assert data.records[0].about == {"split": "valid"}
    everything = open_data(tmp_path, split="all")
    assert [record.id for record in everything.records] == ["train/1", "valid/1", "test/1"]
    assert everything.split == "all"


def test_other_lines_beside_them(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text("# not a row\n" + json.dumps(GOOD))
    (tmp_path / "log.jsonl").write_text('{"loss": 1.0}\n{"loss": 0.5}\n')
    assert len(open_data(tmp_path, max_bad_share=1)) == 1


def test_no_lines(tmp_path):
    (tmp_path / "x.jsonl").write_text("\n \n")
    with pytest.raises(InputError, match="no line"):
        open_data(tmp_path / "x.jsonl")
