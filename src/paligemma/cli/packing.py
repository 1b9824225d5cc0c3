"""`paligemma pack`: a checkpoint becomes a small folder that answers on a CPU without PyTorch."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..edge.pack_file import Quantize
from ..inspection.words import bytes_in_words
from ..printable import printable
from ..tokenizer import FILE_NAMES, Tokenizer
from .checkpoints import bytes_progress, resolve
from .options import named


def pack(
    model: Annotated[str, named("MODEL", "A folder, an .npz file, a pulled id, a bundled model's name.")],
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    quantize: Quantize = "int8",
    tokenizer: Path | None = None,
    codec: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write a model as a pack: quantized, mapped into memory, answered from without PyTorch.

    Parameters
    ----------
    out
        The pack's folder, a new one.
    quantize
        int8, or int4, which takes less (of a 3B model 1.7 GB in place of 2.9); bf16 and float32 are slow, to compare with.
    tokenizer
        tokenizer.model or tokenizer.json, where the checkpoint has none beside it.
    codec
        The mask codec (vae-oid.npz or .safetensors), where the checkpoint has none beside it.
    overwrite
        Replace a pack that is there.
    """
    from ..edge.packer import pack_model

    path = resolve(model)
    words = None if tokenizer is None else _words(path, tokenizer)
    with bytes_progress("packing") as progress:
        done = pack_model(path, out, quantize, tokenizer=words, codec=codec, overwrite=overwrite, progress=progress)
    size = sum(file.stat().st_size for file in done.iterdir())
    print(printable(f"{done}: {quantize}, {bytes_in_words(size)}; to use it: --model {shlex.quote(str(done))}"))
    if not any((done / name).is_file() for name in FILE_NAMES):
        print(printable(f"warning[no_tokenizer]: {path} has none beside it: put {' or '.join(FILE_NAMES)} into {done}"), file=sys.stderr)
    return 0


def _words(path: Path, tokenizer: Path) -> Tokenizer:
    """Raises `CheckpointError` for another model's, before anything is packed."""
    from ..checkpoint import inspect
    from ..predictor.packs import words_of

    return words_of(path, path, tokenizer, inspect(path).config)
