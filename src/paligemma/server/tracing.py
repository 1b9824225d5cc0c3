"""Spans for OpenTelemetry. Where its SDK is set up (`opentelemetry-instrument paligemma serve`) they go there, and else nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.propagate import extract

_NAME = "paligemma.server"
_PARENT = (b"traceparent", b"tracestate")


@contextmanager
def request(headers: Mapping[bytes, bytes], method: str, request_id: str) -> Iterator[trace.Span]:
    """A request's span, a part of the trace that the client names, if it does."""
    parent = {name.decode(): headers[name].decode("latin-1") for name in _PARENT if name in headers}
    facts = {"http.request.method": method, "paligemma.request_id": request_id}
    tracer = trace.get_tracer(_NAME)
    with tracer.start_as_current_span(method, extract(parent), kind=trace.SpanKind.SERVER, attributes=facts) as span:
        yield span


@contextmanager
def part(name: str, **facts: str | int | float) -> Iterator[trace.Span]:
    """A part of the work for the request at hand."""
    with trace.get_tracer(_NAME).start_as_current_span(name, attributes=facts) as span:
        yield span
