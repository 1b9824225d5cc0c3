"""The web page: its files, and examples where the model is the bundled one, whose pictures are at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from starlette.responses import FileResponse, JSONResponse, Response

from ..checkpoint.finding import BUNDLED
from ..pages.files import shared_files
from .refusals import Refused
from .service import Service

FOLDER = Path(__file__).with_name("page")
EXAMPLES = BUNDLED / "demo"
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".png": "image/png", ".svg": "image/svg+xml"}


def page_routes(service: Service) -> APIRouter:
    """Files are looked up in a list that is made once: no name from outside becomes a path."""
    router = APIRouter(include_in_schema=False)
    files = {str(path.relative_to(FOLDER).as_posix()): path for path in FOLDER.rglob("*") if path.suffix in KINDS}
    files |= shared_files()
    bundled = service.planner.path is not None and service.planner.path.parent == BUNDLED
    if bundled:
        files |= {f"examples/{path.name}": path for path in EXAMPLES.glob("*.png")}

    def sent(path: Path) -> Response:
        return FileResponse(path, media_type=KINDS[path.suffix], headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})

    async def index() -> Response:
        return sent(files["index.html"])

    async def examples() -> Response:
        return JSONResponse(_examples() if bundled else [])

    async def file(name: str) -> Response:
        if name not in files:
            raise Refused(404, "there is nothing at this address", "not_found")
        return sent(files[name])

    router.add_api_route("/", index, methods=["GET"], name="page")
    router.add_api_route("/page/examples.json", examples, methods=["GET"], name="examples")
    router.add_api_route("/page/{name:path}", file, methods=["GET"], name="page file")
    return router


def _examples() -> list[dict[str, Any]]:
    """What the demo asks about each of its pictures, first of each task."""
    found = []
    for picture in json.loads((EXAMPLES / "demo.json").read_text(encoding="utf-8")):
        items = {}
        for item in picture["items"]:
            asked = item.get("question") or item.get("classes")
            if asked:
                items.setdefault(item["task"], asked)
        found.append({"image": f"/page/examples/{picture['image']}", **items})
    return found
