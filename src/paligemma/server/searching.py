"""/v1/search: pictures of an index that the server has at hand, found in words, by a picture, by what is read and seen in them.

The index is read in its newest version for every request, by one thread: a search that nobody waits for any longer is still at work with
the version that it began with, and the next one waits for it. Pictures are shown small, with their boxes, as data: URLs, since a page
cannot send its key with the address of a picture. Conditions in SQL are not for strangers: only objects and their counts can be asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..drawing import data_url
from ..index.encoder import Encoder, encoder_of
from ..index.filters import Has
from ..index.gallery import Shown, show
from ..index.query import Query, check_encoder, search
from ..index.store import Index
from .bodies import checked, read_json
from .decoding import Decoders
from .media import Budget, read_picture
from .native import ERRORS
from .refusals import Refused, told
from .schemas import Name, Picture, Words
from .settings import Settings
from .streaming import while_there

SIDE = 320
"""Longest side of a picture in an answer, in pixels."""
WAITING = 16
"""Requests that the index's thread works on, and that wait for it; one that nobody waits for any longer is not counted."""

T = TypeVar("T")


class HasBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    label: Annotated[Name, Field(min_length=1)]
    count: Annotated[str, Field(description='A number or a comparison with one: "2", ">2".', max_length=16)] = ">0"


class SearchBody(BaseModel):
    """At least one of words, image, text and has."""

    model_config = ConfigDict(extra="forbid")
    words: Annotated[Words | None, Field(description="What the pictures show.")] = None
    image: Picture | None = None
    text: Annotated[Words | None, Field(description="What is printed in them.")] = None
    has: Annotated[list[HasBody], Field(description="Objects that must be in them.", max_length=16)] = []
    top: Annotated[int, Field(ge=1, le=100)] = 20
    pictures: Annotated[bool, Field(description="Whether results show their pictures.")] = True


class Collection:
    """An index and the encoder that made it."""

    def __init__(self, where: str, encoder: Encoder, settings: Settings):
        """Raises what `Index.open` raises, and `CheckpointError` where the index was made by another encoder."""
        self.index, self.encoder, self.settings = Index.open(where), encoder, settings
        check_encoder(self.index, encoder)
        self.decoders = Decoders(encoder.config.vision.image_size, encoder.config.resize, settings.limits)
        self._thread, self._waiting = ThreadPoolExecutor(1, "paligemma-search"), 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            async with self.decoders:
                yield
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def find(self, body: SearchBody) -> list[dict[str, Any]]:
        """Raises `Refused`."""
        picture = None
        if body.image is not None:
            budget = Budget(self.settings.limits)
            decoded = await self.decoders.decode(await read_picture(body.image, "image", budget, self.settings), "image", budget)
            picture = Image.fromarray(decoded.pixels)
        query = Query(body.words, picture, body.text, tuple(Has(one.label, one.count) for one in body.has))
        return await self._in_turn(lambda: self._find(query, body))

    async def held(self) -> dict[str, int]:
        """How many pictures there are, and how many of them have captions, text and objects. Raises `Refused`."""
        return await self._in_turn(lambda: {name: self.index.count(condition) for name, condition in _HELD.items()})

    async def _in_turn(self, work: Callable[[], T]) -> T:
        """`work` on the newest version, in the index's thread."""
        if self._waiting >= WAITING:
            raise Refused(429, f"{WAITING} searches are waiting already", "queue_full", retry_after=1)

        def on_the_newest() -> T:
            self.index.refresh()
            return work()

        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, on_the_newest)
        finally:
            self._waiting -= 1

    def _find(self, query: Query, body: SearchBody) -> list[dict[str, Any]]:
        hits = search(self.index, query, self.encoder, body.top)
        if not body.pictures:
            return [hit.to_dict() for hit in hits]
        return [_shown(one) for one in show(hits, Path(self.index.facts.root))]


def open_collection(where: str, encoder: str | None, settings: Settings, *, device: str | None = None) -> Collection:
    """`encoder`: the SigLIP of the index; None for the one that the index names. Raises what `Collection` and `load_encoder` raise."""
    return Collection(where, encoder_of(where, Index.open(where).facts.source, encoder, device=device), settings)


def search_routes(collection: Collection) -> APIRouter:
    router = APIRouter(tags=["search"])

    async def facts(request: Request) -> Response:
        return JSONResponse(await answered(request, collection.held()))

    async def find(request: Request) -> Response:
        body = checked(SearchBody, await read_json(request, collection.settings))
        return JSONResponse({"results": await answered(request, collection.find(body))})

    async def answered(request: Request, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await while_there(request, work)
        except Exception as error:
            raise told(error) from error

    described = {"required": True, "content": {"application/json": {"schema": SearchBody.model_json_schema()}}}
    router.add_api_route("/v1/search", facts, methods=["GET"], name="what can be searched", responses=ERRORS)
    router.add_api_route("/v1/search", find, methods=["POST"], name="search", responses=ERRORS, openapi_extra={"requestBody": described})
    return router


_HELD = {"pictures": None, "captions": "captions IS NOT NULL", "text": "text IS NOT NULL", "objects": "objects IS NOT NULL"}


def _shown(one: Shown) -> dict[str, Any]:
    return {**one.hit.to_dict(), "alt": one.alt, "picture": None if one.picture is None else data_url(one.picture, SIDE)}
