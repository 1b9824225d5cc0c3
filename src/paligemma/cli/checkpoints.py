"""The commands about checkpoints: list, describe, fetch, convert."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .options import OUTPUT, DType, named
from .show import as_json

Json = Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False, help="JSON instead of text.")]
GB = 1e9


def models(*, json: Json = False) -> int:
    """List the published models, and those on this machine."""
    from ..config import PRESETS

    rows = [
        {
            "name": name,
            "resolution": config.vision.image_size,
            "image_tokens": config.vision.num_tokens,
            "parameters": config.num_parameters,
            "bfloat16_gb": round(2 * config.num_parameters / GB, 1),
        }
        for name, config in PRESETS.items()
    ]
    return 0


def info(model: Annotated[str, named("MODEL", "A folder, an .npz file, a Hugging Face id that was pulled, or `bundled`.")] = "bundled", /, *, json: Json = False) -> int:
    """Say what a checkpoint is."""
    return 0
