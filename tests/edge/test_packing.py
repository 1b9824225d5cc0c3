"""Quantized matrices: how far weights move, that packing loses nothing and may lie in a file, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paligemma.edge import packing
from paligemma.edge.packing import Packed, dequantize, embed, pack, packed_bytes, quantize, unpack
from paligemma.errors import CheckpointError, UsageError

from .matrices import KINDS, normal, random_matrix, whole

shapes = st.tuples(st.integers(1, 40), st.integers(1, 300))


@settings(max_examples=40)
@given(shape=shapes, kind=st.sampled_from(KINDS), seed=st.integers(0, 99), power=st.integers(-8, 4))
def test_weights_move_by_half_a_scale_or_are_cut_off(shape, kind, seed, power):
    bits, group = kind
    matrix = normal(np.random.default_rng(seed), *shape) * np.float32(10.0**power)
    values, scales = quantize(matrix, bits, group)
    step = np.repeat(scales.astype(np.float32).reshape(len(matrix), -1), group if bits == 4 else shape[1], axis=1)[:, : shape[1]]
    cut = np.maximum(np.abs(matrix) - (7 if bits == 4 else 127) * step, 0)
    error = np.abs(dequantize(values, scales, group or 1) - matrix)
    assert (error <= 0.5001 * step + cut + (2.5e-7 if bits == 4 else 0)).all()
    assert (cut == 0).all() or bits == 4


def test_scales_of_four_bits_leave_less_error_than_the_widest():
    matrix = normal(np.random.default_rng(0), 64, 256)
    widest = (np.abs(matrix.reshape(64, 8, 32)).max(-1, keepdims=True) / 7).astype(np.float16).astype(np.float32)
    nearest = np.rint(matrix.reshape(64, 8, 32) / widest) * widest - matrix.reshape(64, 8, 32)
    found = dequantize(*quantize(matrix, 4, 32), 32) - matrix
    groups = np.square(found).reshape(64, 8, 32).sum(-1), np.square(nearest).sum(-1)
    assert (groups[0] <= groups[1] * 1.0001).all()
    assert groups[0].sum() < 0.95 * groups[1].sum()


def test_numbers_on_the_grid_stay():
    for bits, group, largest in ((8, None, 127), (4, 32, 7)):
        values = np.array([[-largest, 3, 0, largest] * 8, [0] * 32], np.int8)
        again, scales = quantize(values * np.float32(0.5), bits, group)
        assert (dequantize(again, scales, 32) == values * np.float32(0.5)).all()


@settings(max_examples=40)
@given(shape=shapes, kind=st.sampled_from(KINDS), seed=st.integers(0, 99))
def test_what_is_packed_comes_out(shape, kind, seed):
    bits, group = kind
    rng = np.random.default_rng(seed)
    values, _ = whole(rng, *shape, bits, group)
    scales = rng.random((len(values), -(-shape[1] // group)) if bits == 4 else len(values)).astype(packing.SCALES[bits])
    packed = pack(values, scales, bits, group)
    assert packed.data.size == packed_bytes(*shape, bits, group)
    assert packed.data.ctypes.data % 64 == 0
    again, same = unpack(packed)
    assert (again == values).all()
    assert (same == scales).all()
    ids = rng.integers(0, shape[0], 7)
    assert (embed(packed, ids) == dequantize(values, scales, packed.group)[ids]).all()


def test_the_layout_is_the_one_described():
    values = np.arange(17 * 8).reshape(17, 8) % 7
    by_hand = pack(values.astype(np.int8), np.arange(17).astype(np.float32), 8)
    assert by_hand.weights.shape == (2, 2, 16, 4)
    assert (by_hand.weights[0, 1, 3] == values[3, 4:] + 128).all()
    assert (by_hand.weights[1, 0, 0] == values[16, :4] + 128).all()
    assert by_hand.scales[1, 0, 0] == 16
    halves = pack(values.astype(np.int8), np.ones((17, 1), np.float16), 4, 32).weights
    assert halves.shape == (2, 1, 16, 4)
    assert (halves[0, 0, 3] & 15 == values[3, :4] + 8).all()
    assert (halves[0, 0, 3] >> 4 == values[3, 4:] + 8).all()


@pytest.mark.parametrize("kind", KINDS)
def test_packed_bytes_are_used_where_they_lie_in_a_file(kind, tmp_path):
    bits, group = kind
    rng = np.random.default_rng(0)
    values, scales = quantize(normal(rng, 33, 300), bits, group)
    size, before = packed_bytes(33, 300, bits, group), 128
    mapped = np.memmap(tmp_path / "pack", np.uint8, "w+", shape=(before + size,))
    pack(values, scales, bits, group, out=mapped[before:])
    mapped.flush()
    opened = Packed.from_bytes(np.memmap(tmp_path / "pack", np.uint8, "r")[before:])
    assert not opened.weights.flags.owndata
    assert not opened.weights.flags.writeable
    again, same = unpack(opened)
    assert (again == values).all()
    assert (same == scales).all()


def test_rows_by_number_and_by_ranges():
    packed = random_matrix(np.random.default_rng(0), 40, 16, 8, None)
    assert (embed(packed, [range(3, 5), range(38, 40)]) == embed(packed, np.array([3, 4, 38, 39]))).all()
    assert embed(packed, []).shape == (0, 16)
    for rows in ([40], [-1], [range(39, 41)]):
        with pytest.raises(UsageError, match="rows 0 to 39"):
            embed(packed, rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:40], "bytes, expected"),
        (lambda data: data[:64], "bytes, expected"),
        (lambda data: data[:-1], "bytes, expected"),
        (lambda data: np.append(data, np.uint8(0)), "bytes, expected"),
        (lambda data: data[1:], "no packed matrix"),
        (lambda data: data[:0], "no packed matrix"),
        (lambda data: np.where(np.arange(len(data)) == 8, 2, data).astype(np.uint8), "layout 2 is not known"),
        (lambda data: np.where(np.arange(len(data)) == 12, 5, data).astype(np.uint8), "5 bits"),
        (lambda data: np.where(np.arange(len(data)) == 16, 3, data).astype(np.uint8), "groups of"),
        (lambda data: np.where((np.arange(len(data)) >= 24) & (np.arange(len(data)) < 40), 255, data).astype(np.uint8), "bytes, expected"),
    ],
)
def test_bytes_that_are_no_packed_matrix_are_refused(change, message):
    data = random_matrix(np.random.default_rng(0), 20, 40, 4, 32).data
    with pytest.raises(CheckpointError, match=message):
        Packed.from_bytes(change(data))


def test_values_that_cannot_be_kept_are_refused():
    ones = np.ones((2, 64), np.float32)
    with pytest.raises(CheckpointError, match="no numbers"):
        quantize(ones * np.nan, 8)
    with pytest.raises(CheckpointError, match="too large for 4 bits"):
        quantize(ones * 1e6, 4, 64)
    with pytest.raises(UsageError, match="groups of 48"):
        quantize(ones, 4, 48)
    with pytest.raises(UsageError, match="4-bit weights lie in"):
        pack(np.full((2, 64), 8, np.int8), np.ones((2, 1), np.float16), 4, 64)
    with pytest.raises(UsageError, match="8-bit weights lie in"):
        pack(np.full((2, 64), -128, np.int8), np.ones(2, np.float32), 8)
    with pytest.raises(UsageError, match="float16 scales of shape"):
        pack(np.ones((2, 64), np.int8), np.ones((2, 1), np.float32), 4, 64)
    with pytest.raises(UsageError, match="contiguous uint8"):
        Packed.from_bytes(np.zeros((4, 64), np.uint8))
