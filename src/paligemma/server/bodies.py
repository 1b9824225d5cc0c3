"""A request's body -> a checked body of pydantic's and the bytes of its pictures. JSON or multipart, the same fields in both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..errors import did_you_mean
from .media import Budget, read_picture
from .refusals import Refused
from .schemas import Body
from .settings import Limits, Settings
from .strict_json import parse

M = TypeVar("M", bound=BaseModel)

LARGE = 1 << 20
"""Bytes from which on JSON is read in a thread, so that others are served meanwhile."""
PICTURES = ("image", "images")
_PARTED = {"box": ",", "choices": ";"}
"""Lists that may be one text in a form, as on the command line -> what stands between."""
_WORDS = {
    "Input should be": "must be",
    "Extra inputs are not permitted": "there is no such field",
    "Field required": "must be given",
    " after validation": "",
}
"""pydantic's -> ours."""


def _is_form(request: Request) -> bool:
    """Of the two kinds of bodies that the gate lets in."""
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


async def read_json(request: Request, settings: Settings) -> Any:
    """Raises `Refused`: 415 for a form, 400 for what is no strict JSON."""
    if _is_form(request):
        raise Refused(415, "the body must be application/json", "unsupported_media_type")
    data = await request.body()
    return await asyncio.to_thread(parse, data, settings.limits) if len(data) > LARGE else parse(data, settings.limits)


def checked(kind: type[M], value: Any, *, strict: bool = True) -> M:
    """Raises `Refused` (400) that names the field."""
    if not isinstance(value, dict):
        raise Refused(400, "the body must be a JSON object", "invalid_body")
    try:
        return kind.model_validate(value, strict=strict)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        first = next((one for one in wrong if one["type"] == "extra_forbidden"), wrong[0])  # a misspelt field is missing, too
        param, message = place(first["loc"]), first["msg"]
        for theirs, ours in _WORDS.items():
            message = message.replace(theirs, ours)
        if first["type"] == "extra_forbidden" and (hint := did_you_mean(first["loc"][-1], kind.model_fields)):
            message += f" ({hint})"
        raise Refused(400, f"{param}: {message}" if param else message, "invalid_value", param=param or None) from None


def place(path: Iterable[str | int]) -> str:
    """`messages[0].content`. Words that pydantic puts between, such as names of types, are left out."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "list", "float", "int", "bool"):
            text += f".{part}" if text else part
    return text


async def read_task(request: Request, kind: type[Body], settings: Settings) -> tuple[Body, list[bytes], Budget]:
    """A task's body, its pictures and what they took of the request's budget."""
    budget = Budget(settings.limits)
    if request.url.query:
        raise Refused(400, "fields stand in the body, as JSON or a form, and not in the address behind a ?", "invalid_value")
    if _is_form(request):
        fields, files = await _form(request, settings, budget)
        return checked(kind, _typed(kind, fields, settings.limits), strict=False), files or await pictures(fields, settings, budget), budget
    value = await read_json(request, settings)
    body = checked(kind, value)
    return body, await pictures(value, settings, budget), budget


async def pictures(fields: dict[str, Any], settings: Settings, budget: Budget, path: str = "") -> list[bytes]:
    """The bytes of what `image` or `images` name. Raises `Refused` where there is none, or both."""
    one, several = fields.get("image"), fields.get("images")
    if (one is None) == (not several):
        raise Refused(400, "the request needs a picture: image, or images for several under one prompt", "no_image", param=f"{path}image")
    values = [one] if one is not None else cast("list[Any]", several)
    names = [f"{path}image"] if one is not None else [f"{path}images[{i}]" for i in range(len(values))]
    return [await read_picture(value, name, budget, settings) for value, name in zip(values, names, strict=True)]


async def _form(request: Request, settings: Settings, budget: Budget) -> tuple[dict[str, Any], list[bytes]]:
    limits = settings.limits
    fields: dict[str, Any] = {}
    files: list[bytes] = []
    try:
        async with request.form(max_files=limits.images, max_fields=limits.parts, max_part_size=limits.field_bytes) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name not in PICTURES:
                        raise Refused(400, "a file must be called image", "invalid_value", param="image")
                    data = await value.read(limits.file_bytes + 1)
                    budget.take_image(name)
                    budget.take_bytes(len(data), name)
                    files.append(data)
                else:
                    fields[name] = value if name not in fields else [*_listed(fields[name]), value]
    except Refused:
        raise
    except HTTPException:
        raise Refused(400, "the form cannot be read, or has more or larger parts than allowed", "invalid_form") from None
    return fields, files


def _typed(kind: type[Body], fields: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Texts of a form -> lists and null where the field is one; a form has nothing but texts."""
    typed: dict[str, Any] = {}
    for name, value in fields.items():
        known = kind.model_fields.get(name)
        several = known is not None and "list" in str(known.annotation)
        if value == "null":
            typed[name] = None
        elif several and isinstance(value, str) and value.lstrip().startswith("["):
            typed[name] = parse(value.encode(), limits)
        elif several and isinstance(value, str) and name in _PARTED:
            typed[name] = value.split(_PARTED[name])
        else:
            typed[name] = value
    return typed


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
