"""Logits of the tokens that may come next, computed for those rows of the output matrix only, and what their probabilities say.

Axes: B batch, C candidate columns (ids ascending), L location columns among them, n tokens looked at per row.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.paligemma import PaliGemma
from . import sampling
from .network import Choice
from .options import LOC_WINDOW, Allowed, Options

_WIDE = 64
"""Ranges at least this long are read from the output matrix in place; rows of shorter ones are gathered together."""


@dataclass(frozen=True)
class Candidates:
    """`logits` (B, C) float32, -inf where a row may not choose that column. `ids` (C,): the columns' token ids, None if column = id.
    `loc`: the columns that are location tokens."""

    logits: Tensor
    ids: Tensor | None
    loc: slice

    def token(self, columns: Tensor) -> Tensor:
        return columns if self.ids is None else self.ids[columns]

    def choose(self, options: Options, uniform: Sequence[float]) -> list[Choice]:
        """See `network.Offer`, and for `best` and `given`."""
        return [row[0] for row in self._choices(sampling.choose(self.logits, options, uniform)[:, None])]

    def best(self, count: int, eos_id: int) -> tuple[list[list[Choice]], list[float]]:
        logprobs = self.logits.log_softmax(-1)
        columns = torch.arange(logprobs.shape[-1], device=logprobs.device)
        ends = logprobs.masked_fill(self.token(columns) != eos_id, float("-inf")).amax(-1).tolist()
        return self._choices(logprobs.topk(min(count, logprobs.shape[-1]), dim=-1).indices), ends

    def given(self, ids: Sequence[int]) -> list[Choice]:
        told = torch.tensor(ids, device=self.logits.device)
        columns = told if self.ids is None else torch.searchsorted(self.ids, told)
        return [row[0] for row in self._choices(columns[:, None])]

    def _choices(self, columns: Tensor) -> list[list[Choice]]:
        """columns (B, n) -> n of each row. One transfer from the device."""
        return [[Choice(int(id), *rest) for id, *rest in row] for row in self.facts(columns).tolist()]

    def facts(self, columns: Tensor) -> Tensor:
        """columns (B, n) -> a `Choice` of each, float32 (B, n, 4), which is exact for ids up to 2 ** 24."""
        return torch.stack([self.token(columns).float(), *self.measure(columns)], dim=-1)

    def measure(self, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """columns (B, n) -> their log-probability, probability (of a location: with its neighbours) and kind probability, (B, n) each."""
        total = self.logits.logsumexp(-1, keepdim=True)
        logprob = self.logits.gather(1, columns) - total
        loc_probs = (self.logits[:, self.loc] - total).exp()
        any_loc = loc_probs.sum(-1, keepdim=True)
        bins = torch.arange(self.loc.start, self.loc.stop, device=columns.device) if self.ids is None else self.ids[self.loc]
        near = (bins - self.token(columns)[..., None]).abs() <= LOC_WINDOW
        window = (near * loc_probs[:, None]).sum(-1)
        is_loc = (columns >= self.loc.start) & (columns < self.loc.stop)
        return logprob, torch.where(is_loc, window, logprob.exp()), torch.where(is_loc, any_loc, 1.0 - any_loc).clamp(0.0, 1.0)


def candidates(model: PaliGemma, hidden: Tensor, allowed: Sequence[Allowed | None], loc: range) -> Candidates:
    """hidden (B, D), what each row allows (None: anything) -> the candidates of all rows.

    Only the union of what the rows allow is computed, unless that is most of the vocabulary; then each row's own limits become -inf.
    """
    own = [None if a is None else tuple(a.ranges) for a in allowed]
    everything = (range(model.config.text.vocab_size),)
    union = everything if None in own else merge([r for ranges in own if ranges is not None for r in ranges])
    if sum(map(len, union)) > len(everything[0]) // 2:
        union = everything
    if union == everything:
        logits, ids = model.logits(hidden).float(), None
    else:
        logits = _rows(model, hidden, union).float()
        ids = torch.cat([torch.arange(r.start, r.stop) for r in union]).to(hidden.device)
    if any(ranges not in (None, union) for ranges in own):
        keep = torch.stack([_mask(union if ranges is None else ranges, union) for ranges in own])
        logits = logits.masked_fill_(~keep.to(logits.device), float("-inf"))
    column = _columns(union)
    return Candidates(logits, ids, slice(column(loc.start), column(loc.stop)))


def merge(ranges: Iterable[range]) -> tuple[range, ...]:
    """Ranges in any order, overlapping or touching -> the same ids as sorted ranges with gaps between."""
    merged: list[range] = []
    for r in sorted(ranges, key=lambda r: r.start):
        if merged and r.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, r.stop))
        else:
            merged.append(r)
    return tuple(merged)


def _columns(union: Sequence[range]) -> Callable[[int], int]:
    """Token id -> how many ids of the union are below it: its column, if it is one of them."""
    starts = [r.start for r in union]
    offsets = list(itertools.accumulate(map(len, union), initial=0))

    def column(id: int) -> int:
        place = bisect.bisect_right(starts, id) - 1
        return 0 if place < 0 else offsets[place] + min(id - starts[place], len(union[place]))

    return column


@functools.lru_cache(maxsize=32)
def _mask(ranges: tuple[range, ...], union: tuple[range, ...]) -> Tensor:
    """Which columns of the union lie in `ranges`, bool (C,). A free label has thousands of ranges, and the same ones at every step."""
    column = _columns(union)
    mask = torch.zeros(sum(map(len, union)), dtype=torch.bool)
    for r in ranges:
        mask[column(r.start) : column(r.stop)] = True
    return mask


def _rows(model: PaliGemma, hidden: Tensor, union: Sequence[range]) -> Tensor:
    """Logits of the ids in `union`, in order. Wide ranges are slices of the matrix (no copy), the narrow ones one gathered product."""
    narrow = [r for r in union if len(r) < _WIDE]
    pieces = iter(())
    if narrow:
        index = torch.tensor([id for r in narrow for id in r], device=hidden.device)
        pieces = iter(model.logits(hidden, index).split([len(r) for r in narrow], dim=-1))
    return torch.cat([next(pieces) if len(r) < _WIDE else model.logits(hidden, slice(r.start, r.stop)) for r in union], dim=-1)
