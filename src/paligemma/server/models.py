"""/v1/models: what clients may call the model, and what each name can be asked, as OpenAI's clients and the page read it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter

from ..tasks import answer
from ..tasks.taught import offers
from .native import ERRORS
from .refusals import Refused
from .schemas import TASKS
from .service import Service

_MASKS = ("segment", "refer")
"""Tasks that need the mask codec."""
_NAMES = {"ask": answer.name}
"""Verbs -> tasks, where their names differ."""


def model_routes(service: Service, notes: Sequence[str], *, searched: bool = False) -> APIRouter:
    """`notes`: see `build_app`; `searched`: whether there are pictures to search, which pages want to know."""
    router, started = APIRouter(tags=["OpenAI"]), int(time.time())

    def described(name: str) -> dict[str, Any]:
        limits, images = service.settings.limits, service.most_pictures(service.names[name])
        own = {
            **_offered(service, name),
            "image_size": service.config.vision.image_size,
            "limits": {"image_bytes": limits.image_bytes, "image_pixels": limits.image_pixels, "images": images},
            "explains": service.explains,
            "notes": list(notes),
            "search": searched,
        }
        return {"id": name, "object": "model", "created": started, "owned_by": "paligemma", "paligemma": own}

    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [described(name) for name in service.names]}

    async def model(name: str) -> dict[str, Any]:
        if name not in service.names:
            raise Refused(404, "there is no such model here", "model_not_found", param="model")
        return described(name)

    router.add_api_route("/v1/models", models, methods=["GET"], name="models")
    router.add_api_route("/v1/models/{name:path}", model, methods=["GET"], name="model", responses=ERRORS)
    return router


def _offered(service: Service, name: str) -> dict[str, Any]:
    """Tasks by the last part of their paths, languages of those that have some, lengths of captions. It is what is worth asking: other
    requests are answered too. What an adapter was taught nobody wrote down, so of it everything is offered."""
    offered = offers(service.config.taught if service.names[name] is None else ())
    able = [task for task in TASKS if service.planner.codec is not None or task not in _MASKS]
    known = {task: offered[named] for task in able if (named := _NAMES.get(TASKS[task].verb, TASKS[task].verb)) in offered}
    return {
        "tasks": list(known),
        "languages": {task: list(offer.languages) for task, offer in known.items() if offer.languages},
        "lengths": list(known["caption"].lengths) if "caption" in known else [],
    }
