"""What results depend on, as plain values for `job.json`: so that those of two jobs never mix."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.locate import CALIBRATION
from ..evaluation.run_file import fingerprint
from .items import Ways
from .rows import FormName
from .work import Order


def facts(
    source: str | Path,
    ways: Ways,
    order: Order,
    form: FormName,
    model: Path,
    numbers: Mapping[str, Any],
    *,
    draw: Path | None = None,
) -> dict[str, Any]:
    """`model`: the file or folder of what is asked; `numbers`: how it was asked to compute; `draw`: where drawings go. How many pictures go
    through it at a time, and on which machine, is left out: it may change in the middle of a job."""
    beside = (model if model.is_dir() else model.parent) / CALIBRATION
    calibration = hashlib.sha256(beside.read_bytes()).hexdigest()[:32] if beside.is_file() else ""
    return {
        "source": os.path.abspath(source),
        "tasks": [str(task) for task in order.tasks],
        "options": {
            **order.how,
            **order.places,
            "frames": ways.frames,
            "allow_urls": ways.allow_urls,
            "root": ways.root and os.path.abspath(ways.root),
        },
        "drawings": draw is not None and os.path.abspath(draw),
        "tiles": order.tiles,
        "every": order.every,
        "format": form,
        "model": {"name": model.name, "files": fingerprint(model), "calibration": calibration, **numbers},
    }
