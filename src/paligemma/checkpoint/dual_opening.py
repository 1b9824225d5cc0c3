"""A path becomes a checked SigLIP checkpoint, as `opening.py` does it for PaliGemma's: headers read, names and shapes compared.

`is_encoder` says what a path is, without judging it.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..config import DualEncoderConfig
from ..errors import CheckpointError
from .detect import bv_prefix, bv_scanned
from .dual_config import describe, encoder_from_shapes, parse_encoder, read_resize
from .dual_maps import bv_layout, hf_layout, our_shapes
from .hf_config import CONFIG
from .locate import locate
from .npz_file import NpzFile
from .opening import OpenedFiles, compare, dtype_warnings, huggingface_config
from .recognise import ENCODER_TYPES, holds_encoder
from .safetensors_files import SafetensorsFiles


@dataclass(frozen=True, kw_only=True)
class OpenedEncoder(OpenedFiles):
    """SigLIP's two towers."""

    config: DualEncoderConfig


def is_encoder(path: str | Path) -> bool:
    """Whether it is a SigLIP: by the `model_type` of a folder, by an `.npz`'s names. False for what cannot be read, too."""
    path = Path(path).expanduser()
    try:
        located = locate(path)
        if located.format == "huggingface":
            data = json.loads((located.folder / CONFIG).read_bytes())
            return isinstance(data, dict) and data.get("model_type") in ENCODER_TYPES
        with zipfile.ZipFile(located.files[0]) as archive:
            return holds_encoder(archive.namelist())
    except (CheckpointError, OSError, ValueError, RecursionError, zipfile.BadZipFile):
        return False


def open_encoder(path: str | Path, *, mapped: bool = True) -> OpenedEncoder:
    """As `open_checkpoint`, which see. Raises `CheckpointError` for what is no SigLIP at all, and for NaFlex; the rest is in `problems`."""
    located = locate(path)
    if located.format == "huggingface":
        config = parse_encoder(huggingface_config(located), read_resize(located.folder))
        raw, source, layout = SafetensorsFiles(list(located.files), mapped=mapped), CONFIG, hf_layout(config)
    else:
        raw, source = NpzFile(located.files[0]), "the shapes"
        prefix = bv_prefix(raw.specs)
        config = encoder_from_shapes(raw.specs, prefix, where=located.files[0].name)
        layout = bv_layout(config, prefix=prefix, scanned=bv_scanned(raw.specs, prefix))
    actual = {name: name for name in raw.specs}
    problems = compare(layout.shapes, {name: spec.shape for name, spec in raw.specs.items()}, actual)
    return OpenedEncoder(
        located=located, raw=raw, config=config, config_from=source, layout=layout, actual=actual, shapes=our_shapes(config),
        problems=tuple(problems), warnings=dtype_warnings(raw),
        summary=f"by {source} it is {describe(config)}, but the tensors are not" if problems else None,
    )  # fmt: skip
