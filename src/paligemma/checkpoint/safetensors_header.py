"""A safetensors header, checked more strictly than the library does, before any of its data is touched.

The library accepts a repeated name (the last wins), names with `../` or NUL, empty tensors and text before the `{`; each of them lets
two readers see two different files. Format: 8 bytes little-endian length, a JSON object, the data without gaps.
Source: the format section of https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .recognise import why_not_weights
from .source import MAX_RANK, MAX_TENSORS, TensorSpec, name_problem

MAX_HEADER = 16 << 20
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_OTHER_SIZES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "I32": 4,
    "U32": 4,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}


@dataclass(frozen=True)
class Header:
    """`offsets`: where each tensor begins, counted from the start of the file."""

    specs: dict[str, TensorSpec]
    offsets: dict[str, int]


def read_header(path: Path) -> Header:
    """The header of one file. Raises `CheckpointError` naming file, byte counts and tensor; reads no tensor data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if (what := why_not_weights(path, start + file.read(512))) is not None:
            raise what
        if size < 8:
            raise _bad(path, f"the file has {size} bytes, a header alone needs 8", hint=_CUT)
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER:
            raise _bad(path, f"the header claims {length:,} bytes, the limit is {MAX_HEADER:,}; this is no safetensors file")
        if length < 2 or length > size - 8:
            raise _bad(path, f"the header claims {length:,} bytes, {size - 8:,} follow", hint=_CUT)
        file.seek(8)
        text = file.read(length)
    return _parse(path, text, size - 8 - length)


_CUT = "the download may have been cut short: fetch the file again"


def _bad(path: Path, message: str, *, hint: str | None = None, code: str = "bad_header") -> CheckpointError:
    return CheckpointError(f"{path.name}: {message}", hint=hint, code=code)


def _canonical(path: Path, message: str) -> CheckpointError:
    return _bad(path, message, code="header_not_canonical", hint="write the file again with the safetensors library")


def _parse(path: Path, text: bytes, data_size: int) -> Header:
    if text[:1] != b"{":
        raise _canonical(path, "the header does not start with '{'")
    repeated: list[str] = []

    def no_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [key for key, _ in pairs]
            repeated.extend(sorted({key for key in found if names.count(key) > 1}) if len(pairs) <= 100 else ["(many)"])
        return found

    def no_constant(constant: str) -> object:
        raise ValueError(f"{constant} is not JSON")

    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=no_repeats, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"the header is not JSON ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise _bad(path, "the header is not a JSON object")
    if repeated:
        raise _canonical(path, f"the header names {repeated[0][:80]!a} twice")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _bad(path, "__metadata__ is not a table of strings")
    if len(header) > MAX_TENSORS:
        raise _bad(path, f"the header lists {len(header):,} tensors, the limit is {MAX_TENSORS:,}")
    if not header:
        raise _bad(path, "the file holds no tensor")
    return _layout(path, header, data_size, 8 + len(text))


def _layout(path: Path, header: dict[str, object], data_size: int, data_start: int) -> Header:
    specs: dict[str, TensorSpec] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if (problem := name_problem(name)) is not None:
            raise _canonical(path, problem)
        if "/" in name:
            raise _canonical(path, f"a tensor name that looks like a path: {name[:60]!a}")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise _bad(path, f"{name}: expected exactly dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not _counts(shape) or len(shape) > MAX_RANK:
            raise _bad(path, f"{name}: the shape {str(shape)[:80]} is not a list of at most {MAX_RANK} counts")
        if 0 in shape:
            raise _canonical(path, f"{name}: the shape {shape} holds no value")
        if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
            raise _bad(path, f"{name}: the data_offsets {str(offsets)[:80]} are not a range")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            known = isinstance(dtype, str) and dtype in _OTHER_SIZES
            hint = "quantized and integer weights are not supported" if known else None
            raise _bad(path, f"{name}: number type {str(dtype)[:20]!a}, expected one of {', '.join(_DTYPES)}", hint=hint, code="bad_dtype")
        spec = TensorSpec(tuple(shape), _DTYPES[dtype])
        if spec.nbytes != offsets[1] - offsets[0]:
            raise _bad(path, f"{name}: {dtype} {shape} takes {spec.nbytes:,} bytes, the header gives it {offsets[1] - offsets[0]:,}")
        specs[name] = spec
        spans.append((offsets[0], offsets[1], name))
    end = 0
    for begin, stop, name in sorted(spans):
        if begin != end:
            kind = "overlaps the tensor before it" if begin < end else f"leaves a hole of {begin - end:,} bytes"
            raise _bad(path, f"{name}: its data {kind}")
        end = stop
    if end != data_size:
        raise _bad(
            path, f"the header describes {end:,} bytes of data, the file holds {data_size:,}", hint=_CUT if end > data_size else None
        )
    return Header(specs, {name: data_start + begin for begin, _, name in spans})


def _counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**53 for item in value)
