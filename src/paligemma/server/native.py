"""/v1/caption, /v1/detect and the rest: a task each, with typed answers, whole or as they are written; and many of them in one request."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
from fastapi import APIRouter
from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from ..predictor.explaining import explanation_of, steps_of
from ..results import Masks
from . import schemas
from .bodies import checked, pictures, read_json, read_task
from .media import Budget
from .refusals import REQUEST_ID, Refused, told
from .schemas import TASKS, BatchBody, Body
from .service import Answered, Question, Service
from .streaming import DONE, WAIT, Answering, Piece, event, stream, while_there

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Error} for status in (400, 401, 403, 404, 408, 413, 415, 429, 431, 500, 503, 504)
}
AT_ONCE = 4
"""Requests of a batch that are in line at a time, so that one batch does not fill the queue."""


def question(service: Service, body: Body, files: list[bytes], budget: Budget) -> Question:
    """Raises `Refused` for a model that is not there."""
    return Question(body.verb, files, body.asked, body.how, service.adapter_of(body.model), budget=budget, explain=body.explain)


def response(service: Service, body: Body, answered: Answered) -> dict[str, Any]:
    result = answered.result.to_dict()
    if isinstance(answered.result, Masks):
        _write_masks(result, answered.result, getattr(body, "masks", "rle"))
    timing = {"queued": answered.queued, "first_token": answered.first_token, "total": answered.total}
    tokenizer, more = service.planner.tokenizer, {}
    if body.alternatives:
        more["tokens"] = [step.to_dict() for step in steps_of(answered.generation, tokenizer)]
    if answered.looked is not None:
        size = answered.width, answered.height
        more |= explanation_of(answered.result, answered.generation, answered.looked, tokenizer, *size).explained()
    return {
        "id": REQUEST_ID.get(),
        "model": body.model or service.name,
        "result": result,
        **more,
        "usage": answered.usage,
        "timing": {name: seconds and round(seconds, 6) for name, seconds in timing.items()},
    }


def _write_masks(result: dict[str, Any], masks: Masks, kind: str) -> None:
    if kind == "rle":
        return
    for plain, mask in zip(result["masks"], masks.masks, strict=True):
        del plain["rle"]
        if kind == "polygon":
            plain["polygon"] = [[list(corner) for corner in ring] for ring in mask.polygon]
        else:
            plain["png"] = _png(mask.mask)


def _png(mask: np.ndarray) -> str:
    written = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(written, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()


def dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def written(service: Service, body: Body, answered: Answered) -> str:
    return dump(response(service, body, answered))


def task_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["tasks"])
    for name, kind in TASKS.items():
        router.add_api_route(
            f"/v1/{name}",
            _task(service, kind),
            methods=["POST"],
            name=name,
            summary=(kind.__doc__ or name).splitlines()[0] if kind.__doc__ != Body.__doc__ else name,
            responses={200: {"model": schemas.Response, "content": {"text/event-stream": {}}}, **ERRORS},
            openapi_extra={"requestBody": _described(kind)},
        )
    router.add_api_route(
        "/v1/batch",
        _batch(service),
        methods=["POST"],
        name="batch",
        responses={200: {"content": {"text/event-stream": {}}}, **ERRORS},
        openapi_extra={"requestBody": _json_only(BatchBody)},
    )
    return router


def _described(kind: type[Body]) -> dict[str, Any]:
    """The same fields as JSON and as a form."""
    schema = {"schema": kind.model_json_schema()}
    return {"required": True, "content": {"application/json": schema, "multipart/form-data": schema}}


def _json_only(kind: Any) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}


def _task(service: Service, kind: type[Body]) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        body, files, budget = await read_task(request, kind, service.settings)
        asked, client = question(service, body, files, budget), request.state.client
        if not body.stream:
            answered = await while_there(request, service.answer(asked, client))
            return Response(await asyncio.to_thread(written, service, body, answered), media_type="application/json")
        answering = Answering(lambda watcher: service.answer(asked, client, watcher), service.settings.limits.heartbeat)
        await answering.begin(request)
        return stream(_events(service, body, answering))

    return run


async def _events(service: Service, body: Body, answering: Answering) -> AsyncIterator[bytes]:
    async for found in answering.events():
        if found is None:
            yield WAIT
        elif isinstance(found, Piece):
            yield event(dump({"text": found.text}), "token")
        elif isinstance(found, Refused):
            yield event(dump(found.body()), "error")
        else:
            yield event(await asyncio.to_thread(written, service, body, found), "result")
            yield DONE


def _batch(service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def run(request: Request) -> Response:
        value = await read_json(request, service.settings)
        body = checked(BatchBody, value)
        # What is wrong with the request as a whole is said before anything is computed; what is wrong with one of its parts, in its place.
        budgets = [Budget(service.settings.limits) for _ in body.requests]
        client = request.state.client

        async def one(place: int) -> dict[str, Any]:
            fields = dict(body.requests[place])
            try:
                kind = TASKS.get(fields.pop("task", None) or "")
                if kind is None:
                    raise Refused(400, f"task must be one of {', '.join(TASKS)}", "invalid_value", param=f"requests[{place}].task")
                own = checked(kind, fields)
                if own.stream:
                    raise Refused(400, "stream: answers of a batch come whole", "invalid_value", param=f"requests[{place}].stream")
                files = await pictures(fields, service.settings, budgets[place], f"requests[{place}].")
                answered = await service.answer(question(service, own, files, budgets[place]), client)
                return {"index": place, **await asyncio.to_thread(response, service, own, answered)}
            except Exception as error:
                return {"index": place, **told(error).body()}

        return stream(_results(one, len(body.requests), service.settings.limits.heartbeat))

    return run


async def _results(one: Callable[[int], Awaitable[dict[str, Any]]], count: int, heartbeat: float) -> AsyncIterator[bytes]:
    """Each as soon as it is there, a few at a time."""
    left, running = iter(range(count)), set[asyncio.Future[dict[str, Any]]]()
    try:
        while True:
            while len(running) < AT_ONCE and (place := next(left, None)) is not None:
                running.add(asyncio.ensure_future(one(place)))
            if not running:
                break
            done, running = await asyncio.wait(running, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                yield WAIT
            for finished in done:
                yield event(dump(finished.result()), "result")
        yield DONE
    finally:
        for task in running:
            task.cancel()
