"""An adapter added to its base on the way from file to file: the base is never whole in memory, and every other tensor stays as it is.

weight + scale * B A      summed in float32, rounded once: what `model.lora.merge` does to a model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from .adapter_config import AdapterInfo
from .adapter_layout import Part, adaptable, read_parts
from .adapters import demand_base, fingerprint_of, is_norm
from .opening import Opened
from .source import TensorSource, TensorSpec, torch_dtype

if TYPE_CHECKING:
    from torch import Tensor


class Merged:
    """A checkpoint's tensors under our names, with an adapter added to those it is for.

    kind: the type of the sums, by default that of the base's tensor.
    """

    def __init__(self, base: TensorSource, parts: Mapping[str, Part], *, rslora: bool, kind: str | None = None):
        self._base, self._rslora = base, rslora
        self._parts = {f"{where}.weight": part for where, part in parts.items()}
        self.specs: dict[str, TensorSpec] = dict(base.specs)
        for name in self._parts:
            self.specs[name] = replace(base.specs[name], dtype=kind or base.specs[name].dtype)

    def read(self, name: str, start: int = 0, count: int | None = None) -> Tensor:
        values = self._base.read(name, start, count)
        part = self._parts.get(name)
        if part is None:
            return values
        width = self.specs[name].shape[1]
        stop = start + values.numel()
        rows = slice(start // width, -(-stop // width))  # of which these values are a part
        added = part.scale(self._rslora) * (part.b[rows].float() @ part.a.float())
        first = start - rows.start * width
        added = added.reshape(-1)[first : first + values.numel()].view(values.shape)
        return values.float().add(added).to(torch_dtype(self.specs[name].dtype))


def merged(opened: Opened, info: AdapterInfo, dtype: str | None) -> tuple[Merged, int]:
    """A base that was opened, with an adapter added, and to how many layers.

    dtype: where all tensors are to be of another type, sums are rounded to that one only. Raises `CheckpointError` where the adapter does
    not fit, or was trained on other weights.
    """
    weights = opened.weights()
    parts = read_parts(info, opened.config, adaptable(opened.config))
    demand_base(info, fingerprint_of({name: weights.read(name) for name in weights.specs if is_norm(name)}), depth=5)
    return Merged(weights, parts, rslora=info.rslora, kind=None if dtype is None else "float32"), len(parts)
