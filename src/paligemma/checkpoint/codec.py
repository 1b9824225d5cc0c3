"""The mask codec's file: `mask_codec.safetensors`, or the published `vae-oid.npz`, whose array names are the module's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .codec_layout import CODEBOOK, FIRST, codec_shapes
from .locate import CODEC_FILES
from .npz_file import NpzFile
from .recognise import refuse_by_name
from .safetensors_files import SafetensorsFiles
from .source import as_tensor, refuse
from .values import ValueCheck

if TYPE_CHECKING:
    from ..model.mask_codec import MaskCodec


def find_codec(folder: str | Path) -> Path | None:
    """The codec beside a model, or beside its folder, where several models share one; or None."""
    folder = Path(folder).expanduser()
    places = (folder, folder.resolve().parent)
    return next((place / name for place in places for name in CODEC_FILES if (place / name).is_file()), None)


def read_codec(path: str | Path) -> dict[str, NDArray[np.float32]]:
    """The codec's arrays, from a `.safetensors` or `.npz` file, or a folder that holds one. Its width is read off the shapes. No torch.

    Raises `CheckpointError` for anything missing, unknown, misshapen (a codebook has a row for each mask token) or not finite.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = find_codec(path)
        if found is None:
            raise CheckpointError(f"{path}: no mask codec", hint="expected " + " or ".join(CODEC_FILES), code="no_codec")
        path = found
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file", hint="expected " + " or ".join(CODEC_FILES), code="no_codec")
    refuse_by_name(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise CheckpointError(
            f"{path}: neither .safetensors nor .npz", hint="the published mask codec is vae-oid.npz", code="unknown_format"
        )
    source = NpzFile(path) if path.suffix == ".npz" else SafetensorsFiles([path], mapped=False)
    found = {name: spec.shape for name, spec in source.specs.items()}
    codebook, first = found.get(CODEBOOK, ()), found.get(FIRST, ())
    if len(codebook) != 2 or len(first) != 4 or not 8 <= first[0] <= 4096 or first[0] % 8:
        raise CheckpointError(
            f"{path.name}: not a mask codec: no usable {CODEBOOK} and {FIRST}",
            hint="the published one is vae-oid.npz",
            code="tensors_differ",
        )
    expected = codec_shapes(first[0], codebook[1])
    problems = [f"{name} has shape {found[name]}, expected {shape}" for name, shape in expected.items() if found.get(name, shape) != shape]
    problems += [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is not part of the codec" for name in found if name not in expected]
    refuse(path.name, problems, code="tensors_differ")
    arrays = {name: source.floats(name) for name in expected}
    values = ValueCheck(path.name)
    for name, array in arrays.items():
        values.look(name, array)
    values.finish()
    return arrays


def load_codec(path: str | Path) -> MaskCodec:
    """As `read_codec`, which see, as the module in float32, in evaluation mode."""
    import torch

    from ..model.mask_codec import MaskCodec

    arrays = read_codec(path)
    size, depth = arrays[CODEBOOK].shape
    with torch.device("meta"):
        codec = MaskCodec(len(arrays[FIRST]), depth, size)
    codec.load_state_dict({name: as_tensor(array, "float32") for name, array in arrays.items()}, assign=True)
    return codec.eval()


def save_codec(codec: MaskCodec, path: str | Path) -> Path:
    """Into a `.safetensors` or `.npz` file, or a folder as `mask_codec.safetensors`; returns the file."""
    from .outgoing import ModelSource, as_they_are
    from .write import write_container

    path = Path(path).expanduser()
    if path.suffix not in (".safetensors", ".npz"):
        path.mkdir(parents=True, exist_ok=True)
        path = path / CODEC_FILES[0]
    write_container(path, as_they_are(ModelSource(codec)))
    return path
