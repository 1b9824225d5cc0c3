"""Results -> files: what is read back is what was found, by our readers and by the formats' own; order, limits, and nothing half done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paligemma.data.opening import open_data
from paligemma.data.records import DataSet
from paligemma.errors import InputError, UsageError
from paligemma.jobs.items import items
from paligemma.jobs.rows import Row
from paligemma.labelling import coco, labelstudio
from paligemma.labelling.doubt import doubt
from paligemma.labelling.export import DOUBTFUL, check, export, one_picture_each, ranked
from paligemma.labelling.formats import FORMATS, FormatName
from paligemma.labelling.labelled import Labelled, Thing
from paligemma.results import Box, Detections
from tests.labelling.making import CLASSES, SIZES, album, boxes, masks, results

ROUNDING: dict[str, float] = {"coco": 1e-9, "yolo": 1e-4, "voc": 0.5, "labelstudio": 1e-9, "cvat": 0.005}
"""Format -> pixels that its numbers may be off by."""
NAMES = {"a.png": "a.png", "holiday/a 1.jpg": "holiday_a_1.jpg", "c.gif": "c.png", "none.png": "none.png"}


@pytest.fixture
def exported(tmp_path: Path):
    def make(format: FormatName, *, masked: bool = False, limit: int | None = None) -> Path:
        source = album(tmp_path / "album")
        labelled = ranked(results(tmp_path / "results.jsonl", masked=masked), limit)
        export(items(source), labelled, tmp_path / "out" / format, format, classes=CLASSES, model="nano")
        return tmp_path / "out" / format

    return make


def accepted(folder: Path) -> None:
    """As when somebody has submitted every task as it was predicted, and exported the project."""
    tasks = json.loads((folder / "tasks.json").read_text())
    done = [{**task, "id": i, "annotations": [{"result": task["predictions"][0]["result"]}]} for i, task in enumerate(tasks, 1)]
    (folder / "tasks.json").write_text(json.dumps(done))


def read_back(folder: Path, format: FormatName, task: str | None = None) -> DataSet:
    if format == "labelstudio":
        accepted(folder)
    data = open_data(folder, task=task, split="all")
    assert (data.format, data.faults) == (format, ())
    assert data.classes == CLASSES, "not in the order in which they were given"
    return data


@pytest.mark.parametrize("format", ROUNDING)
def test_boxes_come_back(exported, format):
    data = read_back(exported(format), format)
    found = {record.pictures[0].name: record.things for record in data.records}
    assert set(found) == set(NAMES.values())
    for id, expected in boxes().items():
        assert [thing.label for thing in found[NAMES[id]]] == [box.label for box in expected]
        for thing, box in zip(found[NAMES[id]], expected, strict=True):
            assert thing.box == pytest.approx(box.xyxy, abs=ROUNDING[format])


def test_no_percentage_is_above_a_hundred(tmp_path):
    """Label Studio refuses 100.00000000000001."""
    for side in range(1, 3000):
        box = Box("cat", 0, 0, side, side, 0.5)
        place = labelstudio._region(1, Thing(box), Labelled("a", "a.png", "a.png", side, side, (Thing(box),)))["value"]
        assert (place["x"], place["width"], place["height"]) == (0, 100, 100), side


@pytest.mark.parametrize("format", [name for name in FORMATS if FORMATS[name].masks])
def test_masks_come_back_pixel_for_pixel(exported, format):
    data = read_back(exported(format, masked=True), format, "segment")
    found = {record.pictures[0].name: record.things for record in data.records}
    for id, expected in masks().items():
        for thing, mask in zip(found[NAMES[id]], expected, strict=True):
            assert thing.label == mask.label
            assert (thing.outline.mask(*SIZES[id]) == mask.mask).all()


@pytest.mark.parametrize("format", FORMATS)
def test_the_most_doubtful_come_first(exported, format):
    folder = exported(format)
    rows = [json.loads(line) for line in (folder / DOUBTFUL).read_text().splitlines()]
    assert {row["id"]: row["file"] for row in rows} == NAMES
    for row in rows:
        scores = [box.score for box in boxes()[row["id"]]]
        assert row["doubt"] == pytest.approx(doubt(scores), abs=1e-6)
        assert [(thing["label"], thing["score"]) for thing in row["things"]] == [(box.label, box.score) for box in boxes()[row["id"]]]
    doubts = [row["doubt"] for row in rows]
    assert doubts == sorted(doubts, reverse=True)
    assert len(set(doubts)) == len(doubts)
    assert {path.name for path in (folder / FORMATS[format].pictures).iterdir()} == set(NAMES.values())
    assert {Image.open(path).size for path in (folder / FORMATS[format].pictures).iterdir()} == set(SIZES.values())


@pytest.mark.parametrize(("masked", "least"), [(False, 0.5), (True, 0.25), (True, 0.35)])
def test_what_scores_less_is_left_out_before_doubt_is_measured(tmp_path, masked, least):
    found = {}
    for one in ranked(results(tmp_path / "results.jsonl", masked=masked), min_score=least):
        found[one.id] = [thing.box.score for thing in one.things]
        assert one.doubt == doubt(found[one.id])
    assert found == {id: [box.score for box in several if (0.3 if masked else box.score) >= least] for id, several in boxes().items()}


@pytest.mark.parametrize("format", ["coco", "yolo", "voc", "cvat"])
def test_the_order_of_classes_of_any_name_comes_back(tmp_path, format):
    classes = ("zebra", "#1", "background", "void", "a:b", "ant")
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    found = Detections(tuple(Box(label, 1, 2, 30, 40, 0.5) for label in classes), 64, 48)
    (tmp_path / "results.jsonl").write_text(json.dumps(Row("a.png", "a.png", "detect:x", {}, found).to_dict()) + "\n")
    labelled = ranked(tmp_path / "results.jsonl")
    export(items(tmp_path / "a.png"), labelled, tmp_path / "out" / format, format, classes=classes, model="nano")
    assert open_data(tmp_path / "out" / format, split="all").classes == classes


def test_so_many_at_most(exported):
    folder = exported("yolo", limit=2)
    rows = [json.loads(line)["file"] for line in (folder / DOUBTFUL).read_text().splitlines()]
    assert len(rows) == 2
    assert {path.name for path in (folder / "images").iterdir()} == set(rows)
    assert {path.stem for path in (folder / "labels").iterdir()} == {Path(name).stem for name in rows}


def test_pycocotools_reads_it(exported):
    from pycocotools.coco import COCO

    read = COCO(str(exported("coco", masked=True) / "annotations" / "instances_default.json"))
    images = list(read.imgs.values())
    assert [image["doubt"] for image in images] == sorted((image["doubt"] for image in images), reverse=True)
    found = {image["file_name"]: read.imgToAnns[image["id"]] for image in images}
    for id, expected in masks().items():
        for annotation, mask in zip(found[NAMES[id]], expected, strict=True):
            assert read.cats[annotation["category_id"]]["name"] == mask.label
            assert annotation["score"] == mask.box.score
            assert annotation["area"] == mask.area
            assert read.annToMask(annotation).shape == mask.mask.shape


def test_supervision_reads_yolo_and_voc(exported):
    import supervision as sv

    yolo, voc = exported("yolo"), exported("voc")
    for data, rounding in (
        (sv.DetectionDataset.from_yolo(str(yolo / "images"), str(yolo / "labels"), str(yolo / "data.yaml")), 1e-3),
        (sv.DetectionDataset.from_pascal_voc(str(voc / "JPEGImages"), str(voc / "Annotations")), 0.5 + 1e-3),
    ):
        found = {Path(path).name: detections for path, _, detections in data}
        assert set(found) == set(NAMES.values())
        for id, expected in boxes().items():
            assert [data.classes[number] for number in found[NAMES[id]].class_id] == [box.label for box in expected]
            assert np.allclose(found[NAMES[id]].xyxy, np.reshape([box.xyxy for box in expected], (-1, 4)), atol=rounding)


def test_labelstudio_tasks_are_as_its_documentation_has_them(exported):
    folder = exported("labelstudio")
    tasks = json.loads((folder / "tasks.json").read_text())
    assert [task["data"]["doubt"] for task in tasks] == sorted((task["data"]["doubt"] for task in tasks), reverse=True)
    for task in tasks:
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == "nano"
        assert prediction["score"] == 1 - task["data"]["doubt"]
        assert (folder / task["data"]["image"].removeprefix("/data/local-files/?d=")).is_file()
        for result, box in zip(prediction["result"], boxes()[task["data"]["source"]], strict=True):
            assert (result["type"], result["from_name"], result["to_name"], result["score"]) == (
                "rectanglelabels",
                "label",
                "image",
                box.score,
            )
            value = result["value"]
            assert value["rectanglelabels"] == [box.label]
            assert value["x"] * result["original_width"] / 100 == pytest.approx(box.x0)
            assert value["height"] * result["original_height"] / 100 == pytest.approx(box.height)
    assert '<RectangleLabels name="label" toName="image">' in (folder / "labels.xml").read_text()


def test_fiftyone_has_shares_of_the_picture(exported):
    data = json.loads((exported("fiftyone") / "labels.json").read_text())
    assert data["classes"] == list(CLASSES)
    assert set(data["labels"]) == {Path(name).stem for name in NAMES.values()}
    for id, expected in boxes().items():
        width, height = SIZES[id]
        for detection, box in zip(data["labels"][Path(NAMES[id]).stem], expected, strict=True):
            x, y, across, down = detection["bounding_box"]
            assert (x * width, y * height, across * width, down * height) == pytest.approx(box.xywh)
            assert (detection["label"], detection["confidence"]) == (box.label, box.score)


def test_a_box_without_area_is_left_out(tmp_path):
    box = {"label": "cat", "x0": 3, "y0": 3, "x1": 3, "y1": 9, "score": 0.5}
    row = {"id": "a.png", "where": "a.png", "result": {"boxes": [box], "width": 64, "height": 48}}
    (tmp_path / "results.jsonl").write_text(json.dumps(row) + "\n")
    (one,) = ranked(tmp_path / "results.jsonl")
    assert one.things == ()


def test_nothing_half_done(exported, tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    write = coco.write
    monkeypatch.setattr(coco, "write", fail)
    with pytest.raises(KeyboardInterrupt):
        exported("coco")
    assert not (tmp_path / "out" / "coco").exists()
    monkeypatch.setattr(coco, "write", write)
    read_back(exported("coco"), "coco")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["coco"]


def test_a_picture_that_went_away(tmp_path):
    source = album(tmp_path / "album")
    labelled = ranked(results(tmp_path / "results.jsonl"))
    shutil.rmtree(source / "holiday")
    with pytest.raises(InputError, match=r"holiday/a 1\.jpg: it is not in the source any more"):
        export(items(source), labelled, tmp_path / "out" / "coco", "coco", classes=CLASSES, model="nano")
    assert not (tmp_path / "out" / "coco").exists()


def test_what_may_have_been_corrected_is_not_lost(tmp_path):
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / DOUBTFUL).touch()
    with pytest.raises(UsageError, match="may have been corrected"):
        check(tmp_path, "yolo", masks=False)
    assert check(tmp_path, "yolo", masks=False, overwrite=True) == tmp_path / "yolo"
    with pytest.raises(UsageError, match="no place for masks"):
        check(tmp_path, "voc", masks=True)


def test_videos_and_several_pictures_are_refused_one_by_one(tmp_path):
    album(tmp_path)
    (tmp_path / "film.mp4").write_bytes(b"never opened")
    rows = [{"id": "two", "images": ["a.png", "none.png"]}, {"id": "one", "image": "a.png"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    two, one = one_picture_each(items(tmp_path / "t.jsonl"))
    assert one.open().size == SIZES["a.png"]
    (film,) = [item for item in one_picture_each(items(tmp_path)) if item.id == "film.mp4"]
    for item, found in ((two, "several"), (film, "a video")):
        with pytest.raises(InputError, match=f"expected one picture, found {found}"):
            item.open()


def test_nothing_is_replaced_that_was_not_written_here(tmp_path):
    (tmp_path / "coco").mkdir()
    assert check(tmp_path, "coco", masks=False) == tmp_path / "coco", "an empty folder is none of labels"
    (tmp_path / "coco" / "notes.txt").write_text("precious")
    (tmp_path / "yolo").write_text("a file")
    for format in ("coco", "yolo"):
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="holds no labels of this command"):
                check(tmp_path, format, masks=False, overwrite=overwrite)
