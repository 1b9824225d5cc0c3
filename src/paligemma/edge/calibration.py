"""What a decoder's matrices see while it answers: moments of their inputs, for rounding that looks at data (`gptq.py`).

with observed(network) as moments:      network: a pack with float32 or bfloat16 numbers
    ...                                 whatever is asked of it in here is seen: pictures, prompts, answers
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .layers import Plain, Quantized
from .network import EdgeNetwork
from .packing import Floats, Rows

BLOCK = 2048
"""Inputs whose products with each other are kept; those further apart are seen as independent. A multiple of every group of weights."""
SHARED = {"attn.kv": "attn.q", "mlp.up": "mlp.gate"}
"""Matrices that see what another one sees."""
Moments = Mapping[str, Sequence[Floats]]
"""By a matrix's name in the pack: sums of products of its inputs, for each `BLOCK` of them."""


@dataclass
class Observed:
    """A matrix of a decoder that keeps moments of what comes in."""

    matrix: Quantized | Plain
    inputs: int
    blocks: list[Floats] = field(init=False)

    def __post_init__(self) -> None:
        widths = [min(BLOCK, self.inputs - start) for start in range(0, self.inputs, BLOCK)]
        self.blocks = [np.zeros((width, width), np.float32) for width in widths]

    def _see(self, x: Floats) -> None:
        for start, block in zip(range(0, self.inputs, BLOCK), self.blocks, strict=True):
            part = x[:, start : start + BLOCK]
            block += part.T @ part

    def linear(self, x: Floats, bias: Floats | None = None, *, gelu: bool = False) -> Floats:
        self._see(x)
        return self.matrix.linear(x, bias, gelu=gelu)

    def rows(self, x: Floats, rows: Rows) -> Floats:
        self._see(x)
        return self.matrix.rows(x, rows)

    def embed(self, ids: NDArray[np.integer[Any]]) -> Floats:
        return self.matrix.embed(ids)


@contextmanager
def observed(network: EdgeNetwork) -> Iterator[Moments]:
    """The moments of all that the network is asked meanwhile."""
    decoder = network.decoder
    width, table = decoder.config.width, decoder.table
    inputs = {
        "attn.q": width,
        "attn.o": decoder.config.heads * decoder.config.head_dim,
        "mlp.gate": width,
        "mlp.down": decoder.config.mlp_dim,
    }
    found: dict[str, list[Floats]] = {}
    before = [dict(block) for block in decoder.blocks]
    try:
        for i, block in enumerate(decoder.blocks):
            for name, count in inputs.items():
                block[name] = watched = Observed(block[name], count)
                found[f"text.blocks.{i}.{name}.weight"] = watched.blocks
        decoder.table = words = Observed(table, width)  # type: ignore[assignment]
        found["text.embed.weight"] = words.blocks
        yield found
    finally:
        decoder.table, decoder.blocks = table, before
