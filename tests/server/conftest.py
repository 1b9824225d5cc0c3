"""Servers for tests: an app behind the gate on a free port, spoken to in bytes where bytes are what matters."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

import paligemma
from paligemma.checkpoint.finding import BUNDLED
from paligemma.server.app import build_app
from paligemma.server.gate import Admit, Gate, Observe
from paligemma.server.protocol import guarded
from paligemma.server.service import Service
from paligemma.server.settings import Settings
from tests.server.page_stub import Stub, serve
from tests.server.visiting import FLAGS, chromium, lacking, visit

LEAK = re.compile(r"0x[0-9a-f]{6,}|/home|/root|/tmp|Traceback|File \"| at line ")
"""What no answer may hold."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def error(self) -> dict[str, Any]:
        """The error, which has the one shape and tells nothing."""
        assert set(self.json()) == {"error"}, self.body
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"].endswith("_error")
        assert re.fullmatch(r"[a-z][a-z0-9_]*", error["code"])
        assert len(self.body) < 700
        assert not LEAK.search(self.body.decode()), self.body
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"]
        return error


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int
    server: uvicorn.Server

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """Names of headers with underscores for dashes. A body is JSON unless they say otherwise."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            sent = {"Content-Type": "application/json"} | sent
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def say(self, data: bytes) -> bytes:
        """All that comes back until the server closes the connection."""
        with self.connect() as connection:
            connection.sendall(data)
            return heard(connection)


def heard(connection: socket.socket) -> bytes:
    pieces = []
    try:
        while piece := connection.recv(1 << 16):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def one(connection: socket.socket) -> Reply:
    """The next answer on a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < int(reply(data).headers["content-length"]):
        piece = connection.recv(1 << 16)
        assert piece, data
        data += piece
    return reply(data)


def eventually(holds: Callable[[], Any], seconds: float = 5) -> Any:
    """What is done just after an answer went out: its log line, its count."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


def reply(data: bytes) -> Reply:
    """Of the bytes of one answer, which ends with the connection."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return Reply(int(first.split()[1]), {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}, body)


@contextmanager
def serving(app: Any, settings: Settings | None = None, observe: Observe | None = None, admit: Admit | None = None) -> Iterator[Served]:
    settings = settings or Settings()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    gate = Gate(app, settings, observe, admit)
    config = uvicorn.Config(
        gate,
        http=guarded(settings.limits, gate.turn_away),
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(settings.limits.keep_alive),
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Served(listening.getsockname()[1], server)
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


DEMO = BUNDLED / "demo"


@contextmanager
def live(predictor: paligemma.Predictor, settings: Settings | None = None) -> Iterator[tuple[Served, Service]]:
    """The real service on a free port."""
    settings = settings or Settings()
    service = Service(predictor, settings, name="nano-112")
    with serving(build_app(service), settings, service.metrics.seen, service.admit) as served:
        yield served, service


@pytest.fixture(scope="session")
def predictor() -> paligemma.Predictor:
    return paligemma.load("nano-112", device="cpu")


@pytest.fixture(scope="module")
def nano(predictor) -> Iterator[Served]:
    """The bundled model, served."""
    with live(predictor) as (served, _):
        yield served


# The page


@pytest.fixture(scope="module")
def everything_is_there():
    if (what := lacking()) is not None:
        assert os.environ.get("PALIGEMMA_BROWSER") != "required", f"{what} is missing"
        pytest.skip(f"needs {what} (.ci/browser fetches it)")


@pytest.fixture(scope="module")
def browser(everything_is_there):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium(), args=FLAGS)


@pytest.fixture(scope="module")
def running():
    with serve(Stub()) as stub:
        yield stub


@pytest.fixture
def stub(running):
    """Canned answers, as nobody has touched them."""
    fresh = Stub(address=running.address)
    for name, value in vars(fresh).items():
        setattr(running, name, value)
    return running


@pytest.fixture
def address(stub) -> str:
    """Of a server: all that most tests know of it."""
    return stub.address


@pytest.fixture
def page(browser, address):
    """On a desk, with the first example on the stage."""
    page = visit(browser, address)
    page.locator('#examples [aria-pressed="true"]').wait_for()
    yield page
    page.context.close()
