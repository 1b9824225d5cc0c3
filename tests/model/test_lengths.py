"""Attention by lengths, fused and plain, against attention over what is seen and nothing else."""

from __future__ import annotations

import pytest
import torch

from paligemma.model.attention import plain_attention
from paligemma.model.lengths import BLOCK, attend, seen

CASES = {
    "reading": (4, 1, 20, 20, [20, 7]),
    "writing": (4, 2, 1, 2 * BLOCK, [BLOCK, BLOCK + 1]),
    "one slot": (4, 4, 1, 2 * BLOCK, [1, 2 * BLOCK]),
    "several blocks": (2, 1, BLOCK + 9, BLOCK + 9, [BLOCK + 2, 3]),
}


def inputs(heads: int, kv_heads: int, queries: int, slots: int, lengths: list[int]):
    generator = torch.Generator().manual_seed(0)
    shapes = ((heads, queries), (kv_heads, slots), (kv_heads, slots))
    q, k, v = (torch.randn(len(lengths), *shape, 16, generator=generator) for shape in shapes)
    return q, k, v, torch.tensor(lengths)


def expected(q, k, v, lengths, softcap):
    rows = []
    for row, length in enumerate(lengths.tolist()):
        folded = q[row : row + 1].reshape(1, k.shape[1], -1, 16)
        out = plain_attention(folded, k[row : row + 1, :, :length], v[row : row + 1, :, :length], None, 0.3, softcap)
        rows.append(out.reshape(1, *q.shape[1:]))
    return torch.cat(rows)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("case", CASES)
def test_plain(case, softcap):
    q, k, v, lengths = inputs(*CASES[case])
    with torch.inference_mode():
        found = attend(q, k, v, seen(lengths, q.shape[2], k.shape[2], fused=False), scale=0.3, softcap=softcap)
    torch.testing.assert_close(found, expected(q, k, v, lengths, softcap), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("case", "softcap"),
    [
        ("writing", 2.0),
        *(pytest.param(case, cap, marks=pytest.mark.slow) for case in CASES for cap in (None, 2.0) if (case, cap) != ("writing", 2.0)),
    ],
)
def test_fused(case, softcap):
    """Compiled for this CPU, a few seconds each."""
    q, k, v, lengths = inputs(*CASES[case])
    compiled = torch.compile(attend, fullgraph=True, dynamic=False)
    with torch.inference_mode():
        found = compiled(q, k, v, seen(lengths, q.shape[2], k.shape[2], fused=True), scale=0.3, softcap=softcap)
    torch.testing.assert_close(found, expected(q, k, v, lengths, softcap), atol=1e-5, rtol=1e-5)


def test_no_mask_is_made():
    """Of 4096 image tokens the fused way holds two tables of 32 x 33 blocks, the plain way a bit a slot."""
    lengths = torch.tensor([4104])
    fused = seen(lengths, 4104, 4104, fused=True)
    assert sum(tensor.nbytes for tensor in fused.as_tuple() if isinstance(tensor, torch.Tensor)) < 20_000
    assert seen(lengths, 4104, 4104, fused=False).nbytes == 4104
