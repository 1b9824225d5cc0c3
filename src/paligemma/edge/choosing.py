"""The next token from logits on arrays: greedy, drawn, or the best few, and what their probabilities say.

As `engine/candidates.py` in PyTorch. Axes: B rows, C candidate columns (ids ascending), n tokens looked at per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine.network import Choice
from ..engine.options import LOC_WINDOW, Options
from ..engine.streams import SHORT
from .layers import Kernels
from .packing import Floats


@dataclass(frozen=True)
class ArrayOffer:
    """`logits` (B, C), contiguous, -inf where a row may not choose that column. `ids` (C,): of the columns. `loc`: ids of the location
    tokens."""

    kernels: Kernels
    logits: Floats
    ids: NDArray[np.int64]
    loc: range

    def choose(self, options: Options, uniform: Sequence[float]) -> list[Choice]:
        """See `engine.network.Offer`, and for `best` and `given`."""
        columns = self.logits.argmax(1) if options.temperature == 0 else self._drawn(options, uniform)
        return [row[0] for row in self._choices(columns[:, None])]

    def best(self, count: int, eos_id: int) -> tuple[list[list[Choice]], list[float]]:
        few = np.argsort(-self.logits, axis=1, kind="stable")[:, :count]
        place = int(np.searchsorted(self.ids, eos_id))
        there = place < len(self.ids) and self.ids[place] == eos_id
        ends = self.logits[:, place] - self.kernels.log_sum_exp(self.logits) if there else np.full(len(self.logits), -np.inf)
        return self._choices(few), ends.tolist()

    def given(self, ids: Sequence[int]) -> list[Choice]:
        return [row[0] for row in self._choices(np.searchsorted(self.ids, np.asarray(ids, np.int64))[:, None])]

    def _choices(self, columns: NDArray[np.int64]) -> list[list[Choice]]:
        """columns (B, n) -> n of each row."""
        totals = self.kernels.log_sum_exp(self.logits)
        first, last = (int(np.searchsorted(self.ids, id)) for id in (self.loc.start, self.loc.stop))
        bins = self.ids[first:last]
        found: list[list[Choice]] = []
        for row, total, chosen in zip(self.logits, totals, columns, strict=True):
            places = np.exp(row[first:last] - total)
            any_place = float(np.clip(places.sum(), 0.0, 1.0))
            found.append([])
            for column in chosen:
                id, logprob = int(self.ids[column]), float(row[column] - total)
                if first <= column < last:
                    near = places[(bins >= id - LOC_WINDOW) & (bins <= id + LOC_WINDOW)]
                    found[-1].append(Choice(id, logprob, float(near.sum()), any_place))
                else:
                    found[-1].append(Choice(id, logprob, float(np.exp(logprob)), 1.0 - any_place))
        return found

    def _drawn(self, options: Options, uniform: Sequence[float]) -> NDArray[np.int64]:
        """Columns (B,) by inverting the cumulative distribution, after temperature and top-p."""
        logits, log_sum = self.logits / np.float32(options.temperature), self.kernels.log_sum_exp
        if options.top_p < 1:
            ordered = np.ascontiguousarray(-np.sort(-logits, axis=1))
            below = (np.exp(ordered - log_sum(ordered)[:, None]).cumsum(1) < options.top_p).sum(1)
            cutoff = ordered[np.arange(len(ordered)), np.minimum(below, ordered.shape[1] - 1)]
            logits = np.where(logits < cutoff[:, None], np.float32(-np.inf), logits)
        cumulative = np.exp(logits - log_sum(logits)[:, None]).cumsum(1)
        points = np.asarray(uniform, np.float32)[:, None] * np.float32(SHORT) * cumulative[:, -1:]
        return (cumulative > points).argmax(1)
