"""A model's names, shapes and code without its numbers: what a checkpoint fills."""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

from ..config import PaliGemmaConfig
from .paligemma import PaliGemma


def empty_model(config: PaliGemmaConfig) -> PaliGemma:
    """A model on the meta device. Its layers skip drawing first values: that alone makes torch load its decompositions, a second's work."""
    with torch.device("meta"), _NoValues():
        return PaliGemma(config)


class _NoValues(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
