"""The report: said when it happens, in the file at once, over several processes, through full disks and damage."""

from __future__ import annotations

import errno
import io
import json
import sys
from pathlib import Path

import pytest

from paligemma.errors import ResourceError
from paligemma.training.disk import Disk
from paligemma.training.run_report import KINDS, NAME, Report, to_stderr


def never(path: Path) -> Path:
    raise AssertionError(f"{path} is no reason to set anything aside")


def read(run: Path) -> list[dict]:
    return json.loads((run / NAME).read_text())["events"]


def test_said_and_written(tmp_path):
    said: list[str] = []
    report = Report(tmp_path, say=said.append)
    report.open(never)
    report.add("skipped_step", "the gradient of step 7 is infinite", step=7, batch=[3, 4])
    assert said == ["warning[skipped_step]: the gradient of step 7 is infinite"]
    (event,) = read(tmp_path)
    assert event.pop("time").endswith("Z")
    assert event == {"kind": "skipped_step", "step": 7, "message": "the gradient of step 7 is infinite", "batch": [3, 4]}


def test_the_next_process_goes_on(tmp_path):
    report = Report(tmp_path)
    for number in range(3):
        report = Report(tmp_path, say=lambda line: None)
        report.open(never)
        report.add("rollback", f"number {number}")
    assert [event["message"] for event in read(tmp_path)] == ["number 0", "number 1", "number 2"]
    assert report.count("rollback") == 3
    assert report.count("lock") == 0


def test_an_unknown_kind_is_a_mistake_of_ours(tmp_path):
    with pytest.raises(AssertionError):
        Report(tmp_path).add("mishap", "what is that")
    assert all(KINDS.values())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"events": 3}', b'{"events": [3]}', b"\xff", b"[" * 100_000])
def test_a_damaged_report_is_set_aside(tmp_path, data):
    (tmp_path / NAME).write_bytes(data)
    report = Report(tmp_path, say=lambda line: None)
    report.open(lambda path: path.rename(path.with_name("aside")))
    assert (tmp_path / "aside").read_bytes() == data
    assert [event["kind"] for event in read(tmp_path)] == ["report"]


def test_a_full_disk_keeps_the_events_in_memory(tmp_path):
    class Full(Disk):
        full = True

        def write(self, file, data):
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().write(file, data)

    disk, said = Full(), []
    report = Report(tmp_path, disk=disk, say=said.append)
    report.add("save_failed", "first")
    assert "No space left on device" in said[-1]
    assert list(tmp_path.iterdir()) == []
    disk.full = False
    report.add("save_failed", "second")
    assert [event["message"] for event in read(tmp_path)] == ["first", "second"]


def test_stderr_gets_one_harmless_line(capsys):
    to_stderr("a file called \x1b[2J\nred")
    assert capsys.readouterr().err == "a file called \\x1b[2J\\nred\n"


def test_a_terminal_that_is_gone_is_no_error(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    to_stderr("hello")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    to_stderr("hello")


def test_what_is_spared_is_said_once_until_it_works_again(tmp_path):
    said: list[str] = []
    report = Report(tmp_path, say=said.append)

    def write(error: Exception | None) -> None:
        with report.spared(tmp_path / "curves.png"):
            if error is not None:
                raise error

    for error in (OSError(errno.ENOSPC, "No space left on device"), ResourceError("quarantine.jsonl: full"), None, OSError("again")):
        write(error)
    assert report.count("unwritten") == 2
    assert [line.rpartition(": ")[2] for line in said] == ["No space left on device", "again"]
    with pytest.raises(ValueError, match="a bug"):
        write(ValueError("a bug"))
