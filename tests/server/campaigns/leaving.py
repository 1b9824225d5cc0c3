"""C10: clients that leave, at eight stages of a request. Two seconds later nothing is left of it: no place, row, task, handle or file."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest import mock

import paligemma
from paligemma.server.service import Service
from paligemma.server.settings import Limits, Settings
from tests.server.conftest import DEMO, Served, live
from tests.server.test_service import Slow

NAME = "C10"
TITLE = "clients that leave"
SIZES = {"push": 40, "ci": 400, "release": 4000}
STAGES = ("headers", "body", "decoding", "queue", "first step", "steps", "stream", "half closed")
WITHIN = 2.0
"""Seconds after which nothing may be left."""
PICTURE = base64.b64encode((DEMO / "objects1.png").read_bytes()).decode()

Point = tuple[str, bool]


def points(tier: str, rng: random.Random) -> list[Point]:
    """(stage, whether the connection is reset, not closed)"""
    return [(STAGES[number % len(STAGES)], rng.random() < 0.5) for number in range(SIZES[tier])]


class Stage:
    def __init__(self, served: Served, service: Service, slow: Slow):
        self.served, self.service, self.slow = served, service, slow
        self.loop = served.server.servers[0].get_loop()
        assert served.ask("POST", "/v1/caption", body()).status == 200
        self.quiet = self.settled()

    def held(self) -> dict[str, Any]:
        """What requests under way hold."""
        counts = self.service.batcher.counts
        return {
            "places": self.service.scheduler.depth + self.service.scheduler.busy,
            "rows": counts["writing"] + counts["waiting"],
            "tasks": self.tasks(),
            "connections": len(self.served.server.server_state.connections),
            "decoders": len(self.service.decoders._running),
            "handles": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
            "threads": sum(not one.name.startswith("asyncio_") for one in threading.enumerate()),  # those of the pool stay
            "files": len(os.listdir(tempfile.gettempdir())),
        }

    def tasks(self) -> int:
        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(5)

    def settled(self) -> dict[str, Any]:
        """When nothing has changed for a while."""
        before: dict[str, Any] = {}
        while (now := self.held()) != before:
            before = now
            time.sleep(0.2)
        return now


@contextmanager
def stage() -> Iterator[Stage]:
    predictor = paligemma.load("nano-112", device="cpu")
    settings = Settings(rows=1, limits=Limits(decode_workers=1, keep_alive=1))
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(tempfile, "tempdir", folder),
        live(predictor, settings) as (served, service),
    ):
        slow = Slow(predictor.network)
        service.batcher._batch.network = slow
        yield Stage(served, service, slow)


def check(stage: Stage, point: Point, rng: random.Random) -> None:
    where, reset = point
    slow, service = stage.slow, stage.service
    slow.seconds, others = 0.0, None
    try:
        if where in ("queue", "first step"):
            slow.hold.clear()
        elif where in ("steps", "stream", "half closed"):
            slow.seconds = 0.02
        with ThreadPoolExecutor(1) as pool:
            if where == "queue":
                others = pool.submit(stage.served.ask, "POST", "/v1/caption", body())
                _until(lambda: service.scheduler.busy == 1)
            _leave(stage, where, reset, rng)
            gone = time.monotonic()
            slow.hold.set()
            if others:
                assert others.result().status == 200, "the one before was disturbed"
                gone = time.monotonic()
        while left := _more(stage.held(), stage.quiet):
            assert time.monotonic() - gone < WITHIN, f"left over: {left}"
            time.sleep(0.01)
        slow.seconds = 0.0
        assert stage.served.ask("POST", "/v1/ocr", body()).status == 200
        while left := _more(stage.held(), stage.quiet):
            assert time.monotonic() - gone < 5 * WITHIN, f"left over after an answer: {left}"
            time.sleep(0.01)
    except BaseException:
        slow.hold.set()
        stage.quiet = stage.settled()  # what is left over is told of once
        raise


def _leave(stage: Stage, where: str, reset: bool, rng: random.Random) -> None:
    service = stage.service
    sent = body(stream=where == "stream")
    head = f"POST /v1/caption HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n".encode()
    with stage.served.connect() as connection:
        match where:
            case "headers":
                connection.sendall(head[: rng.randrange(1, len(head))])
            case "body":
                connection.sendall(head + sent[: rng.randrange(len(sent))])
            case _:
                connection.sendall(head + sent)
        match where:
            case "decoding":
                time.sleep(rng.random() * 0.01)
            case "queue":
                _until(lambda: service.scheduler.depth == 1)
            case "first step":
                _until(lambda: service.scheduler.busy == 1)
            case "steps" | "half closed":
                _until(lambda: service.scheduler.busy == 1)
                time.sleep(rng.random() * 0.05)
            case "stream":
                connection.recv(rng.randrange(1, 500))
            case _:
                time.sleep(rng.random() * 0.01)
        if where == "half closed":
            connection.shutdown(socket.SHUT_WR)
            time.sleep(0.05)
        elif reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def body(**fields: Any) -> bytes:
    return json.dumps({"image": PICTURE, **fields}).encode()


def _more(now: dict[str, Any], quiet: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{count} instead of {quiet[name]}" for name, count in now.items() if count > quiet[name]}


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "that did not come"
        time.sleep(0.001)
