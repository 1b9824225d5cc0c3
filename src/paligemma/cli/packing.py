"""`paligemma pack`: a checkpoint becomes a small folder that answers on a CPU without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..checkpoint.memory import GB
from ..edge.pack_file import Quantize
from ..printable import printable
from .checkpoints import bytes_progress, resolve
from .options import named


def pack(
    model: Annotated[str, named("MODEL", "A folder, an .npz file, a pulled id, a bundled model's name.")],
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    quantize: Quantize = "int8",
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write a model as a pack: quantized, mapped into memory, answered from without PyTorch.

    Parameters
    ----------
    out
        The pack's folder, a new one.
    quantize
        int8 hardly changes answers; int4 is half as large; bf16 and float32 are slow, to compare with.
    overwrite
        Replace a pack that is there.
    """
    from ..edge.packer import pack_model

    path = resolve(model)
    with bytes_progress("packing") as progress:
        done = pack_model(path, out, quantize, overwrite=overwrite, progress=progress)
    size = sum(file.stat().st_size for file in done.iterdir())
    print(printable(f"{done}: {quantize}, {size / GB:.3g} GB"))
    print(printable(f"paligemma caption PICTURE --model {done}"))
    return 0
