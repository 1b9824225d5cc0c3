"""A training aid: every name in a prompt says whether its thing is there, and where. Dropped when the model is exported.

"is the cat left of the dog?" needs two places found and compared. From yes and no alone a small decoder does not learn to find them;
told at "cat" and at "dog" where they are, it does (docs/nano.md has the figures).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ABSENT, PRESENT, UNNAMED = 0.0, 1.0, -1.0


@dataclass(frozen=True)
class Mention:
    """A name that ends before character `end` of a prompt. `box`: y0, x0, y1, x1 as shares, None where several things bear it."""

    end: int
    present: bool
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class PointTargets:
    """`named` (N, T): PRESENT or ABSENT where a name's last token stands, else UNNAMED; `boxes` (N, T, 4): nan where there is none."""

    named: Tensor
    boxes: Tensor


def point_targets(places: list[list[tuple[int, Mention]]], length: int) -> PointTargets:
    """Per row, the position of each mention's last token."""
    named = torch.full((len(places), length), UNNAMED)
    boxes = torch.full((len(places), length, 4), torch.nan)
    for row, mentions in enumerate(places):
        for position, mention in mentions:
            named[row, position] = PRESENT if mention.present else ABSENT
            if mention.box is not None:
                boxes[row, position] = torch.tensor(mention.box)
    return PointTargets(named, boxes)


class PointHead(nn.Module):
    """One linear layer on the decoder's states before its last block."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, 5)

    def loss(self, states: Tensor, targets: PointTargets) -> Tensor:
        """states (N, T, D) -> one number. A batch may be without names."""
        rows = targets.named != UNNAMED
        named, boxes = targets.named[rows], targets.boxes[rows]
        present, found = self.linear(self.norm(states[rows])).float().split((1, 4), -1)
        known = ~boxes.isnan().any(-1)
        share = max(1, len(named))
        presence = F.binary_cross_entropy_with_logits(present[:, 0], named, reduction="sum") / share
        return presence + 10.0 * F.smooth_l1_loss(found[known], boxes[known], beta=0.05, reduction="sum") / (4 * share)
