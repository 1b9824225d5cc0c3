"""An app that does a little of everything, for the gate and the protocol to stand in front of."""

from __future__ import annotations

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from paligemma.errors import InputError
from paligemma.server.refusals import answer


class Toy:
    def __init__(self) -> None:
        self.reached: list[str] = []
        """Paths of all requests that came through."""
        self.failures: list[str] = []
        self.left = 0
        """Streams whose client went away."""
        self.app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/healthz", self.page),
                Route("/page/{path:path}", self.page),
                Route("/v1/models", self.models),
                Route("/v1/models/{name:path}", self.models),
                Route("/v1/length", self.length, methods=["POST"]),
                Route("/v1/unread", self.models, methods=["POST"]),
                Route("/v1/swallowed", self.swallowed, methods=["POST"]),
                Route("/v1/fail", self.fail),
                Route("/v1/broken", self.broken),
                Route("/v1/bad", self.bad),
                Route("/v1/endless", self.endless),
                Route("/v1/large", self.large),
            ],
            exception_handlers={InputError: answer},
        )
        self.app.router.redirect_slashes = False

    def _note(self, request: Request) -> None:
        self.reached.append(request.url.path)

    async def page(self, request: Request) -> Response:
        self._note(request)
        return Response("<p>", media_type="text/html", headers={"Content-Security-Policy": "default-src 'self'"})

    async def models(self, request: Request) -> Response:
        self._note(request)
        return JSONResponse({"id": request.state.request_id, "client": request.state.client})

    async def length(self, request: Request) -> Response:
        self._note(request)
        return JSONResponse(len(await request.body()))

    async def swallowed(self, request: Request) -> Response:
        """As frameworks do that make something of their own of any error while reading."""
        try:
            return JSONResponse(len(await request.body()))
        except Exception as error:
            self.failures.append(type(error).__name__)
            return JSONResponse({"detail": "There was an error parsing the body"}, 400)

    async def fail(self, request: Request) -> Response:
        raise RuntimeError("secret of /home/someone at 0x7f0123456789\nforged line \x1b[31m")

    async def broken(self, request: Request) -> Response:
        return PlainTextResponse("Traceback of /root", 502)

    async def bad(self, request: Request) -> Response:
        raise InputError("/root/pictures/cat.png: not a picture <_io.BytesIO object at 0x7f0123456789>", code="image_damaged")

    async def large(self, request: Request) -> Response:
        return Response(bytes(32 << 20))

    async def endless(self, request: Request) -> Response:
        async def pieces():
            try:
                while True:
                    yield bytes(1 << 16)
                    await asyncio.sleep(0)
            finally:
                self.left += 1

        return StreamingResponse(pieces())
