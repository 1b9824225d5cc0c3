"""Results: values that compare, print safely, survive JSON, and mean the same to pycocotools and supervision."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from paligemma import results
from paligemma.errors import InputError, UsageError
from paligemma.results import Answer, Box, Caption, Detections, Mask, Masks, Question, Reading, Text

WIDTH, HEIGHT = 40, 30


def picture() -> Image.Image:
    return Image.new("RGB", (WIDTH, HEIGHT), "grey")


def ring() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:20, 10:30] = True
    mask[10:12, 15:17] = False
    return mask


def detections(**changes) -> Detections:
    boxes = (Box("cat", 1.5, 2, 30, 20.25, 0.9), Box("dog", 0, 0, 5, 5, 0.25), Box("cat", 3, 3, 9, 9))
    return Detections(boxes, WIDTH, HEIGHT, "<loc0000>...", "detect cat ; dog", "length", "rest", 2, **changes)


def masks(**changes) -> Masks:
    first = Mask("cat", Box("cat", 10, 5, 30, 20, 0.8), ring(), 0.75, tuple(range(16)))
    second = Mask("dog", Box("dog", 0, 0, 2, 2), np.zeros((HEIGHT, WIDTH)), None, None)
    return Masks((first, second), WIDTH, HEIGHT, "raw", "segment cat ; dog", **changes)


TEXTS = [kind("zwei Äpfel\nund 猫", 0.5, "caption de", "length") for kind in (Text, Caption, Answer, Question, Reading)]
EVERYTHING = [*TEXTS, detections(), masks(), Detections((), 3, 4), Masks((), 3, 4)]


@pytest.mark.parametrize("result", EVERYTHING, ids=lambda r: type(r).__name__)
def test_json_round_trip(result):
    line = result.to_json()
    assert "\n" not in line
    data = json.loads(line)
    assert data["type"] == type(result).__name__.lower()
    again = type(result).from_dict(data)
    assert again == result
    assert hash(again) == hash(result)
    assert pickle.loads(pickle.dumps(result)) == result


@pytest.mark.parametrize("result", [detections(), masks(), Caption("x")], ids=lambda r: type(r).__name__)
def test_the_picture_takes_no_part_in_the_value(result):
    carrying = type(result)(**{k: v for k, v in vars(result).items() if k != "picture"}, picture=picture())
    assert carrying == result
    assert repr(carrying) == repr(result)
    assert carrying.to_dict() == result.to_dict()
    assert carrying.draw().size == result.draw(picture()).size


def test_results_of_another_kind_or_value_differ():
    assert Caption("a") != Answer("a")
    other = ring()
    other[0, 0] = True
    one, two = masks().masks[0], Mask("cat", Box("cat", 10, 5, 30, 20, 0.8), other, 0.75, tuple(range(16)))
    assert one != two
    assert one == Mask("cat", Box("cat", 10, 5, 30, 20, 0.8), ring(), 0.75, tuple(range(16)))


def test_values_cannot_be_changed():
    with pytest.raises(AttributeError):
        detections().boxes[0].label = "x"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        masks()[0].mask[0, 0] = True


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Caption, {}),
        (Detections, {"boxes": [{"label": "x"}], "width": 1, "height": 1}),
        (Detections, {"boxes": []}),
        (Masks, {"masks": [masks().to_dict()["masks"][0] | {"rle": {"size": [2, 2], "counts": "o"}}], "width": 1, "height": 1}),
        (Masks, {"masks": [masks().to_dict()["masks"][0] | {"rle": {"size": [2, 2], "counts": "5"}}], "width": 1, "height": 1}),
        (Masks, {"masks": ["x"], "width": 1, "height": 1}),
    ],
)
def test_broken_json_is_named(kind, data):
    with pytest.raises(InputError, match=r"field|mask"):
        kind.from_dict(data)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two cats\nand\ta dog", "two cats\nand\ta dog"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\rb", "a\\rb"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("קטה 猫 नमस्ते 👩\u200d🚀", "קטה 猫 नमस्ते 👩\u200d🚀"),
    ],
)
def test_nothing_steers_the_terminal(text, shown):
    assert str(Caption(text)) == shown
    assert str(Box(text, 0, 0, 1, 1)).startswith(shown.replace("\n", "\\n").replace("\t", "\\t")), "one line a box"


def test_printing():
    assert str(detections()) == (
        "cat  x 2-30, y 2-20  90%\ndog  x 0-5, y 0-5  25%\ncat  x 3-9, y 3-9\n(2 malformed in the model's answer, left out)"
    )
    assert str(masks()) == "cat  x 10-30, y 5-20, 296 pixels  75%\ndog  x 0-2, y 0-2, 0 pixels"
    assert str(Detections((), 3, 4)) == "nothing found"


def test_collections():
    found = detections()
    assert (len(found), found[1].label, [b.label for b in found], found.labels) == (3, "dog", ["cat", "dog", "cat"], ("cat", "dog"))
    assert [b.score for b in found.above(0.5)] == [0.9]
    assert [m.score for m in masks().above(0.75)] == [0.75]


def test_boxes():
    box = Box("cat", 10, 20, 40, 25)
    assert (box.width, box.height, box.area) == (30, 5, 150)
    assert (box.xyxy, box.xywh) == ((10, 20, 40, 25), (10, 20, 30, 5))
    assert box.iou(box) == 1
    assert box.iou(Box("", 25, 20, 55, 25)) == pytest.approx(1 / 3)
    assert box.iou(Box("", 50, 0, 60, 9)) == Box("", 1, 1, 1, 1).iou(Box("", 1, 1, 1, 1)) == 0


def test_coco():
    first, second = masks().to_coco(image_id=7, category_ids={"cat": 3, "dog": 5}, first_id=10)
    assert {k: first[k] for k in ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "score")} == {
        "id": 10, "image_id": 7, "category_id": 3, "bbox": [10, 5, 20, 15], "area": 296, "iscrowd": 0, "score": 0.75,
    }  # fmt: skip
    assert (second["id"], second["category_id"], "score" in second) == (11, 5, False)
    json.dumps([first, second])
    assert np.array_equal(coco.decode(first["segmentation"]).astype(bool), ring())
    assert coco.area(first["segmentation"]) == 296
    boxes = detections().to_coco(image_id=1, category_ids={"cat": 1, "dog": 2})
    assert boxes[0]["bbox"] == [1.5, 2, 28.5, 18.25]
    assert "segmentation" not in boxes[0]
    with pytest.raises(UsageError, match="'dog'"):
        detections().to_coco(image_id=1, category_ids={"cat": 1})


def test_coco_tools_read_both(tmp_path):
    from pycocotools.coco import COCO

    truth = {
        "images": [{"id": 1, "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": masks().to_coco(image_id=1, category_ids={"cat": 1, "dog": 2}),
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    loaded = COCO(tmp_path / "truth.json")
    assert np.array_equal(loaded.annToMask(loaded.loadAnns([1])[0]).astype(bool), ring())
    assert len(loaded.loadRes(detections().above(0).to_coco(image_id=1, category_ids={"cat": 1, "dog": 2})).anns) == 2


def test_supervision():
    found = detections().to_supervision()
    assert found.xyxy.tolist()[0] == [1.5, 2, 30, 20.25]
    assert found.class_id.tolist() == [0, 1, 0]
    assert found.data["class_name"].tolist() == ["cat", "dog", "cat"]
    assert found.confidence is None  # one box has no score
    assert detections().above(0).to_supervision().confidence.tolist() == [0.9, 0.25]
    drawn = masks().to_supervision(["dog", "cat"])
    assert drawn.class_id.tolist() == [1, 0]
    assert np.array_equal(drawn.mask[0], ring())
    assert len(Detections((), 3, 4).to_supervision()) == len(Masks((), 3, 4).to_supervision()) == 0
    with pytest.raises(UsageError, match="'dog'"):
        detections().to_supervision(["cat"])


def test_without_supervision_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UsageError, match="not installed") as error:
        detections().to_supervision()
    assert "pip install" in str(error.value.hint)


def test_notebooks():
    evil = Detections((Box("<script>alert(1)</script>", 1, 1, 9, 9),), WIDTH, HEIGHT)
    assert "<script>" not in evil._repr_html_()
    assert "&lt;script&gt;" in evil._repr_html_()
    assert evil._repr_png_() is None
    shown = Detections(evil.boxes, WIDTH, HEIGHT, picture=picture())
    assert "data:image/jpeg;base64," in shown._repr_html_()
    assert (shown._repr_png_() or b"").startswith(b"\x89PNG")


def test_drawing_needs_the_right_picture():
    with pytest.raises(UsageError, match="no picture"):
        detections().draw()
    with pytest.raises(UsageError, match="40 x 30 pixels, not 30 x 40"):
        masks().draw(Image.new("RGB", (30, 40)))


def test_scores_that_are_no_numbers_do_not_become_bad_json():
    with pytest.raises(ValueError, match="not JSON compliant"):
        Caption("x", float("nan")).to_json()


def test_the_base_is_no_result():
    with pytest.raises(TypeError, match="by itself"):
        results.Result().to_dict()
