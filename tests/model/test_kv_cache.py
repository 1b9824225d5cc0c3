"""The key/value cache as a data structure; that decoding with it equals decoding without is in `test_paligemma.py`."""

from __future__ import annotations

import pytest
import torch

from paligemma.model.kv_cache import KVCache
from tests.tiny import GEMMA_2


def cache(batch: int = 2, slots: int = 6) -> KVCache:
    return KVCache(GEMMA_2, batch, slots, dtype=torch.float32, device="cpu")


def some(count: int, value: float, batch: int = 2) -> torch.Tensor:
    return torch.full((batch, GEMMA_2.kv_heads, count, GEMMA_2.head_dim), value)


def fill(c: KVCache, count: int, value: float, valid: torch.Tensor | None = None) -> None:
    for layer in range(GEMMA_2.depth):
        c.append(layer, some(count, value + layer, c.keys.shape[1]), some(count, -value - layer, c.keys.shape[1]))
    c.advance(valid, count)


def test_layers_append_side_by_side_and_share_one_length():
    c = cache()
    fill(c, 3, 1.0)
    keys, values = c.append(1, some(1, 9.0), some(1, -9.0))
    assert keys[0, 0, :, 0].tolist() == [2.0, 2.0, 2.0, 9.0]
    assert values[0, 0, :, 0].tolist() == [-2.0, -2.0, -2.0, -9.0]
    assert c.length == 3, "a step counts only once all layers have appended"


def test_appending_copies_nothing_that_is_already_there():
    c = cache()
    keys, _ = c.append(0, some(2, 1.0), some(2, 1.0))
    assert keys.data_ptr() == c.keys.data_ptr()


def test_positions_count_valid_tokens_only():
    c = cache()
    fill(c, 4, 1.0, torch.tensor([[True] * 4, [True, True, False, False]]))
    assert c.positions.tolist() == [4, 2]
    fill(c, 1, 2.0)
    assert c.positions.tolist() == [5, 3]
    assert c.valid is not None
    assert c.valid.tolist() == [[True] * 5, [True, True, False, False, True]]


def test_while_all_is_valid_there_is_no_mask():
    c = cache()
    fill(c, 3, 1.0)
    fill(c, 1, 1.0)
    assert c.valid is None
    fill(c, 1, 1.0, torch.tensor([[True], [False]]))
    assert c.valid is not None
    assert c.valid.tolist() == [[True] * 5, [True] * 4 + [False]]


def test_rows_can_be_repeated_swapped_and_dropped():
    c = cache(batch=3)
    for layer in range(GEMMA_2.depth):
        rows = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).expand(3, GEMMA_2.kv_heads, 2, GEMMA_2.head_dim)
        c.append(layer, rows, rows * 10)
    c.advance(torch.tensor([[True, True], [True, False], [False, True]]), 2)
    picked = c.select(torch.tensor([2, 0, 0, 1]))
    assert picked.keys[0, :, 0, 0, 0].tolist() == [3.0, 1.0, 1.0, 2.0]
    assert picked.values[-1, :, 0, 1, 0].tolist() == [30.0, 10.0, 10.0, 20.0]
    assert picked.positions.tolist() == [1, 2, 2, 1]
    assert picked.valid is not None
    assert picked.valid.tolist() == [[False, True], [True, True], [True, True], [True, False]]
    assert (picked.length, picked.slots) == (2, 6)
    fill(picked, 1, 7.0)
    assert c.length == 2, "the cache it came from is left alone"


def test_a_full_cache_says_so():
    c = cache(slots=3)
    fill(c, 3, 1.0)
    with pytest.raises(ValueError, match="has 3 slots, 4 are needed"):
        c.append(0, some(1, 0.0), some(1, 0.0))


def test_reset_forgets_everything():
    c = cache()
    fill(c, 4, 1.0, torch.tensor([[True] * 4, [True, True, False, False]]))
    c.reset()
    assert (c.length, c.valid, c.positions.tolist()) == (0, None, [0, 0])


def test_a_token_takes_two_vectors_per_layer_and_head():
    """Two tensors of depth * kv_heads * head_dim per token, at two bytes."""
    c = KVCache(GEMMA_2, 1, 10, dtype=torch.bfloat16, device="meta")
    assert (c.keys.nbytes + c.values.nbytes) / 10 == 2 * GEMMA_2.depth * GEMMA_2.kv_heads * GEMMA_2.head_dim * 2


def test_joined_rows_stand_side_by_side_without_gaps():
    ragged, even = cache(batch=2, slots=8), cache(batch=1, slots=5)
    for layer in range(GEMMA_2.depth):
        numbers = torch.arange(8.0).view(2, 1, 4, 1).expand(2, GEMMA_2.kv_heads, 4, GEMMA_2.head_dim)
        ragged.append(layer, numbers, -numbers)
        even.append(layer, some(2, 50.0, 1), some(2, -50.0, 1))
    ragged.advance(torch.tensor([[True, True, True, False], [True, False, False, True]]), 4)
    even.advance(None, 2)
    joined = ragged.join(even)
    assert joined.positions.tolist() == [3, 2, 2]
    assert (joined.length, joined.slots) == (3, 3 + 4), "the gap is gone, and there is room for four tokens more, as there was"
    assert joined.valid is not None
    assert joined.valid.tolist() == [[True] * 3, [True, True, False], [True, True, False]]
    for row, expected in enumerate(([0, 1, 2], [4, 7], [50, 50])):
        filled = slice(len(expected))
        assert joined.keys[:, row, 1, filled, 5].tolist() == [expected] * GEMMA_2.depth
        assert joined.values[:, row, 0, filled, 0].tolist() == [[-number for number in expected]] * GEMMA_2.depth
    fill(joined, 1, 9.0)
    assert joined.positions.tolist() == [4, 3, 3]


def test_joined_rows_of_one_length_need_no_mask():
    one, other = cache(batch=1), cache(batch=2)
    fill(one, 3, 1.0)
    fill(other, 3, 1.0)
    assert one.join(other).valid is None


def test_a_batch_that_rows_join_and_leave_does_not_grow():
    c = cache(batch=2, slots=6)
    fill(c, 3, 1.0)
    for _ in range(20):
        fill(c, 1, 2.0)
        new = cache(batch=1, slots=6)
        fill(new, 3, 1.0)
        c = c.select(torch.tensor([1])).join(new)
    assert (c.slots, c.length) == (7, 4)
