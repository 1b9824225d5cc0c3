"""The same app on Ray Serve: as many copies of the model as load asks for, on one machine or many, and a door in front of them.

    pip install 'paligemma[serve,scale]'
    PALIGEMMA_API_KEY=... serve run paligemma.server.replicas:build model=packed most=8        see `build` for the words

    client -> Serve's proxy -> Door (the gate; no model) -> Replica (the app and its model), chosen by Serve
                                                         -> another one, where the first died

The door reads a request whole before it passes it on, and holds an answer back until its first piece is there. So a replica that dies costs
no request whose answer had not begun: the door asks another one. Asking twice is safe, for questions change nothing. An answer that had
begun ends with an error. Serve's proxy itself asks nobody twice.

Serve's proxy speaks HTTP, not `protocol.py`: put a balancer with header times in front where strangers reach it. /metrics is that of one
replica; Ray has its own for all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from ..errors import UsageError, did_you_mean
from .gate import Gate
from .native import dump
from .refusals import LOG, REQUEST_ID, Refused, told
from .settings import Settings
from .streaming import event

TRIES = 3
"""Replicas that one request is given to, at most."""
_CARRIED = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "path",
    "raw_path",
    "query_string",
    "root_path",
    "headers",
    "client",
    "server",
)
"""What of a request's scope goes to a replica, besides its state: all of it plain values."""


def build(words: dict[str, Any]) -> Any:
    """For `serve run` and Serve's configuration files; the key comes from PALIGEMMA_API_KEY. Words: those of `_WORDS`, see `application`
    and `Settings` for what they mean. Raises `UsageError` for others, for values that cannot be read, and what these two raise."""
    if unknown := sorted(words.keys() - _WORDS.keys()):
        raise UsageError(f"there is no {unknown[0]}= here", hint=did_you_mean(unknown[0], _WORDS, f"there are {', '.join(_WORDS)}"))
    given = {word: _read(word, str(value)) for word, value in words.items()}
    keys = tuple(filter(None, [os.environ.get("PALIGEMMA_API_KEY")]))
    settings = Settings(api_keys=keys, **{field: given.pop(word) for word, field in _SETTINGS.items() if word in given})
    settings.check()
    return application(settings=settings, **given)


def _several(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _yes(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_WORDS: dict[str, Callable[[str], Any]] = {
    "model": str, "name": str, "index": str, "encoder": str, "least": int, "most": int, "cpus": float, "gpus": float, "rows": int,
    "media_root": Path, "media_domains": _several, "allowed_hosts": _several, "allowed_origins": _several, "insecure_no_auth": _yes,
}  # fmt: skip
"""What may be set -> how its text is read; several have commas between."""
_SETTINGS = {word: word for word in ("rows", "media_root", "media_domains", "allowed_hosts", "allowed_origins")}
_SETTINGS["insecure_no_auth"] = "no_auth"
"""Those that are settings -> their fields."""
_EXPECTED = {int: "a whole number", float: "a number", _yes: "true or false"}


def _read(word: str, text: str) -> Any:
    try:
        return _WORDS[word](text)
    except (ValueError, KeyError):
        raise UsageError(f"{word}: expected {_EXPECTED[_WORDS[word]]}, found {text!r}") from None


def application(
    model: str | None = None,
    settings: Settings | None = None,
    *,
    name: str | None = None,
    index: str | None = None,
    encoder: str | None = None,
    least: int = 1,
    most: int = 4,
    cpus: float = 1,
    gpus: float = 0,
) -> Any:
    """For `ray.serve.run`. `model`: what `paligemma.load` takes. `index`: pictures that can be searched, and `encoder`, its SigLIP, where
    that is not found under the name that it had. All of it is to be found on every machine, as is `media_root` of the settings. `least`,
    `most`: copies, of which each has `cpus` and `gpus`. Raises `UsageError` where there is neither a key nor a word that none is needed."""
    settings = settings or Settings()
    if not settings.api_keys and not settings.no_auth:
        raise UsageError(
            "Serve decides who can reach the replicas, and there is no key",
            hint="set PALIGEMMA_API_KEY, or insecure_no_auth=true where everyone who can reach them may use them",
            code="key_needed",
        )
    from ray import serve  # pyright: ignore[reportMissingImports]
    from ray.serve.config import AutoscalingConfig  # pyright: ignore[reportMissingImports]

    replicas = serve.deployment(
        name="Replica",
        # Those that wait are the scheduler's business: it refuses with a status when there are too many.
        max_ongoing_requests=settings.rows + settings.limits.waiting,
        autoscaling_config=AutoscalingConfig(min_replicas=least, max_replicas=most, target_ongoing_requests=settings.rows),
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        graceful_shutdown_timeout_s=settings.limits.drain_seconds,
    )(Replica).bind(model, settings, name, index, encoder)

    def door() -> Gate:
        return Gate(Door(serve.get_deployment_handle("Replica").options(method_name="answer", stream=True)), settings)

    return serve.deployment(
        name="Door", max_ongoing_requests=settings.limits.connections, ray_actor_options={"num_cpus": 0}, health_check_period_s=2
    )(serve.ingress(door)(_Behind)).bind(replicas)


class Replica:
    """One copy of the model and its app. Requests come whole, answers go as ASGI's messages."""

    def __init__(self, model: str | None, settings: Settings, name: str | None, index: str | None = None, encoder: str | None = None):
        from ..predictor import load
        from .app import build_app
        from .service import Service

        predictor = load(model, mapped=False)  # files may change while it runs
        self._service = Service(predictor, settings, name=name or (predictor.path.name if predictor.path else "paligemma"))
        collection = None
        if index is not None:
            from .searching import open_collection

            collection = open_collection(index, encoder, settings)
        self._app = build_app(self._service, collection=collection)
        self._running = self._app.router.lifespan_context(self._app)  # kept: what nobody holds would be left
        self._entered: asyncio.Task[Any] | None = None

    def check_health(self) -> None:
        """Called by Serve, which replaces a replica where this raises."""
        if not self._service.healthy:
            raise RuntimeError("the engine does not answer")

    async def answer(self, scope: Scope, body: bytes) -> AsyncIterator[Message]:
        self._entered = self._entered or asyncio.ensure_future(self._running.__aenter__())
        await self._entered
        REQUEST_ID.set(scope["state"]["request_id"])
        messages: asyncio.Queue[Message | None] = asyncio.Queue()
        unread = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not unread:  # nobody leaves while this runs: who does, ends it
                await asyncio.Future()
            return unread.pop()

        async def send(message: Message) -> None:
            messages.put_nowait(message)

        task = asyncio.ensure_future(self._app(scope, receive, send))
        task.add_done_callback(lambda _: messages.put_nowait(None))
        try:
            while (message := await messages.get()) is not None:
                yield message
            if error := task.exception():
                told(error)
        finally:
            task.cancel()


class _Behind:
    """Serve makes what a deployment is given: that is how the replicas come to be."""

    def __init__(self, replicas: Any):
        pass


class Door:
    """ASGI app that has another one answer. `handle`: gives a stream of messages for a scope and a body."""

    def __init__(self, handle: Any):
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for step in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{step}.complete"})
            return
        body = await _whole(receive)
        plain = {name: scope[name] for name in _CARRIED if name in scope}
        plain["state"] = {name: scope["state"][name] for name in ("request_id", "client")}
        passing = asyncio.ensure_future(self._pass_on(plain, body, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((passing, gone), return_when=asyncio.FIRST_COMPLETED)
            if not passing.done():  # the client has left
                passing.cancel()
            await asyncio.wait((passing,))
            if not passing.cancelled():
                passing.result()
        finally:
            gone.cancel()
            passing.cancel()

    async def _pass_on(self, scope: Scope, body: bytes, send: Send) -> None:
        start: Message | None = None
        begun = False
        for attempt in range(1, TRIES + 1):
            answer = self._handle.remote(scope, body)
            try:
                async for message in answer:
                    if message["type"] == "http.response.start":
                        start = message
                        continue
                    if not begun and start is not None:
                        begun = True
                        await send(start)
                    await send(message)
                return
            except asyncio.CancelledError:
                answer.cancel()
                raise
            except Exception as error:
                if not _died(error):
                    raise
                LOG.warning("%s: a replica died (try %d)", scope["state"]["request_id"], attempt)
                if begun:
                    await _break_off(start, send)
                    return
        raise Refused(503, "no replica answers", "engine_dead", retry_after=5)


def _died(error: BaseException | None) -> bool:
    """Whether a replica is gone, not whether it said no."""
    from ray.exceptions import RayActorError  # pyright: ignore[reportMissingImports]
    from ray.serve.exceptions import ReplicaUnavailableError  # pyright: ignore[reportMissingImports]

    return any(isinstance(one, RayActorError | ReplicaUnavailableError) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


async def _whole(receive: Receive) -> bytes:
    pieces = []
    while (message := await receive())["type"] == "http.request":
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(pieces)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _break_off(start: Message | None, send: Send) -> None:
    """A stream ends with an error; any other answer has come whole."""
    refusal = Refused(503, "the replica that was answering has died", "engine_dead", retry_after=1)
    assert start is not None
    kind = dict(start.get("headers", ())).get(b"content-type", b"")
    data = event(dump(refusal.body()), "error") if kind.startswith(b"text/event-stream") else b""
    await send({"type": "http.response.body", "body": data, "more_body": False})
