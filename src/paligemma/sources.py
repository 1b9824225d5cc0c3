"""IMAGE arguments of the command line -> named inputs, in order. Nothing is opened here, so that one bad file does not stop the others.

cat.jpg  clip.mp4      a picture, a video (by its name's ending)
photos/                every picture and video below it, 2.png before 10.png, hidden files left out; at the end folders that cannot be read
"photos/*.jpg"         a pattern, when no file has that very name; ** goes through folders
-                      a picture on standard input
https://...            only when allowed
"""

from __future__ import annotations

import functools
import glob
import itertools
import os
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Literal

from PIL import Image

from .errors import InputError, UsageError
from .image import Clip, check_listed, open_image
from .printable import printable
from .video import DEFAULT_FRAMES, sample_frames
from .video import EXTENSIONS as VIDEO_EXTENSIONS

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".avif", ".heic", ".heif"})
"""What is picked up from a folder. A file that is named on the command line is opened whatever it is called."""


@dataclass(frozen=True)
class Source:
    """One input. `name` is fit for a terminal; `path` is set where there is a file."""

    name: str
    kind: Literal["image", "video"]
    path: Path | None = None
    _open: Callable[[], Image.Image | Clip] = field(kw_only=True, repr=False, compare=False)

    def open(self) -> Image.Image | Clip:
        """Read it now: an image, or the frames of a video. Raises `InputError` naming it when that fails."""
        return self._open()


def expand(
    arguments: Iterable[str], *, allow_urls: bool = False, stdin: IO[bytes] | None = None, frames: int = DEFAULT_FRAMES
) -> list[Source]:
    """The inputs meant by `arguments`, duplicates kept. `frames` is how many pictures are taken from a video.

    An argument that matches nothing becomes a source that fails when it is opened. Only a web address that is not allowed raises at
    once, `UsageError`.
    """
    standard_input = functools.cache(functools.partial(_read_stdin, stdin))
    sources: list[Source] = []
    for argument in arguments:
        if argument == "-":
            sources.append(Source("standard input", "image", _open=standard_input))
        elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", argument):
            sources.append(_url(argument, allow_urls))
        else:
            sources.extend(_file(path, frames) for path in _paths(argument))
    return sources


def _paths(argument: str) -> list[Path]:
    """Files meant by a name, a folder or a pattern; a name that is not there stands for itself."""
    path = Path(argument)
    if os.path.isdir(path):
        unlisted: list[Path] = []
        found = list(below(path, unlisted=lambda error: unlisted.append(Path(error.filename))))
        return [*found, *unlisted] or [path]
    if not os.path.lexists(path) and glob.has_magic(argument):
        return sorted((file for file in matching(path) if not os.path.isdir(file)), key=natural_order) or [path]
    return [path]


def matching(pattern: Path) -> Iterator[Path]:
    """What a pattern matches. As in a shell, hidden files only where it names them; ** does not follow links, which may lead in circles."""
    base = base_of(pattern)
    rest = pattern.parts[len(base.parts) :]
    hidden = any(part.startswith(".") for part in rest)
    for found in base.glob(str(Path(*rest))):
        if hidden or not any(part.startswith(".") for part in found.relative_to(base).parts):
            yield found


def base_of(pattern: Path) -> Path:
    """The folder in which a pattern begins to choose: all of it before the first part with a wildcard."""
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def reaches(argument: str, folder: Path, ending: str = "") -> bool:
    """Whether a folder or pattern would pick up a file that comes to lie in `folder`. `ending`: of its name, where that is known."""
    path = Path(argument)
    base = path if path.is_dir() else base_of(path)
    place, root = folder.resolve(), base.resolve()
    if path.is_file() or not place.is_relative_to(root):
        return False
    *folders, name = path.parts[len(base.parts) :] or ("",)
    last = Path(name).suffix  # all that is known of a file's name is its ending
    return path.is_dir() or (_fits(place.relative_to(root).parts, folders) and (not ending or not last or fnmatchcase(ending, last)))


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Folders, one in the other, and a pattern for them, in which ** stands for any number."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (bool(parts) and _fits(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def below(
    folder: Path, endings: Collection[str] = IMAGE_EXTENSIONS | VIDEO_EXTENSIONS, *, unlisted: Callable[[OSError], object] | None = None
) -> Iterator[Path]:
    """Files with these endings in a folder and its subfolders, one folder at a time. Hidden ones are left out, links to other folders are
    not followed. `unlisted`: is given each folder that cannot be read; by default such ones are left out with a warning."""
    for where, folders, files in os.walk(folder, onerror=unlisted or _left_out):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_order)
        for name in sorted(files, key=natural_order):
            if not name.startswith(".") and Path(name).suffix.lower() in endings:
                yield Path(where, name)


def _left_out(error: OSError) -> None:
    warnings.warn(f"{printable(str(error.filename))}: this folder cannot be read ({error.strerror}): left out", stacklevel=3)


def natural_order(path: Path | str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorting key: runs of digits count as numbers and come before letters, upper and lower case are alike."""
    parts = filter(None, re.split(r"(\d+)", str(path)))
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts], str(path)


def _file(path: Path, frames: int) -> Source:
    name = printable(str(path))
    if path.suffix.lower() in VIDEO_EXTENSIONS and not os.path.isdir(path):
        return Source(name, "video", path, _open=functools.partial(_video, path, frames))
    return Source(name, "image", path, _open=functools.partial(_picture, path, name))


def _picture(path: Path, name: str) -> Image.Image:
    if os.path.isdir(path):
        check_listed(path, name)
        raise InputError(
            f"{name}: there are no pictures or videos in this folder",
            hint=f"picked up: *{' *'.join(sorted(IMAGE_EXTENSIONS | VIDEO_EXTENSIONS))}",
            code="not_found",
        )
    if glob.has_magic(str(path)) and not os.path.lexists(path):
        raise InputError(f"{name}: no file matches this pattern", code="not_found")
    return open_image(path, name=name)


def _video(path: Path, frames: int) -> Clip:
    return Clip(tuple(sample_frames(path, frames)))


def _read_stdin(stdin: IO[bytes] | None) -> Image.Image:
    stream = stdin or sys.stdin.buffer
    if stream.isatty():
        raise InputError(
            "standard input: a picture was expected, but this is a terminal", hint="pipe a file in: paligemma caption - < cat.jpg"
        )
    return open_image(stream, name="standard input")


def _url(address: str, allowed: bool) -> Source:
    name = printable(address)
    if not allowed:
        raise UsageError(f"{name}: web addresses are fetched only when asked for", hint="pass --allow-urls, or download the picture first")
    return Source(name, "image", _open=functools.partial(_fetched, address, name))


def _fetched(address: str, name: str) -> Image.Image:
    from .download import fetch  # not before it is needed: it brings Python's network modules

    return open_image(fetch(address), name=name)
