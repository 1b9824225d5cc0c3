"""SigLIP's loss: every picture and every text of a batch are a yes-or-no question of their own, whether they belong together.

Source: arXiv 2303.15343, algorithm 1; big_vision `trainers/proj/image_text/siglip.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_loss(logits: Tensor, together: Tensor) -> Tensor:
    """logits (B, C) of pictures and texts, `together` (B, C) bool -> the sum over all pairs, per picture.

    The original knows only one text of each picture. In a small world two pictures often show the same, and then their texts are true of
    both: `together` says so.
    """
    signs = together.to(logits.dtype) * 2 - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


def found_first(logits: Tensor, together: Tensor) -> float:
    """Share of the texts whose best picture in the batch is a right one."""
    best = logits.argmax(0)
    return float(together[best, torch.arange(logits.shape[1], device=logits.device)].float().mean())
