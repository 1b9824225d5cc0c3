"""`paligemma pack`: a checkpoint becomes a small folder that answers on a CPU without PyTorch, or in a browser."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from ..edge.pack_file import Quantize
from ..errors import InputError, UsageError
from ..inspection.words import bytes_in_words
from ..printable import printable
from ..tokenizer import FILE_NAMES, Tokenizer
from .checkpoints import bytes_progress, resolve
from .options import named

if TYPE_CHECKING:
    from ..edge.calibration import Moments


EXAMPLES = 64
"""Asked about for `--calibrate`."""


def pack(
    model: Annotated[str, named("MODEL", "A folder, an .npz file, a pulled id, a bundled model's name.")],
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o")],
    quantize: Quantize = "int8",
    calibrate: str | None = None,
    examples: int = EXAMPLES,
    tokenizer: Path | None = None,
    codec: Path | None = None,
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
    calibrate
        Round by what the model sees when it is asked about these annotated pictures (any format that `train` reads): int4 keeps more of its
        answers. Takes a pass of the whole model for each, and room for an unquantized pack meanwhile.
    examples
        How many of them are asked, evenly spread.
    tokenizer
        tokenizer.model or tokenizer.json, where the checkpoint has none beside it.
    codec
        The mask codec (vae-oid.npz or .safetensors), where the checkpoint has none beside it.
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
        for name, given in (("calibrate", calibrate), ("tokenizer", tokenizer), ("codec", codec)):
            if given is not None:
                raise UsageError(f"--{name} is for packs that answer on a CPU, not for --target web", hint="leave one of them out")
        return _pack_web(path, out, quantize, runtime, overwrite)
    if runtime is not None:
        raise UsageError("--runtime goes with --target web", hint="leave it out")
    from ..edge.packer import check_out, pack_model

    words = None if tokenizer is None else _words(path, tokenizer)
    check_out(out, overwrite=overwrite)
    own = {"tokenizer": words, "codec": codec}
    moments = None if calibrate is None else _moments(path, calibrate, quantize, examples, **own)
    with bytes_progress("packing") as progress:
        done = pack_model(path, out, quantize, moments=moments, overwrite=overwrite, progress=progress, **own)
    size = sum(file.stat().st_size for file in done.iterdir())
    print(printable(f"{done}: {quantize}, {bytes_in_words(size)}; to use it: --model {shlex.quote(str(done))}"))
    if not any((done / name).is_file() for name in FILE_NAMES):
        print(printable(f"warning[no_tokenizer]: {path} has none beside it: put {' or '.join(FILE_NAMES)} into {done}"), file=sys.stderr)
    return 0


def _moments(path: Path, source: str, quantize: Quantize, examples: int, **given: Any) -> Moments:
    """What the model's matrices see while it is asked about annotated pictures."""
    import tempfile

    from ..data.opening import open_data, splits
    from ..data.records import evenly
    from ..edge.calibration import observed
    from ..edge.network import EdgeNetwork
    from ..edge.packer import pack_model
    from ..evaluation.predict import class_names, predict
    from ..predictor import load
    from .evaluation import asking

    if quantize not in ("int8", "int4"):
        raise UsageError(f"--calibrate is for rounding, and {quantize} keeps numbers as they are", hint="--quantize int4")
    if examples < 1:
        raise UsageError(f"--examples is at least 1, got {examples}")
    try:
        dataset = open_data(source, split=next(iter(splits(source)), None))  # of one that is divided, what is for training
    except InputError as error:
        if error.code == "unknown_format":
            error.hint = "--calibrate takes annotated pictures, a .jsonl or a folder as `paligemma train` reads them (docs/training.md)"
        raise
    records = evenly(dataset.records, examples)
    if not records:
        raise InputError(f"{printable(source)}: no usable record", hint="`paligemma data check` says why", code="no_records")
    with tempfile.TemporaryDirectory() as scratch:
        with bytes_progress("preparing") as progress:
            plain = pack_model(path, Path(scratch) / "plain", "bf16", progress=progress, **given)
        predictor = load(plain)
        assert isinstance(predictor.network, EdgeNetwork)
        with observed(predictor.network) as moments, asking() as progress:
            done = 0
            for some in predict(predictor, records, classes=dataset.classes or class_names(dataset.records)):
                done += len(some)
                if progress:
                    progress(done, len(records))
    return moments


def _words(path: Path, tokenizer: Path) -> Tokenizer:
    """Raises `CheckpointError` for another model's, before anything is packed."""
    from ..checkpoint import inspect
    from ..predictor.packs import words_of

    return words_of(path, path, tokenizer, inspect(path).config)


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
