"""The server's description of itself can be followed: every reference leads somewhere, and what is streamed is said to be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.server.conftest import Served


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def found(description: Any, reference: str) -> Any:
    place = description
    for step in reference.removeprefix("#/").split("/"):
        place = place[step.replace("~1", "/").replace("~0", "~")]
    return place


def test_references_lead_somewhere(nano: Served):
    description = nano.ask("GET", "/openapi.json").json()
    there = set(references(description))
    assert any("Message" in one for one in there)
    for one in there:
        assert isinstance(found(description, one), dict), one


def test_what_is_streamed_is_said_to_be(nano: Served):
    paths = nano.ask("GET", "/openapi.json").json()["paths"]
    for path in ("/v1/caption", "/v1/segment", "/v1/chat/completions"):
        assert set(paths[path]["post"]["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}, path
