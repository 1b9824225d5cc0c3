"""Keys and values of past tokens: allocated once, appended in place, rows re-ordered for beams.

Slots are filled in the order of arrival, the same slot for every row; rows whose prompt was shorter mark the unused slots invalid.
Keys are stored after the rotary embedding, so a slot's place says nothing about its position and no row is ever shifted.

    slot      0 1 2 3 4 5 6 | 7 8 ...
    row 0     I I b x x x s | y y        I image, b bos, x prefix, s separator, y generated
    row 1     I I b x s . . | y y        . invalid
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import TextConfig


class KVCache:
    """`keys[l]`, `values[l]`: (B, K, S, H). `length`: filled slots. `valid`: (B, S) bool, or None while every filled slot counts.
    `positions`: (B,) the position the next token takes."""

    def __init__(self, config: TextConfig, batch: int, slots: int, *, dtype: torch.dtype, device: torch.device | str):
        shape = (config.depth, batch, config.kv_heads, slots, config.head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.slots = slots
        self.reset()

    def reset(self) -> None:
        self.length = 0
        self.valid: Tensor | None = None
        self.positions = torch.zeros(self.keys.shape[1], dtype=torch.long, device=self.keys.device)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, K, T, H) of one layer at slots length .. length+T; return views of all filled slots including these."""
        end = self.length + keys.shape[2]
        if end > self.slots:
            raise ValueError(f"the key/value cache has {self.slots} slots, {end} are needed")
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, valid: Tensor | None, count: int) -> None:
        """Count `count` new slots as filled, once all layers have appended. `valid` (B, count) marks real tokens; None means all."""
        if valid is None:
            self.positions = self.positions + count
            if self.valid is not None:
                self.valid = _with_true(self.valid, count)
        else:
            before = self.valid
            if before is None:
                before = torch.ones(valid.shape[0], self.length, dtype=torch.bool, device=valid.device)
            self.valid = torch.cat([before, valid], dim=1)
            self.positions = self.positions + valid.sum(1)
        self.length += count

    def select(self, rows: Tensor) -> KVCache:
        """A cache whose row i is this one's row `rows[i]`: used to repeat a prompt, follow beams and drop finished rows."""
        other = object.__new__(KVCache)
        other.keys, other.values = self.keys[:, rows], self.values[:, rows]
        other.slots, other.length = self.slots, self.length
        other.valid = None if self.valid is None else self.valid[rows]
        other.positions = self.positions[rows]
        return other

    def join(self, other: KVCache) -> KVCache:
        """A cache of this one's rows and then the other's, with room for as many more tokens as the roomier of the two has.

        Invalid slots are left out and each row's tokens stand side by side, so that a batch which rows join and leave for ever does not
        grow for ever.
        """
        positions = torch.cat([self.positions, other.positions])
        length = int(positions.max())
        joined = object.__new__(KVCache)
        joined.slots, joined.length, joined.positions = (
            length + max(self.slots - self.length, other.slots - other.length),
            length,
            positions,
        )
        shape = (self.keys.shape[0], len(positions), self.keys.shape[2], joined.slots, self.keys.shape[4])
        joined.keys, joined.values = self.keys.new_zeros(shape), self.values.new_zeros(shape)  # what is hidden must be a number, too
        start = 0
        for cache in (self, other):
            end = start + cache.keys.shape[1]
            cache._lay_down(joined.keys[:, start:end], joined.values[:, start:end])
            start = end
        valid = torch.arange(length, device=positions.device) < positions[:, None]
        joined.valid = None if bool(valid.all()) else valid
        return joined

    def _lay_down(self, keys: Tensor, values: Tensor) -> None:
        """Copy each row's valid slots, in order, to the first slots of another cache's (depth, B, K, S, H)."""
        if self.valid is None:
            keys[:, :, :, : self.length] = self.keys[:, :, :, : self.length]
            values[:, :, :, : self.length] = self.values[:, :, :, : self.length]
            return
        count = int(self.positions.max())
        order = (~self.valid).byte().argsort(dim=1, stable=True)[None, :, None, :count, None]
        order = order.expand(*self.keys.shape[:3], count, self.keys.shape[4])
        keys[:, :, :, :count] = self.keys.gather(3, order)
        values[:, :, :, :count] = self.values.gather(3, order)


def _with_true(mask: Tensor, count: int) -> Tensor:
    return torch.nn.functional.pad(mask, (0, count), value=True)
