"""Train the mask codec on the masks of the small world: VQ-VAE with an averaged codebook, seeded, a few minutes on a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..model.mask_codec import MaskCodec
from ..results import Box
from ..tasks.segment import crop
from .sprites import Sprite

COMMITMENT = 0.25
DECAY = 0.99


def square_mask(mask: np.ndarray) -> np.ndarray:
    """A mask that fills its box (h, w) bool -> (64, 64) float32 in [0, 1], as `segment.crop` does."""
    height, width = mask.shape
    return crop(mask, Box("", 0, 0, width, height)).clip(0, 1)


def sprite_masks(bank: list[list[Sprite]]) -> Tensor:
    """Masks of all sprites in a bank, (N, 64, 64)."""
    return torch.from_numpy(np.stack([square_mask(sprite.mask) for views in bank for sprite in views]))


class CodebookAverage:
    """Codes follow the running mean of the features they are nearest to; unused codes restart from a random feature."""

    def __init__(self, codec: MaskCodec, generator: torch.Generator):
        self.codec = codec
        self.generator = generator
        self.count = torch.ones(codec.codebook.shape[0])
        self.total = codec.codebook.clone()

    @torch.no_grad()
    def update(self, features: Tensor, codes: Tensor) -> None:
        one_hot = F.one_hot(codes, len(self.count)).to(features.dtype)
        self.count.lerp_(one_hot.sum(0), 1 - DECAY)
        self.total.lerp_(one_hot.T @ features, 1 - DECAY)
        dead = self.count < 0.05
        if dead.any():
            pick = torch.randint(len(features), (int(dead.sum()),), generator=self.generator)
            self.total[dead], self.count[dead] = features[pick], 1.0
        self.codec.codebook.copy_(self.total / self.count[:, None])


def train_codec(
    masks: Tensor, *, width: int = 48, codebook_dim: int = 64, steps: int = 2000, batch: int = 128, seed: int = 0,
    log: Callable[[str], None] = print,
) -> MaskCodec:  # fmt: skip
    """masks (N, 64, 64) in [0, 1] -> a trained codec. Masks are also mirrored on the fly."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    codec = MaskCodec(width, codebook_dim)
    codec.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    with torch.no_grad():
        first = codec.features(masks[:: max(1, len(masks) // 64)]).flatten(0, 1)
        codec.codebook.copy_(first[torch.randint(len(first), (len(codec.codebook),), generator=generator)])
    average = CodebookAverage(codec, generator)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=2e-3, weight_decay=1e-4, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    started = time.monotonic()
    for step in range(steps):
        x = masks[torch.randint(len(masks), (batch,), generator=generator)]
        if step % 2:
            x = x.flip(1 + step % 4 // 2)
        features = codec.features(x)
        flat = features.detach().flatten(0, 1)
        codes = codec.nearest(flat)
        quantized = codec.codebook[codes].view_as(features)
        decoded = codec.decode_features(features + (quantized - features).detach())
        loss = F.mse_loss(decoded, 2 * x - 1) + COMMITMENT * F.mse_loss(features, quantized)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update(flat, codes)
        if step % 100 == 0 or step == steps - 1:
            used = len(codes.unique())
            log(f"codec step {step} loss {loss.item():.4f} codes {used} IoU {codec_iou(codec, x):.4f} {time.monotonic() - started:.0f} s")
    return codec.eval()


@torch.inference_mode()
def codec_iou(codec: MaskCodec, masks: Tensor) -> float:
    """Mean IoU between masks (N, 64, 64) and what comes back through 16 codes: the ceiling of any segmentation with this codec."""
    truth = masks > 0.5
    guess = torch.cat([codec.decode(codec.encode(part)) for part in masks.split(256)]) > 0
    return ((truth & guess).sum((1, 2)) / (truth | guess).sum((1, 2)).clamp(min=1)).mean().item()
