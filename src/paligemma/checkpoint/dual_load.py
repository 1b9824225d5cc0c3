"""SigLIP checkpoint -> `DualEncoder`, and back into a Hugging Face folder. As `load.py` and `write.py` do it for PaliGemma's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .dual_config import CONFIG, PREPROCESSOR, describe, write_encoder, write_resize
from .dual_maps import hf_layout
from .dual_opening import OpenedEncoder, open_encoder
from .load import read_state, without_collection
from .memory import need_disk, need_memory
from .outgoing import ModelSource, laid_out
from .safetensors_files import INDEX, SINGLE, weight_files
from .source import ITEM_SIZE, dtype_name, main_dtype
from .write import replacing, write_json, write_safetensors

if TYPE_CHECKING:
    import torch

    from ..model.dual_encoder import DualEncoder


@without_collection()
def load_dual_encoder(
    path: str | Path | OpenedEncoder,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    check_values: bool = True,
    mapped: bool = True,
) -> DualEncoder:
    """The two towers in evaluation mode. `path`: a Hugging Face folder, one of its files, a big_vision `.npz`, or one that is opened.

    `dtype`: the checkpoint's own by default. For `check_values` and `mapped` see `load_model`. Raises `CheckpointError` with every missing,
    unknown, misshapen or non-finite tensor, `ResourceError` when it does not fit into memory.
    """
    import torch

    from ..model.empty import empty_encoder

    device = torch.device(device)
    opened = path if isinstance(path, OpenedEncoder) else open_encoder(path, mapped=mapped)
    opened.refuse_problems()
    kind = opened.dtype if dtype is None else dtype_name(dtype)
    need_memory(opened.config.num_parameters * ITEM_SIZE[kind], describe(opened.config), str(device))
    for warning in opened.warnings:
        warnings.warn(f"{opened.label}: {warning}", stacklevel=2)
    model = empty_encoder(opened.config)
    model.load_state_dict(read_state(opened, device, kind, check_values=check_values), assign=True)
    return model.eval()


def save_dual_encoder(model: DualEncoder, folder: str | Path, *, dtype: str | torch.dtype | None = None) -> Path:
    """Write a folder that this package and transformers load: config.json, preprocessor_config.json, model.safetensors; returns it.

    `dtype`: by default each tensor keeps its own. Weights already in the folder are replaced once the new ones are complete. The tokenizer
    is saved by its owner.
    """
    folder = Path(folder).expanduser()
    if folder.is_file() or folder.suffix in (".npz", ".safetensors"):
        raise UsageError(f"{folder}: expected a folder to write to")
    entries = laid_out(ModelSource(model), hf_layout(model.config), None if dtype is None else dtype_name(dtype))
    kind = main_dtype({entry.name: entry.spec for entry in entries})
    need_disk(sum(entry.spec.nbytes for entry in entries), folder)
    with replacing(folder / SINGLE) as file:
        write_safetensors(file, entries)
    (folder / INDEX).unlink(missing_ok=True)
    for old in weight_files(folder):
        if old.name != SINGLE:
            old.unlink()
    write_json(folder / PREPROCESSOR, write_resize(model.config))
    write_json(folder / CONFIG, write_encoder(model.config, dtype=kind))
    return folder
