"""Rounding by data: never worse on what was seen than rounding to nearest, and the same where inputs have nothing to do with each other."""

from __future__ import annotations

import numpy as np
import pytest

from paligemma.edge.gptq import Rounding
from paligemma.edge.packing import dequantize, pack, quantize


def moments(x: np.ndarray, block: int) -> list[np.ndarray]:
    return [x[:, at : at + block].T @ x[:, at : at + block] for at in range(0, x.shape[1], block)]


def correlated(rows: int, inputs: int, seed: int = 0) -> np.ndarray:
    """A few directions and some noise, as activations are."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, 8)) @ rng.standard_normal((8, inputs)) + 0.3 * rng.standard_normal((rows, inputs))).astype(
        np.float32
    )


@pytest.mark.parametrize(
    ("bits", "group", "inputs", "block"), [(4, 32, 128, 128), (4, 128, 320, 256), (4, 64, 200, 128), (8, None, 96, 64)]
)
def test_results_come_nearer(bits, group, inputs, block):
    x = correlated(400, inputs)
    matrix = np.random.default_rng(1).standard_normal((48, inputs)).astype(np.float32)
    size = group or inputs
    nearest = dequantize(*quantize(matrix, bits, group), size)
    values, scales = Rounding.of(moments(x, block))(matrix, bits, group)
    error, least = (np.square(x @ (matrix - found).T).mean() for found in (dequantize(values, scales, size), nearest))
    assert error < 0.7 * least
    assert pack(values, scales, bits, group).inputs == inputs, "the types and shapes that packing takes"


def test_inputs_apart_are_rounded_to_nearest():
    matrix = np.random.default_rng(2).standard_normal((16, 64)).astype(np.float32)
    values, scales = Rounding.of([np.eye(64, dtype=np.float32)])(matrix, 4, 32)
    wanted, same = quantize(matrix, 4, 32)
    assert (values == wanted).all()
    assert (scales == same).all()


def test_inputs_that_never_came_are_rounded_to_nearest():
    x = correlated(50, 32)
    x[:, 16:] = 0
    matrix = np.random.default_rng(3).standard_normal((16, 32)).astype(np.float32)
    values, scales = Rounding.of(moments(x, 32))(matrix, 4, 32)
    assert np.isfinite(scales).all()
    off = np.abs(dequantize(values, scales, 32) - matrix)[:, 16:]
    assert (off <= scales.astype(np.float32) * 0.5001 + np.maximum(0, np.abs(matrix[:, 16:]) - 7 * scales.astype(np.float32))).all()


def test_a_matrix_with_other_inputs_is_refused():
    with pytest.raises(ValueError, match="32 inputs, moments of 64"):
        Rounding.of([np.eye(64, dtype=np.float32)])(np.ones((16, 32), np.float32), 4, 32)
