"""Which record comes at which place of a training run: a function of the seed and the place, so that a run goes on anywhere.

One source is gone through in another order each epoch. Of several, each place draws one by weight, and the source's own order goes on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..errors import UsageError
from .records import DataSet, Record

BLOCK = 4096
"""Places whose sources are drawn at a time."""


@dataclass(frozen=True)
class Draw:
    """What stands at a place: number `record` of source `source`, in its epoch `epoch`."""

    source: int
    record: int
    epoch: int


class Mixture:
    """Sources mixed by weight. Raises `UsageError` for weights that are none, or a source without records."""

    def __init__(self, sources: Sequence[DataSet], weights: Sequence[float] | None = None, *, seed: int = 0):
        self.sources = tuple(sources)
        self.seed = seed
        given = [float(len(source)) for source in sources] if weights is None else [float(weight) for weight in weights]
        if not sources or len(given) != len(sources):
            raise UsageError(f"a mixture needs a weight for each source: {len(sources)} sources, {len(given)} weights")
        if any(not len(source) for source in sources):
            raise UsageError("a source of the mixture has no records")
        if not all(math.isfinite(weight) and weight > 0 for weight in given):
            raise UsageError(f"the weights of a mixture must be above 0, found {', '.join(f'{weight:g}' for weight in given)}")
        self.shares = np.array(given) / sum(given)
        self._starts: list[np.ndarray] = [np.zeros(len(sources), np.int64)]
        self._order = lru_cache(maxsize=2 * len(sources))(self._permutation)
        self._block = lru_cache(maxsize=4)(self._sources_of)

    def __len__(self) -> int:
        """Places of an epoch: after so many the source that its weight favours least has been seen once, if not mixed, each record once."""
        return max(math.ceil(round(len(source) / share, 6)) for source, share in zip(self.sources, self.shares, strict=True))

    def draw(self, place: int) -> Draw:
        """What stands at `place`, counted from 0 without end."""
        source, seen = (0, place) if len(self.sources) == 1 else self._mixed(place)
        epoch, within = divmod(seen, len(self.sources[source]))
        return Draw(source, int(self._order(source, epoch)[within]), epoch)

    def record(self, place: int) -> Record:
        drawn = self.draw(place)
        return self.sources[drawn.source].records[drawn.record]

    def _mixed(self, place: int) -> tuple[int, int]:
        """The source of a place, and how many places of that source come before it."""
        block, within = divmod(place, BLOCK)
        while len(self._starts) <= block:
            chosen = self._block(len(self._starts) - 1)
            self._starts.append(self._starts[-1] + np.bincount(chosen, minlength=len(self.sources)))
        chosen = self._block(block)
        source = int(chosen[within])
        return source, int(self._starts[block][source]) + int((chosen[:within] == source).sum())

    def _sources_of(self, block: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0xB10C, block]).choice(len(self.sources), BLOCK, p=self.shares)

    def _permutation(self, source: int, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, 0x0D3, source, epoch]).permutation(len(self.sources[source]))
