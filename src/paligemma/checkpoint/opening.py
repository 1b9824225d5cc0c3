"""A path becomes a checked checkpoint: every header read, the model known, all names and shapes compared. No weight is read.

`Weights` then gives the tensors under our names, in our shapes, whatever the file calls them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import PaliGemmaConfig
from ..errors import CheckpointError
from .axes import X
from .detect import bv_prefix, bv_scanned, config_from_shapes, describe, hf_contradiction
from .hf_config import CONFIG, Described, parse_config, read_config_file
from .locate import Format, Located, locate
from .npz_file import NpzFile, comment_json
from .recognise import ENCODER_TYPES, beginning, encoder_refused, holds_encoder, why_not_weights
from .safetensors_files import SafetensorsFiles
from .source import Array, ArraySource, TensorSource, TensorSpec, main_dtype, refuse
from .weight_maps import EMBEDDING, HF_EMBEDDING, HF_TIED, PADDED_VOCAB, Layout, bv_layout, hf_layout, hub_name, our_shapes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class OpenedFiles:
    """`problems`: what keeps it from being loaded, one line each. `actual`: the layout's names -> the file's own.

    `shapes`: our names and shapes. `config_from`: where the configuration was found.
    """

    located: Located
    raw: ArraySource
    config_from: str
    layout: Layout
    actual: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    problems: tuple[str, ...]
    summary: str | None = None
    warnings: tuple[str, ...]

    @property
    def format(self) -> Format:
        return self.located.format

    @property
    def dtype(self) -> str:
        return main_dtype(self.raw.specs)

    @property
    def label(self) -> str:
        """What messages call it."""
        files = self.located.files
        return files[0].name if len(files) == 1 else str(self.located.folder)

    def refuse_problems(self) -> None:
        """Raise one `CheckpointError` for everything that does not fit."""
        refuse(self.label, self.problems, summary=self.summary or "the tensors are not those of the model", code="tensors_differ")

    def weights(self) -> Weights:
        self.refuse_problems()
        return Weights(self.raw, self.layout, self.actual, self.shapes)


@dataclass(frozen=True, kw_only=True)
class Opened(OpenedFiles):
    """A PaliGemma. `tied`: the file's name of an output matrix beside the embedding table."""

    config: PaliGemmaConfig
    recorded_softcap: float | None
    tied: str | None


class Weights(ArraySource):
    """A checkpoint's tensors under our names. Those that need rearranging are copied, the others are what the file gives."""

    def __init__(self, raw: ArraySource, layout: Layout, actual: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]):
        self._raw, self._layout, self._actual = raw, layout, actual
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(shape, raw.specs[actual[layout.pieces[name].theirs]].dtype) for name, shape in shapes.items()
        }

    def array(self, name: str, start: int = 0, count: int | None = None) -> Array:
        return self._ours(self._raw.array, name, start, count)

    def read(self, name: str, start: int = 0, count: int | None = None) -> Tensor:
        return self._ours(self._raw.read, name, start, count)  # rearranged as tensors, which is quicker than as arrays

    def _ours(self, read: Callable[[str, int, int], X], name: str, start: int, count: int | None) -> X:
        piece, spec = self._layout.pieces[name], self.specs[name]
        theirs = self._actual[piece.theirs]
        if piece.axes is None:
            flat = read(theirs, piece.start + start, spec.numel if count is None else count)
        else:
            block = read(theirs, piece.start, spec.numel).reshape(piece.axes.left_shape(self._layout.sizes))
            flat = piece.axes.forward(block).reshape(-1)
            flat = flat if count is None else flat[start : start + count]
        return flat.reshape(spec.shape) if count is None else flat


def open_checkpoint(path: str | Path, *, mapped: bool = True) -> Opened:
    """`mapped`: safetensors are mapped into memory rather than copied. An `.npz`'s checksums are compared while reading.

    Raises `CheckpointError` for what cannot be described at all; what can be but does not fit is in `problems`.
    """
    located = locate(path)
    if located.format == "huggingface":
        return _open_huggingface(located, mapped)
    return _open_big_vision(located)


def huggingface_config(located: Located) -> dict[str, Any]:
    """The JSON object of config.json, after a look at what the weight files are. Raises `CheckpointError`."""
    for file in located.files:
        if (error := why_not_weights(file, beginning(file))) is not None:
            raise error
    file = located.folder / CONFIG
    if not file.exists():
        raise CheckpointError(f"{located.files[0]}: no {CONFIG} beside it", hint="fetch config.json too", code="no_config")
    return read_config_file(file)


def _open_huggingface(located: Located, mapped: bool) -> Opened:
    data = huggingface_config(located)
    if data.get("model_type") in ENCODER_TYPES:
        raise encoder_refused(located.folder)
    described = parse_config(data)
    raw = SafetensorsFiles(list(located.files), mapped=mapped)
    config = described.config
    layout = hf_layout(config)

    actual: dict[str, str] = {}
    problems: list[str] = []
    for name in raw.specs:
        hub = hub_name(name)
        if hub in actual:
            problems.append(f"{actual[hub]} and {name} are the same tensor under two names")
        actual[hub] = name
    found = {hub: raw.specs[name].shape for hub, name in actual.items()}
    problems += compare(layout.shapes | ({HF_TIED: layout.shapes[HF_EMBEDDING]} if HF_TIED in found else {}), found, actual)
    return Opened(
        located=located, raw=raw, config=config, config_from=CONFIG, recorded_softcap=described.recorded_softcap, layout=layout,
        actual=actual, shapes=our_shapes(config), tied=actual.get(HF_TIED), problems=tuple(problems),
        summary=hf_contradiction(config, found) if problems else None, warnings=dtype_warnings(raw),
    )  # fmt: skip


def _open_big_vision(located: Located) -> Opened:
    raw = NpzFile(located.files[0])
    prefix = bv_prefix(raw.specs)
    if holds_encoder(raw.specs):
        raise encoder_refused(located.files[0])
    comment = comment_json(raw.comment)
    where = located.files[0].name
    if comment is not None and comment.get("model_type") == "paligemma":
        source = "the archive's comment"
        described = parse_config(comment, f"{where}: {source}")
    else:
        described, source = Described(config_from_shapes(raw.specs, prefix, where=where)), "the shapes"
    config = described.config
    layout = bv_layout(config, prefix=prefix, scanned=bv_scanned(raw.specs, prefix))
    actual = {name: name for name in raw.specs}
    problems = compare(layout.shapes, {name: spec.shape for name, spec in raw.specs.items()}, actual)
    return Opened(
        located=located, raw=raw, config=config, config_from=source, recorded_softcap=described.recorded_softcap, layout=layout,
        actual=actual, shapes=our_shapes(config), tied=None, problems=tuple(problems),
        summary=f"by {source} it is {describe(config)}, but the tensors are not" if problems else None, warnings=dtype_warnings(raw),
    )  # fmt: skip


def compare(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], actual: Mapping[str, str]) -> list[str]:
    """Missing, unknown and misshapen tensors. A table of token rows may have Hugging Face's 64 surplus rows."""
    tables = [name for name in expected if name in (HF_EMBEDDING, HF_TIED) or name.endswith("llm/embedder/input_embedding")]
    problems = []
    for name, shape in expected.items():
        if name in found and found[name] != shape and not (name in tables and _padded(found[name], shape)):
            turned = " (transposed)" if len(shape) > 1 and found[name] == shape[::-1] else ""
            problems.append(f"{actual[name]} has shape {found[name]}, expected {shape}{turned}")
    problems += [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{actual[name]} is not part of the model" for name in found if name not in expected]
    return problems


def _padded(found: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return found[1:] == expected[1:] and (found[0], expected[0]) == (PADDED_VOCAB, PADDED_VOCAB - 64)


def dtype_warnings(raw: TensorSource) -> tuple[str, ...]:
    kinds = {spec.dtype for spec in raw.specs.values()}
    if len(kinds) == 1:
        return ()
    return (f"the tensors are of several number types ({', '.join(sorted(kinds))}); by default all are loaded as {main_dtype(raw.specs)}",)


def surplus_rows(opened: Opened) -> int:
    """Rows of the embedding table that stand for no token and are dropped."""
    theirs = opened.raw.specs[opened.actual[opened.layout.pieces[EMBEDDING].theirs]]
    return theirs.shape[0] - opened.config.text.vocab_size
