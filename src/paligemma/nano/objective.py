"""What training minimises: the reference's suffix loss, and soft targets for location tokens. Tensors only.

Loss of an example: mean over its suffix tokens (the end token included); loss of a batch: mean over examples
(big_vision `trainers/proj/paligemma/train.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import NUM_LOC

FREQUENCIES = 65


def suffix_weights(mask_loss: Tensor) -> Tensor:
    """mask_loss (B, T) in {0, 1} -> weights (B, T) that sum to one: equal shares for examples, then for their suffix tokens."""
    mask = mask_loss.float()
    return mask / mask.sum(1, keepdim=True).clamp(min=1) / mask.shape[0]


def suffix_loss(logits: Tensor, targets: Tensor, mask_loss: Tensor) -> Tensor:
    """logits (B, T, V) for targets (B, T) -> the reference's loss."""
    nll = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    return (nll * suffix_weights(mask_loss)).sum()


def selected_loss(table: Tensor, hidden: Tensor, targets: Tensor, weights: Tensor, loc: range, sigma: float) -> tuple[Tensor, Tensor]:
    """`suffix_loss` for the tokens that count only: hidden (M, D), targets (M,), weights (M,), output table (V, D).

    A location token's target is a bell of width `sigma` bins around its bin. Returns the loss and which predictions were right (M,).
    """
    logp = F.linear(hidden, table).float().log_softmax(-1)
    nll = -logp.gather(1, targets[:, None])[:, 0]
    is_loc = (targets >= loc.start) & (targets < loc.stop)
    rows = is_loc.nonzero()[:, 0]
    if len(rows):
        bell = bell_targets(sigma)[targets[rows] - loc.start]
        nll = nll.index_copy(0, rows, -(bell * logp[rows, loc.start : loc.stop]).sum(1))
    return (nll * weights).sum(), logp.argmax(-1) == targets


def bell_targets(sigma: float) -> Tensor:
    """(1024, 1024): row i is a normalised bell around bin i."""
    bins = torch.arange(NUM_LOC, dtype=torch.float32)
    return torch.softmax(-0.5 * ((bins[:, None] - bins) / sigma) ** 2, dim=1)


class CoordinateCode(nn.Module):
    """Parametrization of the embedding table while training: location rows share a cosine code of their coordinate, mask rows one of
    their codebook vector, so that neighbours start out as neighbours. Folded into a plain table on export."""

    def __init__(self, width: int, loc_start: int, codebook: Tensor):
        super().__init__()
        self.loc_start = loc_start
        bins = torch.arange(NUM_LOC, dtype=torch.float32) / (NUM_LOC - 1)
        self.register_buffer("code", torch.cos(torch.pi * bins[:, None] * torch.arange(FREQUENCIES)))
        centred = codebook - codebook.mean(0)
        self.register_buffer("shape", centred / centred.std())
        scale = 0.4 / width**0.5
        self.code_map = nn.Parameter(torch.randn(FREQUENCIES, width) * scale / FREQUENCIES**0.5)
        self.shape_map = nn.Parameter(torch.randn(codebook.shape[1], width) * scale / codebook.shape[1] ** 0.5)
        self.code: Tensor
        self.shape: Tensor

    def forward(self, table: Tensor) -> Tensor:
        extra = torch.cat([self.code @ self.code_map, self.shape @ self.shape_map])
        return torch.cat([table[: self.loc_start], table[self.loc_start :] + extra])

    def right_inverse(self, table: Tensor) -> Tensor:
        return table
