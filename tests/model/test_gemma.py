"""The decoder's parts against their definitions, and where rounding happens."""

from __future__ import annotations

import math

import pytest
import torch

from paligemma.config import GEMMA_1_2B, GEMMA_2_2B, GEMMA_2_9B, GEMMA_2_27B
from paligemma.model.gemma import GatedMlp, Gemma, RMSNorm, rotary_table, rotate
from tests.tiny import GEMMA_1, GEMMA_2, TINY_1, TINY_2, random_model


@torch.no_grad()
def test_rms_norm_multiplies_by_one_plus_the_weight():
    norm = RMSNorm(4, eps=1e-6)
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5]])
    plain = x / (x.square().mean() + 1e-6).sqrt()
    torch.testing.assert_close(norm(x), plain)
    norm.weight.copy_(torch.tensor([0.0, 1.0, -1.0, 0.5]))
    torch.testing.assert_close(norm(x), plain * torch.tensor([1.0, 2.0, 0.0, 1.5]))


@torch.no_grad()
def test_rms_norm_works_in_float32_inside():
    """In float16 the squares would overflow; a bfloat16 product with 1 + weight would round twice."""
    norm = RMSNorm(8, eps=1e-6)
    norm.weight.copy_(torch.linspace(-0.5, 0.5, 8))
    x = torch.linspace(300, 1000, 8)
    for dtype in (torch.float16, torch.bfloat16):
        found = norm.to(dtype)(x.to(dtype))
        expected = norm.float()(x.to(dtype).float())
        assert found.dtype == dtype
        assert torch.equal(found, expected.to(dtype))


def test_rotation_pairs_the_two_halves():
    """Element i turns with element i + H/2 by position * base ** (-2 i / H); neighbours do not pair."""
    x = torch.zeros(1, 1, 1, 8)
    x[..., 1] = 1.0
    angle = 3 * 100.0 ** (-2 / 8)
    turned = rotate(x, *rotary_table(torch.tensor([[3]]), 8, 100.0))[0, 0, 0]
    expected = torch.zeros(8)
    expected[1], expected[5] = math.cos(angle), math.sin(angle)
    torch.testing.assert_close(turned, expected)


def test_rotated_products_depend_on_the_distance_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16)

    def product(i: int, j: int) -> float:
        turned = rotate(q, *rotary_table(torch.tensor([[i]]), 16, 1e4)) * rotate(k, *rotary_table(torch.tensor([[j]]), 16, 1e4))
        return turned.sum().item()

    assert product(7, 3) == pytest.approx(product(104, 100), abs=1e-5)
    assert product(7, 3) != pytest.approx(product(7, 5), abs=1e-3)


@torch.no_grad()
def test_gated_mlp_is_a_tanh_gelu_gate():
    torch.manual_seed(0)
    mlp, x = GatedMlp(6, 10), torch.randn(3, 6)
    gate, up = x @ mlp.gate.weight.T, x @ mlp.up.weight.T
    by_hand = 0.5 * gate * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3)))
    torch.testing.assert_close(mlp(x), (by_hand * up) @ mlp.down.weight.T, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("config", "in_bfloat16"),
    [(GEMMA_1_2B, 45.25), (GEMMA_2_2B, 48.0), (GEMMA_2_9B, 59.75), (GEMMA_2_27B, 68.0)],
    ids=["2b", "2-2b", "2-9b", "2-27b"],
)
@torch.no_grad()
def test_embeddings_are_scaled_in_the_dtype_of_the_table(config, in_bfloat16):
    """sqrt(width), rounded as the table is; the product is rounded too. A float32 table keeps it whole."""
    table = torch.nn.Embedding(1, config.width, _weight=torch.full((1, config.width), 1.0078125))
    gemma = Gemma.__new__(Gemma)
    torch.nn.Module.__init__(gemma)
    gemma.config, gemma.embed = config, table
    ids = torch.tensor([[0]])
    assert gemma.embed_tokens(ids)[0, 0, 0].item() == pytest.approx(1.0078125 * math.sqrt(config.width), rel=1e-6)
    gemma.embed = table.to(torch.bfloat16)
    assert gemma.embed_tokens(ids)[0, 0, 0] == (torch.tensor(1.0078125 * in_bfloat16).to(torch.bfloat16))


@torch.no_grad()
def test_logits_of_some_rows_are_rows_of_the_logits():
    gemma = random_model(TINY_1).text
    hidden = torch.randn(2, 3, GEMMA_1.width, generator=torch.Generator().manual_seed(0))
    whole = gemma.logits(hidden)
    assert whole.shape == (2, 3, GEMMA_1.vocab_size)
    torch.testing.assert_close(gemma.logits(hidden, slice(50, 90)), whole[..., 50:90])
    some = torch.tensor([7, 3, 200])
    torch.testing.assert_close(gemma.logits(hidden, some), whole[..., some])


@torch.no_grad()
def test_only_the_last_tokens_are_computed_when_only_they_are_asked_for():
    for config in (TINY_1, TINY_2):
        gemma = random_model(config).text
        x = torch.randn(2, 6, config.text.width, generator=torch.Generator().manual_seed(0))
        positions = torch.arange(6).expand(2, -1)
        mask = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1)) < 0.7
        torch.testing.assert_close(gemma(x, positions, mask, keep=2), gemma(x, positions, mask)[:, -2:], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_there_is_no_sliding_window():
    """Gemma 2 alone has one of 4096; PaliGemma 2 was trained without, so the first of 4200 tokens reaches the last through one layer."""
    config = type(GEMMA_2)(width=8, depth=1, mlp_dim=8, heads=1, kv_heads=1, head_dim=8, vocab_size=4, attn_softcap=50.0, post_norms=True)
    torch.manual_seed(0)
    gemma = Gemma(config).eval()
    x = torch.zeros(1, 4200, 8)
    x[:, 0] = torch.randn(8) * 1e3
    positions = torch.arange(4200)[None]
    far = gemma(x, positions, None, keep=1)
    x[:, 0] = 0.0
    assert not torch.equal(far, gemma(x, positions, None, keep=1))
