"""The image tower: shapes, order of patches, and what each part must and must not do."""

from __future__ import annotations

import pytest
import torch

from paligemma.model.siglip import SigLIP
from tests.tiny import TINY_1, random_model, random_pixels


@pytest.fixture(scope="module")
def tower() -> SigLIP:
    return random_model(TINY_1).vision


@torch.no_grad()
def test_pictures_of_a_batch_do_not_meet(tower):
    pixels = random_pixels(TINY_1, 3)
    together = tower(pixels)
    assert together.shape == (3, 4, 24)
    for one, features in zip(pixels, together, strict=True):
        torch.testing.assert_close(tower(one[None])[0], features, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_patches_go_row_by_row_from_the_top_left(tower):
    tower = SigLIP(TINY_1.vision)
    tower.blocks = torch.nn.ModuleList()
    tower.norm = torch.nn.Identity()
    pixels = torch.zeros(1, 3, 28, 28)
    pixels[:, :, :14, 14:] = 1.0
    lit = tower(pixels) - tower(torch.zeros(1, 3, 28, 28))
    assert [bool(patch.any()) for patch in lit[0]] == [False, True, False, False]


@torch.no_grad()
def test_every_patch_sees_every_other(tower):
    pixels = random_pixels(TINY_1, 1)
    changed = pixels.clone()
    changed[..., 14:, 14:] = 0.0
    assert (tower(pixels) - tower(changed)).abs().amax(-1).min() > 1e-4


@torch.no_grad()
def test_the_activation_is_the_tanh_approximation(tower):
    """The exact GELU differs from it by up to 5e-4, enough to move published models."""
    x = torch.linspace(-4, 4, 24).expand(1, 4, 24)
    mlp = tower.blocks[0].mlp
    inner = mlp.up(x)
    by_hand = 0.5 * inner * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
    torch.testing.assert_close(mlp(x), mlp.down(by_hand), atol=1e-6, rtol=1e-5)
    assert (mlp(x) - mlp.down(torch.nn.functional.gelu(inner))).abs().max() > 1e-5


def test_norms_add_a_millionth_and_not_the_default_of_torch(tower):
    assert {module.eps for module in tower.modules() if isinstance(module, torch.nn.LayerNorm)} == {1e-6}


@pytest.mark.parametrize("shape", [(1, 3, 14, 28), (1, 1, 28, 28), (1, 28, 28, 3)])
def test_pixels_of_another_shape_are_refused_in_one_sentence(tower, shape):
    with pytest.raises(ValueError, match=r"takes pictures of shape \(3, 28, 28\), got"):
        tower(torch.zeros(shape))
