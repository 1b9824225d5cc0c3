"""Attention where lengths say what may be seen: of row b its first `lengths[b]` slots, whoever looks. No mask (T, S) is ever made.

That is all a prefix-LM needs: while a prompt is read everything sees everything, and a token that is written sees all before it and itself.

    fused   `flex_attention`: of each row the blocks of slots that are seen at all, and a comparison inside the last of them. It knows the
            soft-cap and skips what lies behind a row's length. Only inside `torch.compile`.
    plain   `attention` with a bool (B, 1, 1, S): B * S bytes a step, and every slot is read, seen or not. Anywhere.

Axes: B rows, T queries, S slots, N query heads, K key/value heads, H head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from .attention import attention

BLOCK = 128
"""Slots, and queries, that `flex_attention` looks at together."""

Seen = Tensor | BlockMask
"""What each row may see, for the plain or the fused way."""


def seen(lengths: Tensor, queries: int, slots: int, *, fused: bool) -> Seen:
    """lengths int (B,), at least 1; `queries` = T. Made once a step, for all layers."""
    if not fused:
        return (torch.arange(slots, device=lengths.device) < lengths[:, None])[:, None, None]
    tall, wide = -(-queries // BLOCK), -(-slots // BLOCK)

    def lie(blocks: Tensor) -> Tensor:
        """(B, n) -> (B, 1, blocks of queries, n): all queries see the same."""
        return blocks.to(torch.int32)[:, None, None].expand(-1, -1, tall, -1).contiguous()

    whole, order = lengths // BLOCK, torch.arange(wide, device=lengths.device).expand(len(lengths), -1)
    return BlockMask.from_kv_blocks(
        kv_num_blocks=lie((lengths % BLOCK > 0)[:, None])[..., 0],
        kv_indices=lie(whole[:, None].clamp(max=wide - 1).expand(-1, wide)),  # of these only the first is looked at
        full_kv_num_blocks=lie(whole[:, None])[..., 0],
        full_kv_indices=lie(order),
        BLOCK_SIZE=(BLOCK, BLOCK),
        mask_mod=_before(lengths),
        seq_lengths=(queries, slots),
        compute_q_blocks=False,  # a backward pass would need them
    )


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Seen, *, scale: float, softcap: float | None) -> Tensor:
    """q (B, N, T, H), k and v (B, K, S, H) -> (B, N, T, H)."""
    if isinstance(seen, Tensor):
        return attention(q, k, v, seen, scale=scale, softcap=softcap)
    change = None if softcap is None else _soft_cap(softcap)
    out = flex_attention(q, k, v, score_mod=change, block_mask=seen, scale=scale, enable_gqa=q.shape[1] > k.shape[1])
    assert isinstance(out, Tensor)
    return out


def _before(lengths: Tensor) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    def before(row: Tensor, head: Tensor, query: Tensor, slot: Tensor) -> Tensor:
        return slot < lengths[row]

    return before


def _soft_cap(cap: float) -> Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]:
    def soft_cap(score: Tensor, row: Tensor, head: Tensor, query: Tensor, slot: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return soft_cap
