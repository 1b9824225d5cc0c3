"""`paligemma pack`: a checkpoint becomes a small folder that answers on a CPU without PyTorch, or in a browser."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from ..edge.pack_file import Quantize
from ..errors import UsageError
from ..inspection.words import bytes_in_words
from ..printable import printable
from ..tokenizer import FILE_NAMES
from .checkpoints import bytes_progress, resolve
from .options import named


def pack(
    model: Annotated[str, named("MODEL", "A folder, an .npz file, a pulled id, a bundled model's name.")],
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    quantize: Quantize = "int8",
    target: Literal["cpu", "web"] = "cpu",
    runtime: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write a model as a pack: quantized, mapped into memory, answered from without PyTorch. Or as a page that answers in a browser.

    Parameters
    ----------
    out
        The pack's folder, a new one.
    quantize
        int8, or int4, which takes less (of a 3B model 1.7 GB in place of 2.9); bf16 and float32 are slow, to compare with.
    target
        web: a folder of static files, for `python -m http.server` or any other server, that computes in the browser (docs/web.md).
    runtime
        With --target web: a folder with ONNX Runtime Web's files, which are copied. By default the one that npm put into ./node_modules;
        without any the page fetches them from a public server.
    overwrite
        Replace a pack that is there.
    """
    path = resolve(model)
    if target == "web":
        return _pack_web(path, out, quantize, runtime, overwrite)
    if runtime is not None:
        raise UsageError("--runtime goes with --target web", hint="leave it out")
    from ..edge.packer import pack_model

    with bytes_progress("packing") as progress:
        done = pack_model(path, out, quantize, overwrite=overwrite, progress=progress)
    size = sum(file.stat().st_size for file in done.iterdir())
    print(printable(f"{done}: {quantize}, {bytes_in_words(size)}; to use it: --model {shlex.quote(str(done))}"))
    if not any((done / name).is_file() for name in FILE_NAMES):
        print(printable(f"warning[no_tokenizer]: {path} has none beside it: put {' or '.join(FILE_NAMES)} into {done}"), file=sys.stderr)
    return 0


def _pack_web(path: Path, out: Path, quantize: Quantize, runtime: Path | None, overwrite: bool) -> int:
    try:
        from ..web.packer import pack_web
    except ModuleNotFoundError as error:
        if error.name != "onnx":
            raise
        raise UsageError("--target web needs the package onnx", hint="pip install 'paligemma[web]'", code="no_onnx") from None
    from ..checkpoint.finding import BUNDLED
    from ..demo import HONEST
    from ..web.runtime import ELSEWHERE, INSTALL, find_runtime

    if quantize == "bf16":
        raise UsageError("browsers compute no bfloat16", hint="int8, int4 or float32", code="no_bf16")
    found = find_runtime(runtime)
    bundled = path.parent == BUNDLED
    with bytes_progress("packing") as progress:
        done = pack_web(
            path, out, quantize, runtime=found, examples=BUNDLED / "demo" if bundled else None, notes=HONEST[:2] if bundled else (),
            overwrite=overwrite, progress=progress,
        )  # fmt: skip
    size = sum(file.stat().st_size for file in done.rglob("*") if file.is_file())
    look = f"python -m http.server --directory {shlex.quote(str(done))}"
    print(printable(f"{done}: {quantize}, {bytes_in_words(size)}; to look at it: {look}"))
    if found is None:
        print(f"its visitors fetch ONNX Runtime Web from {ELSEWHERE}; to have it in the folder: {INSTALL}, and pack again")
    return 0
