"""Work ends with its client, and that is no failure."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from paligemma.server.refusals import Refused
from paligemma.server.service import Watcher
from paligemma.server.streaming import Answering, Piece, while_there
from tests.server.conftest import eventually
from tests.server.test_native import OBJECTS
from tests.server.test_service import idle, slowly


class Request:
    """A client that stays until it is told to go."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}


async def endless(ended: list[str]) -> None:
    try:
        await asyncio.Future()
    finally:
        ended.append("work")


def test_who_stays_gets_what_there_is():
    async def run() -> int:
        return await while_there(Request(), asyncio.sleep(0, 7))

    assert asyncio.run(run()) == 7


def test_work_ends_with_its_client():
    async def run() -> list[str]:
        request, ended = Request(), []
        request.leaves.set()
        with pytest.raises(ClientDisconnect):
            await while_there(request, endless(ended))
        await asyncio.sleep(0.01)
        return list(ended)  # before the loop ends all that is left

    assert asyncio.run(run()) == ["work"]


def test_work_ends_with_whoever_waits_for_it():
    async def run() -> list[str]:
        ended: list[str] = []
        waiting = asyncio.ensure_future(while_there(Request(), endless(ended)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait((waiting,))
        await asyncio.sleep(0.01)
        return list(ended)  # before the loop ends all that is left

    assert asyncio.run(run()) == ["work"]


def test_what_is_refused_before_the_first_piece_is_raised_and_after_it_is_the_last_event():
    async def run(*pieces: str) -> list[Any]:
        async def ask(watcher: Watcher) -> Any:
            watcher.accepted()
            for piece in pieces:
                watcher.piece(piece, [])
            raise Refused(504, "too late", "deadline_exceeded")

        answering = Answering(ask, 1.0)
        await answering.begin(Request())
        return [found async for found in answering.events()]

    with pytest.raises(Refused, match="too late"):
        asyncio.run(run())
    first, second, last = asyncio.run(run("a", "b"))
    assert (first, second) == (Piece("a", []), Piece("b", []))
    assert isinstance(last, Refused)


@pytest.mark.parametrize("stream", [False, True])
def test_who_leaves_is_no_failure_in_the_log(predictor, caplog, stream):
    body = json.dumps({"image": OBJECTS, "stream": stream}).encode()
    head = f"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with caplog.at_level(logging.INFO), slowly(predictor) as (served, service, slow):
        slow.seconds = 0.05
        with served.connect() as connection:
            connection.sendall(head.encode() + body)
            eventually(lambda: service.scheduler.busy == 1)
        eventually(lambda: idle(service))
        eventually(lambda: [record for record in caplog.records if getattr(record, "path", "") == "/v1/caption"])
    assert not [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
