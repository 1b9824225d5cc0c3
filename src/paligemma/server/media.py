"""What a client calls a picture -> the bytes of a file, within what one request may send. Nothing is decoded here.

data:image/jpeg;base64,...     also bare base64
https://HOST/...               hosts that the operator allowed; public addresses only, no redirects
file:NAME                      in the folder that the operator allowed

All else is refused with the same words after the same time, and so is every address that gave nothing: no answer tells what this machine
can reach. Only of a name that stays inside the folder, links followed, is it told that nothing is there.
"""

from __future__ import annotations

import asyncio
import binascii
import functools
import os
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..download import fetch
from ..errors import InputError
from .refusals import Refused
from .settings import Limits, Settings

_FETCHES = 4
"""At a time."""
_FETCH_SECONDS = 10.0
"""For a file from the web, and until it is said that there is none: a name that leads nowhere fails sooner than a server that says no."""
_REFUSAL_SECONDS = 0.05
"""From the question to the refusal, whatever the reason."""

_NOT_ALLOWED = (
    "expected a form's file (image=@FILE), data:image/...;base64,..., or an address that this server allows",
    "image_url_not_allowed",
)
_MISSING = "no such file below the server's --media-root", "image_not_found"
"""Why a picture is refused: the words, and the code."""

_DATA = re.compile(r"data:(?i:image/[a-z0-9.+-]{1,40}(?:;[a-z0-9=._-]{1,40})*);base64,")
_DATA_HEADER = 200
_HTTPS = re.compile(r"(?i:https)://([A-Za-z0-9.-]{1,253})(?::443)?(?:[/?][!-~]*)?")
"""No user, no other port, no escapes in the host: there is one way to read it."""
_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"BM")
"""Of the files that are pictures here; by these a bare text is known to be base64, and not a path."""


class Budget:
    """What one request has left of pictures, bytes and pixels. Each method takes something, or raises `Refused`."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.images: list[str] = []
        """Fields of the request that pictures were taken from."""
        self.bytes = 0
        self.pixels = 0

    def take_image(self, where: str) -> None:
        self.images.append(where)
        if len(self.images) > self.limits.images:
            raise Refused(400, f"{where}: a request may have {self.limits.images} pictures", "too_many_images", where)

    def take_bytes(self, count: int, where: str) -> None:
        """Of one picture, before they are decoded from base64."""
        if count > self.limits.image_bytes:
            raise Refused(400, f"{where}: {count:,} bytes exceed the limit of {self.limits.image_bytes:,}", "image_too_large", where)
        self.bytes += count
        if self.bytes > self.limits.images_bytes:
            limit = self.limits.images_bytes
            raise Refused(400, f"{where}: all pictures together exceed the limit of {limit:,} bytes", "image_too_large", where)

    @property
    def pixels_left(self) -> int:
        """Of the next picture."""
        return min(self.limits.image_pixels, self.limits.images_pixels - self.pixels)

    def take_pixels(self, width: int, height: int, where: str) -> None:
        if width * height > self.pixels_left:
            count = f"{where}: {width * height:,} pixels ({width} x {height})"
            if width * height > self.limits.image_pixels:
                message = f"{count} exceed the limit of {self.limits.image_pixels:,}"
            else:
                message = f"{count} make all pictures together exceed the limit of {self.limits.images_pixels:,}"
            raise Refused(400, message, "image_too_many_pixels", where)
        if max(width, height) > self.limits.image_side:
            message = f"{where}: {width} x {height} pixels, a side may have {self.limits.image_side:,}"
            raise Refused(400, message, "image_too_many_pixels", where)
        self.pixels += width * height


async def read_picture(value: str, where: str, budget: Budget, settings: Settings) -> bytes:
    """The file. `where`: the field of the request, for errors. Raises `Refused` (400)."""
    begun = time.monotonic()
    budget.take_image(where)
    data, why = None, _NOT_ALLOWED
    if value[:5].lower() == "data:":
        return _from_data_url(value, where, budget)
    if value[:5].lower() == "file:":
        try:
            data = await asyncio.to_thread(_from_folder, value[5:], budget.limits.image_bytes, settings.media_root)
        except FileNotFoundError:
            why = _MISSING
    elif (url := _HTTPS.fullmatch(value)) and url[1].lower() in settings.media_domains:
        data = await _from_web(value, where, budget.limits.image_bytes)
    else:
        data = _from_base64(value, where, budget)
        if data is not None:
            return data
    if data is None:
        await _until(begun + _REFUSAL_SECONDS)
        words, code = why
        raise Refused(400, f"{where}: {words}", code, where)
    budget.take_bytes(len(data), where)
    return data


def _from_data_url(value: str, where: str, budget: Budget) -> bytes:
    header = _DATA.match(value[:_DATA_HEADER])
    if not header:
        raise _invalid(where)
    budget.take_bytes(_decoded_size(value, header.end()), where)
    data = _decoded(value[header.end() :])
    if not data:
        raise _invalid(where)
    return data


def _from_base64(value: str, where: str, budget: Budget) -> bytes | None:
    """None: not the base64 of a picture."""
    start = _decoded(value[:16])
    if not start or not start.startswith(_STARTS):
        return None
    budget.take_bytes(_decoded_size(value), where)
    return _decoded(value)


def _decoded_size(value: str, start: int = 0) -> int:
    """Bytes that base64 stands for."""
    return (len(value) - start) * 3 // 4 - value[-2:].count("=")


def _decoded(text: str) -> bytes | None:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # also for text that is not ASCII
        return None


def _invalid(where: str) -> Refused:
    return Refused(400, f"{where}: expected data:image/...;base64,..., found another kind of data: URL", "image_invalid", where)


def _from_folder(name: str, most: int, root: Path | None) -> bytes | None:
    """None: not a file inside the folder. Never waits for a pipe or a device.

    Raises `FileNotFoundError` for a name inside the folder that nothing has. Whether it is inside is seen first, of links too, so that
    names outside are all alike.
    """
    if root is None or not name or "\0" in name or "\\" in name or os.path.isabs(name):
        return None
    try:
        root = root.resolve(strict=True)
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not stat.S_ISREG(path.stat().st_mode):
            return None
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        with open(os.open(path, flags), "rb") as file:
            return file.read(most + 1) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RuntimeError):  # RuntimeError: links in a circle
        return None


async def _from_web(url: str, where: str, most: int) -> bytes:
    end = time.monotonic() + _FETCH_SECONDS
    work = functools.partial(fetch, url, max_bytes=most, seconds=_FETCH_SECONDS, redirects=0)
    try:
        async with asyncio.timeout(_FETCH_SECONDS):
            return await asyncio.get_running_loop().run_in_executor(_fetchers(), work)
    except (InputError, TimeoutError):
        # One text for all reasons, and one time: they would tell a client about the network here.
        await _until(end)
        raise Refused(400, f"{where}: the address gave no file within {most:,} bytes", "image_url_failed", where) from None


async def _until(moment: float) -> None:
    await asyncio.sleep(moment - time.monotonic())


@functools.cache
def _fetchers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_FETCHES, thread_name_prefix="paligemma-fetch")
