"""Where the server listens: what it sends is not held back."""

from __future__ import annotations

import asyncio
import socket

from paligemma.server.running import bind


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
