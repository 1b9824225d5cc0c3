"""A model at rest: what is in a checkpoint, loading it, writing it, converting it, fetching it. Importing this imports no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter_config import find_base, inspect_adapter, is_adapter
    from .adapters import load_adapter, save_adapter
    from .codec import find_codec, load_codec, save_codec
    from .conversion import Converted, convert
    from .hub import cached, is_hub_id, pull
    from .load import CheckpointInfo, inspect, load_model
    from .values import verify_sha256
    from .write import save_huggingface, save_npz

_HOMES = {
    "CheckpointInfo": "load",
    "Converted": "conversion",
    "cached": "hub",
    "convert": "conversion",
    "find_base": "adapter_config",
    "find_codec": "codec",
    "inspect": "load",
    "inspect_adapter": "adapter_config",
    "is_adapter": "adapter_config",
    "is_hub_id": "hub",
    "load_adapter": "adapters",
    "load_codec": "codec",
    "load_model": "load",
    "pull": "hub",
    "save_adapter": "adapters",
    "save_codec": "codec",
    "save_huggingface": "write",
    "save_npz": "write",
    "verify_sha256": "values",
}

__all__ = [
    "CheckpointInfo", "Converted", "cached", "convert", "find_base", "find_codec", "inspect", "inspect_adapter", "is_adapter", "is_hub_id",
    "load_adapter", "load_codec", "load_model", "pull", "save_adapter", "save_codec", "save_huggingface", "save_npz", "verify_sha256",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
