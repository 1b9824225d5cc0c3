"""Run lengths equal pycocotools; polygons give the mask back exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from paligemma.mask_formats import (
    Polygon,
    brush,
    compress,
    cvat_runs,
    decompress,
    from_brush,
    from_run_lengths,
    joined,
    polygons,
    run_lengths,
    simplified,
)

masks = hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.booleans())


def blob(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Smooth noise above a threshold: parts, holes, islands in holes."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(9, 12))
    rows, columns = np.linspace(0, 8, height), np.linspace(0, 11, width)
    rough = np.stack([np.interp(columns, np.arange(12), row) for row in coarse])
    return np.stack([np.interp(rows, np.arange(9), column) for column in rough.T], 1) > 0.2


def fill(rings: tuple[Polygon, ...], height: int, width: int) -> np.ndarray:
    """Even-odd filling, sampled at the centres of pixels."""
    flips = np.zeros((height, width + 1), int)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
            assert x0 == x1 or y0 == y1
            flips[min(y0, y1) : max(y0, y1), x0] += 1
    return np.cumsum(flips, 1)[:, :width] % 2 == 1


@given(masks)
def test_run_lengths_equal_pycocotools(mask):
    theirs = coco.encode(np.asfortranarray(mask, np.uint8))
    counts = run_lengths(mask)
    assert compress(counts) == theirs["counts"].decode()
    assert decompress(compress(counts)) == counts
    assert np.array_equal(from_run_lengths(counts, *mask.shape), mask)


def test_a_large_mask_survives_the_string():
    mask = blob(3, 700, 900)
    theirs = coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert compress(run_lengths(mask)) == theirs
    assert np.array_equal(from_run_lengths(decompress(theirs), 700, 900), mask)


@pytest.mark.parametrize("text", ["\x00", "~~~~\x7f", "o", "5é"])
def test_a_broken_string_is_refused(text):
    with pytest.raises(ValueError, match="run lengths"):
        decompress(text)


@pytest.mark.parametrize("counts", [[3], [5], [-1, 5], []])
def test_runs_that_do_not_fill_the_mask_are_refused(counts):
    with pytest.raises(ValueError, match="2 x 2"):
        from_run_lengths(counts, 2, 2)


@given(masks)
def test_polygons_are_exact(mask):
    assert np.array_equal(fill(polygons(mask), *mask.shape), mask)


@pytest.mark.parametrize("seed", range(6))
def test_polygons_mean_the_same_to_pycocotools(seed):
    mask = blob(seed)
    runs = coco.frPyObjects([[float(v) for point in ring for v in point] for ring in polygons(mask)], *mask.shape)
    theirs = coco.decode(coco.merge(runs)).astype(bool)
    assert (theirs & mask).sum() / (theirs | mask).sum() >= 0.95


def test_a_ring_with_a_hole_has_a_cut():
    mask = np.ones((3, 3), bool)
    mask[1, 1] = False
    (ring,) = polygons(mask)
    assert ring == ((0, 0), (3, 0), (3, 3), (0, 3), (0, 1), (1, 1), (1, 2), (2, 2), (2, 1), (0, 1))


def test_corners_that_touch_are_two_parts_and_nothing_is_none():
    assert polygons(np.eye(2, dtype=bool)) == (((0, 0), (1, 0), (1, 1), (0, 1)), ((1, 1), (2, 1), (2, 2), (1, 2)))
    assert polygons(np.zeros((4, 4), bool)) == ()


@pytest.mark.parametrize("tolerance", [1.0, 3.0])
def test_simplified_outlines_have_fewer_corners_none_of_them_new_and_stay_close(tolerance):
    y, x = np.mgrid[:60, :80]
    ((ring,),) = (polygons((x - 40) ** 2 / 900 + (y - 30) ** 2 / 400 < 1),)
    short = simplified(ring, tolerance)
    assert 3 <= len(short) < len(ring) / 2
    assert [corner for corner in ring if corner in set(short)] == list(short), "in their order"
    start, stop = np.array(short, float), np.array([*short[1:], short[0]], float)
    for corner in np.array(ring, float):
        way = stop - start
        along = np.clip(((corner - start) * way).sum(1) / (way * way).sum(1), 0, 1)
        assert np.linalg.norm(corner - start - along[:, None] * way, axis=1).min() <= tolerance + 1e-9


def test_an_outline_that_would_vanish_stays():
    pixel = ((3, 3), (4, 3), (4, 4), (3, 4))
    assert simplified(pixel, 1.0) == pixel


@given(masks)
def test_joined_rings_are_still_the_mask(mask):
    if mask.any():
        assert np.array_equal(fill((joined(polygons(mask)),), *mask.shape), mask)


@given(masks)
def test_cvat_runs_are_of_the_box_around(mask):
    if not mask.any():
        return
    counts, left, top, width, height = cvat_runs(mask)
    whole = np.zeros_like(mask)
    whole[top : top + height, left : left + width] = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)
    assert np.array_equal(whole, mask)


@given(masks)
def test_brushes_come_back(mask):
    assert np.array_equal(from_brush(brush(mask), *mask.shape), mask)


def test_a_large_brush_and_one_that_is_not_packed():
    mask = blob(5, 700, 900)
    assert np.array_equal(from_brush(brush(mask), 700, 900), mask)
    assert from_brush(brush(np.ones((700, 900), bool)), 700, 900).all()
    # 2 pixels, 8 values one by one (a 0, the second of four sizes, 8 - 1): what the tool writes where values differ
    bits = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}001{7:04b}" + "".join(f"{value:08b}" for value in (0, 0, 0, 0, 7, 7, 7, 255))
    bits += "0" * (-len(bits) % 8)
    assert from_brush(list(int(bits, 2).to_bytes(len(bits) // 8, "big")), 1, 2).tolist() == [[False, True]]


def test_a_broken_brush_is_refused():
    whole = brush(blob(2, 20, 30))
    with pytest.raises(ValueError, match="ends too early"):
        from_brush(whole[:-4], 20, 30)
    with pytest.raises(ValueError, match="600 pixels, the picture 609"):
        from_brush(whole, 21, 29)


def unpacked(data: list[int]) -> np.ndarray:
    """A reader of rle-pack's format, after its description."""
    bits, at = "".join(f"{byte:08b}" for byte in data), 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    out: list[int] = []
    while len(out) < total:
        same, size = read(1), sizes[read(2)]
        length = read(size) + 1
        out += [read(word)] * length if same else [read(word) for _ in range(length)]
    assert len(bits) - at < 8
    return np.array(out)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 700), (1, 20_000)])
@pytest.mark.parametrize("kind", ["none", "all", "some"])
def test_brushes_are_packed_as_label_studio_reads_them(shape, kind):
    mask = {"none": np.zeros(shape, bool), "all": np.ones(shape, bool), "some": np.random.default_rng(3).random(shape) < 0.3}[kind]
    assert (unpacked(brush(mask)).reshape(*shape, 4) == 255 * mask[..., None]).all()
