"""Names of pictures -> files inside the data set's folder, and their size upright; each file is looked at once, its header only.

A name never leads out of the folder: absolute ones, `..` that leaves it, and links to elsewhere are flaws. Pictures that come inside a
table are written to a folder of their own, named by their content.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path, PureWindowsPath

from PIL import Image

from ..errors import InputError, ResourceError
from ..image import UNREADABLE, Limits, check_size, open_image, opened, read_header, turn_of
from ..printable import printable
from ..video import EXTENSIONS as VIDEO_EXTENSIONS
from .records import Flaw

Size = tuple[int, int]
"""Width and height in pixels."""
_SIDEWAYS = (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)


def picture_size(path: Path, limits: Limits | None = None) -> tuple[Size, bool]:
    """Size of the upright picture, and whether its EXIF turns it on its side: from its header. Raises `InputError` as `open_image`."""
    name, limits = printable(path.name), limits or Limits()
    with opened(path, limits, name) as file:
        image = read_header(file, name)
        check_size(image.size, limits, name)
        if image.mode in ("I", "F"):
            raise InputError(f"{name}: a picture of mode {image.mode!r} has no known range")
        turn = turn_of(image)
        sideways = turn in _SIDEWAYS
        width, height = image.size
    return ((height, width) if sideways else (width, height)), sideways


class Pictures:
    """The pictures of a data set whose folder is `root`. `strict`: decode each of them, which finds those that are cut short."""

    def __init__(self, root: Path, *, limits: Limits | None = None, strict: bool = False, scratch: Path | None = None):
        self.root, self.limits, self.strict = root, limits or Limits(), strict
        self.scratch = scratch or default_scratch()
        self._roots = [os.path.realpath(root)]
        self._real: dict[str, str] = {}
        self._seen: dict[Path, tuple[Size, bool] | Flaw] = {}
        self.sideways = 0
        """Pictures that EXIF data turns on their side."""

    def allow(self, folder: Path) -> None:
        """Also take pictures from this folder, which a person named or which is a part of the data set."""
        real = os.path.realpath(folder)
        if real not in self._roots:
            self._roots.append(real)

    def find(self, name: object, folder: Path) -> Path:
        """The file that an annotation calls `name`, seen from `folder`. Raises `Flaw`: field, path or missing."""
        if not isinstance(name, str) or not name.strip():
            raise Flaw("field", f"the picture's name must be text, found {repr(name)[:60] if name else 'nothing'}")
        if "\0" in name:
            raise Flaw("path", "the picture's name holds a NUL")
        try:
            os.fsencode(name)
        except UnicodeEncodeError:
            raise Flaw("encoding", "the picture's name holds half a character (a lone surrogate)") from None
        if os.path.isabs(name) or PureWindowsPath(name).anchor:
            raise Flaw("path", f"{name!r:.200} is absolute; pictures are named relative to their folder")
        path = folder / os.path.normpath(name)
        if "\\" in name and not os.path.exists(path):
            path = folder / os.path.normpath(name.replace("\\", "/"))
        parent = str(path.parent)
        if parent not in self._real:
            self._real[parent] = os.path.realpath(parent)
        real = os.path.join(self._real[parent], path.name)
        if not self._inside(real):
            raise Flaw("path", f"{name!r:.200} leads out of the data set's folder")
        if os.path.islink(path) and not self._inside(os.path.realpath(path)):
            raise Flaw("path", f"{name!r:.200} is a link out of the data set's folder")
        if not os.path.lexists(path):
            raise Flaw("missing", f"no such file: {name:.200}")
        return path

    def _inside(self, real: str) -> bool:
        return any(real == root or real.startswith(root.rstrip(os.sep) + os.sep) for root in self._roots)

    def size(self, path: Path, says: tuple[object, object] | None = None) -> Size:
        """Width and height upright. `says`: what the annotation claims. Raises `Flaw`: missing, picture or size."""
        if path not in self._seen:
            self._seen[path] = self._look(path)
        seen = self._seen[path]
        if isinstance(seen, Flaw):
            raise Flaw(seen.code, seen.detail)
        size, sideways = seen
        if says is not None and says != size and None not in says:
            turned = ", because its EXIF data turns it: save it upright" if sideways and says == size[::-1] else ""
            raise Flaw("size", f"the annotation says {says[0]} x {says[1]} pixels, the picture has {size[0]} x {size[1]}{turned}")
        return size

    def check(self, path: Path) -> None:
        """As `size`, for pictures whose size does not matter, and videos, of which only the file is looked at."""
        if path.suffix.lower() not in VIDEO_EXTENSIONS:
            self.size(path)
        elif not os.path.isfile(path) or not os.path.getsize(path):
            raise Flaw("picture", f"{path.name} is {'an empty' if os.path.isfile(path) else 'no'} file")

    def _look(self, path: Path) -> tuple[Size, bool] | Flaw:
        try:
            found = picture_size(path, self.limits)
            if self.strict:
                open_image(path, self.limits, name=printable(path.name))
        except InputError as error:
            return Flaw("missing" if error.code in ("not_found", UNREADABLE) else "picture", error.message)
        self.sideways += found[1]
        return found

    def unpack(self, data: object) -> Path:
        """Bytes of a picture -> a file in the scratch folder, named by its content: written once, whole or not at all."""
        if not isinstance(data, bytes) or not data:
            raise Flaw("picture", "the picture in the table is empty")
        path = self.scratch / hashlib.sha256(data).hexdigest()[:40]
        if not path.is_file() or path.stat().st_size != len(data):
            unfinished = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
            try:
                self.scratch.mkdir(parents=True, exist_ok=True)
                unfinished.write_bytes(data)
                unfinished.replace(path)
            except OSError as error:
                raise ResourceError(
                    f"{printable(str(self.scratch))}: pictures cannot be unpacked to it ({error.strerror})",
                    hint="name another folder with --scratch, on a disk with room",
                ) from error
        self.allow(self.scratch)
        return path


def default_scratch() -> Path:
    """Where pictures that come inside tables are unpacked to unless somebody says so: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paligemma" / "pictures"
