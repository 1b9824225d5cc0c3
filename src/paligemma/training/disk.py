"""Every call to the file system that keeping a run needs, one method each, so that a test can count, fail, record or die at any of them.

Nothing here decides anything. Files are unbuffered: what was written is with the system, and `sync` brings it to the disk. Reading never
follows a link in the last part of a path. What is made of several calls stands below the class.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ..errors import ResourceError, UsageError

TEMPORARY = ".tmp-"
"""How the name of everything unfinished begins. Whoever holds a run's lock may remove all of it."""
DAMAGE = (0, errno.EIO, errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
"""Errors on reading that come from what is read (0: see `read_file`); others, no handle left or no permission, say nothing about it."""
BLOCK_BYTES = 16 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ASIDE_BYTES = 1 << 20
"""From this size on, a piece is hashed beside being written or read."""


class Disk:
    """The real thing. All methods raise `OSError`."""

    def make_folder(self, path: Path) -> None:
        os.mkdir(path)

    def create(self, path: Path) -> io.FileIO:
        """A new file to write; its mode follows the umask."""
        return io.FileIO(path, "xb")

    def open(self, path: Path) -> io.FileIO:
        """To read; a link is an error."""
        return io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NOFOLLOW", 0)))

    def open_lock(self, path: Path) -> io.FileIO:
        """To read and write, made if need be."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        return io.FileIO(path, "r+b", opener=lambda name, _: os.open(name, flags | getattr(os, "O_BINARY", 0), 0o666))

    def write(self, file: io.FileIO, data: bytes | memoryview) -> None:
        """All of it: the system may take less at a time."""
        view = memoryview(data).cast("B")
        while view:
            view = view[file.write(view) or 0 :]

    def read_into(self, file: io.FileIO, buffer: memoryview) -> int:
        """Bytes read, 0 at the end."""
        return file.readinto(buffer) or 0

    def sync(self, file: io.FileIO) -> None:
        """Until what was written survives a power cut."""
        if sys.platform == "darwin":
            import fcntl

            fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)  # there fsync stops at the drive's own cache
        else:
            os.fsync(file.fileno())

    def forget(self, file: io.FileIO) -> None:
        """Drop the memory's copy of what is on the disk, where the system can, so that reading reads the disk."""
        if sys.platform == "linux":
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self, file: io.FileIO) -> None:
        file.close()

    def rename(self, old: Path, new: Path) -> None:
        """At once; a file takes the place of a file."""
        os.replace(old, new)

    def sync_folder(self, path: Path) -> None:
        """Until the names in it survive a power cut. Windows has no such call and keeps them by itself."""
        if sys.platform == "win32":
            return
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def names(self, path: Path) -> list[str]:
        return os.listdir(path)

    def look(self, path: Path) -> os.stat_result:
        """At what has that name, a link itself included."""
        return os.lstat(path)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def remove_folder(self, path: Path) -> None:
        """An empty one."""
        os.rmdir(path)

    def free(self, path: Path) -> int:
        """Bytes this user may still write there."""
        return shutil.disk_usage(path).free


@dataclass(frozen=True)
class Content:
    """What a file holds: its bytes and their SHA-256 in hexadecimal."""

    size: int
    sha256: str


def write_file(disk: Disk, path: Path, pieces: Iterable[bytes | memoryview]) -> Content:
    """A new file, on the disk when this returns. It is hashed on the way, beside the writing, not read again."""
    file = disk.create(path)
    try:
        with _hashing() as digest:
            for piece in pieces:
                with digest.beside(piece):
                    disk.write(file, piece)
        disk.sync(file)
    finally:
        disk.close(file)
    return digest.content()


def replace_file(disk: Disk, path: Path, data: bytes) -> None:
    """`path` holds either what it held before or all of `data`, whatever happens; on the disk when this returns."""
    temporary = path.with_name(f"{TEMPORARY}{path.name[:32]}-{uuid.uuid4().hex}")  # its name may be as long as names can be
    try:
        write_file(disk, temporary, [data])
        disk.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise
    disk.sync_folder(path.parent)


def hash_file(disk: Disk, path: Path, size: int, *, forget: bool = False) -> Content:
    """Of a file of about that size, all of it; with `forget` read from the disk, not from the memory's copy."""
    file = disk.open(path)
    try:
        if forget:
            disk.forget(file)
        room = min(size + 1, BLOCK_BYTES)
        buffers = memoryview(bytearray(room)), memoryview(bytearray(room))
        with _hashing() as digest:
            got, turn = disk.read_into(file, buffers[0]), 0
            while got:
                with digest.beside(buffers[turn][:got]):
                    got = disk.read_into(file, buffers[1 - turn])
                turn = 1 - turn
    finally:
        disk.close(file)
    return digest.content()


def read_file(disk: Disk, path: Path, limit: int) -> bytes:
    """All of a plain file of at most `limit` bytes; `OSError` for another thing or a larger one."""
    facts = disk.look(path)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(0, "it is no plain file", str(path))
    if facts.st_size > limit:
        raise OSError(0, f"it has {facts.st_size:,} bytes, at most {limit:,} are expected", str(path))
    file = disk.open(path)
    try:
        held = bytearray(facts.st_size + 1)
        filled = 0
        while filled < len(held) and (got := disk.read_into(file, memoryview(held)[filled:])):
            filled += got
    finally:
        disk.close(file)
    return bytes(held[:filled])


def remove_tree(disk: Disk, path: Path) -> None:
    """A file or a link, or a folder with all that is in it; links are removed, not followed."""
    if stat.S_ISDIR(disk.look(path).st_mode):
        for name in disk.names(path):
            remove_tree(disk, path / name)
        disk.remove_folder(path)
    else:
        disk.unlink(path)


def make_folders(disk: Disk, path: Path) -> None:
    """`path` and what lacks above it, on the disk when this returns. Raises `UsageError` where something else has one of the names."""
    missing: list[Path] = []
    for place in (path, *path.parents):
        try:
            facts = disk.look(place)
        except FileNotFoundError:
            missing.append(place)
            continue
        except NotADirectoryError:
            continue
        if not stat.S_ISDIR(facts.st_mode):
            raise UsageError(f"{place} is no folder", hint="choose another place")
        break
    for place in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            disk.make_folder(place)
        disk.sync_folder(place.parent)


def move_into(disk: Disk, path: Path, box: Path) -> Path:
    """Where it then is: in the folder `box`, made if need be, under a name that was free. On the disk when this returns."""
    with contextlib.suppress(FileExistsError):
        disk.make_folder(box)
    taken = set(disk.names(box))
    names = (path.name if again == 1 else f"{path.name}-{again}" for again in range(1, len(taken) + 2))
    target = box / next(name for name in names if name not in taken)
    disk.rename(path, target)
    disk.sync_folder(box)
    disk.sync_folder(path.parent)
    return target


UNTOUCHED = "the checkpoints that are there are untouched"


@contextlib.contextmanager
def demanded(where: Path, hint: str = UNTOUCHED) -> Iterator[None]:
    """What is written in here must be there: raises `ResourceError` where the file system refuses it."""
    try:
        yield
    except OSError as error:
        raise lacking(where, error, hint) from error


def lacking(where: Path, error: OSError, hint: str = UNTOUCHED) -> ResourceError:
    """What the file system refused, as an error for the user."""
    code = "disk_full" if error.errno in _FULL else "read_only" if error.errno == errno.EROFS else "file_system"
    return ResourceError(f"{where}: {error.strerror or error}", hint=hint, code=code)


class _Hashing:
    """SHA-256 in a thread of its own while the caller waits for the disk; small pieces at once."""

    def __init__(self, pool: ThreadPoolExecutor):
        self._pool, self._digest, self._size = pool, hashlib.sha256(), 0

    @contextlib.contextmanager
    def beside(self, piece: bytes | memoryview) -> Iterator[None]:
        self._size += len(piece)
        if len(piece) < _ASIDE_BYTES:
            self._digest.update(piece)
            yield
            return
        done = self._pool.submit(self._digest.update, piece)
        try:
            yield
        finally:
            done.result()

    def content(self) -> Content:
        return Content(self._size, self._digest.hexdigest())


@contextlib.contextmanager
def _hashing() -> Iterator[_Hashing]:
    with ThreadPoolExecutor(1, thread_name_prefix="sha256") as pool:
        yield _Hashing(pool)
