"""The campaign of the dirty data set: 2,000 records, 30 kinds of fault, 10 of each. Exactly those are left out, each for its reason."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from paligemma.data.opening import BadData, open_data
from paligemma.mask_formats import compress, run_lengths
from tests.annotations.world import SIZE, ellipse, picture, turned

RECORDS, EACH = 2000, 10
Entry = dict[str, Any]


class Store:
    """A folder of good pictures of every ordinary kind, and of broken ones."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.good = [
            "a.png",
            "sub/b ü.jpg",
            "c.webp",
            "grey.png",
            "deep.png",
            "cmyk.jpg",
            "palette.gif",
            "alpha.png",
            "wrong.jpg",
            "turned.jpg",
        ]
        rgb = Image.new("RGB", SIZE, "teal")
        for name in self.good:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        for name in self.good[:3]:
            rgb.save(folder / name)
        rgb.convert("L").save(folder / "grey.png")
        Image.fromarray(np.full(SIZE[::-1], 40_000, np.uint16)).save(folder / "deep.png")
        rgb.convert("CMYK").save(folder / "cmyk.jpg")
        rgb.convert("P").save(folder / "palette.gif")
        rgb.convert("RGBA").save(folder / "alpha.png")
        rgb.save(folder / "wrong.jpg", "PNG")  # a name is only a name
        turned(folder / "turned.jpg", (48, 64))
        picture(folder.parent / "outside.png")
        os.symlink(folder.parent / "outside.png", folder / "link.png")
        os.symlink(folder / "a.png", folder / "inner.png")
        self.good.append("inner.png")
        noise = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3), np.uint8)
        Image.fromarray(noise).save(folder / "whole.jpg")
        jpeg = (folder / "whole.jpg").read_bytes()
        bad = {
            "empty.png": b"",
            "cut.jpg": jpeg[: len(jpeg) // 2],
            "page.jpg": b"<!DOCTYPE html><html>404</html>",
            "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "bomb.png": png(60_000, 60_000, 0),
            "short.png": png(*SIZE, 3),
            "header.png": b"\x89PNG\r\n\x1a\n\0\0",
        }
        for name, data in bad.items():
            (folder / name).write_bytes(data)
        (folder / "folder.png").mkdir()


def png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG that has only some of its rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress((b"\0" + b"\x80" * width) * rows))
        + chunk(b"IEND", b"")
    )


PICTURES = {
    "empty.png": "picture", "cut.jpg": "picture", "page.jpg": "picture", "pointer.jpg": "picture", "bomb.png": "picture",
    "short.png": "picture", "header.png": "picture", "folder.png": "picture", "none.png": "missing", "link.png": "path",
    "/etc/hostname": "path", "../outside.png": "path",
}  # fmt: skip
"""Name of a picture -> why it cannot be used."""
NAN = float("nan")
BOX = [4, 6, 20, 30]
MASK = run_lengths(ellipse((4, 6, 20, 30)))


# JSON lines: each kind makes a line of a good row


def row(number: int, name: str) -> Entry:
    """Good rows, of five kinds in turn."""
    thing = {"label": "cat", "box": BOX}
    polygon, rle = {"polygon": [[4, 6, 20, 6, 20, 30]]}, {"rle": {"size": [48, 64], "counts": compress(MASK)}}
    return {"id": f"r{number}", "image": name} | (
        {"prefix": "caption en", "suffix": f"cat {number}"},
        {"task": "detect", "classes": ["cat", "dog"], "target": [thing, {**thing, "label": "dog", "box": [0, 0, 65, 48]}]},
        {"task": "segment", "target": [{**thing, **polygon}, {**thing, **rle}]},
        {"task": "answer", "question": "how many?", "answers": ["1", "2", "2"]},
        {"task": "refer", "sentence": "the cat", "target": {**thing, **polygon}},
    )[number % 5]


def fields(**changed: object) -> Callable[[Entry], bytes]:
    """Other values of fields; ... removes one."""

    def line(good: Entry) -> bytes:
        return json.dumps({key: value for key, value in {**good, **changed}.items() if value is not ...}).encode()

    return line


def thing(**changed: object) -> Callable[[Entry], bytes]:
    target = {key: value for key, value in {"label": "cat", "box": BOX, **changed}.items() if value is not ...}
    return fields(task="detect", classes=["cat", "dog"], target=[target], prefix=..., suffix=...)


def raw(change: Callable[[bytes], bytes]) -> Callable[[Entry], bytes]:
    return lambda good: change(json.dumps(good).encode())


LINES: dict[str, tuple[Callable[[Entry], bytes], str]] = {
    **{name: (fields(image=name), code) for name, code in PICTURES.items()},
    "cut line": (raw(lambda line: line[:-5]), "json"),
    "mark of byte order": (raw(lambda line: b"\xef\xbb\xbf" + line), "encoding"),
    "other encoding": (raw(lambda line: line.replace(b'"image"', b'"\xe9": 1, "image"')), "encoding"),
    "no picture": (fields(image=...), "field"),
    "no answer": (fields(prefix="x", suffix=" ", task=..., answers=...), "answer"),
    "same id": (fields(id="r0"), "duplicate"),
    "no such class": (thing(label="cow"), "category"),
    "box inside out": (thing(box=[20, 6, 4, 30]), "box"),
    "box before the picture": (thing(box=[-9, 6, 20, 30]), "box"),
    "box without number": (thing(box=[4, 6, NAN, 30]), "box"),
    "box behind the picture": (thing(box=[4, 6, 20, 300]), "box"),
    "box without area": (thing(box=[4, 6, 4, 30]), "box"),
    "polygon of two points": (thing(polygon=[[4, 6, 20, 30]]), "outline"),
    "broken run lengths": (thing(rle={"size": [48, 64], "counts": compress(MASK[:-1])}), "outline"),
    "no label": (thing(label=" "), "label"),
    "long label": (thing(label="x" * 3000), "label"),
    "label with a token": (thing(label="a <image> cat"), "label"),
    "label with an end": (thing(label="cat<eos>"), "label"),
}


def dirty_lines(folder: Path, seed: int) -> tuple[Path, dict[int, str], set[str]]:
    """The file; line -> code of what was made wrong; ids of what was not."""
    store, rng = Store(folder), np.random.default_rng(seed)
    wrong = dict(zip(rng.permutation(np.arange(1, RECORDS))[: EACH * len(LINES)].tolist(), [*LINES] * EACH, strict=True))
    lines = []
    for number in range(RECORDS):
        good = row(number, store.good[int(rng.integers(len(store.good)))])
        lines.append(LINES[wrong[number]][0](good) if number in wrong else json.dumps(good).encode())
    (folder / "x.jsonl").write_bytes(b"\n".join(lines))
    return (
        folder / "x.jsonl",
        {number + 1: LINES[kind][1] for number, kind in wrong.items()},
        {f"r{n}" for n in range(RECORDS)} - {f"r{n}" for n in wrong},
    )


# COCO: each kind breaks a picture's entry, or its annotation


def at(**changed: object) -> Callable[[Entry, Entry], None]:
    """Other fields of the annotation; ... removes one."""

    def change(image: Entry, annotation: Entry) -> None:
        for key, value in changed.items():
            annotation[key] = value
            if value is ...:
                del annotation[key]

    return change


def of(**changed: object) -> Callable[[Entry, Entry], None]:
    """Other fields of the image."""
    return lambda image, annotation: image.update(changed)


ENTRIES: dict[str, tuple[Callable[[Entry, Entry], None], str]] = {
    **{name: (of(file_name=name), code) for name, code in PICTURES.items()},
    "no name": (of(file_name=None), "field"),
    "another size": (of(width=63), "size"),
    "no such class": (at(category_id=99), "category"),
    "no class": (at(category_id=...), "category"),
    "box inside out": (at(bbox=[4, 6, -16, 24]), "box"),
    "box before the picture": (at(bbox=[-9, 6, 16, 24]), "box"),
    "box without number": (at(bbox=[4, NAN, 16, 24]), "box"),
    "box behind the picture": (at(bbox=[4, 6, 16, 240]), "box"),
    "box without area": (at(bbox=[4, 6, 16, 0]), "box"),
    "box of three": (at(bbox=[4, 6, 16]), "box"),
    "box of text": (at(bbox=["4", "6", "16", "24"]), "box"),
    "no place": (at(bbox=..., segmentation=...), "field"),
    "polygon of two points": (at(segmentation=[[4, 6, 20, 30]]), "outline"),
    "polygon of a half point": (at(segmentation=[[4, 6, 20, 30, 5, 6, 7]]), "outline"),
    "polygon without number": (at(segmentation=[[4, 6, 20, 30, 5, NAN]]), "outline"),
    "run lengths of another size": (at(segmentation={"size": [64, 48], "counts": MASK}), "outline"),
    "run lengths cut": (at(segmentation={"size": [48, 64], "counts": compress(MASK)[:-3]}), "outline"),
    "run lengths of nothing": (at(segmentation={"size": [48, 64], "counts": [48 * 64]}), "outline"),
}


def dirty_coco(folder: Path, seed: int) -> tuple[Path, dict[str, str], set[str]]:
    """The file; id -> code of what was made wrong; ids of what was not."""
    store, rng = Store(folder), np.random.default_rng(seed)
    wrong = dict(zip(rng.permutation(RECORDS)[: EACH * len(ENTRIES)].tolist(), [*ENTRIES] * EACH, strict=True))
    images, annotations = [], []
    for number in range(RECORDS):
        image: Entry = {"id": number, "file_name": store.good[int(rng.integers(len(store.good)))], "width": 64, "height": 48}
        outline = ([[4, 6, 20, 6, 20, 30]], {"size": [48, 64], "counts": MASK}, {"size": [48, 64], "counts": compress(MASK)}, [])[
            number % 4
        ]
        annotation: Entry = {"id": number, "image_id": number, "category_id": number % 2, "bbox": [4, 6, 16, 24], "segmentation": outline}
        if number in wrong:
            ENTRIES[wrong[number]][0](image, annotation)
        images.append(image)
        annotations.append(annotation)
    rng.shuffle(images)
    rng.shuffle(annotations)
    categories = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    (folder / "x.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return (
        folder / "x.json",
        {str(n): ENTRIES[kind][1] for n, kind in wrong.items()},
        {str(n) for n in range(RECORDS)} - {str(n) for n in wrong},
    )


def check_lines(folder: Path, seed: int) -> None:
    file, wrong, right = dirty_lines(folder, seed)
    data = open_data(file, strict_pictures=True, max_bad_share=1)
    assert {int(fault.where.removeprefix("x.jsonl:")): fault.code for fault in data.faults} == wrong
    assert len(data.faults) == len(wrong)
    assert {record.id for record in data.records} == right
    assert len(data.records) == len(right)
    with pytest.raises(BadData, match="300 of 2,000 records cannot be used"):
        open_data(file, strict_pictures=True)


def check_coco(folder: Path, seed: int) -> None:
    file, wrong, right = dirty_coco(folder, seed)
    data = open_data(file, strict_pictures=True, max_bad_share=1)
    assert {fault.id: fault.code for fault in data.faults} == wrong
    assert len(data.faults) == len(wrong)
    assert {record.id for record in data.records} == right
    assert len(data.records) == len(right)


def test_there_are_thirty_kinds():
    assert len(LINES) == len(ENTRIES) == 30


def test_json_lines(tmp_path):
    check_lines(tmp_path / "set", 0)


def test_coco(tmp_path):
    check_coco(tmp_path / "set", 0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("check", [check_lines, check_coco])
def test_more_seeds(tmp_path, check, seed):
    check(tmp_path / "set", seed)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a.png", "detect", "cat"]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["label", "box", "polygon", "rle", "size", "counts", "x"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.data())
def test_whatever_stands_in_a_field_is_a_record_or_a_fault(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "any"
    if not folder.exists():
        picture(folder / "a.png")
    rows = [row(number, "a.png") for number in range(5)]
    for one in rows[1:]:
        keys = st.sampled_from([*one, "lang", "choices", "box", "classes", "objects", "prompt", "captions", "images", "width"])
        for key in data.draw(st.lists(keys, max_size=2)):
            one[key] = data.draw(anything)
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = open_data(folder / "x.jsonl", max_bad_share=1)
    assert len(found.records) + len(found.faults) == 5


@settings(max_examples=150)
@given(st.data())
def test_whatever_stands_in_coco_is_a_record_or_a_fault(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "any coco"
    if not folder.exists():
        picture(folder / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
    annotation = {"id": 1, "image_id": 1, "category_id": 0, "bbox": [4, 6, 16, 24], "segmentation": [], "iscrowd": 0}
    for entry in (image, annotation):
        for key in data.draw(st.lists(st.sampled_from([*entry, "caption"]), max_size=2)):
            entry[key] = data.draw(anything)
    good = {"id": "good", "file_name": "a.png"}
    (folder / "x.json").write_text(
        json.dumps({"images": [good, image], "annotations": [annotation], "categories": [{"id": 0, "name": "cat"}]})
    )
    found = open_data(folder / "x.json", max_bad_share=1)
    assert 1 <= len(found.records) + len({fault.id for fault in found.faults}) <= 3
