"""Pictures are decoded in processes of their own: a file that breaks its decoder costs one request and one process.

async with Decoders(size, resize, limits) as decoders:
    decoded = await decoders.decode(data, "image", Budget(limits))
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ResourceError
from .decoder_child import ANSWERED, ASKED, DONE, TOO_MANY_PIXELS
from .media import Budget
from .refusals import Refused
from .settings import Limits

_START_SECONDS = 60.0
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV")


@dataclass(frozen=True, eq=False)
class Decoded:
    """`pixels`: the picture squeezed as the model sees it, uint8 (S, S, 3). `width`, `height`: of the original, upright."""

    pixels: np.ndarray
    width: int
    height: int


class Decoders:
    """`limits.decode_workers` processes, started on entry and replaced when they die. `size`, `resize`: of the model.

    `deaths`: processes that a picture has cost so far.
    """

    def __init__(self, size: int, resize: str, limits: Limits):
        self.size = size
        self.limits = limits
        self.deaths = 0
        self._arguments = [str(size), resize, str(limits.image_side), str(limits.decode_memory)]
        self._free: asyncio.LifoQueue[Process | None] = asyncio.LifoQueue()
        """None: a process that has yet to be started."""
        self._running: set[Process] = set()

    async def __aenter__(self) -> Decoders:
        try:
            started = await asyncio.gather(*(self._start() for _ in range(self.limits.decode_workers)))
        except BaseException:
            await self.close()
            raise
        for process in started:
            self._free.put_nowait(process)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for process in list(self._running):
            await self._stop(process)

    async def decode(self, data: bytes, name: str, budget: Budget) -> Decoded:
        """Waits for a free process. `name`: the field of the request, for errors.

        Raises `Refused` (400): image_invalid, image_too_many_pixels, image_decode_failed.
        """
        process = await self._free.get()
        try:
            if process is None or process.returncode is not None:
                await self._discard(process)
                process = await self._start()
            answer = await self._ask(process, data, budget.pixels_left)
        except (OSError, EOFError, TimeoutError):
            self.deaths += 1
            await self._discard(process)
            process = None
            raise Refused(400, f"{name}: the picture cannot be decoded", "image_decode_failed", name) from None
        except BaseException:  # also where the client leaves: the process is in the middle of something
            await self._discard(process)
            process = None
            raise
        finally:
            self._free.put_nowait(process)
        return self._judge(*answer, name, budget)

    async def _ask(self, process: Process, data: bytes, max_pixels: int) -> tuple[int, int, int, bytes]:
        assert process.stdin is not None
        assert process.stdout is not None
        async with asyncio.timeout(self.limits.decode_seconds):
            process.stdin.write(ASKED.pack(max_pixels, len(data)) + data)  # together: a small picture wakes the process once
            await process.stdin.drain()
            kind, width, height = ANSWERED.unpack(await process.stdout.readexactly(ANSWERED.size))
            pixels = await process.stdout.readexactly(self.size * self.size * 3) if kind == DONE else b""
        return kind, width, height, pixels

    def _judge(self, kind: int, width: int, height: int, pixels: bytes, name: str, budget: Budget) -> Decoded:
        if kind in (DONE, TOO_MANY_PIXELS):
            budget.take_pixels(width, height, name)
        if kind != DONE:
            raise Refused(400, f"{name}: not a whole picture of a known format (JPEG, PNG, WEBP, GIF, BMP)", "image_invalid", name)
        return Decoded(np.frombuffer(pixels, np.uint8).reshape(self.size, self.size, 3), width, height)

    async def _start(self) -> Process:
        command = [sys.executable, "-P", "-m", "paligemma.server.decoder_child", *self._arguments]
        # A session of its own: an interrupt from the keyboard is the parent's business.
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_environment(), start_new_session=True
        )
        self._running.add(process)
        try:
            assert process.stdout
            async with asyncio.timeout(_START_SECONDS):
                await process.stdout.readexactly(ANSWERED.size)  # READY
        except (OSError, EOFError, TimeoutError):
            await self._stop(process)
            raise ResourceError("a process for decoding pictures could not be started", code="no_decoder") from None
        except BaseException:
            await self._stop(process)
            raise
        return process

    async def _discard(self, process: Process | None) -> None:
        if process:
            await self._stop(process)

    async def _stop(self, process: Process) -> None:
        self._running.discard(process)
        if process.returncode is None:
            process.kill()
        if process.stdin:
            process.stdin.close()
        await process.wait()


def _environment() -> dict[str, str]:
    """Where this package and its libraries are, one thread, and no secrets."""
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
