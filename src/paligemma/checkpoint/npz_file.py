"""A NumPy archive (`.npz`) as an `ArraySource`: the zip directory and the array headers are checked first, nothing is unpacked.

bfloat16 does not exist in NumPy: big_vision stores it as two bytes of no type (`|V2`), read here as bfloat16. Stored members are read at
their place in the file; compressed ones are unpacked as a stream, from the beginning to the part asked for, so layers should be read in
order. Nothing is ever unpickled: array headers are matched against the one form NumPy writes, not evaluated.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html and PKWARE's APPNOTE for the zip.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import CheckpointError
from .recognise import beginning, pickle_refused, why_not_weights
from .safetensors_files import read_into_array
from .source import ARRAY_TYPES, ITEM_SIZE, MAX_RANK, MAX_TENSORS, Array, ArraySource, TensorSpec, name_problem, refuse

MAX_DIRECTORY = 4 << 20
MAX_RATIO = 200
"""A member that unpacks to more than this many times its size, and to more than `BOMB_BYTES`, is refused."""
BOMB_BYTES = 64 << 20
MAX_ARRAY_HEADER = 10_000
_DTYPES = {"<f4": "float32", "<f2": "float16", "|V2": "bfloat16", "<V2": "bfloat16"}
_HEADER = re.compile(r"\{'descr': '([^']{1,12})', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,400})\),? ?\}[ ]*\n")


@dataclass(frozen=True)
class _Member:
    info: zipfile.ZipInfo
    spec: TensorSpec
    start: int
    """Where the values begin: in the file for a stored member, in the unpacked stream for a compressed one."""


class NpzFile(ArraySource):
    """The arrays of one `.npz`. `comment` is the archive's comment, where this package keeps a model's configuration."""

    def __init__(self, path: Path, *, verify: bool = True):
        """`verify`: compare each array's checksum once it has been read from its first to its last value."""
        self.path = path
        self.files = (path,)
        self.verify = verify
        if (error := why_not_weights(path, beginning(path))) is not None:
            raise error
        claimed = _claimed_members(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
            raise _bad(path, f"not a zip archive ({type(error).__name__})", hint=_CUT) from None
        self.comment = self._zip.comment
        infos = self._zip.infolist()
        if len(infos) != claimed:
            raise _bad(path, f"its directory claims {claimed:,} members and lists {len(infos):,}", hint=_CUT)
        refuse(path.name, _directory_problems(infos, path.stat().st_size), code="npz_refused")
        self._members: dict[str, _Member] = {}
        problems: list[str] = []
        with path.open("rb") as file:
            for info in infos:
                name = info.filename.removesuffix(".npy")
                try:
                    self._members[name] = _member(self._zip, file, info)
                except _Refused as error:
                    problems.append(f"{name}: {error}")
                except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error, ValueError) as error:
                    problems.append(f"{name}: damaged ({type(error).__name__})")
        if any(_PICKLED in problem for problem in problems):
            raise pickle_refused(path)
        refuse(path.name, problems, code="npz_refused")
        self.specs: Mapping[str, TensorSpec] = {name: member.spec for name, member in self._members.items()}
        self._streams: dict[str, _Stream] = {}
        self._sums: dict[str, tuple[int, int]] = {}

    def array(self, name: str, start: int = 0, count: int | None = None) -> Array:
        member = self._members[name]
        length = member.spec.numel if count is None else count
        if member.info.compress_type == zipfile.ZIP_STORED:
            flat = read_into_array(self.path, member.start + start * ITEM_SIZE[member.spec.dtype], length, member.spec.dtype)
            if self.verify:
                self._checksum(name, member, start, flat)
        else:
            flat = self._unpack(name, member, start, length)
        return flat.reshape(member.spec.shape) if count is None else flat

    def _unpack(self, name: str, member: _Member, start: int, count: int) -> Array:
        size = ITEM_SIZE[member.spec.dtype]
        out = np.empty(count, ARRAY_TYPES[member.spec.dtype])
        stream = self._streams.pop(name, None)
        at = member.start + start * size
        if stream is None or stream.position > at:
            stream = _Stream(self._zip.open(member.info))
        try:
            stream.skip_to(at)
            stream.fill(out.view(np.uint8).data)
            if start + count == member.spec.numel:
                stream.finish()
            else:
                self._streams[name] = stream
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise _bad(self.path, f"{name}: the packed data are damaged ({error or type(error).__name__})", hint=_CUT) from None
        return out

    def _checksum(self, name: str, member: _Member, start: int, flat: Array) -> None:
        """Carry a stored member's checksum along while it is read in order; compare it after the last value."""
        done, value = self._sums.get(name, (0, None))
        if done != start:
            return
        if value is None:
            value = zlib.crc32(_span(self.path, member.start - _header_length(member), _header_length(member)))
        value = zlib.crc32(flat.data, value)
        self._sums[name] = (start + flat.size, value)
        if start + flat.size == member.spec.numel:
            self._sums.pop(name)
            if value != member.info.CRC:
                raise _bad(self.path, f"{name}: the checksum does not fit the data", hint=_CUT, code="bad_checksum")


class _Stream:
    """A compressed member, read forwards only."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.position = 0

    def skip_to(self, position: int) -> None:
        while self.position < position:
            self._take(min(1 << 20, position - self.position))

    def fill(self, out: memoryview) -> None:
        done = 0
        while done < len(out):
            piece = self._take(min(1 << 20, len(out) - done))
            out[done : done + len(piece)] = piece
            done += len(piece)

    def finish(self) -> None:
        """Read past the end: only then does the zip library compare the checksum."""
        self._file.read(1)
        self._file.close()

    def _take(self, count: int) -> bytes:
        piece = self._file.read(count)
        if not piece:
            raise EOFError("it ends early")
        self.position += len(piece)
        return piece


_CUT = "the download may have been cut short or damaged: fetch the file again"
_PICKLED = "pickled objects"


class _Refused(Exception):
    """Why one member is refused."""


def _bad(path: Path, message: str, *, hint: str | None = None, code: str = "npz_refused") -> CheckpointError:
    return CheckpointError(f"{path.name}: {message}", hint=hint, code=code)


def _claimed_members(path: Path) -> int:
    """How many members the directory is said to have. A huge one is refused before the zip library reads it: it keeps an object for each.

    Where a zip64 locator stands before the end record, the library believes the record before the locator, without looking at the place
    the locator names. So these must be one.
    """
    size = path.stat().st_size
    tail = _span(path, max(0, size - 65_557), min(size, 65_557))
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < 22:
        raise _bad(path, f"not a zip archive, or one that was cut short ({size:,} bytes)", hint=_CUT)
    count, length = struct.unpack("<HI", tail[at + 10 : at + 16])
    locator = size - len(tail) + at - 20
    found = _span(path, locator, 20) if locator >= 56 else b""
    if found.startswith(b"PK\6\7"):
        record = _span(path, locator - 56, 56)
        if not record.startswith(b"PK\6\6") or struct.unpack("<Q", found[8:16])[0] != locator - 56:
            raise _bad(path, "its zip64 directory is not where it should be", hint=_CUT)
        count, length = struct.unpack("<QQ", record[32:48])
    if count > MAX_TENSORS or length > MAX_DIRECTORY:
        raise _bad(path, f"{count:,} members in a directory of {length:,} bytes, the limits are {MAX_TENSORS:,} and {MAX_DIRECTORY:,}")
    return count


def _span(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _directory_problems(infos: list[zipfile.ZipInfo], file_size: int) -> list[str]:
    problems = ["the archive is empty"] if not infos else []
    seen: set[str] = set()
    for info in infos:
        name = info.filename
        if info.orig_filename != name:
            problems.append(f"a member name with NUL: {info.orig_filename[:60]!a}")
        elif (problem := name_problem(name)) is not None:
            problems.append(problem)
        elif not name.endswith(".npy"):
            problems.append(f"{name} is not an array (.npy)")
        elif name in seen:
            problems.append(f"{name} is there twice")
        elif info.flag_bits & 1:
            problems.append(f"{name} is encrypted")
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problems.append(f"{name} is packed with method {info.compress_type}, expected stored or deflate")
        elif info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            problems.append(f"{name} is stored, but its two sizes differ: {info.compress_size:,} and {info.file_size:,}")
        elif info.file_size > BOMB_BYTES and info.file_size > MAX_RATIO * info.compress_size:
            problems.append(f"{name} unpacks from {info.compress_size:,} to {info.file_size:,} bytes, more than {MAX_RATIO} times")
        seen.add(name)
    end, before = 0, "the start"
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            problems.append(f"{info.filename[:80]!a} overlaps {before[:80]!a}")
        end, before = info.header_offset + 30 + len(info.filename) + info.compress_size, info.filename
    if end > file_size:
        problems.append(f"its members take {end:,} bytes, the file has {file_size:,}")
    return problems


def _member(archive: zipfile.ZipFile, file: IO[bytes], info: zipfile.ZipInfo) -> _Member:
    """Read one array's header."""
    with archive.open(info) as stream:
        start = stream.read(12)
        if start[:6] != b"\x93NUMPY" or len(start) < 12:
            raise _Refused("not an array in NumPy's format")
        version = tuple(start[6:8])
        if version == (1, 0):
            length, begin = struct.unpack("<H", start[8:10])[0], 10
        elif version in ((2, 0), (3, 0)):
            length, begin = struct.unpack("<I", start[8:12])[0], 12
        else:
            raise _Refused(f"array format version {version[0]}.{version[1]}")
        if length > MAX_ARRAY_HEADER:
            raise _Refused(f"an array header of {length:,} bytes, the limit is {MAX_ARRAY_HEADER:,}")
        text = (start + stream.read(begin + length - 12))[begin : begin + length] if begin + length > 12 else b""
    spec = _array_spec(text, length)
    data = info.file_size - begin - length
    if data != spec.nbytes:
        raise _Refused(f"{spec.dtype} {spec.shape} takes {spec.nbytes:,} bytes, the archive holds {data:,}")
    offset = begin + length
    if info.compress_type == zipfile.ZIP_STORED:
        file.seek(info.header_offset + 26)
        offset += info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    return _Member(info, spec, offset)


def _array_spec(text: bytes, length: int) -> TensorSpec:
    if len(text) < length:
        raise _Refused("its array header ends early")
    match = _HEADER.fullmatch(text.decode("latin-1"))
    if match is None:
        if b"'O'" in text or b"|O" in text:
            raise _Refused(_PICKLED)
        raise _Refused("its array header is not one that NumPy writes for plain numbers")
    descr, fortran, dims = match.groups()
    if descr in ("|O", "O"):
        raise _Refused(_PICKLED)
    if descr not in _DTYPES:
        raise _Refused(f"number type {descr!a}, expected one of {', '.join(_DTYPES)}")
    parts = [part.strip() for part in dims.split(",")]
    if parts and not parts[-1]:
        parts.pop()
    if len(parts) > MAX_RANK or not all(part.isdigit() and len(part) < 16 for part in parts):
        raise _Refused(f"the shape ({dims[:80]}) is not at most {MAX_RANK} counts")
    shape = tuple(int(part) for part in parts)
    if 0 in shape:
        raise _Refused(f"the shape {shape} holds no value")
    if fortran == "True" and sum(size > 1 for size in shape) > 1:
        raise _Refused("stored column by column; save it again with numpy.ascontiguousarray")
    return TensorSpec(shape, _DTYPES[descr])


def _header_length(member: _Member) -> int:
    return member.info.file_size - member.spec.nbytes


def comment_json(comment: bytes) -> dict[str, Any] | None:
    """The JSON object in an archive's comment, or None where there is none."""
    if not comment.startswith(b"{"):
        return None
    try:
        value = json.loads(comment)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
