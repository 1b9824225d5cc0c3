"""Pictures beside their labels: names that every tool takes, files that take no room where the disk can do that."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from ..errors import InputError
from ..image import Clip
from ..jobs.items import Item

KEPT = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Endings of pictures that every tool opens. Others are written as PNG."""
NOT_A_PICTURE = "not_a_picture"
"""Code of the error of items that are videos or several pictures, which stay so."""
LONGEST = 100
"""Bytes of a name before its ending."""


class Names:
    """Ids -> names of files in one folder, without endings: readable, no two alike, also where upper and lower case are one."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def take(self, id: str) -> str:
        """`holiday/a 1.jpg` -> `holiday_a_1`; where that is taken, with a few digits of the id's digest behind it."""
        path = Path(id)
        kept = path.with_suffix("") if re.fullmatch(r"\.[A-Za-z0-9]{1,5}", path.suffix) else path
        readable = (
            re.sub(r"[^\w.-]+", "_", str(kept)).strip("._-").encode("utf-8", "replace")[:LONGEST].decode(errors="ignore") or "picture"
        )
        if readable.casefold() in self._taken:
            readable += f"-{hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
        self._taken.add(readable.casefold())
        return readable


def put(item: Item, folder: Path, stem: str) -> str:
    """The picture of an item into a folder; returns its name there. A file is linked where the disk can do that, and copied elsewhere.

    Raises `InputError` where it cannot be opened any more.
    """
    ending = item.file.suffix.lower() if item.file else ""
    if item.file and ending in KEPT:
        try:
            os.link(os.path.realpath(item.file), folder / f"{stem}{ending}")
        except FileNotFoundError as error:
            raise InputError(f"{item.where}: it is not there any more", code="not_found") from error
        except OSError:  # another disk, or one that has no links
            shutil.copyfile(item.file, folder / f"{stem}{ending}")
        return f"{stem}{ending}"
    picture = item.open()
    if isinstance(picture, Clip):
        raise InputError(f"{item.where}: expected one picture, found several", code=NOT_A_PICTURE)
    picture.save(folder / f"{stem}.png")
    return f"{stem}.png"
