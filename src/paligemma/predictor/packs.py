"""A pack -> a `Predictor` that computes without PyTorch; and the tokenizer that goes with a model, however it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..checkpoint.conversion import CALIBRATION
from ..config import PaliGemmaConfig
from ..edge.mask_decoder import CODEBOOK, MaskDecoder
from ..edge.network import EdgeNetwork
from ..edge.pack_file import Arrays
from ..engine.scores import Calibration
from ..errors import CheckpointError, UsageError
from ..tokenizer import FILE_NAMES, Tokenizer
from .verbs import Predictor


def open_pack(
    path: Path,
    *,
    tokenizer: str | Path | Tokenizer | None = None,
    device: object = None,
    dtype: object = None,
    others: Sequence[str] = (),
) -> Predictor:
    """The model in a pack's folder. `others`: names of what else was asked for, which a pack cannot take.

    Raises `CheckpointError` for a broken pack, `UsageError` for a device, a number type or anything else that is not the pack's own.
    """
    if device is not None and str(device) != "cpu":
        raise UsageError(f"{path} is a pack, which computes on the CPU, not on {device}", hint="load the checkpoint it was made of")
    if dtype is not None:
        raise UsageError(f"{path} is a pack, whose numbers were settled when it was made", hint="leave out dtype (--dtype), or pack anew")
    if others:
        raise UsageError(f"{path} is a pack, and takes no {others[0]}", hint="what it holds was settled when it was made (paligemma pack)")
    network = EdgeNetwork(path)
    words = words_of(path, path, tokenizer, network.config)
    codec = MaskDecoder(Arrays(path, network.index)) if CODEBOOK in network.index.entries else None
    scores = path / CALIBRATION
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
