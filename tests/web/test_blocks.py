"""Blocks of few bits: exact where they can be, near elsewhere, and read by ONNX Runtime as they are written."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from paligemma.web.blocks import BLOCK, WIDE, WIDE_BLOCK, block_of, count, dequantize, quantize


def rows(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, k)).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("inputs", [32, 100, 4304])
def test_no_weight_moves_by_more_than_half_a_scale(bits, inputs):
    weights, block = rows(5, inputs), 32
    packed, scales = quantize(weights, bits, block)
    assert packed.shape == (5, count(inputs, block), block * bits // 8)
    assert scales.shape == (5, count(inputs, block))
    half = np.abs(np.repeat(scales, block, axis=1))[:, :inputs] / 2
    moved = np.abs(dequantize(packed, scales, bits, inputs) - weights)
    # The largest number there is stands for half - 1: opposite ends of a block may be a whole scale off.
    assert (moved <= 2 * half * (1 + 1e-5)).all()
    assert (moved <= half * (1 + 1e-5)).mean() > 0.98


def test_whole_numbers_and_zeros_come_back():
    weights = np.zeros((2, 64), np.float32)
    weights[0, :32] = np.tile(np.arange(-8, 8), 2)
    for bits in (4, 8):
        packed, scales = quantize(weights, bits, 32)
        np.testing.assert_allclose(dequantize(packed, scales, bits, 64), weights, atol=0 if bits == 4 else 0.04)


def test_wide_matrices_have_wide_blocks():
    assert block_of(WIDE) == WIDE_BLOCK
    assert block_of(WIDE - 1) == BLOCK


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("inputs", "block"), [(100, 32), (1100, 128)])
def test_onnx_runtime_reads_them(bits, inputs, block):
    weights, x = rows(9, inputs), rows(3, inputs, 1)
    packed, scales = quantize(weights, bits, block)
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=inputs, N=9, bits=bits, block_size=block, accuracy_level=1
    )
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g", [info("x", TensorProto.FLOAT, [3, inputs])], [info("y", TensorProto.FLOAT, [3, 9])],
        [numpy_helper.from_array(packed, "w"), numpy_helper.from_array(scales.reshape(-1), "s")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    y = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(y, x @ dequantize(packed, scales, bits, inputs).T, rtol=1e-4, atol=1e-4)
