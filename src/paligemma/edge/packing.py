"""Quantized matrices: from float32 to whole numbers with scales, and the one layout of them in memory and in files.

A matrix (outputs, inputs) has 8-bit weights with a float32 scale per output (its group is of activations only), or 4-bit weights with a
float16 scale per output and group of 32, 64 or 128 inputs (the last group may be smaller). Packed, it is one run of bytes, the same for all
processors:

    header, 64 bytes   |  scales  |  weights           scales and weights begin at multiples of 64
    scales             a panel of 16 outputs after the other; of a panel a group after the other; of a group 16 numbers
    weights            a panel after the other; of a panel 8 inputs after the other:
      8 bits           a line of 64 bytes for 4 inputs (16 outputs times 4), a line for the next 4; weight + 128
      4 bits           one line, the first 4 inputs in the low halves of its bytes, the next 4 in the high halves; weight + 8

Such bytes can be mapped from a file and used where they lie; they are read fastest at addresses that 64 divides.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, UsageError

Bits = Literal[4, 8]
Floats = NDArray[np.float32]
Rows = NDArray[np.integer[Any]] | Sequence[range] | Sequence[int]
"""Outputs by number, or by ranges of numbers."""

VERSION = 1
"""Of the layout."""
GROUPS = (32, 64, 128)
"""Sizes of a group of 4-bit weights."""
ACTIVATION_GROUP = 256
"""Inputs that share a scale of activations where weights have one scale per output, unless a matrix says otherwise. With 4 bits the groups
are the weights'."""
PANEL, UNIT, ALIGN = 16, 8, 64
LARGEST: dict[int, int] = {8: 127, 4: 7}
SMALLEST: dict[int, int] = {8: -127, 4: -8}
OFFSET: dict[int, int] = {8: 128, 4: 8}
SHRINKS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Of the widest scale, those that are tried with 4 bits."""
SCALES: dict[int, type] = {8: np.float32, 4: np.float16}
HEADER = struct.Struct("<8sIIIxxxxQQ")
MAGIC = b"pgpacked"


@dataclass(frozen=True, eq=False)
class Packed:
    """A matrix in the packed layout. `data`: uint8 (bytes,), header included, possibly mapped from a file. `group`: inputs that share a
    scale of activations, and of weights with 4 bits."""

    data: NDArray[np.uint8]
    outputs: int
    inputs: int
    bits: Bits
    group: int

    @classmethod
    def from_bytes(cls, data: NDArray[np.uint8]) -> Packed:
        """The matrix that lies in `data`, not copied. Raises `CheckpointError` for bytes that are none, or of another version or length."""
        if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
            raise UsageError(f"packed bytes are a contiguous uint8 array of one axis, got {data.dtype} of shape {data.shape}")
        magic, version, bits, group, outputs, inputs = HEADER.unpack(data[: HEADER.size].tobytes().ljust(HEADER.size, b"\0"))
        if magic != MAGIC:
            raise CheckpointError("these bytes are no packed matrix", code="bad_packed")
        if version != VERSION:
            hint = "pack the model again with this version of the program"
            raise CheckpointError(f"packed layout {version} is not known, expected {VERSION}", hint=hint, code="bad_packed")
        if bits not in OFFSET or group != _group(bits, group) or not outputs or not inputs:
            raise CheckpointError(
                f"a packed matrix claims {outputs} x {inputs} weights of {bits} bits in groups of {group}", code="bad_packed"
            )
        if data.size != (expected := packed_bytes(outputs, inputs, bits, group)):
            raise CheckpointError(f"a packed matrix has {data.size} bytes, expected {expected}", code="bad_packed")
        return cls(data, outputs, inputs, bits, group)

    @property
    def groups(self) -> int:
        return -(-self.inputs // self.group)

    @property
    def scales(self) -> NDArray[Any]:
        """(panels, groups or 1, 16), a view."""
        shape = _scales_shape(self.outputs, self.inputs, self.bits, self.group)
        kind = np.dtype(SCALES[self.bits])
        return self.data[ALIGN : ALIGN + int(np.prod(shape)) * kind.itemsize].view(kind).reshape(shape)

    @property
    def weights(self) -> NDArray[np.uint8]:
        """(panels, lines, 16, 4), a view."""
        panels, lines = _weights_shape(self.outputs, self.inputs, self.bits)
        return self.data[self.data.size - panels * lines * 4 * PANEL :].reshape(panels, lines, PANEL, 4)


def _group(bits: int, group: int | None) -> int | None:
    """The group if it is one for so many bits, else None."""
    if bits == 8:
        return ACTIVATION_GROUP if group is None else group if group in (*GROUPS, ACTIVATION_GROUP) else None
    return group if group in GROUPS else None


def _checked(bits: int, group: int | None) -> int:
    if bits not in OFFSET:
        raise UsageError(f"weights have 8 or 4 bits, not {bits}")
    found = _group(bits, group)
    if found is None:
        raise UsageError(f"groups of {group} inputs do not go with {bits} bits", hint="32, 64 or 128; with 8 bits also 256, or none")
    return found


def _scales_shape(outputs: int, inputs: int, bits: int, group: int) -> tuple[int, int, int]:
    return -(-outputs // PANEL), -(-inputs // group) if bits == 4 else 1, PANEL


def _weights_shape(outputs: int, inputs: int, bits: int) -> tuple[int, int]:
    """Panels, and lines of 64 bytes in each."""
    return -(-outputs // PANEL), -(-inputs // UNIT) * bits // 4


def _weights_start(outputs: int, inputs: int, bits: int, group: int) -> int:
    size = int(np.prod(_scales_shape(outputs, inputs, bits, group))) * np.dtype(SCALES[bits]).itemsize
    return ALIGN + -(-size // ALIGN) * ALIGN


def packed_bytes(outputs: int, inputs: int, bits: int, group: int | None = None) -> int:
    """Length of a packed matrix, header included. Raises `UsageError` for bits and groups that do not go together."""
    panels, lines = _weights_shape(outputs, inputs, bits)
    return _weights_start(outputs, inputs, bits, _checked(bits, group)) + panels * lines * 4 * PANEL


def quantize(matrix: Floats, bits: Bits, group: int | None = None) -> tuple[NDArray[np.int8], NDArray[Any]]:
    """float32 (outputs, inputs) -> int8 values of that shape, and scales: float32 (outputs,), or with 4 bits float16 (outputs, groups).

    Rounded to nearest. 8 bits: the largest magnitude of an output becomes 127, no weight moves by more than half a scale. 4 bits: see
    `scales_of`. Raises `CheckpointError` for values that are no numbers or too large.
    """
    size = _checked(bits, group) if bits == 4 else matrix.shape[1]
    if not np.isfinite(matrix).all():
        raise CheckpointError("a matrix has values that are no numbers", code="bad_values")
    blocks = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % size))).reshape(matrix.shape[0], -1, size)
    scales = scales_of(blocks, bits)
    values = to_values(blocks, scales[:, :, None], bits).reshape(matrix.shape[0], -1)[:, : matrix.shape[1]]
    return np.ascontiguousarray(values), scales[:, 0] if bits == 8 else scales


def scales_of(blocks: Floats, bits: Bits, importance: Floats | None = None) -> NDArray[Any]:
    """Weights (..., n) that share a scale -> scales (...).

    With 4 bits, of the scales under which the largest magnitude becomes 7, or is cut off by up to a third (`SHRINKS`), that with the least
    squared error; `importance`, of the shape of a block or (n,), weighs the squares. Raises `CheckpointError` for weights too large.
    """
    with np.errstate(over="ignore"):
        widest = (np.abs(blocks).max(axis=-1) / LARGEST[bits]).astype(SCALES[bits])
    if not np.isfinite(widest).all():
        raise CheckpointError(f"a matrix has values of {np.abs(blocks).max():g}, too large for 4 bits", code="bad_values")
    if bits == 8:
        return widest
    best, least = widest, np.full(widest.shape, np.inf, np.float32)
    for shrink in SHRINKS:
        scales = (widest * np.float32(shrink)).astype(np.float16)
        steps = scales.astype(np.float32)[..., None]
        errors = np.square(blocks - to_values(blocks, steps, bits) * steps)
        error = (errors if importance is None else errors * importance).sum(axis=-1)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return best


def to_values(x: NDArray[Any], steps: NDArray[Any], bits: Bits) -> NDArray[np.int8]:
    """Numbers -> the nearest whole numbers of steps, cut off at what so many bits hold; 0 where a step is 0."""
    steps = steps.astype(x.dtype)
    whole = np.rint(np.divide(x, steps, out=np.zeros_like(x), where=steps != 0))
    return np.clip(whole, SMALLEST[bits], LARGEST[bits]).astype(np.int8)


def dequantize(values: NDArray[np.int8], scales: NDArray[Any], group: int) -> Floats:
    """Values (n, inputs) and scales (n,) or (n, groups) -> float32 (n, inputs)."""
    if scales.ndim == 1:
        return values * scales.astype(np.float32)[:, None]
    return values * np.repeat(scales.astype(np.float32), group, axis=1)[:, : values.shape[1]]


def pack(
    values: NDArray[np.int8], scales: NDArray[Any], bits: Bits, group: int | None = None, *, out: NDArray[np.uint8] | None = None
) -> Packed:
    """What `quantize` returns -> a packed matrix, in `out` (say, part of a mapped file) if given. Takes little memory besides.

    values: int8 (outputs, inputs) in [-127, 127] or [-8, 7]; scales: as `quantize` makes them. Raises `UsageError` for anything else.
    """
    group = _checked(bits, group)
    outputs, inputs = values.shape
    expected = (outputs,) if bits == 8 else (outputs, -(-inputs // group))
    if values.dtype != np.int8 or scales.dtype != SCALES[bits] or scales.shape != expected:
        wanted = f"int8 values and {SCALES[bits].__name__} scales of shape {expected}"
        raise UsageError(f"{bits}-bit weights take {wanted}, got {values.dtype} and {scales.dtype} of shape {scales.shape}")
    size = packed_bytes(outputs, inputs, bits, group)
    data = aligned(size) if out is None else out
    if data.shape != (size,):
        raise UsageError(f"the matrix takes {size} bytes, `out` has shape {data.shape}")
    data[: _weights_start(outputs, inputs, bits, group)] = 0
    data[: HEADER.size] = np.frombuffer(HEADER.pack(MAGIC, VERSION, bits, group, outputs, inputs), np.uint8)
    packed = Packed.from_bytes(data)
    by_output = packed.scales.transpose(0, 2, 1)
    padded = np.zeros(by_output.shape, by_output.dtype).reshape(-1, by_output.shape[2])
    padded[:outputs] = scales.reshape(outputs, -1)
    packed.scales[:] = padded.reshape(by_output.shape).transpose(0, 2, 1)
    for first, last in _pieces(outputs, inputs):
        piece = values[first:last]
        if piece.size and (piece.min() < SMALLEST[bits] or piece.max() > LARGEST[bits]):
            raise UsageError(f"{bits}-bit weights lie in [{SMALLEST[bits]}, {LARGEST[bits]}], got [{piece.min()}, {piece.max()}]")
        piece = np.pad(piece, ((0, -len(piece) % PANEL), (0, -inputs % UNIT))).view(np.uint8) + np.uint8(OFFSET[bits])
        fours = piece.reshape(-1, PANEL, piece.shape[1] // 4, 4).transpose(0, 2, 1, 3)
        lines = packed.weights[first // PANEL : -(-last // PANEL)]
        lines[:] = fours if bits == 8 else fours[:, 0::2] | fours[:, 1::2] << 4
    return packed


def aligned(size: int) -> NDArray[np.uint8]:
    """Memory, not filled, at an address that 64 divides."""
    memory = np.empty(size + ALIGN, np.uint8)
    return memory[(start := -memory.ctypes.data % ALIGN) : start + size]


def _pieces(outputs: int, inputs: int) -> Iterator[tuple[int, int]]:
    """Ranges of outputs, whole panels of about 4 million weights."""
    step = max(1, 2**22 // (inputs * PANEL)) * PANEL
    return ((first, min(first + step, outputs)) for first in range(0, outputs, step))


def ids_of(outputs: int, rows: Rows) -> NDArray[np.int64]:
    """Outputs by number. Raises `UsageError` for one that the matrix, of so many, does not have."""
    ranges = [] if isinstance(rows, np.ndarray) else [np.arange(r.start, r.stop, r.step) for r in rows if isinstance(r, range)]
    ids = np.concatenate(ranges).astype(np.int64) if ranges else np.asarray(rows, np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= outputs):
        raise UsageError(f"the matrix has rows 0 to {outputs - 1}, row {ids.min() if ids.min() < 0 else ids.max()} was asked for")
    return ids


def unpack(packed: Packed, rows: Rows | None = None) -> tuple[NDArray[np.int8], NDArray[Any]]:
    """The values and scales that were packed, of all outputs or of some."""
    ids = np.arange(packed.outputs) if rows is None else ids_of(packed.outputs, rows)
    panels, places = ids // PANEL, ids % PANEL
    lines = packed.weights[panels, :, places]  # (n, lines, 4)
    if packed.bits == 4:
        lines = np.stack([lines & 15, lines >> 4], axis=2)
    values = (lines.reshape(len(ids), -(-packed.inputs // UNIT) * UNIT)[:, : packed.inputs] - np.uint8(OFFSET[packed.bits])).view(np.int8)
    scales = packed.scales[panels, :, places]
    return values, scales[:, 0] if packed.bits == 8 else scales


def embed(packed: Packed, rows: Rows) -> Floats:
    """Rows of the matrix as numbers, float32 (len, inputs): the embeddings of tokens. Raises `UsageError` for a row that is not there."""
    values, scales = unpack(packed, rows)
    return dequantize(values, scales, packed.group)
