"""A checkpoint -> a pack, matrix by matrix: a model far larger than memory passes through. A small one may stay in memory."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..bfloat16 import to_bfloat16
from ..checkpoint.codec import find_codec, read_codec
from ..checkpoint.hf_config import write_config
from ..checkpoint.load import tied_problems
from ..checkpoint.locate import COMPANIONS
from ..checkpoint.opening import open_checkpoint
from ..checkpoint.source import refuse
from ..checkpoint.values import ValueCheck
from ..checkpoint.write import replacing_together
from ..config import PaliGemmaConfig
from ..errors import UsageError, did_you_mean
from ..tokenizer import FILE_NAMES, Tokenizer
from .calibration import SHARED, Moments
from .gptq import Rounding
from .mask_decoder import decoder_part
from .pack_file import INDEX, ITEM, WEIGHTS, Arrays, Index, Kind, Quantize, digest, index_file, is_pack, place, total
from .packing import Bits, Floats, aligned, pack, packed_bytes
from .packing import quantize as nearest

GROUP, SMALL_GROUP, WIDE = 128, 32, 1024
"""Inputs that share a scale of weights with 4 bits, of matrices with at least `WIDE` inputs, and of smaller ones; in smaller ones
activations share theirs so with 8 bits too. A decoder that narrow keeps its table of words as bfloat16, and 8 bits in attention where the
rest has 4: half of what rounding does to its answers comes from there. A small model forgives less, and has little to save."""
ROWS = 2**23
"""Weights that are read at once."""
CARD = "README.md"

Round = Callable[[Floats, Bits, int | None], tuple[NDArray[np.int8], NDArray[Any]]]
Progress = Callable[[int, int], None]
"""Called with the bytes written so far, and all of them."""


@dataclass(frozen=True)
class Source:
    """Where a matrix or vector of the pack comes from: arrays of the model that are stacked, and how it is kept."""

    kind: Kind
    shape: tuple[int, ...]
    parts: tuple[str, ...]
    bits: Bits | None = None

    @property
    def group(self) -> int | None:
        if self.bits is None:
            return None
        return SMALL_GROUP if self.shape[1] < WIDE else GROUP if self.bits == 4 else None

    @property
    def bytes(self) -> int:
        if self.bits is not None:
            return packed_bytes(self.shape[0], self.shape[1], self.bits, self.group)
        return int(np.prod(self.shape)) * ITEM[self.kind]


def sources(config: PaliGemmaConfig, quantize: Quantize) -> dict[str, Source]:
    """Everything that a pack of this model holds, by its name there, but for the mask codec."""
    v, t = config.vision, config.text
    kept: dict[str, tuple[Kind, Bits | None]] = {
        "int8": ("packed", 8), "int4": ("packed", 4), "bf16": ("bfloat16", None), "float32": ("float32", None),
    }  # fmt: skip
    decoder, tower = kept[quantize], kept["int8" if quantize == "int4" else quantize]
    found: dict[str, Source] = {}

    def matrix(name: str, outputs: int, inputs: int, how: tuple[Kind, Bits | None], *parts: str) -> None:
        base = name.rpartition(".")[0]
        of = tuple(f"{base}.{part}.weight" for part in parts) or (f"{name}.weight",)
        found[f"{name}.weight"] = Source(how[0], (outputs, inputs), of, how[1])

    def vector(name: str, size: int, *parts: str) -> None:
        found[name] = Source("float32", (size,), parts or (name,))

    def biased(name: str, outputs: int, inputs: int, *parts: str) -> None:
        matrix(name, outputs, inputs, tower, *parts)
        base = name.rpartition(".")[0]
        vector(f"{name}.bias", outputs, *(f"{base}.{part}.bias" for part in parts))

    def norm(name: str) -> None:
        vector(f"{name}.weight", v.width)
        vector(f"{name}.bias", v.width)

    matrix("vision.patch_embed", v.width, 3 * v.patch_size**2, ("float32", None))
    vector("vision.patch_embed.bias", v.width)
    found["vision.pos_embed"] = Source("float32", (v.num_tokens, v.width), ("vision.pos_embed",))
    for i in range(v.depth):
        block = f"vision.blocks.{i}"
        norm(f"{block}.norm1")
        biased(f"{block}.attn.qkv", 3 * v.width, v.width, "q", "k", "v")
        biased(f"{block}.attn.out", v.width, v.width)
        norm(f"{block}.norm2")
        biased(f"{block}.mlp.up", v.mlp_dim, v.width)
        biased(f"{block}.mlp.down", v.width, v.mlp_dim)
    norm("vision.norm")
    biased("projector", t.width, v.width)
    narrow = decoder[1] is not None and t.width < WIDE
    attention = kept["int8"] if narrow else decoder
    matrix("text.embed", t.vocab_size, t.width, kept["bf16"] if narrow else decoder)
    for i in range(t.depth):
        block = f"text.blocks.{i}"
        for name in ("pre_attn_norm", "pre_mlp_norm", *(("post_attn_norm", "post_mlp_norm") if t.post_norms else ())):
            vector(f"{block}.{name}.weight", t.width)
        matrix(f"{block}.attn.q", t.heads * t.head_dim, t.width, attention)
        matrix(f"{block}.attn.kv", 2 * t.kv_heads * t.head_dim, t.width, attention, "k", "v")
        matrix(f"{block}.attn.o", t.width, t.heads * t.head_dim, attention)
        matrix(f"{block}.mlp.gate", t.mlp_dim, t.width, decoder)
        matrix(f"{block}.mlp.up", t.mlp_dim, t.width, decoder)
        matrix(f"{block}.mlp.down", t.width, t.mlp_dim, decoder)
    vector("text.norm.weight", t.width)
    return found


def pack_model(
    model: str | Path,
    out: str | Path,
    quantize: Quantize = "int8",
    *,
    tokenizer: Tokenizer | None = None,
    codec: str | Path | None = None,
    moments: Moments | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the checkpoint `model` (a folder or an .npz) to the folder `out` as a pack, with tokenizer, mask decoder and calibration.

    tokenizer, codec: in place of those beside the checkpoint. moments: what the decoder's matrices see (`calibration.observed`), for
    rounding by that (`gptq.py`) instead of to nearest.

    Raises `CheckpointError` for a checkpoint that `paligemma.load` would refuse, or values that are no numbers, `UsageError` for a way to
    quantize that there is not, and for a folder that holds something else, or a pack already (unless `overwrite`).
    """
    if quantize not in get_args(Quantize):
        raise UsageError(f"nothing is quantized to {quantize!r}", hint=did_you_mean(quantize, get_args(Quantize)))
    out = check_out(Path(out).expanduser(), overwrite=overwrite)
    opened = _Opened(model, quantize, codec, moments)
    out.mkdir(parents=True, exist_ok=True)
    # Files take their places when they are whole, the index last; who has an old pack mapped keeps it.
    with replacing_together(out / INDEX, out / WEIGHTS) as (index, file):
        entries = dict(opened.entries)
        file.truncate(total(entries))
        all_of_it, done = sum(one.bytes for one in entries.values()), 0
        for name, entry in opened.entries.items():
            file.seek(entry.at)
            data = opened.bytes(name)
            file.write(data.data)
            entries[name] = dataclasses.replace(entry, sha256=digest(data))
            done += entry.bytes
            if progress is not None:
                progress(done, all_of_it)
        config = write_config(opened.config, dtype=opened.dtype)
        index.write(index_file(quantize, config, entries, calibrated=moments is not None))
        for name in COMPANIONS:
            if (opened.folder / name).is_file() and not (tokenizer and name in FILE_NAMES):
                shutil.copyfile(opened.folder / name, out / name)
            else:
                (out / name).unlink(missing_ok=True)
        if tokenizer is not None:
            tokenizer.save(out)
        card = _card(opened.config.name, quantize, opened.folder / CARD, calibrated=moments is not None)
        (out / CARD).write_text(card, encoding="utf-8")
    return out


def held(model: str | Path, codec: str | Path | None = None) -> Arrays:
    """A checkpoint as a float32 pack that is in memory only, 4 bytes a number: for small models. Raises what `pack_model` raises."""
    opened = _Opened(model, "float32", codec, None)
    memory = aligned(total(opened.entries))
    for name, entry in opened.entries.items():
        memory[entry.at : entry.at + entry.bytes] = opened.bytes(name)
    return Arrays(memory, Index("float32", opened.config, opened.entries))


class _Opened:
    """A checkpoint whose numbers are about to be packed. `entries`: of everything that the pack will hold, without digests."""

    def __init__(self, model: str | Path, quantize: Quantize, codec: str | Path | None, moments: Moments | None):
        opened = open_checkpoint(model)
        self.config, self.dtype, self.label, self.folder = opened.config, opened.dtype, opened.label, opened.located.folder
        self._weights = opened.weights()
        refuse(opened.label, tied_problems(opened), code="tensors_differ")
        path = codec or find_codec(self.folder)
        self._codec = {} if path is None else decoder_part(read_codec(path))
        self._moments, self._last = moments, ("", nearest)
        self._wanted = sources(opened.config, quantize)
        self._wanted |= {name: Source("float32", array.shape, ()) for name, array in self._codec.items()}
        self.entries = place((name, one.kind, one.shape, one.bytes) for name, one in self._wanted.items())

    def bytes(self, name: str) -> NDArray[np.uint8]:
        """An array as it lies in the file. Raises `CheckpointError` for values that are no numbers."""
        if name in self._codec:
            return _bytes(self._codec[name])
        source = self._wanted[name]
        if source.bits is not None:
            rounded = self._rounding(name)
            pieces = [rounded(piece, source.bits, source.group) for piece in self._pieces(source)]
            values, scales = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
            return pack(values, scales, source.bits, source.group).data
        narrow = source.kind == "bfloat16"
        return np.concatenate([_bytes(to_bfloat16(piece) if narrow else piece) for piece in self._pieces(source)])

    def _rounding(self, name: str) -> Round:
        """By what the matrix sees, where that is known. Matrices that see the same stand beside each other and share it."""
        layer = name.removesuffix(".weight")
        seen = next((name.replace(own, other) for own, other in SHARED.items() if layer.endswith(own)), name)
        if self._moments is None or seen not in self._moments:
            return nearest
        if self._last[0] != seen:
            self._last = seen, Rounding.of(self._moments[seen])
        return self._last[1]

    def _pieces(self, source: Source) -> Iterator[Floats]:
        """The numbers in float32, some rows at a time."""
        width = source.shape[1] if len(source.shape) > 1 else 1
        step = max(1, ROWS // width) * width
        for name in source.parts:
            count = self._weights.specs[name].numel
            for start in range(0, count, step):
                flat = self._weights.floats(name, start, min(step, count - start))
                values = ValueCheck(self.label)
                values.look(name, flat)
                values.finish()
                yield flat.reshape(-1, width) if len(source.shape) > 1 else flat


def check_out(out: Path, *, overwrite: bool) -> Path:
    """The folder if a pack may be written there. Raises `UsageError` if not."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (overwrite and is_pack(out)))):
        raise UsageError(
            f"{out} exists already",
            hint="choose another place"
            + (", or --overwrite" if is_pack(out) else "; it is no pack, and --overwrite replaces nothing else" if overwrite else ""),
        )
    return out


def _card(name: str, quantize: Quantize, original: Path, *, calibrated: bool) -> str:
    """The pack's, with the model's below it."""
    own = f"# {name}, packed: {quantize}{', calibrated' if calibrated else ''}\n\n"
    own += "Made by `paligemma pack` for answering on a CPU; docs/packs.md says how.\n"
    own += "Its weights were rounded by what the model sees in annotated pictures (`--calibrate`).\n" if calibrated else ""
    if not original.is_file():
        return own
    text = original.read_text(encoding="utf-8", errors="replace")
    return f"{own}\nBelow is the card of the model it was made of. Scores in it are that model's, with all its numbers.\n\n---\n\n{text}"


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
