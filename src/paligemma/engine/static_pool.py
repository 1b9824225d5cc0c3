"""Keys and values of many sequences at addresses that stay: a sequence is the number of its row, so joining and leaving moves nothing.

    row 0     I I b x s y y . . .      I image, b bos, x prefix, s separator, y generated
    row 1     . . . . . . . . . .      . nothing, or what an earlier sequence left there
    row 2     I I b x x x s y . .
    last row                           where computations of fixed shape write what nobody will read

A row's tokens stand side by side from its first slot on, and its length says what may be seen.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import TextConfig

BLOCK = 128
"""Slots come in blocks of so many, those of `flex_attention`."""


class Pool:
    """`keys[l]`, `values[l]`: (rows + 1, K, slots, H). `hidden` (rows + 1, D): the states that predict each row's next token.
    `lengths`: tokens of each row, on the host."""

    def __init__(self, config: TextConfig, rows: int, slots: int, *, dtype: torch.dtype, device: torch.device):
        self.rows, self.slots = rows, -(-slots // BLOCK) * BLOCK
        shape = (config.depth, rows + 1, config.kv_heads, self.slots, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.hidden = torch.zeros(rows + 1, config.width, dtype=dtype, device=device)
        self.lengths = [0] * rows
        self._free = list(range(rows))

    @property
    def nowhere(self) -> int:
        """The last row, which is no sequence's."""
        return self.rows

    @property
    def free(self) -> int:
        return len(self._free)

    def lowest_free(self, count: int) -> list[int]:
        """What `take` would give, or as many as there are."""
        return heapq.nsmallest(count, self._free)

    def take(self, count: int) -> list[int]:
        """Free rows, the lowest first, all zero. Raises `ValueError` where there are not so many.

        Zero, since what is hidden is multiplied by zero all the same: a NaN that an earlier sequence left would get through.
        """
        if count > len(self._free):
            raise ValueError(f"the key/value pool has {self.rows} rows, of which {len(self._free)} are free; {count} are needed")
        rows = [heapq.heappop(self._free) for _ in range(count)]
        if rows:
            where = torch.tensor(rows, device=self.keys.device)
            for stored in (self.keys, self.values):
                stored.index_fill_(1, where, 0)
        return rows

    def give_back(self, rows: Sequence[int]) -> None:
        for row in rows:
            self.lengths[row] = 0
            heapq.heappush(self._free, row)

    def grow_by_one(self, rows: Sequence[int]) -> list[int]:
        """Count one more token in each of the rows; -> the slots that these take. Raises `ValueError` where a row is full."""
        slots = [self.lengths[row] for row in rows]
        if slots and max(slots) >= self.slots:
            raise ValueError(f"the key/value pool has {self.slots} slots a row, {max(slots) + 1} are needed")
        for row in rows:
            self.lengths[row] += 1
        return slots

    def copy(self, sources: Sequence[int], targets: Sequence[int], pool: Pool | None = None) -> None:
        """Rows of this pool, or of another and smaller one, to rows of this one."""
        origin = self if pool is None else pool
        if not len(sources):
            return
        filled = max(origin.lengths[row] for row in sources)
        here, there = (torch.tensor(rows, device=self.keys.device) for rows in (sources, targets))
        self.keys[:, there, :, :filled] = origin.keys[:, here, :, :filled]
        self.values[:, there, :, :filled] = origin.values[:, here, :, :filled]
        self.hidden[there] = origin.hidden[here]
        for source, target in zip(sources, targets, strict=True):
            self.lengths[target] = origin.lengths[source]

    def grown(self, config: TextConfig, rows: int, slots: int) -> Pool:
        """A larger pool with the same sequences in the same rows."""
        larger = Pool(config, max(rows, self.rows), max(slots, self.slots), dtype=self.keys.dtype, device=self.keys.device)
        used = sorted(set(range(self.rows)) - set(self._free))
        larger._free = sorted(set(range(larger.rows)) - set(used))
        larger.copy(used, used, self)
        return larger

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        return self.keys[number], self.values[number]
