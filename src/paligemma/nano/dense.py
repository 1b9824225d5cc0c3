"""A training aid: every patch says what it shows. Dropped when the model is exported; it teaches the image tower to see early on.

Per patch: the thing that covers most of it (or nothing), that thing's box edges, which of its 7x7 cells are covered, and up to two
printed characters whose centres lie in it, from left to right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .names import things
from .world import CHARACTERS, Scene

CELLS = 7
LETTERS = 2
MIN_COVER = 0.15


@dataclass(frozen=True)
class DenseTargets:
    """P patches: `thing` (B, P), last class = none; `edges` (B, P, 4) left, top, right, bottom of the thing's box relative to the
    patch centre in picture sides; `cells` (B, P, 49) in {0, 1}; `letters` (B, P, 2), last class = none."""

    thing: Tensor
    edges: Tensor
    cells: Tensor
    letters: Tensor


def dense_targets(scenes: list[Scene], grid: int) -> DenseTargets:
    """Targets of a batch of scenes for a grid x grid patch layout."""
    side = scenes[0].side
    patch = side // grid
    batch, patches = len(scenes), grid * grid
    thing = np.full((batch, patches), len(things()), np.int64)
    edges = np.zeros((batch, patches, 4), np.float32)
    letters = np.full((batch, patches, LETTERS), len(CHARACTERS), np.int64)
    owners = np.stack([scene.owner for scene in scenes])
    covered = (owners >= 0).reshape(batch, grid, CELLS, patch // CELLS, grid, CELLS, patch // CELLS).mean((3, 6)) > 0.5
    cells = covered.transpose(0, 1, 3, 2, 4).reshape(batch, patches, CELLS * CELLS).astype(np.float32)
    centres = (np.arange(grid) + 0.5) * patch
    centre_y, centre_x = (axis.reshape(-1) for axis in np.meshgrid(centres, centres, indexing="ij"))
    for b, scene in enumerate(scenes):
        if scene.objects:
            cover = np.stack([scene.mask(i).reshape(grid, patch, grid, patch).mean((1, 3)).reshape(-1) for i in range(len(scene.objects))])
            best = cover.argmax(0)
            kinds = np.array([spot.thing for spot in scene.objects])
            boxes = np.array([(s.x0, s.y0, s.x1, s.y1) for s in scene.objects], np.float32)[best]
            seen = cover.max(0) > MIN_COVER
            thing[b, seen] = kinds[best[seen]]
            edges[b] = (boxes - np.stack([centre_x, centre_y, centre_x, centre_y], -1)) / side
        slots: dict[int, list[tuple[float, int]]] = {}
        for line in scene.lines:
            for letter, (x, y) in zip(line.text, line.centres, strict=True):
                place = min(grid - 1, max(0, int(y // patch))) * grid + min(grid - 1, max(0, int(x // patch)))
                slots.setdefault(place, []).append((x, CHARACTERS.index(letter)))
        for place, found in slots.items():
            for i, (_, letter) in enumerate(sorted(found)[:LETTERS]):
                letters[b, place, i] = letter
    return DenseTargets(*(torch.from_numpy(array) for array in (thing, edges, cells, letters)))


class DenseHead(nn.Module):
    """One linear layer on the image tower's output."""

    def __init__(self, width: int):
        super().__init__()
        self.sizes = (len(things()) + 1, 4, CELLS * CELLS, LETTERS * (len(CHARACTERS) + 1))
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def loss(self, output: Tensor, targets: DenseTargets) -> tuple[Tensor, dict[str, float]]:
        """output (B, P, sum of sizes) -> summed loss and what to log. A batch may be without things or without print."""
        thing, edges, cells, letters = output.float().split(self.sizes, -1)
        letters = letters.unflatten(-1, (LETTERS, -1))
        seen = targets.thing < len(things())
        losses = {
            "thing": 2.0 * F.cross_entropy(thing.flatten(0, 1), targets.thing.flatten()),
            "edges": 10.0 * F.smooth_l1_loss(edges[seen], targets.edges[seen], beta=0.05, reduction="sum") / max(1, edges[seen].numel()),
            "cells": F.binary_cross_entropy_with_logits(cells, targets.cells),
            "letters": 8.0 * F.cross_entropy(letters.flatten(0, 2), targets.letters.flatten()),
        }
        with torch.no_grad():
            printed = targets.letters < len(CHARACTERS)
            right = {
                "thing_accuracy": (thing.argmax(-1) == targets.thing)[seen],
                "letter_accuracy": (letters.argmax(-1) == targets.letters)[printed],
            }
            log = {name: float(value) for name, value in losses.items()}
            log |= {name: float(found.float().mean()) for name, found in right.items() if len(found)}
        return torch.stack(list(losses.values())).sum(), log
