"""Where the server listens: what it sends is not held back. And what it holds is not looked through again and again."""

from __future__ import annotations

import asyncio
import gc
import socket
from typing import Any

from paligemma.server import running
from paligemma.server.running import bind, serve


def test_small_pieces_of_an_answer_are_sent_at_once():
    """Else each waits until the client has acknowledged the one before, which it puts off for 40 ms."""

    async def no_delay() -> int:
        taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = bind("127.0.0.1", 0)
        async with await asyncio.start_server(take, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            try:
                return await taken
            finally:
                writer.close()

    assert asyncio.run(no_delay())


def test_what_is_in_memory_is_set_apart_while_the_server_runs(monkeypatch):
    found: list[int] = []

    class Stub:
        def __init__(self, service: Any, **how: Any):
            self.built = [[] for _ in range(100)]

        async def serve(self, sockets: list[Any]) -> None:
            found.append(gc.get_freeze_count())

    monkeypatch.setattr(running, "Server", Stub)
    before = gc.get_freeze_count()
    with socket.socket() as listening:
        serve(None, listening)  # type: ignore[arg-type]
    assert found[0] > before + 100
    assert gc.get_freeze_count() == before
