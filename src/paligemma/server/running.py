"""The app behind uvicorn: on an address, until it is told to stop, and then as long as answers are under way."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from ..errors import ResourceError
from .app import build_app
from .gate import Gate
from .protocol import guarded
from .service import Service

if TYPE_CHECKING:
    from .searching import Collection


EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""What stands for all of a machine's addresses, and is none that it can be called by -> one that is."""


def bind(host: str, port: int) -> socket.socket:
    """The address, taken before anything slow is done. Port 0: a free one. Raises `ResourceError` where that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)  # named, or asyncio does not send small pieces of an answer at once
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        return listening
    except OSError as error:
        what = (error.strerror or str(error)).lower()
        hint = (
            "another program listens there: choose another --port, or --port 0 for a free one" if error.errno == errno.EADDRINUSE else None
        )
        raise ResourceError(f"cannot listen on {host} port {port}: {what}", hint=hint, code="address") from error


class Server(uvicorn.Server):
    """`ready`: called with the address once it answers.

    SIGTERM and SIGINT: no new questions, those that are in are answered; the second time: at once.
    """

    def __init__(
        self,
        service: Service,
        *,
        notes: tuple[str, ...] = (),
        collection: Collection | None = None,
        ready: Callable[[str], None] = lambda address: None,
    ):
        settings = service.settings
        self.service, self._ready = service, ready
        self._draining: asyncio.Task[None] | None = None
        app = build_app(service, notes=notes, collection=collection)
        gate = Gate(app, settings, observe=service.metrics.seen, admit=service.admit)
        super().__init__(
            uvicorn.Config(
                gate,
                http=guarded(settings.limits, gate.turn_away),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                timeout_keep_alive=int(settings.limits.keep_alive),
                timeout_graceful_shutdown=5,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            host, port = self.service.settings.host, self.servers[0].sockets[0].getsockname()[1]
            host = EVERYWHERE.get(host, host)
            self._ready(f"http://{f'[{host}]' if ':' in host else host}:{port}/")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal's handler: what it does must wake the loop. The process ends with 0, for it was asked to end."""
        self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._drain())
        else:
            self.force_exit = self.should_exit = True

    async def _drain(self) -> None:
        await self.service.drain()
        self.should_exit = True


def serve(
    service: Service,
    listening: socket.socket,
    *,
    notes: tuple[str, ...] = (),
    collection: Collection | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """On a socket of `bind`, until a signal ends it."""
    server = Server(service, notes=notes, collection=collection, ready=ready)
    with _settled():
        asyncio.run(server.serve([listening]))


@contextmanager
def _settled() -> Iterator[None]:
    """What this process holds by now stays, and is not looked through for garbage again: two hundred thousand objects take a tenth of a
    second each time, in which nobody is answered."""
    before = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not before:  # what somebody else set apart stays so
            gc.unfreeze()
