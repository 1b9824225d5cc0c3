"""One attention, several ways through it: each must equal the definition written out with explicit heads."""

from __future__ import annotations

import pytest
import torch

from paligemma.model import attention as module
from paligemma.model.attention import attention, attention_weights

HEADS = [(4, 4), (4, 2), (4, 1)]
SEEN = ["all", "rows", "same"]


def by_definition(q, k, v, mask, scale, softcap):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.einsum("bnth,bnsh->bnts", q.double(), k.double()) * scale
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.einsum("bnts,bnsh->bnth", scores.softmax(-1), v.double()).to(q.dtype)


def example(heads, kv_heads, seen, length=5, slots=7, dtype=torch.float32):
    torch.manual_seed(0)
    q = torch.randn(2, heads, length, 8, dtype=dtype)
    k, v = torch.randn(2, 2, kv_heads, slots, 8, dtype=dtype)
    rows = {"all": None, "rows": length, "same": 1}[seen]
    mask = None if rows is None else torch.rand(2, 1, rows, slots) < 0.6
    if mask is not None:
        mask[..., 3] = True
    return q, k, v, mask


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_every_way_equals_the_definition(heads, kv_heads, seen, gradients, softcap):
    q, k, v, mask = example(heads, kv_heads, seen)
    with torch.set_grad_enabled(gradients):
        found = attention(q, k, v, mask, scale=0.3, softcap=softcap)
    torch.testing.assert_close(found, by_definition(q, k, v, mask, 0.3, softcap), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
def test_weights_are_what_values_are_multiplied_with(heads, kv_heads, seen, softcap):
    q, k, v, mask = example(heads, kv_heads, seen)
    weights = attention_weights(q, k, mask, scale=0.3, softcap=softcap)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    found = weights @ v.repeat_interleave(heads // kv_heads, 1)
    torch.testing.assert_close(found, by_definition(q, k, v, mask, 0.3, softcap), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("native", [False, True], ids=["in float32", "in its own type"])
@torch.no_grad()
def test_bfloat16_with_a_soft_cap_is_multiplied_as_the_cpu_can(monkeypatch, native):
    """Both give the definition, rounded once or twice; a CPU without bfloat16 products would take many times as long in its own type."""
    monkeypatch.setattr(module.cpu, "has_bfloat16", lambda: native)
    seen = []
    matmul = torch.Tensor.__matmul__
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: seen.append(b.dtype) or matmul(a, b))
    q, k, v, mask = example(4, 2, "rows", dtype=torch.bfloat16)
    found = attention(q, k, v, mask, softcap=1.5)
    assert found.dtype == torch.bfloat16
    assert seen == [torch.float32, torch.bfloat16 if native else torch.float32], "scores, then values"
    torch.testing.assert_close(found.double(), by_definition(q.double(), k.double(), v.double(), mask, 8**-0.5, 1.5), atol=2e-2, rtol=2e-2)


def test_the_scale_defaults_to_that_of_the_head_size():
    q, k, v, _ = example(4, 2, "all")
    assert torch.equal(attention(q, k, v), attention(q, k, v, scale=8**-0.5))


@pytest.mark.parametrize("seen", SEEN)
@torch.no_grad()
def test_long_sequences_in_slices_change_nothing(monkeypatch, seen):
    q, k, v, mask = example(4, 2, seen)
    whole = attention(q, k, v, mask, softcap=1.5)
    monkeypatch.setattr(module, "MAX_SCORES", 3 * 2 * 2 * 7)
    torch.testing.assert_close(attention(q, k, v, mask, softcap=1.5), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("softcap", [None, 1.5])
@torch.no_grad()
def test_a_query_that_sees_nothing_stays_finite(dtype, softcap):
    """Else a padding row would be NaN, and 0 * NaN would spread from its values to every other row of the next layer."""
    q, k, v, mask = example(4, 2, "rows", dtype=dtype)
    mask[:, :, 2] = False
    assert attention(q, k, v, mask, softcap=softcap).isfinite().all()


@torch.no_grad()
def test_the_soft_cap_comes_before_the_mask():
    """Capped after it, a hidden key would keep a score of -softcap and leak."""
    q, k, v, mask = example(4, 2, "rows")
    changed = v.clone()
    hidden = ~mask.any(dim=2)[:, 0]
    hidden[:, 0], mask[..., 0] = True, False
    changed[:, :, 0] += 100.0
    assert torch.equal(attention(q, k, changed, mask, softcap=1.5), attention(q, k, v, mask, softcap=1.5))


@pytest.mark.parametrize("softcap", [None, 1.5])
@torch.no_grad()
def test_scores_are_not_rounded_to_bfloat16(softcap):
    """Two scores near 100 that differ by 0.2 would round to the same bfloat16 number."""
    q = torch.zeros(1, 1, 1, 2, dtype=torch.bfloat16)
    k, v = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16), torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)
    q[0, 0, 0] = torch.tensor([100.0, 0.2])
    k[0, 0, 0], k[0, 0, 1] = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])
    v[0, 0, 0, 0] = 1.0
    found = attention(q, k, v, scale=1.0, softcap=None if softcap is None else 1000.0)[0, 0, 0, 0].item()
    assert found == pytest.approx(0.55, abs=0.004)
