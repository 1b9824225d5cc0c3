"""Spans of a request and its parts, in the client's trace."""

from __future__ import annotations

import json

import pytest

from paligemma.server import tracing
from tests.server.conftest import eventually
from tests.server.test_native import OBJECTS, ask

sdk = pytest.importorskip("opentelemetry.sdk.trace")


@pytest.fixture
def spans(monkeypatch):
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing.trace, "get_tracer", provider.get_tracer)
    return exporter.get_finished_spans


def test_a_request_and_its_parts(nano, spans):
    trace_id = 0xABCDEF0123456789ABCDEF0123456789
    parent = f"00-{trace_id:032x}-1234567890abcdef-01"
    nano.ask("POST", "/v1/caption", json.dumps({"image": OBJECTS}).encode(), traceparent=parent)
    found = eventually(lambda: spans() if len(spans()) == 4 else None)
    assert [span.name for span in found] == ["open pictures", "wait for a turn", "caption", "POST /v1/caption"]
    assert {span.context.trace_id for span in found} == {trace_id}
    assert found[-1].attributes["http.response.status_code"] == 200
    assert found[2].attributes["tokens"] > 3


def test_without_a_trace_of_the_clients_it_has_its_own(nano, spans):
    assert ask(nano, "caption", lang="xx").status == 400
    found = eventually(lambda: spans() if any(span.name.startswith("POST") for span in spans()) else None)
    assert found[-1].parent is None
    assert found[-1].attributes["http.response.status_code"] == 400
