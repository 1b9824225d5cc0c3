"""Matrices in blocks of few bits, as ONNX Runtime's operator MatMulNBits reads them: one layout for the product and for single rows.

A matrix (N outputs, K inputs) is cut into blocks of `block` inputs, each with a float32 scale; the last block is filled up with zeros. A
weight is (number - half) * scale, where half is 8 or 128; the number of the largest magnitude is 0, so that both ends are used. Four-bit
numbers lie two to a byte, the first in the low half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WIDE_BLOCK, BLOCK, WIDE = 128, 32, 1024
"""Inputs that share a scale: of matrices with at least `WIDE` inputs, and of smaller ones."""


def block_of(inputs: int) -> int:
    return WIDE_BLOCK if inputs >= WIDE else BLOCK


def count(inputs: int, block: int) -> int:
    """Blocks of a row."""
    return -(-inputs // block)


def quantize(rows: Floats, bits: int, block: int) -> tuple[NDArray[np.uint8], Floats]:
    """rows (n, K) -> numbers (n, blocks, block * bits / 8) and scales (n, blocks)."""
    half = 1 << (bits - 1)
    blocks = np.pad(rows, ((0, 0), (0, -rows.shape[1] % block))).reshape(len(rows), -1, block)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)
    scales = largest / np.float32(-half)
    inverses = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    numbers = (np.rint(blocks * inverses).clip(-half, half - 1) + half).astype(np.uint8)
    packed = numbers if bits == 8 else np.bitwise_or(numbers[:, :, ::2], numbers[:, :, 1::2] << 4, dtype=np.uint8)
    return packed, scales[:, :, 0]


def dequantize(packed: NDArray[np.uint8], scales: Floats, bits: int, inputs: int) -> Floats:
    """What the numbers stand for, (n, K)."""
    half = 1 << (bits - 1)
    numbers: NDArray[Any] = packed if bits == 8 else np.stack([packed & 15, packed >> 4], axis=3).reshape(*packed.shape[:2], -1)
    weights = (numbers.astype(np.float32) - half) * scales[:, :, None]
    return weights.reshape(len(packed), -1)[:, :inputs]
