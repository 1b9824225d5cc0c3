"""There and back: errors and IoU equal those of an independent calculation, and never a thing is lost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.data.outlines import Polygons
from paligemma.data.records import Thing
from paligemma.inspection.trips import RoundingSum, Trip, trips
from paligemma.results import Box
from paligemma.tasks import segment

from ..tiny import random_codec
from .making import found

SIZE = (200, 150)
SIDE = st.floats(0, 1)


@settings(max_examples=100, deadline=None)
@given(x=st.tuples(SIDE, SIDE).filter(lambda x: x[1] - x[0] > 0.01), y=st.tuples(SIDE, SIDE).filter(lambda y: y[1] - y[0] > 0.01))
def test_an_edge_moves_by_half_a_location_at_most(x, y):
    box = (x[0] * SIZE[0], y[0] * SIZE[1], x[1] * SIZE[0], y[1] * SIZE[1])
    (trip,) = trips(found(1, Thing("cat", box), asked=("cat",)), SIZE, (), None)
    assert trip.error == max(abs(a - b) for a, b in zip(box, trip.box, strict=True))
    assert trip.error <= max(SIZE) / 1023 / 2 + 1e-9
    assert trip.iou is None


@pytest.mark.parametrize("task", ["segment", "refer"])
def test_the_iou_is_that_of_the_codecs_own_masks(task):
    codec = random_codec()
    corners, box = ((20.0, 30.0), (90.0, 30.0), (55.0, 110.0)), (20.0, 30.0, 90.0, 110.0)
    outline = Polygons((corners,))
    record = found(1, Thing("cat", box, outline), task=task, asked=("cat",))
    (trip,) = trips(record, SIZE, (), codec)
    mask = outline.mask(*SIZE)
    with torch.inference_mode():
        codes = codec.encode(torch.tensor(segment.crop(mask, Box("", *box)))[None])
        soft = codec.decode(codes)[0].numpy()
    bins = tuple(round(v * 1023) for v in (30 / 150, 20 / 200, 110 / 150, 90 / 200))
    back = segment.paste(soft, bins, *SIZE)
    assert trip.iou == (mask & back).sum() / (mask | back).sum()
    assert (trip.mask == mask).all()


def test_every_thing_comes_back_even_one_of_many_in_one_place():
    things = (*[Thing("cat", (10.0, 10.0, 20.0, 20.0))] * 3, Thing("dog", (0.0, 0.0, 200.0, 150.0)))
    back = trips(found(1, *things), SIZE, ("dog", "cat"), None)
    assert [trip.label for trip in back] == ["cat", "cat", "cat", "dog"]


def test_a_thing_that_is_not_asked_for_is_no_part_of_it():
    assert trips(found(1, Thing("dog", (0.0, 0.0, 9.0, 9.0)), asked=("cat",)), SIZE, (), None) == []


def test_masks_need_a_codec():
    with pytest.raises(ValueError, match="codec"):
        trips(found(1, Thing("cat", (0.0, 0.0, 9.0, 9.0), Polygons(())), task="segment", asked=("cat",)), SIZE, (), None)


def test_the_sum_keeps_what_is_worst():
    total = RoundingSum(image_size=28, patch_size=14)
    whole, half = np.ones((4, 4), bool), np.tril(np.ones((4, 4), bool), -1)
    record = found(7, Thing("cat", (0.0, 0.0, 200.0, 150.0)), Thing("dog", (0.0, 0.0, 0.1, 50.0)))
    moved = [(box[0] - by, *box[1:]) for box, by in zip((thing.box for thing in record.things), (0.25, 0.5), strict=True)]
    cat, dog = (thing.box for thing in record.things)
    total.add(3, record, SIZE, [Trip("cat", cat, moved[0], whole, whole), Trip("dog", dog, moved[1], whole, half)])
    result = total.result()
    assert (result.things, result.error, result.error_where) == (2, 0.5, "line 7")
    assert (result.thin, result.tiny) == (1, 1)
    assert (result.masks, result.iou_mean, result.iou_low) == (2, (1 + 6 / 16) / 2, 1)
    assert [(worst.label, worst.number) for worst in result.worst] == [("dog", 3), ("cat", 3)]


def test_an_empty_mask_has_an_iou_of_nothing():
    nothing = np.zeros((4, 4), bool)
    box = (0.0, 0.0, 1.0, 1.0)
    assert Trip("cat", box, box, nothing, nothing).iou == 0.0


def test_only_what_is_asked_for_is_counted():
    record = found(1, Thing("cat", (0.0, 0.0, 200.0, 150.0)), Thing("dog", (0.0, 0.0, 0.1, 0.1)), asked=("cat",))
    total = RoundingSum(image_size=28, patch_size=14)
    total.add(0, record, SIZE, trips(record, SIZE, (), None))
    assert (total.result().things, total.result().thin, total.result().tiny) == (1, 0, 0)
