"""PaliGemma: pictures to soft tokens, soft tokens before text, one prefix-LM mask, and the two ways to run it (all at once, or cached).

Tensors in, tensors out: no text, no files, no sampling. Source: big_vision `models/proj/paligemma/{paligemma,gemma_bv}.py`.

Who sees whom (I image, b bos, x prefix, s separator, y suffix; rows look, columns are looked at):

          I I b x s y y
      I   1 1 1 1 1 . .
      I   1 1 1 1 1 . .      image and prefix: one block, each sees all of it,
      b   1 1 1 1 1 . .      and none of it sees the suffix
      x   1 1 1 1 1 . .
      s   1 1 1 1 1 . .
      y   1 1 1 1 1 1 .      suffix: everything before it
      y   1 1 1 1 1 1 1
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import PaliGemmaConfig
from .gemma import Gemma
from .kv_cache import KVCache
from .siglip import SigLIP


def prefix_lm_mask(mask_ar: Tensor, valid: Tensor | None = None) -> Tensor:
    """mask_ar (B, T): 0 where a token joins the block before it, 1 where it starts a new one -> bool (B, 1, T, T), True = may look.

    Token i sees token j where cumsum(mask_ar)[j] <= cumsum(mask_ar)[i] and j is `valid` (B, T).
    """
    block = mask_ar.long().cumsum(1)
    mask = block[:, None, :] <= block[:, :, None]
    if valid is not None:
        mask = mask & valid[:, None, :]
    return mask[:, None]


class PaliGemma(nn.Module):
    """The model. `encode_image`, then either `forward` (training, scoring) or `prefill` and `extend` (generation)."""

    def __init__(self, config: PaliGemmaConfig):
        super().__init__()
        self.config = config
        self.vision = SigLIP(config.vision)
        self.projector = nn.Linear(config.vision.width, config.text.width)
        self.text = Gemma(config.text)

    @property
    def dtype(self) -> torch.dtype:
        return self.projector.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.projector.weight.device

    def encode_image(self, pixels: Tensor) -> Tensor:
        """pixels (B, 3, S, S) or, for several pictures per example, (B, F, 3, S, S), in [-1, 1] -> soft tokens (B, F * P, D).

        Not scaled by sqrt(D): only text embeddings are.
        """
        frames = pixels.flatten(0, 1) if pixels.dim() == 5 else pixels
        soft = self.projector(self.vision(frames.to(self.dtype)))
        return soft.unflatten(0, pixels.shape[:2]).flatten(1, 2) if pixels.dim() == 5 else soft

    def forward(self, soft: Tensor, ids: Tensor, mask_ar: Tensor, valid: Tensor | None = None) -> Tensor:
        """soft (B, P, D), ids (B, T), mask_ar (B, T), valid (B, T) or None -> logits (B, T, V) at the text positions.

        Positions count valid tokens only, so padding on either side changes nothing.
        """
        hidden = self.hidden_states(soft, ids, mask_ar, valid)
        return self.text.logits(hidden)

    def hidden_states(self, soft: Tensor, ids: Tensor, mask_ar: Tensor, valid: Tensor | None = None) -> Tensor:
        """As `forward`, but the states after the final norm (B, T, D) instead of logits."""
        batch, num_soft = soft.shape[:2]
        x = self._join(soft, ids)
        full_ar = torch.cat([torch.zeros(batch, num_soft, dtype=mask_ar.dtype, device=ids.device), mask_ar], 1)
        full_valid = None if valid is None else self._with_image(valid, num_soft)
        positions = self._positions(full_valid, x)
        return self.text(x, positions, prefix_lm_mask(full_ar, full_valid), keep=ids.shape[1])

    def prefill(self, soft: Tensor, ids: Tensor, valid: Tensor | None, cache: KVCache) -> Tensor:
        """Read image and prompt into an empty cache; every token sees all of them. `valid` (B, T) marks real prompt tokens, None = all.

        Returns the final hidden state of each row's last valid token, (B, D).
        """
        if cache.length:
            raise ValueError("prefill needs an empty cache")
        batch, num_soft = soft.shape[:2]
        x = self._join(soft, ids)
        full_valid = None if valid is None else self._with_image(valid, num_soft)
        mask = None if full_valid is None else full_valid[:, None, None, :]
        hidden = self.text(x, self._positions(full_valid, x), mask, cache, keep=1 if valid is None else ids.shape[1])
        cache.advance(full_valid, x.shape[1])
        if valid is None:
            return hidden[:, -1]
        last = valid.shape[1] - 1 - valid.flip(1).long().argmax(1)
        return hidden[torch.arange(batch, device=hidden.device), last]

    def extend(self, ids: Tensor, cache: KVCache) -> Tensor:
        """One more token per row, ids (B,) -> its final hidden state (B, D). It sees everything valid in the cache, and itself."""
        x = self.text.embed_tokens(ids[:, None])
        mask = None
        if cache.valid is not None:
            mask = torch.nn.functional.pad(cache.valid, (0, 1), value=True)[:, None, None, :]
        hidden = self.text(x, cache.positions[:, None], mask, cache)
        cache.advance(None, 1)
        return hidden[:, 0]

    def logits(self, hidden: Tensor, rows: slice | Tensor | None = None) -> Tensor:
        """Hidden states -> logits over the vocabulary, or over `rows` of it."""
        return self.text.logits(hidden, rows)

    def new_cache(self, batch: int, slots: int) -> KVCache:
        """An empty cache with room for `slots` tokens a row (image + prompt + answer), in the model's dtype."""
        return KVCache(self.config.text, batch, slots, dtype=self.dtype, device=self.device)

    def _join(self, soft: Tensor, ids: Tensor) -> Tensor:
        x = self.text.embed_tokens(ids)
        return torch.cat([soft.to(x.dtype), x], dim=1)

    @staticmethod
    def _with_image(valid: Tensor, num_soft: int) -> Tensor:
        return torch.nn.functional.pad(valid, (num_soft, 0), value=True)

    @staticmethod
    def _positions(valid: Tensor | None, x: Tensor) -> Tensor:
        if valid is None:
            return torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        return (valid.long().cumsum(1) - 1).clamp(min=0)
