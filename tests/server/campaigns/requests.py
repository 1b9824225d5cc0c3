"""C7: requests made from the server's own description of itself, right ones and wrong ones (Schemathesis, all checks that fit)."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from bench.served import Server, served
from tests.server.conftest import LEAK

from .frame import Trials

NAME = "C7"
TITLE = "requests from /openapi.json"
EXAMPLES = 16
"""Of one operation, right or wrong ones, with one seed."""
ROUNDS = {"push": 1, "ci": 14, "release": 140}
GROWTH = 50 << 20
"""Bytes that the server's memory may grow by after the first round."""
OPERATIONS = (
    "GET /healthz", "GET /readyz", "GET /metrics", "GET /v1/models", "GET /v1/models/{name}", "POST /v1/chat/completions", "POST /v1/batch",
    *(f"POST /v1/{task}" for task in ("caption", "ask", "ocr", "detect", "segment", "refer", "describe-box", "question", "run")),
    "GET /labelstudio/health", *(f"POST /labelstudio/{call}" for call in ("setup", "predict", "webhook")),
)  # fmt: skip
LEFT_OUT = ("positive_data_acceptance",)
"""A right request may be refused: that a language is known, a box lies in the picture, tokens fit the context, no schema can say."""

Point = tuple[str, str, int]


def points(tier: str, rng: random.Random) -> list[Point]:
    """(operation, positive | negative, seed)"""
    return [
        (operation, mode, rng.randrange(1 << 30))
        for _ in range(ROUNDS[tier])
        for operation in OPERATIONS
        for mode in (("positive", "negative") if operation.startswith("POST") else ("positive",))  # nothing in a path is wrong
    ]


class Stage:
    """The server, its description, and its memory after the first cases."""

    def __init__(self, server: Server):
        self.server = server
        status, text = server.ask("GET", "/openapi.json")
        assert status == 200
        self.operations: dict[tuple[str, str], Any] = {}
        for mode in ("positive", "negative"):
            schema = schemathesis.openapi.from_dict(_told(json.loads(text), right=mode == "positive"))
            schema.config.update(base_url=server.url)
            found = {one.ok().label: one.ok() for one in schema.get_all_operations()}
            assert set(found) == set(OPERATIONS), set(found) ^ set(OPERATIONS)
            self.operations |= {(label, mode): one for label, one in found.items()}
        load_all_checks()
        self.checks = [check for name, check in {check.__name__: check for check in CHECKS.get_all()}.items() if name not in LEFT_OUT]
        self.done = 0
        self.memory = 0


@contextmanager
def stage() -> Iterator[Stage]:
    schemathesis.openapi.format("picture", _pictures())
    with served() as server:
        yield Stage(server)


def check(stage: Stage, point: Point, rng: random.Random) -> Trials:
    operation, mode, number = point
    count = 0

    @seed(number)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=stage.operations[operation, mode].as_strategy(generation_mode=GenerationMode(mode)))
    def each(case: Case) -> None:
        nonlocal count
        count += 1
        answer = case.call(timeout=30)
        shown = answer.text + "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        if answer.status_code >= 400:
            assert not LEAK.search(shown), f"a leak: {shown}"
            assert len(answer.content) <= 700, f"an error of {len(answer.content)} bytes"
            assert answer.json()["error"]["code"], answer.text
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, checks=stage.checks)

    try:
        each()
    except BaseExceptionGroup as group:
        raise AssertionError("; ".join(str(error) for error in group.exceptions)) from None
    assert stage.server.alive()
    stage.done += 1
    if stage.done == len(OPERATIONS):
        stage.memory = stage.server.memory()
    grown = stage.server.memory() - stage.memory if stage.memory else 0
    assert grown < GROWTH, f"memory grew by {grown >> 20} MiB"
    return Trials(count, {"memory grown, MiB": grown >> 20})


def _pictures() -> st.SearchStrategy[str]:
    """Small pictures of all kinds, as data: URLs and as bare base64."""
    side = st.integers(1, 40)
    return st.builds(_picture, st.sampled_from(("PNG", "JPEG", "WEBP", "BMP", "GIF")), side, side, st.booleans())


def _picture(kind: str, width: int, height: int, bare: bool) -> str:
    written = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(written, kind)
    text = base64.b64encode(written.getvalue()).decode()
    return text if bare else f"data:image/{kind.lower()};base64,{text}"


def _told(schema: dict[str, Any], *, right: bool) -> dict[str, Any]:
    """The description with what it cannot say: which texts are pictures, and that one is needed. `right`: also what this server can do."""
    schema = copy.deepcopy(schema)
    waiting: list[Any] = [schema]
    while waiting:
        match waiting.pop():
            case dict() as part:
                properties = part.get("properties")
                if isinstance(properties, dict):
                    _tell(part, properties, right)
                waiting += part.values()
            case list(items):
                waiting += items
    return schema


PICTURE = {"type": "string", "format": "picture"}


def _object(**properties: Any) -> dict[str, Any]:
    """Of just these fields, all of them there."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(items: Any, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


MAX_TOKENS = {"type": "integer", "minimum": 1, "maximum": 24}
TURN = (_object(type={"const": "text"}, text={"type": "string", "minLength": 1, "maxLength": 60}),)
TURN += (_object(type={"const": "image_url"}, image_url=_object(url=PICTURE)),)
CONTENT = {"type": "array", "prefixItems": TURN, "items": False, "minItems": 2, "maxItems": 2}
IMAGE = '<Image name="i" value="$photo"/>'
PROJECT = f'<View>{IMAGE}<RectangleLabels name="a" toName="i"><Label value="owl"/></RectangleLabels><TextArea name="b" toName="i"/></View>'
RIGHT: dict[str, dict[str, Any]] = {
    "model": {"enum": [None, "nano-112"]},
    "lang": {"enum": ["en", "de", "fr", "es", "zh"]},
    "box": {"type": "array", "items": {"enum": [0, 0.25, 1, 1.5]}, "minItems": 4, "maxItems": 4},
    "max_tokens": MAX_TOKENS,
    "classes": {"anyOf": [{"enum": ["cat", "cat ; dog"]}, _list({"enum": ["owl", "猫", "a cup"]}, 4)]},
    "messages": _list(_object(role={"const": "user"}, content=CONTENT), 1),
    "requests": _list(_object(task={"enum": ["ocr", "caption"]}, image=PICTURE, max_tokens=MAX_TOKENS), 3),
    "schema": {"enum": ["", PROJECT]},
    "label_config": {"const": PROJECT},
    "tasks": _list(_object(data=_object(photo=PICTURE)), 2),
}
"""What this server can do, and soon."""


def _tell(part: dict[str, Any], properties: dict[str, Any], right: bool) -> None:
    if set(properties) == {"url", "detail"}:
        properties["url"] = PICTURE
    if not {"image", "messages", "requests", "tasks", "schema"} & set(properties):
        return
    needed = set(part.get("required", ()))
    if "image" in properties:
        properties["image"] = PICTURE
        properties.pop("images", None)
        needed.add("image")
    if right:
        properties |= {name: value for name, value in RIGHT.items() if name in properties}
        needed |= {"max_tokens"} & set(properties)
        part["additionalProperties"] = False
    part["required"] = sorted(needed)
