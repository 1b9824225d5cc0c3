"""A pack as an engine: what `generate` and the predictor ask of one, on arrays, with the compiled kernels or without."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import PaliGemmaConfig
from ..engine.options import Allowed
from ..errors import CheckpointError, UsageError
from ..sequence import pad
from . import native, plain
from .choosing import ArrayOffer
from .decoder import Cache, Decoder
from .layers import Kernels
from .mask_decoder import PREFIX
from .pack_file import AGAIN, Arrays, Index, read_index
from .packing import Floats
from .tower import Tower

WIDE = 2
"""Where what may come next is more than one in so many of all tokens, all logits are computed."""


class EdgeNetwork:
    """`pack`: its folder, or its arrays. `kernels`: by default the compiled ones, where there are any.

    Raises `CheckpointError` for a broken pack.
    """

    def __init__(self, pack: Path | Arrays, kernels: Kernels | None = None):
        arrays = pack if isinstance(pack, Arrays) else Arrays(pack, read_index(pack))
        self.arrays = arrays
        self.index: Index = arrays.index
        self.kernels = kernels if kernels is not None else native.Kernels() if native.available() else plain
        try:
            self.tower = Tower(arrays, self.config, self.kernels)
            self.decoder = Decoder(arrays, self.config.text, self.kernels)
            unknown = sorted(name for name in self.index.entries.keys() - arrays.read if not name.startswith(PREFIX))
            if unknown:
                raise CheckpointError(f"the pack's {unknown[0]!r} is no part of this model", code="bad_pack")
        except CheckpointError as error:
            where = f"{pack}: " if isinstance(pack, Path) else ""
            raise CheckpointError(f"{where}{error.message}", hint=error.hint or AGAIN, code=error.code) from None
        self.decoder.narrow = self.index.quantize != "float32"

    @property
    def config(self) -> PaliGemmaConfig:
        return self.index.config

    @property
    def place(self) -> str:
        isa = getattr(self.kernels, "isa", None)
        how = f"with {isa}" if isa else "in numpy, without compiled kernels"
        return f"{self.index.quantize} on cpu {how}"

    @property
    def adapters(self) -> tuple[str, ...]:
        return ()

    @property
    def adapter(self) -> str | None:
        return None

    @property
    def sight(self) -> str | None:
        return None

    def use_adapter(self, name: str | None) -> None:
        if name is not None:
            raise UsageError(f"a pack has no adapter {name!r}", hint="convert base and adapter to one model, and pack that")

    def encode(self, pixels: np.ndarray) -> Floats:
        return self.tower(pixels)

    def join(self, parts: Sequence[Floats]) -> Floats:
        return np.concatenate(list(parts))

    def begin(self, soft: Floats, prompts: Sequence[Sequence[int]], max_tokens: int) -> EdgeRows:
        if not prompts or not all(prompts):
            raise ValueError("generation needs at least one prompt, and at least one id in each")
        if len(soft) not in (1, len(prompts)):
            raise ValueError(f"{len(soft)} pictures for {len(prompts)} prompts: expected one for all, or one each")
        ids = np.asarray(pad([list(prompt) for prompt in prompts], 0), np.int64)
        words = self.decoder.embed(ids.ravel()).reshape(*ids.shape, -1)
        pictures = np.broadcast_to(soft, (len(prompts), *soft.shape[1:]))
        lengths = np.asarray([soft.shape[1] + len(prompt) for prompt in prompts], np.int64)
        x = np.concatenate([pictures, words], axis=1)
        kind = np.uint16 if self.decoder.narrow else np.float32
        cache = Cache(self.config.text, len(prompts), x.shape[1] + max_tokens, kind)
        return EdgeRows(self, self.decoder.read(x, lengths, cache), cache)

    def entropy(self) -> int:
        """From numpy's global random state, where a user has seeded that."""
        return int(np.random.randint(2**62, dtype=np.int64))


@functools.lru_cache(maxsize=32)
def _ids(ranges: tuple[range, ...]) -> NDArray[np.int64]:
    """All in the ranges. A free label has thousands of ranges, and the same ones at every step."""
    return np.concatenate([np.arange(r.start, r.stop) for r in ranges])


def _union(count: int, sets: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """What is in any of the sets, in order; all are below `count`."""
    some = np.zeros(count, bool)  # quicker than numpy's unique, which also imports masked arrays: a thirtieth of a second
    for ids in sets:
        some[ids] = True
    return np.flatnonzero(some)


class EdgeRows:
    """`hidden` (B, D): the states that predict each row's next token."""

    def __init__(self, network: EdgeNetwork, hidden: Floats, cache: Cache):
        self.network, self.hidden, self.cache = network, hidden, cache

    @property
    def numbers(self) -> str:
        return self.network.index.quantize

    def offer(self, places: Sequence[int], allowed: Sequence[Allowed | None], loc: range) -> ArrayOffer:
        decoder, vocabulary = self.network.decoder, self.network.config.text.vocab_size
        hidden = np.ascontiguousarray(self.hidden[np.asarray(places)])
        own = [None if limits is None else _ids(tuple(limits.ranges)) for limits in allowed]
        union = None if any(ids is None for ids in own) else _union(vocabulary, [ids for ids in own if ids is not None])
        if union is None or WIDE * len(union) > vocabulary:
            ids, logits = np.arange(vocabulary), decoder.logits(hidden)
        else:
            ids, logits = union, decoder.logits(hidden, union)
        if any(limits is not None and len(limits) < len(ids) for limits in own):
            for row, limits in zip(logits, own, strict=True):
                if limits is not None:
                    keep = np.zeros(len(ids), bool)
                    keep[np.searchsorted(ids, limits)] = True
                    row[~keep] = -np.inf
        return ArrayOffer(self.network.kernels, np.ascontiguousarray(logits), ids, loc)

    def extend(self, ids: Sequence[int]) -> None:
        self.hidden = self.network.decoder.extend(ids, self.cache)

    def select(self, places: Sequence[int]) -> EdgeRows:
        return EdgeRows(self.network, self.hidden[np.asarray(places)], self.cache.select(places))

    def join(self, others: EdgeRows) -> EdgeRows:
        return EdgeRows(self.network, np.concatenate([self.hidden, others.hidden]), self.cache.join(others.cache))
