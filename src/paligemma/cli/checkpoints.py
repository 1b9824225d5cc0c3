"""The commands about checkpoints and adapters: list, describe, fetch, convert."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ..checkpoint.memory import GB
from ..config import PRESETS, PaliGemmaConfig
from ..printable import printable
from .options import DType, Json, named
from .show import as_json

Format = Literal["huggingface", "big_vision"]
SHOWN = 8
"""Names in one line; the rest are counted."""
BYTES_PER_WEIGHT = 2
"""In bfloat16, as PaliGemma 2 is published. PaliGemma 1 is, under the revision `bfloat16`; its main one is float32, twice as large."""


def models(*, json: Json = False) -> int:
    """List the published models, and those on this machine."""
    published = [_row(name, config) for name, config in PRESETS.items()]
    here = local_models()
    if json:
        print(as_json({"published": published, "local": [{"name": name, "path": str(path)} for name, path in here]}))
        return 0
    print(f"{'published model':<22}{'picture':>10}{'image tokens':>14}{'parameters':>14}{'memory, bfloat16':>18}")
    for row in published:
        picture, parameters = f"{row['resolution']} px", f"{row['parameters'] / 1e9:.2f} billion"
        print(f"{row['name']:<22}{picture:>10}{row['image_tokens']:>14}{parameters:>14}{row['bfloat16_bytes'] / GB:>15.1f} GB")
    print("\nEach comes as `pt` (to be fine-tuned), some as `mix` (ready for many tasks) and as single-task transfers.")
    print("On Hugging Face the kind is part of the name: paligemma2-3b-224 comes as google/paligemma2-3b-pt-224 and ...-mix-224.")
    print("Fetch one that is ready to use: paligemma pull google/paligemma2-3b-mix-224\n")
    print("On this machine:" if here else "None is on this machine.")
    for name, path in here:
        print(printable(f"  {name:<36}  {path}"))
    return 0


def local_models() -> list[tuple[str, Path]]:
    """(what to call it, where it is) of the bundled models and of the PaliGemmas and SigLIPs in the Hugging Face cache."""
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    from ..checkpoint import cached, is_hub_id
    from ..checkpoint.finding import BUNDLED, bundled_encoders, bundled_models

    found = [(name, BUNDLED / name) for name in (*bundled_models(), *bundled_encoders())]
    with contextlib.suppress(CacheNotFound):
        for repo in sorted(scan_cache_dir(constants.HF_HUB_CACHE).repos, key=lambda repo: repo.repo_id):
            if repo.repo_type == "model" and any(kind in repo.repo_id.lower() for kind in ("paligemma", "siglip")):
                revisions = sorted(name for revision in repo.revisions for name in revision.refs or (revision.commit_hash,))
                names = [repo.repo_id if revision == "main" else f"{repo.repo_id}@{revision}" for revision in revisions]
                found += [(name, path) for name in names if is_hub_id(name) and (path := cached(name))]
    return found


def _row(name: str, config: PaliGemmaConfig) -> dict[str, Any]:
    return {
        "name": name,
        "version": config.version,
        "resolution": config.vision.image_size,
        "image_tokens": config.vision.num_tokens,
        "parameters": config.num_parameters,
        "bfloat16_bytes": BYTES_PER_WEIGHT * config.num_parameters,
    }


def info(
    model: Annotated[str, named("MODEL", "A folder of a model, an adapter or a pack, an .npz file, an id that was pulled.")] = "bundled",
    /,
    *,
    base: str | None = None,
    verify_sha256: Annotated[Path | None, Parameter(name="--verify-sha256")] = None,
    json: Json = False,
) -> int:
    """Say what a checkpoint, a pack or an adapter is.

    Parameters
    ----------
    base
        Of an adapter: the model to hold it beside, by default the one it names. Exit code 4 if it does not fit.
    verify_sha256
        A list of checksums as `sha256sum` writes it, of files in the checkpoint's folder. Exit code 4 if one differs or is missing.
    """
    from ..checkpoint import is_adapter
    from ..checkpoint import verify_sha256 as verify
    from ..checkpoint.dual_opening import is_encoder
    from ..checkpoint.locate import WEB_INDEX
    from ..edge.pack_file import is_pack
    from ..errors import CheckpointError, UsageError

    path = resolve(model)
    # Before the files are looked into: a checksum says which one is damaged.
    compared = [] if verify_sha256 is None else verify(path if path.is_dir() else path.parent, verify_sha256)
    if is_adapter(path):
        facts = _adapter_facts(path, base)
    elif base is None and is_pack(path):
        facts = _pack_facts(path)
    elif base is None and (path / WEB_INDEX).is_file():
        from ..web.description import web_facts

        facts = web_facts(path)
    elif base is None and is_encoder(path):
        facts = _encoder_facts(path)
    elif base is None:
        facts = _model_facts(path)
    else:
        raise UsageError(f"{model} is no adapter, so it has no base", hint="leave out --base")
    if verify_sha256 is not None:
        unlisted = [Path(file) for file in facts["files"] if Path(file) not in compared]
        facts["warnings"] += [f"{file.name} was not compared: {verify_sha256} does not list it" for file in unlisted]
        facts["compared"] = [f"{file}: SHA-256 as listed" for file in compared]
    if json:
        print(as_json(facts))
    else:
        for name, value in (facts | {name: f"{facts[name]:,}" for name in ("parameters", "bytes")}).items():
            values = value if isinstance(value, list) else [value]
            for position, one in enumerate(values):
                print(printable(f"{name.replace('_', ' ') if position == 0 else '':<20}{one}"))
    return CheckpointError.exit_code if facts["problems"] else 0


def _pack_facts(path: Path) -> dict[str, Any]:
    from ..checkpoint.detect import describe
    from ..edge import plain
    from ..edge.mask_decoder import CODEBOOK, MaskDecoder
    from ..edge.network import EdgeNetwork
    from ..edge.pack_file import INDEX, WEIGHTS, Arrays
    from ..tokenizer import FILE_NAMES

    found = EdgeNetwork(path, plain).index
    arrays = Arrays(path, found)
    if CODEBOOK in found.entries:
        MaskDecoder(arrays)
    damaged = arrays.verify()
    warnings = [] if any((path / name).is_file() for name in FILE_NAMES) else ["no tokenizer in the pack"]
    if not found.sealed:
        warnings.append(f"{INDEX} has no checksum, as older packs: what it says could not be checked")
    return {
        "model": describe(found.config),
        "name": found.config.name,
        "parameters": found.config.num_parameters,
        "format": "pack",
        "taught": list(found.config.taught),
        "frames": found.config.frames,
        "number_type": found.quantize,
        "rounding": "by what the model sees in annotated pictures (--calibrate)" if found.calibrated else "to nearest",
        "tensors": len(found.entries),
        "bytes": found.bytes,
        "files": [str(path / WEIGHTS)],
        "masks": "mask decoder included" if CODEBOOK in found.entries else "no mask decoder, which segment needs",
        "warnings": warnings,
        "problems": [f"{name}: not the bytes that were written" for name in damaged],
    }


def _model_facts(path: Path) -> dict[str, Any]:
    from ..checkpoint import inspect

    found = inspect(path)
    config = found.config
    return {
        "model": found.description,
        "parameters": config.num_parameters,
        "picture": f"{config.vision.image_size} x {config.vision.image_size}, {config.vision.num_tokens} tokens, resized {config.resize}",
        "format": found.format,
        "number_type": found.dtype,
        "tensors": found.tensors,
        "files": [str(file) for file in found.files],
        "bytes": found.file_bytes,
        "configuration_from": found.config_from,
        "taught": list(config.taught),
        "frames": config.frames,
        "problems": list(found.problems),
        "warnings": list(found.warnings),
    }


def _encoder_facts(path: Path) -> dict[str, Any]:
    from ..checkpoint.dual_config import describe
    from ..checkpoint.dual_opening import open_encoder

    found = open_encoder(path)
    vision, text = found.config.vision, found.config.text
    return {
        "model": f"{describe(found.config)}, to search pictures with (paligemma search)",
        "parameters": found.config.num_parameters,
        "vectors": f"{found.config.dimensions} numbers",
        "picture": f"{vision.image_size} x {vision.image_size}, {vision.num_tokens} patches, resized {found.config.resize}",
        "text": f"{text.length} tokens of {text.vocab_size:,}",
        "format": found.format,
        "number_type": found.dtype,
        "tensors": len(found.raw.specs),
        "files": [str(file) for file in found.located.files],
        "bytes": sum(file.stat().st_size for file in found.located.files),
        "configuration_from": found.config_from,
        "problems": [*([found.summary] if found.summary else []), *found.problems],
        "warnings": list(found.warnings),
    }


def _adapter_facts(path: Path, base: str | None) -> dict[str, Any]:
    """Of an adapter, by its headers; where its base is here, held beside that."""
    from ..checkpoint.adapter_config import ADAPTER_CONFIG, inspect_adapter
    from ..checkpoint.adapter_layout import contents, weights_file

    info = inspect_adapter(path)
    found = contents(info)
    where, problems, warnings = _beside_base(path, base)
    ranks, alphas = ({value, *others.values()} for value, others in ((info.rank, info.ranks), (info.alpha, info.alphas)))
    return {
        "adapter": f"LoRA, rank {_spread(ranks)}, alpha {_spread(alphas)}" + (", rank-stabilised" if info.rslora else ""),
        "base": base or info.base or "not named",
        "base_found": "no" if where is None else str(where),
        "parameters": found.parameters,
        "layers": [f"{name}{f' ({count})' if count > 1 else ''}" for name, count in found.layers.items()],
        "number_type": found.dtype,
        "files": [str(info.path / ADAPTER_CONFIG), str(weights_file(info.path))],
        "bytes": found.file_bytes,
        "problems": problems,
        "warnings": warnings,
    }


def _beside_base(adapter: Path, base: str | None) -> tuple[Path | None, list[str], list[str]]:
    """Where the base is, if it is here; why the adapter does not fit it; what else is to be said."""
    from ..checkpoint import inspect
    from ..checkpoint.adapter_config import find_base, inspect_adapter
    from ..checkpoint.adapter_layout import adaptable, fit_problems
    from ..checkpoint.finding import find
    from ..errors import CheckpointError

    try:
        where = find(base or find_base(adapter))
    except CheckpointError as error:
        if base is not None:
            raise
        return None, [], [error.message]
    config = inspect(where).config
    return where, fit_problems(inspect_adapter(adapter), config, adaptable(config)), []


def _spread(values: set[Any]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def pull(
    model: Annotated[str, named("ID", "Such as google/paligemma2-3b-mix-224, or ID@REVISION.")],
    /,
    *,
    revision: str | None = None,
) -> int:
    """Fetch a checkpoint from Hugging Face into its cache.

    Parameters
    ----------
    revision
        A branch or commit other than the main one: PaliGemma 1 keeps its half-precision weights on `bfloat16` and `float16`.
    """
    from ..checkpoint import pull as fetch
    from ..checkpoint.dual_opening import is_encoder

    name = model if revision is None else f"{model}@{revision}"
    folder = fetch(name)
    print(printable(f"{name} is in {folder}"))
    use = f"info {name}" if is_encoder(folder) else f"caption photo.jpg --model {name}"
    print(printable(f"use it: paligemma {use}"))
    return 0


def convert(
    source: Annotated[str, named("SOURCE", "What to convert: a folder, an .npz file, a pulled id, an adapter's folder.")],
    target: Annotated[Path, named("TARGET", "A new folder, or a file that ends in .npz.")],
    /,
    *,
    base: str | None = None,
    format: Format | None = None,
    dtype: DType | None = None,
    overwrite: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write a checkpoint in another format. An adapter is merged: added to the weights of its base.

    Parameters
    ----------
    base
        Of an adapter: the model it is added to, by default the one it names.
    format
        What to write: huggingface (a folder of safetensors) or big_vision (one .npz). By default what TARGET's name suggests.
    dtype
        Number type of all tensors; a narrower one rounds them. By default each keeps its own.
    overwrite
        Replace TARGET if it exists.
    """
    from ..checkpoint import convert as write
    from ..checkpoint import is_adapter

    path = resolve(source)
    model = None if base is None else resolve(base)
    if model is None and is_adapter(path):
        from ..checkpoint.finding import base_of

        model = base_of(path)
    with bytes_progress("writing") as progress:
        done = write(path, target, format, dtype, progress, base=model, overwrite=overwrite)
    print(printable(f"{done.path}: {done.format}, {done.dtype}" + (f", with {', '.join(done.copied)}" if done.copied else "")))
    if done.adapted:
        print(printable(f"{model} with the adapter {path} added to {done.adapted} of its layers"))
    if done.dropped_rows:
        print(f"not taken along: {done.dropped_rows} rows of the embedding table that stand for no token")
    if done.zeros:
        more = f" and {len(done.zeros) - SHOWN} more" if len(done.zeros) > SHOWN else ""
        print(f"only zeros: {', '.join(done.zeros[:SHOWN])}{more}")
    return 0


def resolve(model: str) -> Path:
    """The file or folder meant by a path, a bundled model's name or an id in the Hugging Face cache. Raises `CheckpointError`."""
    from ..checkpoint.finding import find

    return find(model)


@contextlib.contextmanager
def bytes_progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of bytes on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)
