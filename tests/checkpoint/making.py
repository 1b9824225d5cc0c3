"""Files for the tests, written with the libraries that own the formats or by hand, never with the code under test."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from paligemma.checkpoint.hf_config import write_config
from paligemma.checkpoint.weight_maps import hf_layout
from paligemma.config import PaliGemmaConfig
from tests.tiny import TINY_1, random_model


def hf_tensors(config: PaliGemmaConfig = TINY_1, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, torch.Tensor]:
    """A random model's tensors under the names of hub files."""
    state = random_model(config, seed).to(dtype).state_dict()
    return {piece.theirs: state[ours] for ours, piece in hf_layout(config).pieces.items()}


def hf_folder(folder: Path, tensors: Mapping[str, torch.Tensor] | None = None, config: PaliGemmaConfig = TINY_1, **changes: object) -> Path:
    """A folder with config.json (top-level keys replaced by `changes`) and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(write_config(config, dtype="float32") | changes))
    tensors = hf_tensors(config) if tensors is None else tensors
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def shard(folder: Path, tensors: Mapping[str, torch.Tensor], count: int = 3) -> dict[str, str]:
    """Replace model.safetensors by `count` shards and an index; returns the index's table."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    where = {}
    for number in range(count):
        part = {name: tensor.contiguous() for name, tensor in list(tensors.items())[number::count]}
        name = f"model-{number + 1:05}-of-{count:05}.safetensors"
        save_file(part, folder / name, {"format": "pt"})
        where |= dict.fromkeys(part, name)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_index(folder, where, total)
    return where


def write_index(folder: Path, where: Mapping[str, str], total: object) -> None:
    index = {"metadata": {"total_size": total}, "weight_map": dict(where)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def safetensors_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file with that header: text, bytes, or an object to write as JSON."""
    text = header if isinstance(header, bytes) else (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def npy_bytes(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npy_header(text: str, data: bytes = b"") -> bytes:
    """An array file with that header text."""
    text += "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1") + data


def zip_file(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
