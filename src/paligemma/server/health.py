"""Is it alive, is it ready, and what has it done: for balancers, orchestrators and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from .metrics import CONTENT_TYPE
from .refusals import Refused
from .service import Service


def check_alive(service: Service) -> None:
    """Raises `Refused` (503) where no answer would come any more."""
    if not service.healthy:
        raise Refused(503, "the engine does not answer", "engine_dead", retry_after=30)


def health_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["health"])

    async def healthz() -> Response:
        check_alive(service)
        return JSONResponse({"status": "ok"})

    async def readyz() -> Response:
        if not service.scheduler.open:
            raise Refused(503, "the server is shutting down", "draining", retry_after=5)
        await healthz()
        return JSONResponse({"status": "ready"})

    async def metrics() -> Response:
        service.metrics.waiting.set(service.scheduler.depth)
        service.metrics.writing.set(service.scheduler.busy)
        service.metrics.decoder_deaths.set(service.decoders.deaths)
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    router.add_api_route("/healthz", healthz, methods=["GET"], name="healthz")
    router.add_api_route("/readyz", readyz, methods=["GET"], name="readyz")
    router.add_api_route("/metrics", metrics, methods=["GET"], name="metrics", response_class=Response)
    return router
