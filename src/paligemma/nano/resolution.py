"""A model for pictures of another size: the learned positions of its image tower, stretched over the new grid of patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def resize_positions(table: Tensor, grid: int) -> Tensor:
    """(old grid ** 2, width) -> (grid ** 2, width), rows of patches from top to bottom. The same grid gives the same table.

    Bilinear, corner on corner, as the reference's `scipy.ndimage.zoom(order=1)` has it (big_vision `models/vit.py`, `resample_posemb`).
    """
    old = round(len(table) ** 0.5)
    assert old * old == len(table), f"{len(table)} positions are no square"
    if old == grid:
        return table.clone()
    square = table.float().unflatten(0, (old, old)).permute(2, 0, 1)[None]
    stretched = F.interpolate(square, size=(grid, grid), mode="bilinear", align_corners=True)
    return stretched[0].permute(1, 2, 0).flatten(0, 1).to(table.dtype)
