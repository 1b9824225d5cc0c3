"""Matrices by what they do, whatever their numbers are: quantized for the kernels, or plain floats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from . import plain
from .pack_file import Arrays
from .packing import Floats, Packed, Rows, embed, ids_of

Kernels = Any
"""`native.Kernels`, or the module `plain`: the same functions."""


@dataclass(frozen=True)
class Quantized:
    """(outputs, inputs), weights of 8 or 4 bits; activations are rounded to 8 bits before each product.

    linear   x (M, inputs) -> (M, outputs), plus bias (outputs,), through gelu if asked
    rows     the same of some outputs only, in their order
    embed    rows of the matrix (len, inputs)
    """

    kernels: Kernels
    packed: Packed

    def linear(self, x: Floats, bias: Floats | None = None, *, gelu: bool = False) -> Floats:
        return self.kernels.linear(self.packed, x, bias, gelu=gelu)

    def rows(self, x: Floats, rows: Rows) -> Floats:
        return self.kernels.linear_rows(self.packed, x, rows)

    def embed(self, ids: NDArray[np.integer[Any]]) -> Floats:
        return embed(self.packed, ids)


@dataclass(frozen=True)
class Plain:
    """The same of float32 (outputs, inputs), or of the bits of bfloat16, which become float32 a piece at a time."""

    kernels: Kernels
    weights: NDArray[Any]

    def linear(self, x: Floats, bias: Floats | None = None, *, gelu: bool = False) -> Floats:
        return self._through(x, range(len(self.weights)), bias, gelu)

    def rows(self, x: Floats, rows: Rows) -> Floats:
        return x @ self.embed(ids_of(len(self.weights), rows)).T

    def embed(self, ids: NDArray[np.integer[Any]]) -> Floats:
        return _floats(self.weights[ids])

    def _through(self, x: Floats, outputs: range, bias: Floats | None, gelu: bool) -> Floats:
        step = max(1, plain.PIECE // self.weights.shape[1])
        out = np.concatenate([x @ _floats(self.weights[at : at + step]).T for at in range(0, len(outputs), step)], axis=1)
        if bias is not None:
            out += bias
        return self.kernels.gelu(out) if gelu else out


def _floats(weights: NDArray[Any]) -> Floats:
    return plain.from_bfloat16(weights) if weights.dtype == np.uint16 else weights


def matrix(arrays: Arrays, name: str, shape: tuple[int, int], kernels: Kernels) -> Quantized | Plain:
    """The matrix of that name. Raises `CheckpointError` where it has another shape."""
    entry = arrays.entry(name)
    if entry.shape != shape:
        raise CheckpointError(f"the pack's {name!r} is {entry.shape}, expected {shape}", code="bad_pack")
    if entry.kind == "packed":
        packed = Packed.from_bytes(arrays.raw(name))
        if (packed.outputs, packed.inputs) != shape:
            found = (packed.outputs, packed.inputs)
            raise CheckpointError(f"the pack's {name!r} holds a matrix of {found}, expected {shape}", code="bad_pack")
        return Quantized(kernels, packed)
    kind = np.uint16 if entry.kind == "bfloat16" else np.float32
    return Plain(kernels, arrays.raw(name).view(kind).reshape(shape))


def gated(kernels: Kernels, gate: Quantized | Plain, up: Quantized | Plain, x: Floats) -> Floats:
    """gelu(x gate) * (x up)."""
    if isinstance(gate, Quantized) and isinstance(up, Quantized):
        return kernels.gated(gate.packed, up.packed, x)
    return gate.linear(x, gelu=True) * up.linear(x)
