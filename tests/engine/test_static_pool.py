"""Rows of the static pool: the lowest first, clean, kept when the pool grows, and never written past their end."""

import pytest
import torch

from paligemma.engine.static_pool import BLOCK, Pool
from tests.tiny import GEMMA_1, GEMMA_2


def pool(rows=4, slots=5, config=GEMMA_1) -> Pool:
    return Pool(config, rows, slots, dtype=torch.float32, device=torch.device("cpu"))


def test_slots_come_in_blocks_and_one_row_is_nobodys():
    made = pool(slots=BLOCK + 1, config=GEMMA_2)
    assert made.slots == 2 * BLOCK
    assert made.keys.shape == (3, 5, 2, 2 * BLOCK, 16)
    assert made.nowhere == 4


def test_the_lowest_free_rows_are_taken():
    made = pool()
    assert made.take(3) == [0, 1, 2]
    made.give_back([1])
    made.give_back([0])
    assert made.lowest_free(2) == [0, 1]
    assert made.take(3) == [0, 1, 3]
    with pytest.raises(ValueError, match="4 rows, of which 0 are free; 1 are needed"):
        made.take(1)


def test_a_row_that_is_taken_again_is_clean():
    made = pool()
    made.take(2)
    made.keys[:, :2], made.values[:, :2] = float("nan"), float("nan")
    made.give_back([0])
    made.take(1)
    assert not made.keys[:, 0].isnan().any()
    assert not made.values[:, 0].isnan().any()
    assert made.keys[:, 1].isnan().all(), "the other row is another's"


def test_a_full_row_takes_no_more():
    made = pool(slots=BLOCK)
    row, other = made.take(2)
    made.lengths[row] = BLOCK - 1
    assert made.grow_by_one([row, other]) == [BLOCK - 1, 0]
    with pytest.raises(ValueError, match=f"{BLOCK} slots a row, {BLOCK + 1} are needed"):
        made.grow_by_one([other, row])
    assert made.lengths[:2] == [BLOCK, 1], "nothing was counted"


def test_a_larger_pool_holds_the_same():
    made = pool()
    made.take(3)
    made.give_back([1])
    made.lengths = [4, 0, 3, 0]
    generator = torch.Generator().manual_seed(0)
    for stored in (made.keys, made.values):
        stored.copy_(torch.randn(stored.shape, generator=generator))
    made.hidden.copy_(torch.randn(made.hidden.shape, generator=generator))
    larger = made.grown(GEMMA_1, 16, 300)
    assert (larger.rows, larger.slots, larger.free) == (16, 3 * BLOCK, 14)
    assert larger.lengths[:4] == [4, 0, 3, 0]
    for row, length in ((0, 4), (2, 3)):
        torch.testing.assert_close(larger.keys[:, row, :, :length], made.keys[:, row, :, :length])
        torch.testing.assert_close(larger.values[:, row, :, :length], made.values[:, row, :, :length])
        torch.testing.assert_close(larger.hidden[row], made.hidden[row])
    assert larger.take(2) == [1, 3]
