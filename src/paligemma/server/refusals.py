"""Whatever goes wrong -> one JSON body, with words for the person who asked and none about this machine.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}

What our own errors say about the request is passed on. What anything else says is not: texts of exceptions hold addresses and paths.
"""

from __future__ import annotations

import json
import logging
import re
import traceback
from contextvars import ContextVar
from http.client import responses
from typing import Any, NamedTuple

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from ..errors import CheckpointError, InputError, ResourceError, UsageError, lacks_memory
from ..printable import printable

Headers = list[tuple[bytes, bytes]]
"""Names in small letters."""
LOG = logging.getLogger("paligemma.server")
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="-")
"""Of the request that is being answered."""
MAX_MESSAGE = 500

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Written(NamedTuple):
    """An answer, as it is sent."""

    status: int
    head: Headers
    body: bytes


class Refused(HTTPException):
    """An answer that is an error. `code`: a stable snake_case name. `param`: the field that is wrong. `retry_after`: seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        *,
        retry_after: int | None = None,
        headers: dict[str, str] | None = None,
    ):
        message = fit(message)
        more = {} if retry_after is None else {"Retry-After": str(retry_after)}
        super().__init__(status, message, {**(headers or {}), **more})
        self.status = status
        self.message = message
        self.code = code
        self.param = None if param is None else fit(param)[:100]

    @property
    def kind(self) -> str:
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def written(self) -> Written:
        """An answer that is this and nothing else."""
        body = json.dumps(self.body(), ensure_ascii=False).encode()
        own = {"content-type": "application/json", "content-length": str(len(body)), **(self.headers or {})}
        return Written(self.status, [(name.lower().encode(), value.encode()) for name, value in own.items()], body)


_PRIVATE = re.compile(
    r"0x[0-9a-f]{6,}"  # an address in memory
    r"|(?<![\w:/.])(?:~|\.{0,2})/(?:[\w.@+-]+/)*[\w.@+-]+"  # a path
    r"|/(?:home|root|tmp)\b|Traceback|File \"| at line ",
    re.IGNORECASE,
)


def fit(message: str) -> str:
    """Fit to be shown: short, printable, no paths or addresses of this machine."""
    # Cut before and after: the first bounds the work, the second what the escapes have made of it.
    return _PRIVATE.sub("…", printable(message[: 2 * MAX_MESSAGE]))[:MAX_MESSAGE]


def of_status(status: int, headers: dict[str, str] | None = None) -> Refused:
    """For an error that comes with a number only."""
    message, code = _WORDS.get(status, (None, None))
    if status == 405 and (allowed := (headers or {}).get("Allow")):
        message = f"this address is asked by {allowed}"
    phrase = responses.get(status, "refused")
    return Refused(status, message or phrase, code or re.sub(r"\W+", "_", phrase.lower()), headers=headers)


_WORDS = {
    400: ("the request cannot be understood", "bad_request"),
    404: ("there is nothing at this address", "not_found"),
    405: ("this address has no such method", "method_not_allowed"),
    431: ("the headers or the address are too long", "headers_too_large"),
}


_LOCAL_HINT = re.compile(r"--|\bload\(|pip install|paligemma ")
"""Advice for whoever runs the program, which a client does not."""


def refusal_of(error: BaseException) -> Refused:
    """What the client is told about any error."""
    match error:
        case Refused():
            return error
        case HTTPException() if error.status_code < 500:
            return of_status(error.status_code, dict(error.headers or {}))
        case RequestValidationError():
            return _of_fields(error)
        case InputError() | UsageError():
            hint = f" ({error.hint})" if error.hint and not _LOCAL_HINT.search(error.hint) else ""
            return Refused(400, error.message + hint, error.code)
        case ResourceError(code="busy"):
            return Refused(429, "too many requests are waiting: ask again in a moment", "busy", retry_after=1)
        case ResourceError():
            return Refused(503, "the server lacks what this takes", error.code, retry_after=5)
        case CheckpointError():
            return Refused(503, "the model cannot be used", "model_unavailable", retry_after=30)
    if lacks_memory(error):
        return Refused(503, "the server has too little memory for this now", "out_of_memory", retry_after=5)
    return Refused(500, f"an error of the server, in its log as request {REQUEST_ID.get()}", "internal_error")


def told(error: BaseException) -> Refused:
    """As `refusal_of`; an error of ours is also written to the log, with its traceback, indented so that none of it looks like a line."""
    refusal = refusal_of(error)
    if refusal.status == 500 and not isinstance(error, Refused):
        lines = printable("".join(traceback.format_exception(error)), keep="\n").splitlines()
        LOG.error("%s failed\n%s", REQUEST_ID.get(), "\n".join(f"    {line}" for line in lines))
    return refusal


def _of_fields(error: RequestValidationError) -> Refused:
    """The first field that is wrong; one is enough to go on."""
    first = next(iter(error.errors()), {})
    place = [part for part in first.get("loc", ()) if part not in ("body", "query", "path", "header")]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".") or None
    message = str(first.get("msg", "cannot be understood"))
    return Refused(400, f"{param}: {message}" if param else message, "invalid_value", param)


async def answer(request: Request, error: Exception) -> JSONResponse:
    """For `exception_handlers` of an app."""
    refusal = refusal_of(error)
    return JSONResponse(refusal.body(), refusal.status, dict(refusal.headers or {}))
