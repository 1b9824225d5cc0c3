"""A server without a model, for the page's tests: the same HTTP as the real one, with answers that are written down.

Faults are asked for by the question: `Stub.faults` names what is refused next. `Stub.held` keeps an answer half written while a test looks.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from PIL import Image, ImageDraw

import paligemma
from paligemma.checkpoint.finding import BUNDLED
from paligemma.pages.files import shared_files
from paligemma.results import Answer, Box, Caption, Detections, Mask, Masks, Question, Reading, Result, Text

PAGE = Path(paligemma.__file__).parent / "server" / "page"
SHARED = shared_files()
DEMO = BUNDLED / "demo"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
TASKS = ["caption", "ask", "ocr", "detect", "segment", "refer", "describe-box", "question", "run"]
NOTE = "The bundled model knows only its small drawn world."
EXAMPLES = [
    {
        "image": "/page/examples/objects1.png",
        "ask": "what color is the heart?",
        "detect": ["owl", "green heart", "fish"],
        "segment": ["owl"],
    },
    {"image": "/page/examples/objects3.png", "ask": "is there a turtle?", "detect": ["horse", "elephant"], "segment": ["elephant"]},
    {"image": "/page/examples/words1.png", "ask": "how many words are there?"},
]
KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 413: "invalid_request_error",
    429: "rate_limit_error", 503: "overloaded_error", 500: "server_error",
}  # fmt: skip


@dataclass
class Fault:
    """An answer that is no success. `after`: pieces that are written before it; 0 is an HTTP status of its own."""

    status: int
    code: str
    message: str = "the reason, in words"
    headers: dict[str, str] = field(default_factory=dict)
    after: int = 0


@dataclass
class Stub:
    """What the server does next, and what it was asked."""

    address: str = ""
    key: str | None = None
    held: int | None = None  # after so many pieces an answer waits until this is None again
    models: tuple[str, ...] = ("nano-112",)
    offered: dict[str, dict[str, Any]] = field(default_factory=dict)  # model -> what is said of it besides
    search: list[dict[str, Any]] | None = None  # what is found; None: there is no index
    loading: bool = False
    faults: list[Fault] = field(default_factory=list)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    begun: int = 0  # answers that are written piece by piece
    cancelled: int = 0


def body_of(fault: Fault) -> dict[str, Any]:
    return {"error": {"message": fault.message, "type": KINDS[fault.status], "param": None, "code": fault.code}}


def refused(fault: Fault) -> Response:
    return JSONResponse(body_of(fault), fault.status, {"X-Request-ID": "stub", **fault.headers})


LOCKED = Fault(401, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def size(body: dict[str, Any]) -> tuple[int, int]:
    """Of the first picture that was sent."""
    data = (body.get("images") or [body["image"]])[0]
    with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as image:
        image.load()
        return image.size


# The same places whatever the picture is, as shares of it.
PLACES = {
    "owl": (0.01, 0.2, 0.16, 0.38, 0.99), "green heart": (0.37, 0.5, 0.6, 0.74, 0.62), "fish": (0.61, 0.25, 0.98, 0.57, 0.31),
    "horse": (0.1, 0.1, 0.45, 0.4, 0.9), "elephant": (0.5, 0.5, 0.95, 0.95, 0.8),
}  # fmt: skip
CAPTIONS = {"en": "an owl, a green heart and a fish", "de": "Eule, grünes Herz und Fisch", "ar": "بومة وقلب أخضر وسمكة."}


def looked(at: int) -> list[list[float]]:
    """At one of four patches."""
    return [[0.9 if 2 * row + column == at else 0.01 for column in range(2)] for row in range(2)]


EXPLANATION = {
    "grid": [2, 2],
    "tokens": [
        {"text": "owl", "prob": 0.8, "likely": [{"text": "owl", "prob": 0.8}, {"text": " bird", "prob": 0.2}], "heat": looked(0)},
        {
            "text": "<loc0307>",
            "prob": 0.6,
            "likely": [{"text": "<loc0307>", "prob": 0.6}, {"text": "<loc0308>", "prob": 0.4}],
            "heat": looked(3),
        },
        {
            "text": " fish",
            "prob": 0.95,
            "likely": [{"text": " fish", "prob": 0.95}, {"text": " eel", "prob": 0.04}, {"text": " x", "prob": 0.001}],
            "heat": looked(3),
        },
    ],
    "parts": [
        {"label": "owl", "start": 0, "stop": 1, "score": 0.8, "box": None, "heat": looked(0)},
        {"label": "fish", "start": 1, "stop": 3, "score": 0.99, "box": [60, 30, 110, 70], "heat": looked(3)},
    ],
}


def boxes(names: list[str], width: int, height: int) -> list[Box]:
    found = [(name, PLACES[name]) for name in names if name in PLACES]
    return [Box(name, x0 * width, y0 * height, x1 * width, y1 * height, score) for name, (x0, y0, x1, y1, score) in found]


def ellipse(box: Box, width: int, height: int) -> np.ndarray:
    drawn = Image.new("1", (width, height))
    ImageDraw.Draw(drawn).ellipse([round(v) for v in box.xyxy], fill=1)
    return np.asarray(drawn)


def answer(task: str, body: dict[str, Any]) -> tuple[Result, list[str]]:
    """The result, and the pieces it is written in."""
    width, height = size(body)
    classes = body.get("classes", [])
    names = [one.strip() for one in classes.split(";")] if isinstance(classes, str) else classes
    texts: dict[str, tuple[type[Text], str]] = {
        "caption": (Caption, CAPTIONS.get(body.get("lang", "en"), "a picture")),
        "ask": (Answer, "<b>green</b>" if "bold" in body.get("question", "") else "green"),
        "ocr": (Reading, "BABY\n09\nBIKING"),
        "describe-box": (Caption, "an owl"),
        "question": (Question, "how many owls are there?"),
        "run": (Text, "gelber Punkt und lila Punkt"),
    }
    if task in texts:
        kind, text = texts[task]
        return kind(text, 0.98, "the prompt"), [piece + " " for piece in text.split(" ")]
    found = boxes(["owl"] if task == "refer" else names, width, height)
    pieces = [f"<loc0010><loc0020><loc0300><loc0400>{'<seg001>' * 16 if task != 'detect' else ''} {box.label} ;" for box in found]
    how = {"width": width, "height": height, "text": "".join(pieces), "prompt": "the prompt", "stop": "eos", "leftover": "", "invalid": 0}
    if task == "detect":
        return Detections(tuple(found), **how), pieces
    masks = tuple(Mask(box.label, box, ellipse(box, width, height), box.score, (1,) * 16) for box in found)
    return Masks(masks, **how), pieces


def make_app(stub: Stub) -> FastAPI:
    app = FastAPI()

    def locked(request: Request) -> bool:
        return stub.key is not None and request.headers.get("authorization") != f"Bearer {stub.key}"

    def served(path: Path) -> Response:
        if not path.is_file():
            return refused(Fault(404, "not_found"))
        return FileResponse(path, headers=HEADERS)

    @app.get("/")
    def index() -> Response:
        return served(PAGE / "index.html")

    @app.get("/page/examples.json")
    def examples() -> Response:
        return JSONResponse(EXAMPLES)

    @app.get("/page/examples/{name}")
    def example(name: str) -> Response:
        return served(DEMO / name)

    @app.get("/page/{path:path}")
    def page(path: str) -> Response:
        return served(SHARED.get(path, PAGE / path))

    @app.get("/v1/models")
    def models(request: Request) -> Response:
        if locked(request):
            return refused(LOCKED)
        if stub.loading:
            return refused(Fault(503, "loading", headers={"Retry-After": "1"}))
        about = {
            "tasks": TASKS,
            "languages": {task: [*CAPTIONS] for task in ("caption", "ask", "question")},
            "lengths": ["short", "normal", "long"],
            "image_size": 112,
            "limits": {},
            "explains": True,
            "notes": [NOTE],
            "search": stub.search is not None,
        }
        listed = [
            {"id": name, "object": "model", "created": 0, "owned_by": "paligemma", "paligemma": about | stub.offered.get(name, {})}
            for name in stub.models
        ]
        return JSONResponse({"object": "list", "data": listed})

    @app.get("/v1/search")
    def held(request: Request) -> Response:
        if locked(request):
            return refused(LOCKED)
        if stub.search is None:
            return refused(Fault(404, "not_found"))
        return JSONResponse({"pictures": 1234, "captions": 1234, "text": 0, "objects": 7})

    @app.post("/v1/search")
    async def found(request: Request) -> Response:
        stub.asked.append(("search", json.loads(await request.body())))
        return JSONResponse({"results": stub.search})

    @app.post("/v1/{task}")
    async def ask(task: str, request: Request) -> Response:
        if locked(request):
            return refused(LOCKED)
        body = json.loads(await request.body())
        stub.asked.append((task, body))
        fault = stub.faults.pop(0) if stub.faults else None
        if fault and not fault.after:
            return refused(fault)
        result, pieces = answer(task, body)
        usage = {"image_tokens": 64, "prompt_tokens": 5, "completion_tokens": len(pieces), "total_tokens": 69 + len(pieces)}
        timing = {"queued": 0.001, "first_token": 0.02, "total": 0.12}
        whole = {"id": "stub", "model": body.get("model") or "nano-112", "result": result.to_dict(), "usage": usage, "timing": timing}
        if body.get("explain"):
            whole["explanation"] = EXPLANATION
        if not body.get("stream"):
            return JSONResponse(whole)
        return StreamingResponse(write(pieces, whole, fault), media_type="text/event-stream", headers={"X-Request-ID": "stub"})

    async def write(pieces: list[str], whole: dict[str, Any], fault: Fault | None) -> AsyncIterator[str]:
        try:
            stub.begun += 1
            yield ": wait\n\n"
            for i, piece in enumerate(pieces):
                if fault and i == fault.after:
                    if fault.code != "cut":  # else the connection just ends
                        yield event(body_of(fault), "error")
                    return
                while stub.held is not None and i >= stub.held:
                    await asyncio.sleep(0.01)
                yield event({"text": piece}, "token")
            yield event(whole, "result")
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            stub.cancelled += 1
            raise

    return app


def event(value: dict[str, Any], name: str) -> str:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n"


@contextlib.contextmanager
def serve(stub: Stub) -> Iterator[Stub]:
    """The stub on a local address of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(make_app(stub), log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        until = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < until, "the stub does not start"
            time.sleep(0.02)
        stub.address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        try:
            yield stub
        finally:
            server.should_exit = True
            thread.join()
