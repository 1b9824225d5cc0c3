"""Annotation files of every format with some of their bytes changed: records, faults, or an error meant for people; nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.data.opening import open_data
from paligemma.errors import PaliGemmaError
from paligemma.mask_formats import brush, cvat_runs
from tests.annotations.world import ellipse, picture, pictures, supervised

TIMES = 80


def jsonl(folder: Path) -> Path:
    pictures(folder)
    rows = [
        {"id": 1, "image": "a.png", "prefix": "x", "suffix": "y"},
        {
            "image": "b.png",
            "task": "detect",
            "classes": ["cat"],
            "target": [{"label": "cat", "box": [4, 6, 20, 30], "polygon": [[4, 6, 9, 9, 4, 9]]}],
        },
        {"image": "c.png", "question": "?", "answers": ["yes", "no"], "lang": "de"},
    ]
    (folder / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "x.jsonl"


def table(folder: Path) -> Path:
    pictures(folder)
    (folder / "x.csv").write_text(
        'image,task,target\na.png,caption,"one, two"\nb.png,detect,"[{""label"": ""cat"", ""box"": [4, 6, 20, 30]}]"\n'
    )
    return folder / "x.csv"


def parquet(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pictures(folder)
    rows = [{"image": "a.png", "prefix": "x", "suffix": "y"}, {"image": "b.png", "prefix": "x", "suffix": "y"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "x.parquet")
    return folder / "x.parquet"


def coco(folder: Path) -> Path:
    supervised(folder / "images", masks=True).as_coco(annotations_path=str(folder / "x.json"))
    return folder / "x.json"


def yolo(folder: Path) -> Path:
    supervised(folder / "images", masks=True).as_yolo(
        annotations_directory_path=str(folder / "labels"), data_yaml_path=str(folder / "data.yaml")
    )
    return folder / "labels" / "a.txt"


def description(folder: Path) -> Path:
    yolo(folder)
    (folder / "data.yaml").write_text("path: .\ntrain: images\nnames:\n  0: cat\n  1: dog\n")
    return folder / "data.yaml"


def voc(folder: Path) -> Path:
    supervised(folder / "JPEGImages").as_pascal_voc(annotations_directory_path=str(folder / "Annotations"))
    return folder / "Annotations" / "b.xml"


def labelme(folder: Path) -> Path:
    supervised(folder, masks=True).as_labelme(annotations_directory_path=str(folder))
    return folder / "b.json"


def labelstudio(folder: Path) -> Path:
    pictures(folder)
    value = {"x": 10, "y": 10, "width": 20, "height": 30, "rotation": 0, "rectanglelabels": ["cat"]}
    painted = {"format": "rle", "rle": brush(ellipse((4, 6, 20, 30))), "brushlabels": ["cat"]}
    kinds = [{"type": "rectanglelabels", "value": value}, {"type": "brushlabels", "value": painted}]
    tasks = [{"id": name, "annotations": [{"result": kinds}], "data": {"image": f"/{name}.png"}} for name in "abc"]
    (folder / "x.json").write_text(json.dumps(tasks))
    return folder / "x.json"


def cvat(folder: Path) -> Path:
    pictures(folder)
    counts, left, top, width, height = cvat_runs(ellipse((4, 6, 20, 30)))
    painted = f'<mask label="cat" rle="{",".join(map(str, counts))}" left="{left}" top="{top}" width="{width}" height="{height}"/>'
    shapes = f'<box label="dog" xtl="1" ytl="2" xbr="30" ybr="20"/><polygon label="cat" points="1,1;9,9;1,9"/>{painted}'
    images = "".join(f'<image name="{name}.png">{shapes}</image>' for name in "abc")
    (folder / "x.xml").write_text(f"<annotations>{images}</annotations>")
    return folder / "x.xml"


def vqa(folder: Path) -> Path:
    pictures(folder)
    asked = [{"image_id": name, "question": "what?", "question_id": i} for i, name in enumerate("abc")]
    known = [{"question_id": i, "answers": [{"answer": "x"}], "answer_type": "other"} for i in range(3)]
    (folder / "questions.json").write_text(json.dumps({"questions": asked}))
    (folder / "annotations.json").write_text(json.dumps({"annotations": known}))
    return folder / "questions.json"


def mask(folder: Path) -> Path:
    picture(folder / "images" / "a.png")
    (folder / "masks").mkdir()
    (folder / "classes.txt").write_text("background\ncat\n")
    Image.fromarray(ellipse((4, 6, 20, 30)).astype(np.uint8)).save(folder / "masks" / "a.png")
    return folder / "masks" / "a.png"


def classes(folder: Path) -> Path:
    mask(folder)
    (folder / "classes.txt").rename(folder / "labels.json")
    (folder / "labels.json").write_text('{"0": "background", "1": "cat", "dog": 2, "cow": [1, 2, 3]}')
    return folder / "labels.json"


def caption(folder: Path) -> Path:
    pictures(folder)
    (folder / "a.txt").write_text("a cat")
    return folder / "a.txt"


@pytest.mark.parametrize(
    "write", [jsonl, table, parquet, coco, yolo, description, voc, labelme, labelstudio, cvat, vqa, mask, classes, caption]
)
def test_changed_bytes(tmp_path, write: Callable[[Path], Path]):
    file = write(tmp_path)
    whole, rng = file.read_bytes(), np.random.default_rng(7)
    path = file if file.suffix in (".jsonl", ".csv", ".parquet") else tmp_path
    open_data(path, scratch=tmp_path / "scratch", max_bad_share=1) if write is not classes else None
    for _ in range(TIMES):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(data)))
            kind = rng.integers(4)
            if kind == 0:
                data[at] = int(rng.integers(256))
            elif kind == 1:
                del data[at : at + int(rng.integers(1, 30))]
            elif kind == 2:
                data[at:at] = data[at : at + int(rng.integers(1, 30))]
            else:
                data[at:at] = [b"\0", b"\xff", b"-", b"1e999", b"NaN", b"null", b"9" * 400, b"<!DOCTYPE", b"[[[", b'"', b"\\ud800", b"&a;"][
                    rng.integers(12)
                ]
            data = data or bytearray(b"x")
        file.write_bytes(data)
        try:
            found = open_data(path, scratch=tmp_path / "scratch", max_bad_share=1)
        except PaliGemmaError as error:
            assert error.message  # noqa: PT017
        else:
            assert found.records
