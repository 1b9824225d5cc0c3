"""PaliGemma vision-language models as typed results: captions, answers, boxes, masks and text.

    model = paligemma.load()                        # the bundled small model; or load("path/to/checkpoint")
    model.caption("photo.jpg").text
    model.detect("photo.jpg", ["cat", "dog"]).draw().save("boxes.png")

Importing this package imports neither torch nor any of its own modules; each public name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client import Client, ServerError, connect
    from .config import PRESETS, PaliGemmaConfig, preset
    from .errors import CheckpointError, InputError, PaliGemmaError, ResourceError, UsageError
    from .explanation import Explanation
    from .image import Clip
    from .predictor import CutShort, EncodedImage, Predictor, Stream, load
    from .results import Answer, Box, Caption, Detections, Mask, Masks, Question, Reading, Result, Text
    from .video import sample_frames

_HOMES = {
    "client": ("Client", "ServerError", "connect"),
    "config": ("PRESETS", "PaliGemmaConfig", "preset"),
    "errors": ("CheckpointError", "InputError", "PaliGemmaError", "ResourceError", "UsageError"),
    "explanation": ("Explanation",),
    "image": ("Clip",),
    "predictor": ("CutShort", "EncodedImage", "Predictor", "Stream", "load"),
    "results": ("Answer", "Box", "Caption", "Detections", "Mask", "Masks", "Question", "Reading", "Result", "Text"),
    "video": ("sample_frames",),
}
"""Module -> the public names that live there."""

__all__ = [
    "PRESETS", "Answer", "Box", "Caption", "CheckpointError", "Client", "Clip", "CutShort", "Detections", "EncodedImage", "Explanation",
    "InputError", "Mask", "Masks", "PaliGemmaConfig", "PaliGemmaError", "Predictor", "Question", "Reading", "ResourceError", "Result",
    "ServerError", "Stream", "Text", "UsageError", "connect", "load", "preset", "sample_frames",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
