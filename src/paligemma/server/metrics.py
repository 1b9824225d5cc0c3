"""What the service counts, as Prometheus reads it. A registry of its own, so that several services may live in one process."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..engine.options import Generation

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    def __init__(self) -> None:
        own = self.registry = CollectorRegistry()
        self.requests = Counter("paligemma_requests", "HTTP requests", ["method", "route", "status"], registry=own)
        self.request_seconds = Histogram(
            "paligemma_request_seconds", "From request to end of answer", ["route"], registry=own, buckets=SECONDS
        )
        self.refusals = Counter("paligemma_refusals", "Requests refused, by reason", ["code"], registry=own)
        self.answers = Counter("paligemma_answers", "Answers, by task and why they ended", ["task", "stop"], registry=own)
        self.tokens = Counter("paligemma_answer_tokens", "Tokens written", registry=own)
        self.queue_seconds = Histogram("paligemma_queue_seconds", "Until a question's turn", registry=own, buckets=SECONDS)
        self.first_token_seconds = Histogram("paligemma_first_token_seconds", "From question to first token", registry=own, buckets=SECONDS)
        self.token_seconds = Histogram("paligemma_token_seconds", "Between tokens, mean of an answer", registry=own, buckets=SECONDS)
        self.decoder_deaths = Gauge("paligemma_decoder_deaths", "Processes that died or were stopped at a picture", registry=own)
        self.waiting = Gauge("paligemma_waiting", "Questions whose turn has not come", registry=own)
        self.writing = Gauge("paligemma_writing", "Questions being answered: the size of the batch", registry=own)

    def seen(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request that has ended. `route`: the pattern, not the path, of which there could be any number."""
        self.requests.labels(method, route, str(status)).inc()
        self.request_seconds.labels(route).observe(seconds)

    def refused(self, code: str) -> None:
        self.refusals.labels(code).inc()

    def answered(self, task: str, generation: Generation, queued: float, first: float | None, start: float) -> None:
        """`queued`: seconds. `first`, `start`: when the first token was there, and when the question came, on the monotonic clock."""
        now, count = time.monotonic(), len(generation.ids)
        self.answers.labels(task, generation.stop).inc()
        self.tokens.inc(count)
        self.queue_seconds.observe(queued)
        if first is not None:
            self.first_token_seconds.observe(first - start)
            if count > 1:
                self.token_seconds.observe((now - first) / (count - 1))

    def text(self) -> bytes:
        return generate_latest(self.registry)
