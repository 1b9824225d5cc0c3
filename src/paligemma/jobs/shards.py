"""WebDataset's shards -> items: in a tar, neighbours of one name are a sample: `0001.jpg`, `0001.json`, `0001.txt`.

Read with Python's tarfile: what is needed is where each picture begins, to read it when its turn comes, which the webdataset package does
not say: it reads everything. Nothing is ever unpacked, so names of members lead nowhere. A compressed tar has no places to jump to.
"""

from __future__ import annotations

import functools
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..data.reading import decoded, parsed_json
from ..data.records import Flaw
from ..errors import InputError
from ..printable import printable
from ..sources import IMAGE_EXTENSIONS
from .items import Item, fail, without_bytes
from .pictures import from_piece

MOST_BYTES = 8 << 20
"""Of what is kept of a sample, each."""
Place = tuple[int, int]
"""Where in the tar a picture begins, and its bytes."""


@dataclass
class _Sample:
    """`picture`: `0001.jpg`; `beside`: `0001.depth.png`, which is another thing where there is a picture, and else is the picture."""

    key: str
    picture: Place | None = None
    beside: Place | None = None
    kept: dict[str, Any] = field(default_factory=dict)
    flaw: Flaw | None = None


def items_of(file: Path, name: str) -> Iterator[Item]:
    """An item a sample; its `.json` is kept with its fields as columns, any other text (`.txt`, `.cls`) under its ending.

    Raises `InputError` for what is no plain tar. One that is cut short ends with an item that fails.
    """
    place = printable(str(file))
    try:
        shard = tarfile.open(file, "r:")  # noqa: SIM115 closed below
    except (tarfile.TarError, OSError) as error:
        hint = "a compressed one must be unpacked first: gunzip FILE" if file.is_file() else None
        raise InputError(f"{place}: no tar that can be read: {str(error)[:120]}", hint=hint, code="bad_table") from error
    with shard:
        sample: _Sample | None = None
        try:
            for member in _members(shard):
                key, _, ending = member.name.rpartition("/")[2].partition(".")
                key = str(PurePosixPath(member.name).with_name(key)) if key else member.name
                if sample is None or key != sample.key:
                    if sample is not None:
                        yield _item(sample, file, name, place)
                    sample = _Sample(key)
                _add(sample, ending.lower(), member, shard)
        except (tarfile.TarError, OSError, EOFError) as error:
            where = f"{place}: after {printable(sample.key) if sample else 'its beginning'}"
            if sample is not None:
                yield _item(sample, file, name, place)
            yield Item(f"{name}/?", where, _open=functools.partial(fail, where, f"the tar is broken: {str(error)[:120]}", "bad_table"))
            return
        if sample is not None:
            yield _item(sample, file, name, place)


def _members(shard: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := shard.next()) is not None:
        shard.members = []  # pyright: ignore[reportAttributeAccessIssue]  it would remember all of them
        if member.isreg():
            yield member


def _add(sample: _Sample, ending: str, member: tarfile.TarInfo, shard: tarfile.TarFile) -> None:
    if f".{ending.rpartition('.')[2]}" in IMAGE_EXTENSIONS:
        place = (member.offset_data, member.size)
        if "." in ending:
            sample.beside = sample.beside or place
        else:
            sample.picture = sample.picture or place
        return
    if member.size > MOST_BYTES:
        return
    opened = shard.extractfile(member)
    assert opened is not None, "only files come here"
    try:
        text = decoded(opened.read())
        value = without_bytes(parsed_json(text)) if ending == "json" else text
    except Flaw as flaw:
        if ending == "json":  # else it is something that is no text: a feature, a sound
            sample.flaw = flaw
        return
    sample.kept |= value if ending == "json" and isinstance(value, dict) else {ending: value}


def _item(sample: _Sample, file: Path, name: str, place: str) -> Item:
    id = f"{name}/{sample.key}".encode("utf-8", "backslashreplace").decode()
    where = f"{place}: {printable(sample.key)}"
    if sample.flaw is not None:
        return Item(id, where, _open=functools.partial(fail, where, f"its .json: {sample.flaw.detail}", sample.flaw.code))
    picture = sample.picture or sample.beside
    if picture is None:
        return Item(id, where, sample.kept, _open=functools.partial(fail, where, "there is no picture in this sample", "missing"))
    return Item(id, where, sample.kept, _open=functools.partial(from_piece, file, *picture, where))
