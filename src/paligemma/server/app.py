"""All routes of the service as one ASGI app. It stands behind a `Gate`, wherever it is served."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from .health import health_routes
from .label_studio import label_studio_routes
from .models import model_routes
from .native import task_routes
from .openai import chat_routes
from .page_files import page_routes
from .refusals import answer
from .service import Service

if TYPE_CHECKING:
    from .searching import Collection

DESCRIPTION = (
    "PaliGemma on pictures: captions, answers, boxes, masks and text. Boxes and masks are in pixels of the picture that was sent, "
    "upright, x to the right and y down."
)


def build_app(service: Service, *, notes: Sequence[str] = (), collection: Collection | None = None) -> FastAPI:
    """`notes`: what users of this model should know, shown with it. `collection`: pictures that can be searched."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service, collection.running() if collection else nullcontext():
            yield

    app = FastAPI(
        title="paligemma",
        version=version("paligemma"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # their scripts come from elsewhere
        redoc_url=None,
    )
    models = model_routes(service, notes, searched=collection is not None)
    asked = (task_routes(service), models, chat_routes(service), label_studio_routes(service))
    for router in (health_routes(service), *asked, page_routes(service)):
        app.include_router(router)
    if collection is not None:
        from .searching import search_routes

        app.include_router(search_routes(collection))
    for kind in (HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
    return app
