"""A pack, or a small checkpoint, -> a `Predictor` that computes without PyTorch; and the tokenizer that goes with a model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ..checkpoint.adapter_config import is_adapter
from ..checkpoint.locate import CALIBRATION, locate
from ..checkpoint.placing import SMALL
from ..checkpoint.source import dtype_name
from ..config import PaliGemmaConfig
from ..edge.mask_decoder import CODEBOOK, MaskDecoder
from ..edge.network import EdgeNetwork
from ..edge.pack_file import read_in, read_index
from ..engine.scores import Calibration
from ..errors import CheckpointError, UsageError, no_torch
from ..tokenizer import FILE_NAMES, Tokenizer
from .verbs import Predictor


def open_pack(
    path: Path,
    *,
    tokenizer: str | Path | Tokenizer | None = None,
    device: object = None,
    dtype: object = None,
    others: Sequence[str] = (),
    mapped: bool = True,
) -> Predictor:
    """The model in a pack's folder. `others`: names of what else was asked for, which a pack cannot take. `mapped`: see `load`.

    Raises `CheckpointError` for a broken pack, `UsageError` for a device, a number type or anything else that is not the pack's own.
    """
    if device is not None and str(device) != "cpu":
        raise UsageError(f"{path} is a pack, which computes on the CPU, not on {device}", hint="load the checkpoint it was made of")
    if dtype is not None:
        raise UsageError(f"{path} is a pack, whose numbers were settled when it was made", hint="leave out dtype (--dtype), or pack anew")
    if others:
        raise UsageError(f"{path} is a pack, and takes no {others[0]}", hint="what it holds was settled when it was made (paligemma pack)")
    network = EdgeNetwork(path if mapped else read_in(path, read_index(path)))
    words = words_of(path, path, tokenizer, network.config)
    return _predictor(path, path, network, words)


def open_small(
    path: Path,
    *,
    tokenizer: str | Path | Tokenizer | None = None,
    codec: str | Path | None = None,
    device: object = None,
    dtype: object = None,
    adapters: object = None,
) -> Predictor:
    """The model of a checkpoint where PyTorch is not installed: its numbers go into memory, in float32, as those of a pack.

    Raises `ResourceError` for a model that is too large for this, an adapter, or another device or number type.
    """
    from ..checkpoint.load import inspect
    from ..edge.packer import held

    if adapters or is_adapter(path):
        raise no_torch("an adapter")
    if device is not None and str(device) != "cpu":
        raise no_torch(f"computing on {device}")
    if dtype is not None and dtype_name(str(dtype)) != "float32":
        raise no_torch(f"computing in {dtype}", otherwise="leave out dtype (--dtype)")
    folder, config = locate(path).folder, inspect(path).config
    if config.num_parameters >= SMALL:
        raise no_torch(f"{path}, as it is,", otherwise=f"pack it: paligemma pack {shlex.quote(str(path))} --out packed")
    words = words_of(path, folder, tokenizer, config)
    return _predictor(path, folder, EdgeNetwork(held(path, codec)), words)


def _predictor(path: Path, folder: Path, network: EdgeNetwork, words: Tokenizer) -> Predictor:
    codec = MaskDecoder(network.arrays) if CODEBOOK in network.index.entries else None
    scores = folder / CALIBRATION
    return Predictor(network, words, codec, calibration=Calibration.load(scores) if scores.is_file() else None, path=path)


def words_of(path: Path, folder: Path, tokenizer: str | Path | Tokenizer | None, config: PaliGemmaConfig) -> Tokenizer:
    """The tokenizer named, or else that in the folder. Raises `CheckpointError` where there is none, or another model's."""
    words = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer.load(tokenizer_path(tokenizer, folder, path))
    if words.vocab_size != config.text.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {words.vocab_size:,} tokens, the model {config.text.vocab_size:,}",
            hint="use the tokenizer that came with the checkpoint",
        )
    return words


def tokenizer_path(tokenizer: str | Path | None, folder: Path, path: Path) -> str | Path:
    if tokenizer is not None:
        return tokenizer
    if any((folder / name).is_file() for name in FILE_NAMES):
        return folder
    raise CheckpointError(
        f"{path}: no {' or '.join(FILE_NAMES)} beside it",
        hint="put one there, or name it with tokenizer= (--tokenizer); PaliGemma's is gs://big_vision/paligemma_tokenizer.model",
        code="no_tokenizer",
    )
