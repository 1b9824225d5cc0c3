"""The compiled kernels: finds the library, checks arguments, calls C++. What they compute is written in `plain.py`.

    kernels = native.Kernels(threads=2) if native.available() else plain        # the same functions either way

One object may serve several Python threads; their calls run one after the other (with one thread each: side by side). While a kernel runs,
other Python threads do too.
"""

from __future__ import annotations

import ctypes
import functools
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..errors import ResourceError, UsageError, did_you_mean
from .packing import PANEL, Floats, Packed, Rows, ids_of

INTERFACE = 1
"""Version of what the library offers; the layout of weights has one of its own, which packs carry."""
MOST_THREADS = 64

_FLOAT32, _UINT16, _INT64 = np.dtype(np.float32), np.dtype(np.uint16), np.dtype(np.int64)
_INT, _LONG, _FLOAT, _AT = ctypes.c_int, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


class _Matrix(ctypes.Structure):
    """`Matrix` of kernels.h."""

    _fields_ = (
        ("weights", _AT),
        ("scales", _AT),
        ("outputs", _LONG),
        ("inputs", _LONG),
        ("bits", ctypes.c_int32),
        ("group", ctypes.c_int32),
    )


class _Table(ctypes.Structure):
    """`Kernels` of kernels.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("linear", ctypes.CFUNCTYPE(_INT, _AT, _AT, _AT, _LONG, _AT, _LONG, _AT, _INT, _AT, _INT)),
        ("attention", ctypes.CFUNCTYPE(_INT, _AT, _AT, _AT, _INT, _AT, *[_LONG] * 6, _FLOAT, _FLOAT, _AT, _INT)),
        ("rms_norm", ctypes.CFUNCTYPE(_INT, _AT, _AT, _FLOAT, _LONG, _LONG, _AT, _INT)),
        ("layer_norm", ctypes.CFUNCTYPE(_INT, _AT, _AT, _AT, _FLOAT, _LONG, _LONG, _AT, _INT)),
        ("rotate", ctypes.CFUNCTYPE(_INT, _AT, _LONG, _AT, _AT, _LONG, _LONG, _LONG, _AT, _INT)),
        ("gelu", ctypes.CFUNCTYPE(_INT, _AT, _LONG, _AT, _INT)),
        ("soft_cap", ctypes.CFUNCTYPE(_INT, _AT, _FLOAT, _LONG, _AT, _INT)),
        ("log_sum_exp", ctypes.CFUNCTYPE(_INT, _AT, _LONG, _LONG, _AT, _INT)),
        ("to_bfloat16", ctypes.CFUNCTYPE(_INT, _AT, _LONG, _AT, _INT)),
        ("peak", ctypes.CFUNCTYPE(ctypes.c_double, _LONG, _INT)),
        ("read", ctypes.CFUNCTYPE(_LONG, _AT, _LONG, _INT)),
    )


@functools.cache
def problem() -> str | None:
    """Why the compiled kernels cannot be used; None where they can."""
    found = _library()
    return found if isinstance(found, str) else None


def available() -> bool:
    return problem() is None


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """Those that this processor and the library have, the best first; empty without the library."""
    return tuple(_tables())


@functools.cache
def _library() -> ctypes.CDLL | str:
    here = Path(__file__).parent
    path = next((path for suffix in EXTENSION_SUFFIXES if (path := here / f"_kernels{suffix}").exists()), None)
    if path is None:
        return "the kernels were not compiled when the package was installed"
    try:
        library = ctypes.CDLL(str(path))
        version = library.edge_version()
    except (OSError, AttributeError) as error:
        return f"{path} cannot be used: {error}"
    return library if version == INTERFACE else f"{path} has version {version}, expected {INTERFACE}"


@functools.cache
def _tables() -> dict[str, _Table]:
    library = _library()
    if isinstance(library, str):
        return {}
    library.edge_kernels.restype = ctypes.POINTER(_Table)
    found: dict[str, _Table] = {}
    while table := library.edge_kernels(len(found)):
        found[table.contents.name.decode()] = table.contents
    return found


def _address(array: NDArray[Any]) -> int:
    return array.__array_interface__["data"][0]


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...] | int, kinds: tuple[np.dtype[Any], ...] = (_FLOAT32,)) -> None:
    """shape: of the array, or how many axes it has."""
    if array.dtype not in kinds:
        raise UsageError(f"{name} must be {' or '.join(kind.name for kind in kinds)}, got {array.dtype}")
    if array.shape != shape and array.ndim != shape:
        wanted = f"{shape} axes" if isinstance(shape, int) else f"the shape {shape}"
        raise UsageError(f"{name} must have {wanted}, got the shape {array.shape}")
    if not array.flags.c_contiguous:
        raise UsageError(f"{name} must be contiguous", hint="np.ascontiguousarray copies it into order")


_matrices: WeakKeyDictionary[Packed, _Matrix] = WeakKeyDictionary()


def _matrix(packed: Packed) -> int:
    matrix = _matrices.get(packed)
    if matrix is None:
        weights, scales = _address(packed.weights), _address(packed.scales)
        matrix = _Matrix(weights, scales, packed.outputs, packed.inputs, packed.bits, packed.group)
        matrix = _matrices.setdefault(packed, matrix)  # another thread may have been here meanwhile
    return ctypes.addressof(matrix)


class Kernels:
    """The functions of `plain.py`, compiled. `threads`: by default one for each core that this process may use. `isa`: one of
    `instruction_sets()`, by default the best. Results do not depend on the number of threads.

    Raises `ResourceError` without the library, `UsageError` for threads and sets that there are not; the methods raise `UsageError` for
    arrays of another type, shape or order, and `MemoryError`.
    """

    def __init__(self, threads: int | None = None, isa: str | None = None):
        if (why := problem()) is not None:
            raise ResourceError(why, hint="install a C++ compiler (GCC or Clang) and the package again", code="no_kernels")
        if isa is not None and isa not in _tables():
            sets = instruction_sets()
            raise UsageError(f"no instruction set here is called {isa!r}", hint=did_you_mean(isa, sets, "there are: " + ", ".join(sets)))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = min(cores, MOST_THREADS) if threads is None else threads
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads must be 1 to {MOST_THREADS}, got {threads}")
        self.isa = isa or instruction_sets()[0]
        table = _tables()[self.isa]
        self._call = {field[0]: getattr(table, field[0]) for field in _Table._fields_[1:]}

    def _run(self, name: str, *arguments: Any) -> None:
        if self._call[name](*arguments, self.threads):
            raise MemoryError(f"not enough memory for {name}")

    def linear(self, packed: Packed, x: Floats, bias: Floats | None = None, *, gelu: bool = False) -> Floats:
        _check("x", x, (*x.shape[:1], packed.inputs))
        if bias is not None:
            _check("bias", bias, (packed.outputs,))
        out = np.empty((len(x), packed.outputs), np.float32)
        at_bias = None if bias is None else _address(bias)
        self._run("linear", _matrix(packed), None, None, 0, _address(x), len(x), at_bias, gelu, _address(out))
        return out

    def gated(self, gate: Packed, up: Packed, x: Floats) -> Floats:
        _check("x", x, (*x.shape[:1], gate.inputs))
        kinds = [(matrix.outputs, matrix.inputs, matrix.bits, matrix.group) for matrix in (gate, up)]
        if kinds[0] != kinds[1]:
            raise UsageError(f"gate and up must be alike (outputs, inputs, bits, group), got {kinds[0]} and {kinds[1]}")
        out = np.empty((len(x), gate.outputs), np.float32)
        self._run("linear", _matrix(gate), _matrix(up), None, 0, _address(x), len(x), None, 0, _address(out))
        return out

    def linear_rows(self, packed: Packed, x: Floats, rows: Rows) -> Floats:
        _check("x", x, (*x.shape[:1], packed.inputs))
        ids = ids_of(packed.outputs, rows)
        panels, places = np.unique(ids // PANEL, return_inverse=True)  # a panel is read whole
        panels = panels.astype(np.int32)
        out = np.empty((len(x), PANEL * len(panels)), np.float32)
        if ids.size:
            self._run("linear", _matrix(packed), None, _address(panels), len(panels), _address(x), len(x), None, 0, _address(out))
        return out[:, places * PANEL + ids % PANEL]

    def attention(
        self,
        q: Floats,
        keys: NDArray[Any],
        values: NDArray[Any],
        lengths: NDArray[np.int64],
        *,
        scale: float,
        softcap: float | None = None,
    ) -> Floats:
        _check("q", q, 4)
        batch, queries, heads, size = q.shape
        _check("keys", keys, (batch, *keys.shape[1:3], size), (_FLOAT32, _UINT16))
        _check("values", values, keys.shape, (keys.dtype,))
        _check("lengths", lengths, (batch,), (_INT64,))
        capacity, kv_heads = keys.shape[1:3]
        if not size or not kv_heads or heads % kv_heads:
            raise UsageError(f"{kv_heads} key/value heads cannot serve {heads} query heads of size {size}")
        if batch and not 1 <= lengths.min() <= lengths.max() <= capacity:
            raise UsageError(f"lengths must be 1 to {capacity}, got {lengths.min()} to {lengths.max()}")
        out = np.empty_like(q)
        arrays = _address(q), _address(keys), _address(values), keys.dtype == _UINT16, _address(lengths)
        sizes = batch, queries, heads, kv_heads, size, capacity
        self._run("attention", *arrays, *sizes, scale, softcap or 0, _address(out))
        return out

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        _check("x", x, 2)
        _check("weight", weight, x.shape[1:])
        out = np.empty_like(x)
        self._run("rms_norm", _address(x), _address(weight), eps, *x.shape, _address(out))
        return out

    def layer_norm(self, x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
        _check("x", x, 2)
        _check("weight", weight, x.shape[1:])
        _check("bias", bias, x.shape[1:])
        out = np.empty_like(x)
        self._run("layer_norm", _address(x), _address(weight), _address(bias), eps, *x.shape, _address(out))
        return out

    def rotate(self, x: Floats, cos: Floats, sin: Floats) -> Floats:
        """As `plain.rotate`; x may be a slice of wider rows, such as the queries in the product of queries, keys and values."""
        if x.ndim != 3 or x.shape[2] % 2 or x.dtype != np.float32:
            raise UsageError(f"x must be float32 (any, any, even), got {x.dtype} of shape {x.shape}")
        rows, heads, size = x.shape
        if x.strides[2] != 4 or (heads > 1 and x.strides[1] != 4 * size) or x.strides[0] % 4:
            raise UsageError("the heads of a row of x must be contiguous", hint="np.ascontiguousarray copies it into order")
        _check("cos", cos, (rows, size // 2))
        _check("sin", sin, (rows, size // 2))
        out = np.empty(x.shape, np.float32)
        self._run("rotate", _address(x), x.strides[0] // 4, _address(cos), _address(sin), rows, heads, size, _address(out))
        return out

    def gelu(self, x: Floats) -> Floats:
        _check("x", x, x.shape)
        out = np.empty_like(x)
        self._run("gelu", _address(x), x.size, _address(out))
        return out

    def soft_cap(self, x: Floats, cap: float) -> Floats:
        _check("x", x, x.shape)
        out = np.empty_like(x)
        self._run("soft_cap", _address(x), cap, x.size, _address(out))
        return out

    def log_sum_exp(self, x: Floats) -> Floats:
        _check("x", x, 2)
        if not x.shape[1]:
            raise UsageError("x must have a column at least")
        out = np.empty(len(x), np.float32)
        self._run("log_sum_exp", _address(x), *x.shape, _address(out))
        return out

    def to_bfloat16(self, x: Floats) -> NDArray[np.uint16]:
        _check("x", x, x.shape)
        out = np.empty(x.shape, np.uint16)
        self._run("to_bfloat16", _address(x), x.size, _address(out))
        return out

    def peak(self, rounds: int) -> float:
        """Multiplies 8-bit numbers in registers for so many rounds on all threads; returns the operations done, for a clock to divide."""
        return self._call["peak"](rounds, self.threads)

    def read(self, data: NDArray[np.int64]) -> int:
        """The sum of data's numbers, modulo 2^64: reading memory, for a clock."""
        _check("data", data, 1, (_INT64,))
        return self._call["read"](_address(data), data.size, self.threads)
