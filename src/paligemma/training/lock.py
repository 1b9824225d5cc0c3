"""One trainer per run folder: a lock that the system itself lets go of when its owner dies, however it dies."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import socket
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError
from .disk import Disk

NAME = "lock"
_FAR = 1 << 30
"""Windows keeps others from reading what is locked: there, a byte behind the text is."""
_held: weakref.WeakSet[io.FileIO] = weakref.WeakSet()


@contextlib.contextmanager
def locked(run: Path, disk: Disk) -> Iterator[str | None]:
    """Hold the lock of `run` for the block; gives the last owner's name where it died while it held it, else None.

    The file stays, empty: to remove it would let two processes lock two files of one name. Raises `UsageError` naming the owner while
    another process, or another block of this one, holds the lock, and `OSError` where the file system refuses the file or has no locks.
    """
    file = disk.open_lock(run / NAME)
    try:
        if not _take(file):
            owner = _text(file) or "another process"
            raise UsageError(f"{run} is being trained by {owner}", hint="wait for it or choose another folder", code="run_in_use")
        _held.add(file)
        died = _text(file)
        file.truncate(0)
        file.seek(0)
        disk.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        try:
            yield died
        finally:
            if not file.closed:  # in a forked child it is
                with contextlib.suppress(OSError):
                    file.truncate(0)
    finally:
        _held.discard(file)
        file.close()  # lets go of the lock


def _text(file: io.FileIO) -> str | None:
    """Who is written there, if anybody."""
    file.seek(0)
    try:
        text = (file.read(200) or b"").decode("ascii", errors="replace").strip("\0\n ")
    except OSError:  # on Windows while it is locked on some network drives
        return None
    return text if text.isprintable() and text else None


def _take(file: io.FileIO) -> bool:
    if sys.platform == "win32":
        import msvcrt

        file.seek(_FAR)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _close_in_child() -> None:
    """A forked child shares its parent's lock and would keep it alive after the parent died: reading data, say."""
    for file in list(_held):
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
