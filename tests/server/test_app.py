"""All routes of the app: which are open, how strictly their bodies are read, and that no name from outside becomes a path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from paligemma.server.app import build_app
from paligemma.server.schemas import TASKS
from paligemma.server.settings import Settings

from .conftest import Served, live, reply

KEY = "the-key"
OPEN = {"/", "/healthz", "/page/examples.json", "/page/{name:path}"}
LOCKED = {"/readyz", "/metrics", "/openapi.json", "/v1/models", "/v1/models/{name:path}", "/labelstudio/health"}
ASKED = {
    "/v1/chat/completions",
    "/v1/batch",
    *(f"/v1/{task}" for task in TASKS),
    *(f"/labelstudio/{call}" for call in ("setup", "predict", "webhook")),
}
"""By POST, the others by GET."""


def walked(routes: Iterable[Any]) -> Iterator[Any]:
    """Also those of routers, which some versions of FastAPI keep as they are."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else walked(inner.routes)


@pytest.fixture(scope="module")
def locked(predictor) -> Iterator[tuple[Served, set[tuple[str, str]]]]:
    """A server with a key, and (method, path) of all its routes."""
    with live(predictor, Settings(api_keys=(KEY,))) as (served, service):
        app = build_app(service)
        described = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
        routes = {(method, route.path) for route in walked(app.routes) for method in route.methods}
        assert described <= {(method, path.replace(":path", "")) for method, path in routes}
        yield served, routes


def test_there_are_these_routes_and_no_others(locked):
    """None of them searches, and none takes the name of a file."""
    _, routes = locked
    assert {(method, path) for method, path in routes if method != "HEAD"} == {
        *(("GET", path) for path in OPEN | LOCKED),
        *(("POST", path) for path in ASKED),
    }


def test_none_but_the_open_ones_can_be_reached_without_a_key(locked):
    served, routes = locked
    for method, path in routes:
        body = b"{}" if method == "POST" else None
        there = path.replace("{name:path}", "nano-112")
        assert (served.ask(method, there, body).status == 401) is (path not in OPEN), (method, path)
        assert served.ask(method, there, body, X_API_Key=KEY).status != 401, (method, path)


@pytest.mark.parametrize(
    "body",
    [
        b'{"temperature": NaN}', b'{"temperature": 1e400}', b'{"seed": ' + b"1" * 5000 + b"}", b"[" * 100_000,
        b'{"messages": 1, "messages": 2}', rb'{"image": "\ud800"}', b'{"image": "\xff"}', b'{"image": "a" ', b"", b"[]",
    ],
)  # fmt: skip
def test_every_body_is_read_strictly(locked, body: bytes):
    served, _ = locked
    for path in ASKED:
        answer = served.ask("POST", path, body, X_API_Key=KEY)
        code = "json_too_deep" if body.startswith(b"[[") else "invalid_body" if body == b"[]" else "invalid_json"
        assert (answer.status, answer.error()["code"]) == (400, code), path


def test_forms_are_for_tasks(locked):
    served, _ = locked
    for path in ("/v1/batch", "/v1/chat/completions", "/labelstudio/setup", "/labelstudio/predict", "/labelstudio/webhook"):
        answer = served.ask("POST", path, b"--x--", Content_Type="multipart/form-data; boundary=x", X_API_Key=KEY)
        assert (answer.status, answer.error()["code"]) == (415, "unsupported_media_type")


def test_nothing_leads_elsewhere(locked):
    served, _ = locked
    assert served.ask("GET", "/page", X_API_Key=KEY).status == 404


@pytest.mark.parametrize(
    "name",
    [
        "../app.py", "..%2fapp.py", "%2e%2e/app.py", "app/../../app.py", "examples/..%2f..%2f..%2fserver%2fapp.py", "index.html%00",
        "/etc/passwd", "%2fetc%2fpasswd", "..\\app.py", "..%5capp.py", "examples/", "",
        "app.py", "no.js", "examples/no.png", "examples",
    ],
)  # fmt: skip
def test_files_are_looked_up_in_a_list(locked, name: str):
    served, _ = locked
    answer = reply(served.say(f"GET /page/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()))
    assert (answer.status, answer.error()["code"]) in ((404, "not_found"), (401, "invalid_api_key"))
    assert served.ask("GET", "/page/page.css").status == 200


def test_the_page_runs_nothing_but_its_own(locked):
    served, _ = locked
    for path in ("/", "/page/page.css"):
        headers = served.ask("GET", path).headers
        policy = dict(one.strip().split(" ", 1) for one in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["frame-ancestors"], policy["object-src"]) == ("'self'", "'none'", "'none'")
        assert "script-src" not in policy
        assert headers["x-content-type-options"] == "nosniff"
