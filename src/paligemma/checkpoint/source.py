"""What the parts of this folder hand each other: named tensors that can be described without being read.

A `TensorSource` is a file, a folder of shards, a live model, or one of these under other names. Describing costs a header; reading
costs the tensor asked for. What lies in files is an `ArraySource`: it is read as arrays of numpy, and tensors are made of those. Nothing
here imports torch before a tensor is asked for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..bfloat16 import from_bfloat16
from ..errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ITEM_SIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
"""The number types of weights, and their bytes."""
ARRAY_TYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}
"""The same in numpy, which has no bfloat16: its bits stand for it."""
Array = NDArray[Any]

CHUNK_BYTES = 64 << 20
"""A tensor that needs no rearranging is copied in pieces of this size."""

MAX_TENSORS = 20_000
MAX_NAME = 512
MAX_RANK = 8
SHOWN = 20
"""Problems listed in one message; the rest are counted."""


@dataclass(frozen=True)
class TensorSpec:
    """Shape and number type (a key of `ITEM_SIZE`)."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * ITEM_SIZE[self.dtype]


class TensorSource(Protocol):
    """Named tensors. `read` raises `CheckpointError` when the file has changed or ends early."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]: ...

    def read(self, name: str, start: int = 0, count: int | None = None) -> Tensor:
        """`count` values from `start` on, counted in row-major order, as a flat tensor; by default all of them, in shape."""
        ...


class ArraySource(ABC):
    """A `TensorSource` whose numbers can be had without torch."""

    specs: Mapping[str, TensorSpec]

    @abstractmethod
    def array(self, name: str, start: int = 0, count: int | None = None) -> Array:
        """As `read`, which see: an array of the tensor's `ARRAY_TYPES`."""

    def floats(self, name: str, start: int = 0, count: int | None = None) -> NDArray[np.float32]:
        """As `array`, in float32, which holds the values of all types exactly."""
        values = self.array(name, start, count)
        return from_bfloat16(values) if self.specs[name].dtype == "bfloat16" else values.astype(np.float32, copy=False)

    def read(self, name: str, start: int = 0, count: int | None = None) -> Tensor:
        return as_tensor(self.array(name, start, count), self.specs[name].dtype)


def as_tensor(values: Array, dtype: str) -> Tensor:
    """An array of `ARRAY_TYPES[dtype]` as a tensor in the same memory."""
    import torch

    return torch.from_numpy(values).view(torch_dtype(dtype))


def byte_view(flat: Tensor) -> memoryview:
    """The memory of a flat, contiguous tensor on the CPU."""
    import torch

    return memoryview(cast(Any, flat.view(torch.uint8).numpy()))


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of that name in `ITEM_SIZE`."""
    import torch

    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[name]


def dtype_name(dtype: torch.dtype | str) -> str:
    """A key of `ITEM_SIZE` for a torch type or one of its usual names; others raise `UsageError`."""
    name = str(dtype).removeprefix("torch.")
    name = {"bf16": "bfloat16", "f16": "float16", "fp16": "float16", "f32": "float32", "fp32": "float32"}.get(name, name)
    if name not in ITEM_SIZE:
        raise UsageError(f"{name!r} is no number type of weights", hint="use one of " + ", ".join(ITEM_SIZE))
    return name


def main_dtype(specs: Mapping[str, TensorSpec]) -> str:
    """The type that holds most of the values."""
    held = dict.fromkeys(ITEM_SIZE, 0)
    for spec in specs.values():
        held[spec.dtype] += spec.numel
    return max(held, key=held.__getitem__)


def common_dtype(kinds: Iterable[str]) -> str:
    """The narrowest type that holds the values of all these types without loss."""
    different = set(kinds)
    # float16 has the finer steps, bfloat16 the wider range: neither holds the other.
    return different.pop() if len(different) == 1 else "float32"


def chunks(source: TensorSource, name: str) -> Iterator[Tensor]:
    """The values of one tensor in row-major order, as flat tensors of at most `CHUNK_BYTES`."""
    spec = source.specs[name]
    step = max(1, CHUNK_BYTES // ITEM_SIZE[spec.dtype])
    for start in range(0, spec.numel, step):
        yield source.read(name, start, min(step, spec.numel - start))


def name_problem(name: str) -> str | None:
    """Why a tensor may not be called that, or None. Names reach messages and, in archives, look like paths."""
    if not name or len(name) > MAX_NAME:
        return f"a tensor name of {len(name)} characters (1 to {MAX_NAME} are allowed)"
    if not name.isprintable() or not name.isascii():
        return f"a tensor name with control or non-ASCII characters: {name[:60]!a}"
    if ".." in name or "\\" in name or name.startswith("/"):
        return f"a tensor name that looks like a path: {name[:60]!a}"
    return None


def refuse(where: object, problems: Sequence[str], *, summary: str | None = None, hint: str | None = None, code: str | None = None) -> None:
    """Raise one `CheckpointError` that lists every problem (the first `SHOWN`), or do nothing when there is none."""
    if not problems:
        return
    lines = [f"{where}: {summary}" if summary else f"{where}:", *(f"  {problem}" for problem in problems[:SHOWN])]
    if len(problems) > SHOWN:
        lines.append(f"  and {len(problems) - SHOWN} more")
    message = f"{where}: {problems[0]}" if len(problems) == 1 and not summary else "\n".join(lines)
    raise CheckpointError(message, hint=hint, code=code)
