"""PaliGemma in PyTorch as an engine: the one that all others must agree with.

Prompts of unequal length are padded on the right and masked, prompts of equal length need no mask at all.
Source: big_vision `trainers/proj/paligemma/predict_fns.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..config import PaliGemmaConfig
from ..model.kv_cache import KVCache
from ..model.lora import active_adapter, adapter_names, set_adapter
from ..model.paligemma import PaliGemma
from ..sequence import pad
from .candidates import Candidates, candidates
from .network import Rows
from .options import Allowed


class TorchNetwork:
    """A model on any device that torch knows."""

    def __init__(self, model: PaliGemma):
        self.model = model

    @property
    def config(self) -> PaliGemmaConfig:
        return self.model.config

    @property
    def place(self) -> str:
        return f"{numbers_of(self.model)} on {self.model.device}"

    @property
    def adapters(self) -> tuple[str, ...]:
        return tuple(adapter_names(self.model))

    @property
    def adapter(self) -> str | None:
        return active_adapter(self.model)

    @property
    def sight(self) -> str | None:
        return active_adapter(self.model.vision) or active_adapter(self.model.projector)

    def use_adapter(self, name: str | None) -> None:
        set_adapter(self.model, name)

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> Tensor:
        return self.model.encode_image(torch.from_numpy(pixels).to(self.model.device))

    @torch.inference_mode()
    def join(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts))

    def begin(self, soft: Tensor, prompts: Sequence[Sequence[int]], max_tokens: int) -> Rows:
        return TorchRows(self.model, *prefill(self.model, soft, prompts, max_tokens))

    def entropy(self) -> int:
        """From torch's global random state."""
        return int(torch.randint(2**62, ()))


class TorchRows:
    """`hidden` (B, D): the states that predict each row's next token."""

    def __init__(self, model: PaliGemma, hidden: Tensor, cache: KVCache):
        self.model, self.hidden, self.cache = model, hidden, cache

    @property
    def numbers(self) -> str:
        return numbers_of(self.model)

    @torch.inference_mode()
    def offer(self, places: Sequence[int], allowed: Sequence[Allowed | None], loc: range) -> Candidates:
        return candidates(self.model, self._of(places), allowed, loc)

    @torch.inference_mode()
    def extend(self, ids: Sequence[int]) -> None:
        self.hidden = self.model.extend(torch.tensor(ids, device=self.hidden.device), self.cache)

    @torch.inference_mode()
    def select(self, places: Sequence[int]) -> TorchRows:
        rows = torch.tensor(places, device=self.hidden.device)
        return TorchRows(self.model, self.hidden[rows], self.cache.select(rows))

    @torch.inference_mode()
    def join(self, others: TorchRows) -> TorchRows:
        return TorchRows(self.model, torch.cat([self.hidden, others.hidden]), self.cache.join(others.cache))

    def _of(self, places: Sequence[int]) -> Tensor:
        everyone = len(places) == len(self.hidden) and all(a == b for a, b in enumerate(places))
        return self.hidden if everyone else self.hidden[torch.tensor(places, device=self.hidden.device)]


def check_prompts(soft: Tensor, prompts: Sequence[Sequence[int]]) -> None:
    """`ValueError` where there is nothing to read, or another number of pictures."""
    if not prompts or not all(map(len, prompts)):
        raise ValueError("generation needs at least one prompt, and at least one id in each")
    if soft.shape[0] not in (1, len(prompts)):
        raise ValueError(f"{soft.shape[0]} pictures for {len(prompts)} prompts: expected one for all, or one each")


def numbers_of(model: PaliGemma) -> str:
    return str(model.dtype).removeprefix("torch.")


@torch.inference_mode()
def prefill(model: PaliGemma, soft: Tensor, prompts: Sequence[Sequence[int]], max_tokens: int) -> tuple[Tensor, KVCache]:
    """Read pictures and prompts -> the state that predicts each row's first token (B, D), and a cache with room for `max_tokens` more."""
    check_prompts(soft, prompts)
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    ids = torch.tensor(pad(prompts, 0), device=model.device)
    valid = None
    if min(lengths) < longest:
        valid = torch.arange(longest, device=ids.device) < torch.tensor(lengths, device=ids.device)[:, None]
    cache = model.new_cache(len(prompts), soft.shape[1] + longest + max_tokens)
    return model.prefill(soft.expand(len(prompts), -1, -1), ids, valid, cache), cache
