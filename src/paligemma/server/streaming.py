"""An answer while it is written, as server-sent events; and work that ends when whoever asked for it has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse

from ..engine.options import Token
from .refusals import Refused, told
from .service import Answered, Watcher

T = TypeVar("T")

DONE = b"data: [DONE]\n\n"
WAIT = b": wait\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event(data: str, name: str | None = None) -> bytes:
    """One event. `data` is one line, such as JSON."""
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


async def while_there(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives; it is cancelled as soon as the client is gone. The body, if there is one, must have been read.

    Raises `ClientDisconnect`.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return await task
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True)
class Piece:
    text: str
    tokens: Sequence[Token]


class Answering(Watcher):
    """A question that is being answered. `events()`: its pieces, then the answer; None where nothing came for a while."""

    def __init__(self, ask: Callable[[Watcher], Awaitable[Answered]], heartbeat: float):
        self._queue: asyncio.Queue[Piece | Answered | Refused | None] = asyncio.Queue()
        self._heartbeat = heartbeat
        self._accepted = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(ask))

    def accepted(self) -> None:
        self._accepted.set()

    def piece(self, text: str, tokens: Sequence[Token]) -> None:
        self._queue.put_nowait(Piece(text, tokens))

    async def _run(self, ask: Callable[[Watcher], Awaitable[Answered]]) -> None:
        try:
            self._queue.put_nowait(await ask(self))
        except Refused as refused:
            self._queue.put_nowait(refused)
        except Exception as error:
            self._queue.put_nowait(told(error))
        finally:
            self._accepted.set()

    async def begin(self, request: Request) -> None:
        """Until its turn has come. What is refused before is raised here, so that it can be answered with a status of its own."""
        try:
            await while_there(request, self._accepted.wait())
        except BaseException:
            self._task.cancel()
            raise
        if self._task.done() and self._queue.qsize() == 1:  # its outcome; where there are pieces before that, they are shown
            outcome = self._queue.get_nowait()
            if isinstance(outcome, Refused):
                raise outcome
            self._queue.put_nowait(outcome)

    async def events(self) -> AsyncIterator[Piece | Answered | Refused | None]:
        try:
            while True:
                try:
                    async with asyncio.timeout(self._heartbeat):
                        found = await self._queue.get()
                except TimeoutError:
                    found = None
                yield found
                if isinstance(found, Answered | Refused):
                    return
        finally:
            self._task.cancel()


def stream(pieces: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(pieces, media_type="text/event-stream", headers=HEADERS)
