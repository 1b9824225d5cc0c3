"""What is about to be written: tensors under the names of a file format, each a stream of flat pieces, none held longer than needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..config import VOCAB_SIZE
from ..errors import CheckpointError
from .source import TensorSource, TensorSpec, chunks, common_dtype, dtype_name, torch_dtype
from .values import ValueCheck
from .weight_maps import HF_EMBEDDING, PADDED_VOCAB, Layout, Piece

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Outgoing:
    """`values()` gives flat tensors on the CPU which, one after the other, fill `spec`."""

    name: str
    spec: TensorSpec
    values: Callable[[], Iterator[Tensor]]


class ModelSource:
    """A module's state as a `TensorSource`."""

    def __init__(self, module: nn.Module):
        self._state = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(tuple(tensor.shape), dtype_name(tensor.dtype)) for name, tensor in self._state.items()
        }

    def read(self, name: str, start: int = 0, count: int | None = None) -> Tensor:
        tensor = self._state[name]
        return (tensor if count is None else tensor.reshape(-1)[start : start + count]).cpu()


class CheckedSource:
    """Looks at every value that is read. The caller raises with `check.finish()`."""

    def __init__(self, source: TensorSource, check: ValueCheck):
        self._source, self._check = source, check
        self.specs = source.specs

    def read(self, name: str, start: int = 0, count: int | None = None) -> Tensor:
        tensor = self._source.read(name, start, count)
        self._check.look(name, tensor)
        return tensor


def as_they_are(source: TensorSource) -> list[Outgoing]:
    """Every tensor under its own name and number type."""
    return [Outgoing(name, spec, lambda name=name: chunks(source, name)) for name, spec in source.specs.items()]


def laid_out(source: TensorSource, layout: Layout, dtype: str | None = None) -> list[Outgoing]:
    """Our tensors as a layout's, in its shapes. big_vision's stacks are filled layer by layer.

    `dtype`: of all of them; by default each has its own, and a stack of layers that differ the one that holds all of them.
    """
    entries = []
    for name, pieces in layout.members().items():
        kind = dtype or common_dtype(source.specs[piece.ours].dtype for piece in pieces)
        values = functools.partial(_filled, source, layout, pieces, kind)
        entries.append(Outgoing(name, TensorSpec(layout.shapes[name], kind), values))
    return entries


def padded_table(outgoing: list[Outgoing]) -> list[Outgoing]:
    """The published vocabulary's table with the 64 surplus rows that Hugging Face's files have; other tables stay as they are.

    Each surplus row is the mean of all rows. Its logit is then the mean logit, which never is the largest one and hardly moves the
    softmax; a row of zeros has logit 0, which wins whenever all real logits are negative.
    """
    return [_with_mean_rows(entry) if entry.name == HF_EMBEDDING and entry.spec.shape[0] == VOCAB_SIZE else entry for entry in outgoing]


def _filled(source: TensorSource, layout: Layout, pieces: list[Piece], dtype: str) -> Iterator[Tensor]:
    for piece in pieces:
        if piece.axes is None:
            parts = chunks(source, piece.ours)
        else:
            parts = iter([piece.axes.backward(source.read(piece.ours), layout.sizes).reshape(-1)])
        for part in parts:
            yield _cast(piece.ours, part, dtype)


def _cast(name: str, values: Tensor, dtype: str) -> Tensor:
    import torch

    wanted = torch_dtype(dtype)
    if values.dtype == wanted:
        return values.contiguous()
    cast = values.to(wanted)
    narrower = torch.finfo(wanted).max < torch.finfo(values.dtype).max
    if narrower and _finite(values) and not _finite(cast):
        raise CheckpointError(
            f"{name}: values up to {float(values.abs().max()):.3g} do not fit into {dtype}",
            hint="use bfloat16 or float32",
            code="bad_values",
        )
    return cast


def _finite(values: Tensor) -> bool:
    return all(bool(end.isfinite()) for end in values.aminmax())


def _with_mean_rows(entry: Outgoing) -> Outgoing:
    rows, width = entry.spec.shape

    def values() -> Iterator[Tensor]:
        import torch

        total = torch.zeros(width, dtype=torch.float64)
        filled = 0
        for part in entry.values():
            # A piece may begin and end inside a row; shifting it to a row's start makes columns line up.
            before, after = filled % width, -(filled + part.numel()) % width
            step = torch.nn.functional.pad(part.float(), (before, after)).view(-1, width)
            total += step.sum(0, dtype=torch.float32).double()
            filled += part.numel()
            yield part
        mean = (total / rows).to(torch_dtype(entry.spec.dtype))
        yield mean.repeat(PADDED_VOCAB - rows)

    return Outgoing(entry.name, TensorSpec((PADDED_VOCAB, width), entry.spec.dtype), values)
