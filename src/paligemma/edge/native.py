"""The compiled kernels: finds the library, checks arguments, calls C++. What they compute is written in `plain.py`.

    kernels = native.Kernels(threads=2) if native.available() else plain        # the same functions either way

One object may serve several Python threads; their calls run one after the other (with one thread each: side by side). While a kernel runs,
other Python threads do too.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ..config import TextConfig
from ..errors import ResourceError, UsageError, did_you_mean
from .packing import PANEL, Floats, Packed, Rows, ids_of

INTERFACE = 2
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


MATRICES = {"q": "attn.q", "kv": "attn.kv", "o": "attn.o", "gate": "mlp.gate", "up": "mlp.up", "down": "mlp.down"}
NORMS = {"pre_attn": "pre_attn_norm", "post_attn": "post_attn_norm", "pre_mlp": "pre_mlp_norm", "post_mlp": "post_mlp_norm"}
"""Of a block: kernels.h's names, and those that a pack has for them."""


class _Block(ctypes.Structure):
    """`Block` of kernels.h."""

    _fields_ = tuple((name, _AT) for name in (*MATRICES, *NORMS))


class _Shape(ctypes.Structure):
    """`Shape` of kernels.h."""

    _fields_ = (
        *((name, _LONG) for name in ("width", "mlp_dim", "heads", "kv_heads", "size", "capacity")),
        *((name, _FLOAT) for name in ("eps", "scale", "softcap")),
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
        ("step", ctypes.CFUNCTYPE(_INT, _AT, _LONG, _AT, *[_AT] * 5, _LONG, _AT, _INT)),
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


def _check_lengths(lengths: NDArray[np.int64], batch: int, capacity: int) -> None:
    _check("lengths", lengths, (batch,), (_INT64,))
    if batch and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise UsageError(f"lengths must be 1 to {capacity}, got {lengths.min()} to {lengths.max()}")


def _alike(gate: Packed, up: Packed) -> None:
    kinds = [(matrix.outputs, matrix.inputs, matrix.bits, matrix.group) for matrix in (gate, up)]
    if kinds[0] != kinds[1]:
        raise UsageError(f"gate and up must be alike (outputs, inputs, bits, group), got {kinds[0]} and {kinds[1]}")


_matrices: WeakKeyDictionary[Packed, _Matrix] = WeakKeyDictionary()


def _matrix(packed: Packed) -> int:
    matrix = _matrices.get(packed)
    if matrix is None:
        weights, scales = _address(packed.weights), _address(packed.scales)
        matrix = _Matrix(weights, scales, packed.outputs, packed.inputs, packed.bits, packed.group)
        matrix = _matrices.setdefault(packed, matrix)  # another thread may have been here meanwhile
    return ctypes.addressof(matrix)


def default_threads() -> int:
    """OMP_NUM_THREADS, which PyTorch's and numpy's products obey too, else one for each core that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list is for threads that start threads
    if given.isascii() and given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Kernels:
    """The functions of `plain.py`, compiled. `threads`: by default those of `default_threads`. `isa`: one of `instruction_sets()`, by
    default the best. Results do not depend on the number of threads.

    Raises `ResourceError` without the library, `UsageError` for threads and sets that there are not; the methods raise `UsageError` for
    arrays of another type, shape or order, and `MemoryError`.
    """

    def __init__(self, threads: int | None = None, isa: str | None = None):
        if (why := problem()) is not None:
            raise ResourceError(why, hint="install a C++ compiler (GCC or Clang) and the package again", code="no_kernels")
        if isa is not None and isa not in _tables():
            sets = instruction_sets()
            raise UsageError(f"no instruction set here is called {isa!r}", hint=did_you_mean(isa, sets, "there are: " + ", ".join(sets)))
        self.threads = min(default_threads(), MOST_THREADS) if threads is None else threads
        if not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads must be 1 to {MOST_THREADS}, got {threads}")
        self.isa = isa or instruction_sets()[0]
        table = _tables()[self.isa]
        self._call = {field[0]: getattr(table, field[0]) for field in _Table._fields_[1:]}

    def run(self, name: str, *arguments: Any) -> None:
        if self._call[name](*arguments, self.threads):
            raise MemoryError(f"not enough memory for {name}")

    def linear(self, packed: Packed, x: Floats, bias: Floats | None = None, *, gelu: bool = False) -> Floats:
        _check("x", x, (*x.shape[:1], packed.inputs))
        if bias is not None:
            _check("bias", bias, (packed.outputs,))
        out = np.empty((len(x), packed.outputs), np.float32)
        at_bias = None if bias is None else _address(bias)
        self.run("linear", _matrix(packed), None, None, 0, _address(x), len(x), at_bias, gelu, _address(out))
        return out

    def gated(self, gate: Packed, up: Packed, x: Floats) -> Floats:
        _check("x", x, (*x.shape[:1], gate.inputs))
        _alike(gate, up)
        out = np.empty((len(x), gate.outputs), np.float32)
        self.run("linear", _matrix(gate), _matrix(up), None, 0, _address(x), len(x), None, 0, _address(out))
        return out

    def linear_rows(self, packed: Packed, x: Floats, rows: Rows) -> Floats:
        _check("x", x, (*x.shape[:1], packed.inputs))
        ids = ids_of(packed.outputs, rows)
        panels, places = np.unique(ids // PANEL, return_inverse=True)  # a panel is read whole
        panels = panels.astype(np.int32)
        out = np.empty((len(x), PANEL * len(panels)), np.float32)
        if ids.size:
            self.run("linear", _matrix(packed), None, _address(panels), len(panels), _address(x), len(x), None, 0, _address(out))
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
        capacity, kv_heads = keys.shape[1:3]
        if not size or not kv_heads or heads % kv_heads:
            raise UsageError(f"{kv_heads} key/value heads cannot serve {heads} query heads of size {size}")
        _check_lengths(lengths, batch, capacity)
        out = np.empty_like(q)
        arrays = _address(q), _address(keys), _address(values), keys.dtype == _UINT16, _address(lengths)
        sizes = batch, queries, heads, kv_heads, size, capacity
        self.run("attention", *arrays, *sizes, scale, softcap or 0, _address(out))
        return out

    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        _check("x", x, 2)
        _check("weight", weight, x.shape[1:])
        out = np.empty_like(x)
        self.run("rms_norm", _address(x), _address(weight), eps, *x.shape, _address(out))
        return out

    def layer_norm(self, x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
        _check("x", x, 2)
        _check("weight", weight, x.shape[1:])
        _check("bias", bias, x.shape[1:])
        out = np.empty_like(x)
        self.run("layer_norm", _address(x), _address(weight), _address(bias), eps, *x.shape, _address(out))
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
        self.run("rotate", _address(x), x.strides[0] // 4, _address(cos), _address(sin), rows, heads, size, _address(out))
        return out

    def stack(self, blocks: Sequence[Mapping[str, Packed | Floats]], config: TextConfig) -> Stack:
        """The blocks of a decoder, whose norms and packed matrices have the names of a pack."""
        return Stack(self, blocks, config)

    def gelu(self, x: Floats) -> Floats:
        _check("x", x, x.shape)
        out = np.empty_like(x)
        self.run("gelu", _address(x), x.size, _address(out))
        return out

    def soft_cap(self, x: Floats, cap: float) -> Floats:
        _check("x", x, x.shape)
        out = np.empty_like(x)
        self.run("soft_cap", _address(x), cap, x.size, _address(out))
        return out

    def log_sum_exp(self, x: Floats) -> Floats:
        _check("x", x, 2)
        if not x.shape[1]:
            raise UsageError("x must have a column at least")
        out = np.empty(len(x), np.float32)
        self.run("log_sum_exp", _address(x), *x.shape, _address(out))
        return out

    def to_bfloat16(self, x: Floats) -> NDArray[np.uint16]:
        _check("x", x, x.shape)
        out = np.empty(x.shape, np.uint16)
        self.run("to_bfloat16", _address(x), x.size, _address(out))
        return out

    def peak(self, rounds: int) -> float:
        """Multiplies 8-bit numbers in registers for so many rounds on all threads; returns the operations done, for a clock to divide."""
        return self._call["peak"](rounds, self.threads)

    def read(self, data: NDArray[np.int64]) -> int:
        """The sum of data's numbers, modulo 2^64: reading memory, for a clock."""
        _check("data", data, 1, (_INT64,))
        return self._call["read"](_address(data), data.size, self.threads)


class Stack:
    """A decoder's blocks, for one token more at a time: `Decoder.extend` in one call instead of a dozen a block."""

    def __init__(self, kernels: Kernels, blocks: Sequence[Mapping[str, Packed | Floats]], config: TextConfig):
        self.kernels, self.config = kernels, config
        self._kept = blocks  # the addresses below are theirs
        self._blocks = (_Block * len(blocks))(*(_Block(**self._addresses(block)) for block in blocks))

    def _addresses(self, block: Mapping[str, Packed | Floats]) -> dict[str, int]:
        c = self.config
        wide, narrow = c.heads * c.head_dim, c.kv_heads * c.head_dim
        shapes = {"q": (wide, c.width), "kv": (2 * narrow, c.width), "o": (c.width, wide), "down": (c.width, c.mlp_dim)}
        matrices = {name: cast(Packed, block[called]) for name, called in MATRICES.items()}
        for name, packed in matrices.items():
            if (packed.outputs, packed.inputs) != (shape := shapes.get(name, (c.mlp_dim, c.width))):
                raise UsageError(f"{MATRICES[name]} must be {shape}, got {(packed.outputs, packed.inputs)}")
        _alike(matrices["gate"], matrices["up"])
        found = {name: _matrix(packed) for name, packed in matrices.items()}
        for name, called in NORMS.items():
            if (weight := block.get(called)) is not None:
                assert not isinstance(weight, Packed)
                _check(called, weight, (c.width,))
                found[name] = _address(weight)
        return found

    def step(self, x: Floats, cos: Floats, sin: Floats, keys: NDArray[np.uint16], values: NDArray[np.uint16], lengths: NDArray[np.int64]):
        """x (B, D) becomes what the last block makes of it; keys and values (depth, B, S, K, H) get row b's at place `lengths[b]` - 1."""
        c, batch = self.config, len(x)
        _check("x", x, (batch, c.width))
        _check("cos", cos, (batch, c.head_dim // 2))
        _check("sin", sin, cos.shape)
        _check("keys", keys, (len(self._blocks), batch, *keys.shape[2:3], c.kv_heads, c.head_dim), (_UINT16,))
        _check("values", values, keys.shape, (_UINT16,))
        _check_lengths(lengths, batch, keys.shape[2])
        shape = _Shape(c.width, c.mlp_dim, c.heads, c.kv_heads, c.head_dim, keys.shape[2], c.norm_eps, c.scale, c.attn_softcap or 0)
        arrays = [_address(array) for array in (cos, sin, keys, values, lengths)]
        self.kernels.run("step", self._blocks, len(self._blocks), ctypes.addressof(shape), *arrays, batch, _address(x))
