"""Pictures and texts -> vectors of unit length, by SigLIP's two towers: what belongs together is near. Importing this imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .encoder import Encoder
    from .loading import load_encoder

_HOMES = {"Encoder": "encoder", "load_encoder": "loading"}

__all__ = ["Encoder", "load_encoder"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
