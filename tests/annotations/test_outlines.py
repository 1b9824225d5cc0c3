"""Outlines give the pixels that they stand for: exactly, and next to pycocotools' own drawing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from paligemma.data.outlines import Bitmap, Polygons, RunLengths, bitmap
from paligemma.mask_formats import compress, polygons, run_lengths
from tests.annotations.world import ellipse, iou

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(masks)
def test_polygons_are_the_inverse_of_tracing(mask):
    height, width = mask.shape
    rings = tuple(tuple((float(x), float(y)) for x, y in ring) for ring in polygons(mask))
    assert (Polygons(rings).mask(width, height) == mask).all()


@given(st.lists(st.tuples(st.floats(-30, 60), st.floats(-30, 60)), min_size=3, max_size=12))
def test_a_pixel_is_covered_if_its_centre_is_inside(ring):
    """Against the textbook test of one point, also for rings that cross themselves or lie outside."""

    def inside(x: float, y: float) -> bool:
        odd = False
        for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
            if (y0 <= y) != (y1 <= y) and x0 + (y - y0) / (y1 - y0) * (x1 - x0) <= x - 1e-9:
                odd = not odd
        return odd

    mask = Polygons((tuple(ring),)).mask(20, 16)
    different = [(x, y) for y in range(16) for x in range(20) if inside(x + 0.5, y + 0.5) != mask[y, x]]
    for x, y in different:  # only where an edge passes through the very centre
        assert any(abs(_distance(x + 0.5, y + 0.5, a, b)) < 1e-6 for a, b in zip(ring, [*ring[1:], ring[0]], strict=True))


def _distance(x, y, a, b) -> float:
    a, b, point = np.array(a), np.array(b), np.array([x, y])
    along = np.clip((point - a) @ (b - a) / max((b - a) @ (b - a), 1e-30), 0, 1)
    return float(np.linalg.norm(point - a - along * (b - a)))


@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize(("size", "least"), [(12, 0.9), (40, 0.97), (150, 0.99)])
def test_polygons_agree_with_pycocotools(size, least):
    """It rounds corners to a fifth of a pixel, so pixels under an edge may differ, and no others."""
    from pycocotools import mask as coco

    rng = np.random.default_rng(size)
    found = []
    for _ in range(40):
        angles = np.sort(rng.random(12)) * 2 * np.pi
        radius = size / 2 * (0.6 + 0.4 * rng.random(12))
        ring = np.stack([100 + radius * np.cos(angles), 90 + radius * np.sin(angles)], 1) + rng.random(2)
        rings: Any = [ring.ravel().tolist()]
        theirs = coco.decode(coco.merge(coco.frPyObjects(rings, 180, 200))).astype(bool)
        ours = Polygons((tuple(map(tuple, ring.tolist())),)).mask(200, 180)
        found.append(iou(ours, theirs))
        for y, x in np.argwhere(ours != theirs):
            closest = min(_distance(x + 0.5, y + 0.5, a, b) for a, b in zip(ring, np.roll(ring, -1, 0), strict=True))
            assert closest < 0.75
    assert np.mean(found) > least


def test_equal_rings_are_equal_however_they_are_written():
    corners = ((1.5, 2.25), (8.0, 2.25), (8.0, 7.0))
    packed = np.array(corners, np.float32).tobytes()
    assert Polygons((corners,)) == Polygons((packed,))
    assert len({Polygons((corners,)), Polygons((packed,))}) == 1
    assert Polygons((packed,)).corners[0].tolist() == [list(corner) for corner in corners]


def test_rings_are_joined():
    squares = Polygons((((1, 1), (5, 1), (5, 5), (1, 5)), ((3, 3), (7, 3), (7, 7), (3, 7))))
    expected = np.zeros((8, 9), bool)
    expected[1:5, 1:5] = expected[3:7, 3:7] = True
    assert (squares.mask(9, 8) == expected).all()


@pytest.mark.parametrize("plain", [True, False])
def test_run_lengths(plain):
    mask = ellipse((3, 4, 40, 30))
    counts = run_lengths(mask)
    outline = RunLengths((48, 64), tuple(counts) if plain else compress(counts))
    assert (outline.mask(64, 48) == mask).all()
    with pytest.raises(ValueError, match="64 x 48"):
        outline.mask(48, 64)


def test_bitmaps(tmp_path):
    values = np.array([[0, 1, 2], [2, 2, 255]], np.uint8)
    grey = Image.fromarray(values)
    palette = Image.fromarray(values, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    for name, picture in {"grey.png": grey, "palette.png": palette, "rgb.png": Image.merge("RGB", [grey] * 3)}.items():
        picture.save(tmp_path / name)
        assert (Bitmap(tmp_path / name, 2).mask(3, 2) == (values == 2)).all()
    assert (Bitmap(tmp_path / "palette.png", (0, 255, 0)).mask(3, 2) == (values == 2)).all()
    Image.fromarray(values.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    assert (Bitmap(tmp_path / "deep.png", 400).mask(3, 2) == (values == 2)).all()
    Image.merge("RGB", [grey, grey.point(lambda v: 0), grey]).save(tmp_path / "colours.png")
    with pytest.raises(ValueError, match="in colours"):
        bitmap(tmp_path / "colours.png", 3, 2)


def test_a_bitmap_that_is_none(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    Image.new("L", (3, 2)).save(tmp_path / "lossy.png", "JPEG")
    Image.new("L", (30, 2)).save(tmp_path / "large.png")
    for name, message in {
        "broken.png": "cannot be read",
        "lossy.png": "cannot be read",
        "no.png": "cannot be read",
        "large.png": "30 x 2",
    }.items():
        with pytest.raises(ValueError, match=message):
            Bitmap(tmp_path / name, 1).mask(3, 2)
