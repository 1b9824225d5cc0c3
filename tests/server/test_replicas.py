"""The door in front of replicas: asks another one where the first died, and never twice once an answer has begun. Ray is not needed."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from paligemma import embedding
from paligemma.errors import UsageError
from paligemma.server import replicas
from paligemma.server.gate import Gate
from paligemma.server.replicas import TRIES, Door, Replica
from paligemma.server.settings import Limits, Settings
from tests.index.making import ColourEncoder, build, paint

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
STREAM = {**START, "headers": [(b"content-type", b"text/event-stream")]}
BODY = {"type": "http.response.body", "body": b"{}", "more_body": False}
PIECE = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}


class Died(Exception):
    pass


@pytest.fixture(autouse=True)
def deaths(monkeypatch):
    monkeypatch.setattr(replicas, "_died", lambda error: isinstance(error, Died))


class Handle:
    """Gives one script of messages after the other; what is no message is raised."""

    def __init__(self, *scripts: Sequence[Any]):
        self.scripts, self.asked, self.cancelled = list(scripts), [], 0

    def remote(self, scope: dict[str, Any], body: bytes) -> Answer:
        self.asked.append((scope, body))
        return Answer(self, self.scripts.pop(0))


class Answer:
    def __init__(self, handle: Handle, script: Sequence[Any]):
        self.handle, self.script = handle, script

    def cancel(self) -> None:
        self.handle.cancelled += 1

    async def __aiter__(self) -> AsyncIterator[Any]:
        for message in self.script:
            if message == "wait":
                await asyncio.Future()
            if not isinstance(message, dict):
                raise message
            yield message


def ask(handle: Handle, body: bytes = b"{}", *, leaves: bool = False, limits: Limits | None = None) -> list[dict[str, Any]]:
    """The messages that come out of the gate and the door."""

    async def run() -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        incoming = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop()
            if not leaves:
                await asyncio.Future()
            await asyncio.sleep(0.05)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            out.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/ocr",
            "headers": headers,
            "query_string": b"",
            "extensions": {"x": object()},
        }
        await Gate(Door(handle), Settings(limits=limits or Limits()))(scope, receive, send)
        return out

    return asyncio.run(asyncio.wait_for(run(), 10))


def status(out: list[dict[str, Any]]) -> int:
    return out[0]["status"]


def test_a_request_goes_whole_and_plain():
    handle = Handle([START, BODY])
    out = ask(handle, b'{"image": 1}')
    assert (status(out), out[-1]["body"]) == (200, b"{}")
    scope, body = handle.asked[0]
    assert body == b'{"image": 1}'
    assert set(scope["state"]) == {"request_id", "client"}
    assert "extensions" not in scope


@pytest.mark.parametrize("script", [[Died()], [START, Died()], [STREAM, Died()]])
def test_another_replica_is_asked_where_one_died_before_it_answered(script):
    handle = Handle(script, [START, BODY])
    assert status(ask(handle)) == 200
    assert len(handle.asked) == 2


def test_what_is_shown_cannot_be_taken_back():
    handle = Handle([STREAM, PIECE, Died()])
    out = ask(handle)
    assert len(handle.asked) == 1
    assert out[-1]["more_body"] is False
    event, data = out[-1]["body"].decode().strip().split("\n")
    assert event == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["code"] == "engine_dead"


def test_it_is_not_tried_for_ever():
    handle = Handle(*[[Died()]] * TRIES)
    assert status(ask(handle)) == 503
    assert len(handle.asked) == TRIES


def test_other_failures_are_not_tried_again():
    handle = Handle([RuntimeError("secret")])
    out = ask(handle)
    assert status(out) == 500
    assert b"secret" not in b"".join(message.get("body", b"") for message in out)
    assert len(handle.asked) == 1


def test_who_leaves_ends_the_work():
    handle = Handle(["wait"])
    assert ask(handle, leaves=True) == []
    assert handle.cancelled == 1


def test_the_gate_stands_before_the_door():
    handle = Handle()
    assert status(ask(handle, bytes(200), limits=Limits(body_bytes=100))) == 413
    assert not handle.asked


def test_replicas_ask_for_a_key(monkeypatch):
    monkeypatch.delenv("PALIGEMMA_API_KEY", raising=False)
    with pytest.raises(UsageError, match="no key"):
        replicas.build({"model": "nano-112"})


@pytest.mark.parametrize(
    ("word", "value", "told"),
    [
        ("modell", "nano-112", "did you mean 'model'"),
        ("color", "red", "there are model, name, index"),
        ("most", "many", "most: expected a whole number, found 'many'"),
        ("gpus", "half", "gpus: expected a number, found 'half'"),
        ("insecure_no_auth", "yes", "insecure_no_auth: expected true or false, found 'yes'"),
        ("rows", "0", "at least 1"),
        ("media_root", "nowhere", "expected a folder, found 'nowhere'"),
    ],
)
def test_words_that_cannot_be_meant_are_refused(word: str, value: str, told: str):
    with pytest.raises(UsageError) as caught:
        replicas.build({"insecure_no_auth": "true", word: value})
    assert told in f"{caught.value.message} {caught.value.hint}"


def test_words_become_settings(monkeypatch, tmp_path):
    """Also those of a configuration file, which are not all texts."""
    monkeypatch.setenv("PALIGEMMA_API_KEY", "the-key")
    monkeypatch.setattr(replicas, "application", lambda **given: given)
    words = {"model": "packed", "index": "album", "most": 8, "gpus": "0.5", "rows": "4", "insecure_no_auth": False}
    given = replicas.build({**words, "media_root": str(tmp_path), "allowed_hosts": "a.example, b.example"})
    settings = given.pop("settings")
    assert given == {"model": "packed", "index": "album", "most": 8, "gpus": 0.5}
    assert settings == Settings(api_keys=("the-key",), rows=4, media_root=tmp_path, allowed_hosts=("a.example", "b.example"))


def answered(replica: Replica, *asked: tuple[str, str, dict[str, Any]]) -> list[tuple[int, Any]]:
    """What it answers to requests, one after the other."""

    async def answer(method: str, path: str, fields: dict[str, Any]) -> tuple[int, Any]:
        body = json.dumps(fields).encode() if fields else b""
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("localhost", 80),
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
            "state": {"request_id": "r", "client": "c"},
        }  # fmt: skip
        start, *pieces = [message async for message in replica.answer(scope, body)]
        return start["status"], json.loads(b"".join(piece["body"] for piece in pieces))

    async def run() -> list[tuple[int, Any]]:
        found = [await answer(*one) for one in asked]
        await replica._running.__aexit__(None, None, None)
        return found

    return asyncio.run(asyncio.wait_for(run(), 60))


def test_a_replica_answers_label_studio_and_has_nothing_to_search_unless_told():
    asked = [("GET", "/labelstudio/health", {}), ("GET", "/v1/search", {})]
    assert [status for status, _ in answered(Replica("nano-112", Settings(), None), *asked)] == [200, 404]


def test_a_replica_searches_an_index(tmp_path, monkeypatch):
    pytest.importorskip("lancedb")
    red = paint(tmp_path / "album" / "red.png", "red")
    build(tmp_path / "album", tmp_path / "index")
    monkeypatch.setattr(embedding, "load_encoder", lambda source, device: ColourEncoder())
    held, words, picture = answered(
        Replica("nano-112", Settings(), None, str(tmp_path / "index")),
        ("GET", "/v1/search", {}),
        ("POST", "/v1/search", {"words": "red", "pictures": False}),
        ("POST", "/v1/search", {"image": base64.b64encode(red.read_bytes()).decode()}),
    )
    assert held == (200, {"pictures": 1, "captions": 0, "text": 0, "objects": 0})
    assert [(status, [one["path"] for one in found["results"]]) for status, found in (words, picture)] == [(200, ["red.png"])] * 2


@pytest.mark.parametrize("healthy", [True, False])
def test_a_replica_whose_engine_is_dead_says_so(healthy: bool):
    replica = object.__new__(replicas.Replica)
    replica._service = SimpleNamespace(healthy=healthy)
    with contextlib.nullcontext() if healthy else pytest.raises(RuntimeError, match="does not answer"):
        replica.check_health()
