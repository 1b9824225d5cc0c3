"""Where a picture is -> the picture: a file, bytes in a table, a piece of a shard, a name in a row. Functions that can be pickled."""

from __future__ import annotations

import base64
import binascii
import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..data.pictures import Pictures
from ..data.records import Flaw
from ..errors import InputError
from ..image import Clip, Limits, open_image
from ..video import EXTENSIONS as VIDEO_EXTENSIONS
from ..video import sample_frames

_DATA = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.IGNORECASE)


def from_file(path: Path) -> Image.Image:
    return open_image(path)


def from_video(path: Path, frames: int) -> Clip:
    return Clip(tuple(sample_frames(path, frames)))


def from_bytes(data: bytes, where: str) -> Image.Image:
    return open_image(data, name=where)


def from_piece(file: Path, start: int, size: int, where: str) -> Image.Image:
    """Of a file that holds several."""
    if size > Limits().max_bytes:
        raise InputError(f"{where}: {size:,} bytes, at most {Limits().max_bytes:,} are allowed", code="image_too_large")
    try:
        with file.open("rb") as opened:
            opened.seek(start)
            data = opened.read(size)
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})", code="not_found") from error
    return open_image(data, name=where)


def from_several(each: Sequence[Callable[[], Image.Image | Clip]]) -> Image.Image | Clip:
    """Pictures for one prompt, each opened in its own way; one alone is itself."""
    found = [opening() for opening in each]
    if len(found) == 1:
        return found[0]
    return Clip(tuple(frame for one in found for frame in (one.frames if isinstance(one, Clip) else (one,))))


def from_name(name: str, folder: Path, root: Path, where: str, allow_urls: bool, frames: int) -> Image.Image | Clip:
    """What a row names: a file in `root`, and only there; a data: address; an https one where they are allowed."""
    if name[:5].lower() == "data:":
        return open_image(_from_address(name, where), name=where)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        if not allow_urls:
            raise InputError(f"{where}: web addresses are fetched only when asked for", hint="pass --allow-urls", code="path")
        from ..download import fetch

        return open_image(fetch(name), name=where)
    try:
        path = _inside(root).find(name, folder)
    except Flaw as flaw:
        hint = "pictures lie in the table's folder, or in that of --image-root" if flaw.code == "path" else None
        raise InputError(f"{where}: {flaw.detail}", hint=hint, code=flaw.code) from flaw
    if path.suffix.lower() in VIDEO_EXTENSIONS:
        return from_video(path, frames)
    return open_image(path)


@functools.cache
def _inside(root: Path) -> Pictures:
    return Pictures(root)


def _from_address(address: str, where: str) -> bytes:
    header = _DATA.match(address[:100])
    if not header:
        raise InputError(f"{where}: expected data:image/...;base64,..., found {address[:40]!r}", code="bad_address")
    try:
        return base64.b64decode(address[header.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{where}: the data: address is no base64 ({error})", code="bad_address") from error
