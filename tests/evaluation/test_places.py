"""Average precision is pycocotools' own on data in COCO's files; its parts agree with each other; overlaps are counted by hand."""

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.errors import UsageError
from paligemma.evaluation.places import Evaluation, Place, box_iou, mask_of, mask_overlap
from paligemma.mask_formats import compress, run_lengths
from paligemma.results import Box

SIDE = 60


def rle(mask: np.ndarray) -> dict:
    return {"size": list(mask.shape), "counts": compress(run_lengths(mask))}


def disc(x: float, y: float, r: float) -> np.ndarray:
    ys, xs = np.mgrid[:SIDE, :SIDE]
    return (xs - x) ** 2 + (ys - y) ** 2 <= r * r


def scene(rng: np.random.Generator, count: int) -> list[Place]:
    places = []
    for _ in range(count):
        x, y, r = rng.uniform(10, 50), rng.uniform(10, 50), rng.uniform(3, 12)
        places.append(Place(f"class {rng.integers(3)}", (x - r, y - r, x + r, y + r), rle(disc(x, y, r))))
    return places


def guesses(rng: np.random.Generator, truths: list[Place]) -> list[Place]:
    found = []
    for place in truths:
        x0, y0, x1, y1 = np.array(place.box) + rng.normal(0, 2.5, 4)
        r = max(min(x1 - x0, y1 - y0) / 2, 1.5)
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        found.append(Place(place.label, (x - r, y - r, x + r, y + r), rle(disc(x, y, r)), float(rng.random())))
    return [place for place in [*found, *scored(rng, scene(rng, 1))] if rng.random() < 0.8]


def scored(rng: np.random.Generator, places: list[Place]) -> list[Place]:
    return [dataclasses.replace(place, score=float(rng.random())) for place in places]


@pytest.fixture(scope="module")
def pictures() -> tuple[list[list[Place]], list[list[Place]]]:
    rng = np.random.default_rng(0)
    truths = [scene(rng, int(rng.integers(0, 5))) for _ in range(25)]
    return truths, [guesses(rng, places) for places in truths]


def by_pycocotools(truths, found, kind: str, folder) -> np.ndarray:
    """The twelve numbers that pycocotools prints for files written as COCO's are."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {label: number for number, label in enumerate(sorted({p.label for places in (*truths, *found) for p in places}), 1)}

    def plain(places, scores: bool):
        for picture, each in enumerate(places):
            for p in each:
                x0, y0, x1, y1 = p.box
                one = {"image_id": picture, "category_id": ids[p.label], "segmentation": p.rle}
                one |= {"score": p.score} if scores else {"area": float(mask_of(p.rle).sum()), "iscrowd": int(p.ignored)}
                # To pycocotools a result that has a box is about boxes.
                yield one if scores and kind == "segm" else one | {"bbox": [x0, y0, x1 - x0, y1 - y0]}

    annotations = [one | {"id": number} for number, one in enumerate(plain(truths, False), 1)]
    images = [{"id": picture, "height": SIDE, "width": SIDE} for picture in range(len(truths))]
    file = folder / "instances.json"
    file.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": i, "name": n} for n, i in ids.items()]})
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(file))
        evaluation = COCOeval(coco, coco.loadRes(list(plain(found, True))), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize(("kind", "theirs"), [("box", "bbox"), ("mask", "segm")])
@pytest.mark.parametrize("crowds", [False, True])
def test_average_precision_is_pycocotools(pictures, kind, theirs, crowds, tmp_path):
    truths, found = pictures
    if crowds:
        truths = [[dataclasses.replace(p, ignored=(row + i) % 4 == 0) for i, p in enumerate(ps)] for row, ps in enumerate(truths)]
    expected = by_pycocotools(truths, found, theirs, tmp_path)
    values = Evaluation(truths, found, kind).values()
    if kind == "box":
        # A guess's box counts by its own area there, here as the mask that it has.
        names = ("ap", "ap50", "ap75", "ar1", "ar10", "ar100")
        expected = [*expected[:3], *expected[6:9]]
    else:
        names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar1", "ar10", "ar100")
        expected = expected[:9]
    for name, value in zip(names, expected, strict=True):
        assert values.get(name, -1) == pytest.approx(value, abs=1e-6), name


def test_boxes_without_masks_count_by_their_own_area(pictures):
    truths, found = ([[dataclasses.replace(p, rle=None) for p in places] for places in part] for part in pictures)
    values = Evaluation(truths, found).values()
    assert {"ap_small", "ar100"} <= values.keys()
    assert "ap_large" not in values, "nothing here is larger than 96 x 96"


@pytest.mark.parametrize("kind", ["box", "mask"])
def test_the_truth_itself_is_precise(pictures, kind):
    truths = pictures[0]
    evaluation = Evaluation(truths, [[dataclasses.replace(p, score=0.5) for p in places] for places in truths], kind)
    assert evaluation.values()["ap"] == pytest.approx(1)
    assert set(evaluation.by_class().values()) == {1.0}
    assert (evaluation.f1() == 1).all()
    assert all(one.right for one in evaluation.judged())


def test_no_guess_at_all_finds_nothing(pictures):
    evaluation = Evaluation(pictures[0], [[] for _ in pictures[0]])
    assert evaluation.values()["ap"] == 0 == evaluation.resampled(np.arange(25))
    assert evaluation.judged() == []
    assert [value for value, truths in zip(evaluation.f1(), pictures[0], strict=True) if not truths] == [1.0] * sum(
        not t for t in pictures[0]
    )


def test_pictures_drawn_again_are_pictures_twice_in_the_data(pictures):
    truths, found = pictures
    evaluation = Evaluation(truths, found)
    assert evaluation.resampled(np.arange(25)) == pytest.approx(evaluation.values()["ap"], abs=1e-12)
    rng = np.random.default_rng(1)
    for _ in range(5):
        rows = rng.integers(0, 25, 25)
        again = Evaluation([truths[i] for i in rows], [found[i] for i in rows])
        assert evaluation.resampled(rows) == pytest.approx(again.values()["ap"], abs=1e-9)


def test_order_of_pictures_and_classes_does_not_matter(pictures):
    truths, found = pictures
    values = Evaluation(truths, found).values()
    assert Evaluation(truths[::-1], [each[::-1] for each in found[::-1]]).values() == pytest.approx(values)
    renamed = [[[dataclasses.replace(p, label="z" + p.label[::-1]) for p in places] for places in part] for part in pictures]
    assert Evaluation(*renamed).values() == pytest.approx(values)


def test_which_guesses_were_right():
    box = (10.0, 10.0, 30.0, 30.0)
    near = (11.0, 10.0, 31.0, 30.0)
    truths = [[Place("cat", box), Place("dog", box, ignored=True)], [Place("cat", box)]]
    found = [[Place("cat", near, None, 0.4), Place("cat", box, None, 0.9), Place("dog", box, None, 0.8)], [Place("owl", box, None, 0.7)]]
    evaluation = Evaluation(truths, found)
    assert sorted((one.row, one.score, one.right) for one in evaluation.judged()) == [(0, 0.4, 0.0), (0, 0.9, 1.0), (1, 0.7, 0.0)]
    assert evaluation.f1().tolist() == [2 / 3, 0.0]
    assert evaluation.by_class() == {"cat": pytest.approx(0.5, abs=0.01)}


def test_nothing_to_find_is_said():
    with pytest.raises(UsageError, match="no true object"):
        Evaluation([[], [Place("crowd", (0, 0, 9, 9), ignored=True)]], [[], []])


def test_a_mask_that_is_missing_is_said():
    place = Place("cat", (0, 0, 9, 9), None, 0.5)
    with pytest.raises(UsageError, match="cat has no mask"):
        Evaluation([[place]], [[place]], "mask")


corners = st.tuples(*[st.integers(0, 20)] * 4).map(lambda c: (min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])))


@given(corners, corners)
def test_overlap_of_boxes(a, b):
    value = box_iou(a, b)
    assert 0 <= value <= 1
    assert value == box_iou(b, a) == Box("", *a).iou(Box("", *b))


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_overlap_of_masks(seed):
    from pycocotools.mask import iou

    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 7, 9)) < 0.5
    common, union = mask_overlap(a, b)
    np.testing.assert_array_equal(mask_of(rle(a)), a)
    theirs = iou([dict(rle(a), counts=rle(a)["counts"].encode())], [dict(rle(b), counts=rle(b)["counts"].encode())], [0])
    assert common / union == pytest.approx(theirs[0, 0])
