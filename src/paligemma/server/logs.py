"""A line for each request, for people or for programs, on one stream."""

from __future__ import annotations

import json
import logging
from typing import TextIO

from .refusals import LOG

_FIELDS = ("request_id", "client", "method", "path", "status", "seconds")


class JsonLines(logging.Formatter):
    """What a line is about as JSON; control characters are escaped by that."""

    def format(self, record: logging.LogRecord) -> str:
        facts = {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        return json.dumps({"time": record.created, "level": record.levelname, "message": record.getMessage(), **facts})


def log_to(stream: TextIO, *, json_lines: bool = False) -> None:
    """The server's log goes to this stream, and nowhere else."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines() if json_lines else logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    LOG.handlers[:] = [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
