"""What the user names -> an `Encoder`: which files, which device, which numbers, which words."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.dual_opening import OpenedEncoder, is_encoder, open_encoder
from ..checkpoint.finding import find
from ..checkpoint.placing import SMALL, device_of, dtype_of
from ..checkpoint.source import torch_dtype
from ..errors import CheckpointError, no_torch

if TYPE_CHECKING:
    import torch

    from .encoder import Encoder

DEFAULT = "nano-siglip"
"""The bundled encoder that is used when none is named."""


def load_encoder(
    model: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tokenizer: str | Path | None = None,
) -> Encoder:
    """SigLIP, ready to make vectors.

    model: None for the bundled one; a Hugging Face folder, a big_vision `.npz`, an id that was fetched with `paligemma pull`.
    device: "cpu", "cuda", "cuda:1", "mps"; by default the best there is.
    dtype: "float32", "bfloat16" or "float16"; by default the checkpoint's own, of a model below 67 million parameters on a CPU float32.
    tokenizer: a file or folder, where the checkpoint has none beside it.

    Raises `CheckpointError` for what is not there or is no SigLIP, `UsageError` for a device or number type that does not exist,
    `ResourceError` where the model does not fit, or PyTorch is missing.

    >>> encoder = load_encoder()
    >>> encoder.texts(["two cats"]) @ encoder.pictures([picture]).T
    """
    path = find(model, DEFAULT)
    if not is_encoder(path):
        raise CheckpointError(
            f"{path} is no SigLIP, whose two towers search needs",
            hint="fetch one: paligemma pull google/siglip2-base-patch16-224",
            code="no_encoder",
        )
    if find_spec("torch") is None:
        raise no_torch("search")
    from ..checkpoint.dual_load import load_dual_encoder
    from .encoder import Encoder
    from .words import words_of

    where = device_of(device)
    opened = open_encoder(path)
    opened.refuse_problems()
    words = words_of(opened.located.folder, opened.config, tokenizer)
    towers = load_dual_encoder(opened, device=where, dtype=_numbers(opened, dtype, where))
    return Encoder(towers.requires_grad_(False), words)


def _numbers(opened: OpenedEncoder, dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The number type that the weights get: see `load_encoder`."""
    import torch

    numbers = dtype_of(dtype)
    if numbers is None and device.type == "cpu" and opened.config.num_parameters < SMALL:
        numbers = torch.float32
    return torch_dtype(opened.dtype) if numbers is None else numbers
