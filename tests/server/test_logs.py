"""The log: whole and in order, for people and for programs; and no answer waits for whoever reads it."""

from __future__ import annotations

import io
import json
import logging
import threading

import pytest

from paligemma.server import logs
from paligemma.server.logs import log_to
from paligemma.server.refusals import LOG


class Stalled(io.StringIO):
    """Takes nothing until it is let go."""

    def __init__(self):
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.go.wait(30)
        return super().write(text)


def test_all_lines_are_there_in_order():
    stream = io.StringIO()
    with log_to(stream):
        for number in range(1000):
            LOG.info("line %d", number)
    assert [line.partition(" ")[2] for line in stream.getvalue().splitlines()] == [f"line {number}" for number in range(1000)]


def test_programs_get_json_with_the_facts():
    stream = io.StringIO()
    with log_to(stream, json_lines=True):
        LOG.info("a %s", "line\nor two", extra={"request_id": "x", "status": 200, "secret": "s"})
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert said.pop("time") > 0
    assert said == {"level": "INFO", "message": "a line\nor two", "request_id": "x", "status": 200}


def test_what_was_before_is_again():
    before = LOG.handlers[:], LOG.level, LOG.propagate
    with pytest.raises(KeyError), log_to(io.StringIO()):
        raise KeyError
    assert (LOG.handlers, LOG.level, LOG.propagate) == before


def test_nobody_waits_for_a_reader_that_stands_still(monkeypatch):
    """So many lines wait for it, and no more; how many were dropped is written."""
    monkeypatch.setattr(logs, "LINES", 5)
    stream = Stalled()
    with log_to(stream):
        LOG.info("first")
        assert stream.reached.wait(30)
        for number in range(9):  # would not return if it wrote
            LOG.info("line %d", number)
        stream.go.set()
    said = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
    assert said == ["first", *(f"line {number}" for number in range(5)), "4 lines of this log were dropped"]


def test_lines_that_come_together_are_written_together():
    written: list[str] = []

    class Noting(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return super().write(text)

    with log_to(Noting()):
        for number in range(100):
            LOG.info("line %d", number)
    assert len(written) < 10
    assert "".join(written).count("\n") == 100


def test_a_line_that_cannot_be_made_costs_no_other(monkeypatch):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    stream = io.StringIO()
    with log_to(stream):
        for args in (("a",), (), ("b",)):  # the second lacks what its text asks for
            LOG.handle(LOG.makeRecord(LOG.name, logging.INFO, "", 0, "%s %s", (*args, "x"), None))
    assert [line.partition(" ")[2] for line in stream.getvalue().splitlines()] == ["a x", "b x"]


def test_a_warning_is_written_at_once(monkeypatch):
    """It may be the last that is heard of a process."""
    monkeypatch.setattr(logs, "TOGETHER", 30.0)
    stream = Stalled()
    stream.go.set()
    with log_to(stream):
        LOG.info("first")
        assert not stream.reached.wait(0.1)
        LOG.warning("second")
        assert stream.reached.wait(10)


def test_the_end_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(logs, "LAST", 0.05)
    stream = Stalled()
    with log_to(stream):
        LOG.log(logging.WARNING, "first")
        assert stream.reached.wait(30)
    assert stream.getvalue() == ""
    stream.go.set()
