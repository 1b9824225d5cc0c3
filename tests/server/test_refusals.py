"""Every error becomes one shape; what our errors say of the request is passed on, what anything says of the machine is not."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from paligemma.errors import CheckpointError, InputError, ResourceError, UsageError
from paligemma.server.refusals import MAX_MESSAGE, REQUEST_ID, Refused, answer, of_status, refusal_of

from .conftest import LEAK


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InputError("image: too large", code="image_too_large"), 400, "invalid_request_error", "image_too_large"),
        (InputError("no such thing"), 400, "invalid_request_error", "bad_input"),
        (UsageError("beams: expected 1 to 16"), 400, "invalid_request_error", "usage"),
        (ResourceError("full", code="busy"), 429, "rate_limit_error", "busy"),
        (ResourceError("no decoder", code="no_decoder"), 503, "overloaded_error", "no_decoder"),
        (MemoryError(), 503, "overloaded_error", "out_of_memory"),
        (OutOfMemoryError("CUDA"), 503, "overloaded_error", "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 503, "overloaded_error", "out_of_memory"),
        (CheckpointError("/models/x: damaged"), 503, "overloaded_error", "model_unavailable"),
        (HTTPException(404), 404, "not_found_error", "not_found"),
        (HTTPException(405), 405, "invalid_request_error", "method_not_allowed"),
        (HTTPException(500, "Traceback"), 500, "server_error", "internal_error"),
        (Refused(401, "no key", "invalid_api_key"), 401, "authentication_error", "invalid_api_key"),
        (Refused(403, "no", "no"), 403, "permission_error", "no"),
        (Refused(408, "slow", "slow"), 408, "timeout_error", "slow"),
        (Refused(504, "slow", "slow"), 504, "timeout_error", "slow"),
        (ValueError("x"), 500, "server_error", "internal_error"),
        (TimeoutError("x"), 500, "server_error", "internal_error"),
    ],
)
def test_what_becomes_what(error: Exception, status: int, kind: str, code: str):
    refusal = refusal_of(error)
    assert refusal.status == refusal.status_code == status
    assert refusal.body()["error"] | {"message": "", "param": None} == {"message": "", "type": kind, "param": None, "code": code}
    assert ("Retry-After" in (refusal.headers or {})) is (status in (429, 503))


def test_an_unknown_error_is_only_named_by_its_request():
    token = REQUEST_ID.set("some-id")
    try:
        messages = {refusal_of(error).message for error in (RuntimeError("secret"), KeyError("other"), HTTPException(502, "third"))}
    finally:
        REQUEST_ID.reset(token)
    assert messages == {"an error of the server, in its log as request some-id"}


@pytest.mark.parametrize(
    "leak",
    ["cannot identify <_io.BytesIO object at 0x7f3a2b1c>", "/home/me/cat.png: damaged", "in /tmp", "/root/x/y.py", "~/models/x is damaged",
     "../up/cat.png is damaged", "/srv/data/model.npz", "Traceback (most recent call last)", 'File "x.py"', "oops at line 3"],
)  # fmt: skip
def test_what_tells_of_the_machine_is_cut_out(leak: str):
    message = refusal_of(InputError(f"image: {leak}")).message
    assert not LEAK.search(message)
    assert "…" in message
    assert "cat.png" not in message
    assert "model.npz" not in message


@pytest.mark.parametrize(
    "message",
    ["image 1: 81,000,000 pixels exceed the limit", "yes/no and/or 1/2", "expected data:image/png;base64, or https://x.example/a/b"],
)
def test_other_words_are_kept(message: str):
    assert refusal_of(InputError(message)).message == message


def test_advice_is_passed_on_where_it_is_for_the_client():
    assert refusal_of(UsageError("no", hint="try fewer beams")).message == "no (try fewer beams)"
    for hint in ("start it with --rows 4", "pip install x", "paligemma models lists them", "use load(device='cpu')"):
        assert refusal_of(UsageError("no", hint=hint)).message == "no"


def test_messages_are_short_and_printable():
    message = refusal_of(InputError("\x1b[31m" + "\u202e" * 10_000, code="x")).message
    assert len(message) == MAX_MESSAGE
    assert message.isprintable()
    assert len(Refused(400, "x", "x", "y" * 1000).body()["error"]["param"]) == 100


def test_statuses_keep_their_headers():
    refused = of_status(405, {"Allow": "GET"})
    assert (refused.headers, refused.message) == ({"Allow": "GET"}, "this address is asked by GET")
    assert of_status(418).code == "i_m_a_teapot"
    assert of_status(499).code == "refused"


class _Fields(BaseModel):
    boxes: list[int]


def test_fields_of_a_form_are_named():
    app = FastAPI(exception_handlers={RequestValidationError: answer, HTTPException: answer})

    @app.post("/")
    def post(fields: _Fields) -> None: ...

    client = TestClient(app)
    wrong = client.post("/", json={"boxes": [1, "secret /home/me"]})
    assert (wrong.status_code, wrong.json()["error"]["param"], wrong.json()["error"]["code"]) == (400, "boxes[1]", "invalid_value")
    assert "secret" not in wrong.text
    assert client.post("/", json={}).json()["error"]["param"] == "boxes"
    missing = client.get("/")
    assert (missing.status_code, missing.json()["error"]["code"], missing.headers["allow"]) == (405, "method_not_allowed", "POST")
