"""Computing a block's states once more gives the same loss and gradients, also with dropout, and keeps less."""

from __future__ import annotations

import pytest
import torch

from paligemma.model.paligemma import PaliGemma
from tests.tiny import TINY, random_model, random_pixels


def gradients(model: PaliGemma, again: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """Output, gradients, and bytes kept for the backward pass beside the weights."""
    model.train().zero_grad()
    model.text.recompute = model.vision.recompute = again
    weights = {p.data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(5)
    ids = torch.arange(12).view(2, 6)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(model.encode_image(random_pixels(model.config, 2)), ids, torch.ones(2, 6, dtype=torch.long)).square().mean()
    out.backward()
    return out.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("name", TINY)
def test_the_same_gradients_from_less_memory(name, dropout):
    model = random_model(TINY[name])
    for block in model.text.blocks:
        block.drop.p = dropout
    plain, expected, kept = gradients(model, False)
    out, found, fewer = gradients(model, True)
    assert torch.equal(out, plain)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-7) for name in found)
    assert fewer < kept / 2


def test_dropout_is_for_training_only():
    model = random_model(next(iter(TINY.values())))
    pixels, ids, ar = random_pixels(model.config, 1), torch.arange(5)[None], torch.ones(1, 5, dtype=torch.long)
    expected = model.eval()(model.encode_image(pixels), ids, ar)
    for block in model.text.blocks:
        block.drop.p = 0.5
    assert torch.equal(model.eval()(model.encode_image(pixels), ids, ar), expected)
    assert not torch.equal(model.train()(model.encode_image(pixels), ids, ar), expected)
