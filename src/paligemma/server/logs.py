"""A line for each request, for people or for programs, on one stream. A thread writes them: who reads slowly delays no answer."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from .refusals import LOG

LINES = 10_000
"""That may wait to be written. What comes when there are so many is dropped, and how many were is written."""
TOGETHER = 0.05
"""Seconds for which lines are gathered and then written at once: a thread that woke for each would take turns with all others as often."""
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
        self.urgent = threading.Event()
        """Set by what is worth a warning: what comes next may be the end of the process."""

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """As it is: what our lines are made of does not change, and who writes them has the time to put them together."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
        if record.levelno >= logging.WARNING:
            self.urgent.set()


class _Writer(logging.StreamHandler[TextIO]):
    def write(self, records: Sequence[logging.LogRecord]) -> None:
        try:
            self.stream.write("".join(map(self._line, records)))
            self.flush()
        except Exception:
            self.handleError(records[-1])

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record) + self.terminator
        except Exception:  # of this one alone
            self.handleError(record)
            return ""


@contextmanager
def log_to(stream: TextIO, *, json_lines: bool = False) -> Iterator[None]:
    """The server's log goes to this stream, and nowhere else. All of it is there when this ends, unless nobody reads it."""
    writer = _Writer(stream)
    writer.setFormatter(JsonLines() if json_lines else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    lines: queue.Queue[logging.LogRecord | None] = queue.Queue(LINES)
    waiting = _Waiting(lines)

    def write() -> None:
        found: list[logging.LogRecord | None] = []
        while None not in found:
            found = [lines.get()]
            waiting.urgent.wait(TOGETHER)
            waiting.urgent.clear()
            found += [lines.get_nowait() for _ in range(lines.qsize())]
            records = [record for record in found if record is not None]
            if dropped := waiting.dropped:
                waiting.dropped -= dropped
                records.append(LOG.makeRecord(LOG.name, logging.WARNING, "", 0, "%d lines of this log were dropped", (dropped,), None))
            if records:
                writer.write(records)

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
        waiting.urgent.set()
        try:
            lines.put(None, timeout=LAST)
        except queue.Full:
            pass  # nobody reads
        else:
            thread.join(LAST)
