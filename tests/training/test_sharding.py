"""Which rows are whose, and whole values into a part. Two real processes: `test_distributed.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest
import torch
from torch.distributed.tensor import Replicate, Shard

from paligemma.training.sharding import fill, is_shared, own_rows, whole
from tests.tiny import tiny_model


@dataclass
class Part:
    """What one of several processes has of a tensor, as far as it is asked here."""

    all: torch.Tensor
    rank: int
    world: int
    placement: Any

    def __post_init__(self) -> None:
        chunks = self.all.chunk(self.world)
        mine = chunks[self.rank] if self.rank < len(chunks) else self.all[:0]
        self.local = torch.zeros_like(mine if self.placement.is_shard() else self.all)

    def __len__(self) -> int:
        return len(self.all)

    def full_tensor(self) -> torch.Tensor:
        return self.all

    def to_local(self) -> torch.Tensor:
        return self.local

    @property
    def placements(self) -> list[Any]:
        return [self.placement]

    @property
    def device_mesh(self) -> Part:
        return self

    def size(self) -> int:
        return self.world

    def get_local_rank(self) -> int:
        return self.rank


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_rows_are_shared_out_as_chunks(rows, world):
    values = torch.arange(rows * 2.0).view(rows, 2)
    chunks = values.chunk(world)
    for rank in range(world):
        part = Part(values, rank, world, Shard(0))
        fill(cast(torch.Tensor, part), values)
        expected = chunks[rank] if rank < len(chunks) else values[:0]
        assert torch.equal(part.local, expected)
        assert torch.equal(values[own_rows(cast(torch.Tensor, part))], expected)


def test_what_everyone_holds_is_filled_whole():
    values = torch.arange(5.0)
    part = Part(values, 1, 2, Replicate())
    fill(cast(torch.Tensor, part), values)
    assert torch.equal(part.local, values)


def test_a_tensor_of_one_process_is_whole():
    own = next(tiny_model().parameters())
    assert not is_shared(own)
    assert whole(own) is own
    assert own_rows(own) == slice(0, None)
    fill(own, torch.ones_like(own))
    assert bool((own == 1).all())
