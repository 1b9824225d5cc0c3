"""A line for each request, for people or for programs, on one stream. A thread writes them: who reads slowly delays no answer."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from .refusals import LOG

LINES = 10_000
"""That may wait to be written. What comes when there are so many is dropped, and how many were is written."""
LAST = 2.0
"""Seconds that the end waits for what is still to be written."""
_FIELDS = ("request_id", "client", "method", "path", "status", "seconds")


class JsonLines(logging.Formatter):
    """What a line is about as JSON; control characters are escaped by that."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        return json.dumps({"time": record.created, "level": record.levelname, "message": record.getMessage(), **facts})


class _Waiting(logging.handlers.QueueHandler):
    """`dropped`: lines since the last one that was written."""

    def __init__(self, lines: queue.Queue[logging.LogRecord | None]):
        super().__init__(lines)
        self.dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


@contextmanager
def log_to(stream: TextIO, *, json_lines: bool = False) -> Iterator[None]:
    """The server's log goes to this stream, and nowhere else. All of it is there when this ends, unless nobody reads it."""
    writer = logging.StreamHandler(stream)
    writer.setFormatter(JsonLines() if json_lines else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(LINES)
    waiting = _Waiting(lines)

    def write() -> None:
        for record in iter(lines.get, None):
            writer.handle(record)
            if dropped := waiting.dropped:
                waiting.dropped -= dropped
                writer.handle(LOG.makeRecord(LOG.name, logging.WARNING, "", 0, "%d lines of this log were dropped", (dropped,), None))

    thread = threading.Thread(target=write, name="paligemma-log", daemon=True)
    before = LOG.handlers[:], LOG.level, LOG.propagate
    LOG.handlers[:], LOG.propagate = [waiting], False
    LOG.setLevel(logging.INFO)
    thread.start()
    try:
        yield
    finally:
        LOG.handlers[:], LOG.propagate = before[0], before[2]
        LOG.setLevel(before[1])
        try:
            lines.put(None, timeout=LAST)
        except queue.Full:
            pass  # nobody reads
        else:
            thread.join(LAST)
