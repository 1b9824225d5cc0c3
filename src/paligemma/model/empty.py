"""A model's names, shapes and code without its numbers: what a checkpoint fills."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..config import DualEncoderConfig, PaliGemmaConfig
from .dual_encoder import DualEncoder
from .paligemma import PaliGemma

C = TypeVar("C")
M = TypeVar("M", bound=nn.Module)


def empty_model(config: PaliGemmaConfig) -> PaliGemma:
    """A model on the meta device. Its layers skip drawing first values: that alone makes torch load its decompositions, a second's work."""
    return _empty(PaliGemma, config)


def empty_encoder(config: DualEncoderConfig) -> DualEncoder:
    """As `empty_model`, SigLIP's two towers."""
    return _empty(DualEncoder, config)


def _empty(kind: Callable[[C], M], config: C) -> M:
    with torch.device("meta"), _NoValues():
        return kind(config)


class _NoValues(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
