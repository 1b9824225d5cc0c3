"""The campaign at its smallest size; and that it finds what is wrong."""

from __future__ import annotations

import random

import pytest

from paligemma.jobs.journal import Journal
from tests.server.campaigns.frame import run_campaign

from .campaigns import __main__ as command
from .campaigns import kills


@pytest.mark.timeout(200)
def test_nothing_is_lost_and_nothing_doubled():
    result = run_campaign(kills, "push", 0)  # type: ignore[arg-type]
    assert not result.failures, "\n".join(result.failures.values())
    assert result.cases >= 15


def test_a_job_makes_fewer_calls_than_are_tried():
    with kills.stage() as stage:
        assert 50 < len(stage.calls) < kills.CALLS


def broken(kind: str, monkeypatch) -> None:
    """A guard is taken out."""
    if kind == "half of a part is written":
        write = Journal._write
        monkeypatch.setattr(
            Journal, "_write", lambda self, path, data: write(self, path, data[: len(data) // 2] if b"item 8" in data else data)
        )
    elif kind == "files need not be there":
        monkeypatch.setattr(Journal, "_place", lambda self, part, kind: self._path(part.start, kind))
    elif kind == "left over is left":
        monkeypatch.setattr(Journal, "_sweep", lambda self: None)


@pytest.mark.parametrize("kind", ["half of a part is written", "files need not be there", "left over is left"])
def test_it_finds_what_is_wrong(kind, monkeypatch):
    with kills.stage() as stage:
        broken(kind, monkeypatch)
        found = 0
        for number in range(8, len(stage.calls), 9):
            try:
                kills.check(stage, ("call", number), random.Random(0))
            except Exception:
                found += 1
        assert found


def test_the_command_prints_a_table(capsys):
    assert command.main(["--case", "1"]) == 0
    assert "C19" in capsys.readouterr().out
