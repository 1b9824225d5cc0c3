"""What went otherwise than planned in a run: said on stderr when it happens, and kept in its folder as `run_report.json`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ResourceError
from ..printable import printable
from .disk import DAMAGE, Disk, read_file, replace_file

NAME = "run_report.json"
MAX_BYTES = 256 << 20
KINDS = {
    "damaged": "a checkpoint was found damaged and set aside in quarantine",
    "fallback": "an older checkpoint was used than the newest there was",
    "data_changed": "the data are not those the run began with, as was allowed",
    "inexact": "the run goes on, as was allowed, where it cannot be the same to the last bit",
    "best": "the mark of the best checkpoint could not be read or written",
    "tidying": "something superseded could not be removed, or the hint LATEST not be written; the next save tries again",
    "unwritten": "a file besides the checkpoints could not be written; it is tried again when there is something new for it",
    "save_failed": "a checkpoint could not be written; the older ones are untouched",
    "skipped_step": "an update was left out because its loss or gradient was not finite",
    "measures": "what was measured of held-out data is no number",
    "rollback": "the run went back to an older state",
    "record": "a record of the data could not be used",
    "lock": "the run's last trainer died while it held the lock",
    "stopped": "the run was asked to stop",
    "report": "this report could not be read or written",
}
"""Kind of event -> what it says."""


@dataclass(frozen=True)
class Event:
    """`step`: optimizer steps done by then, None where that is not known. `details`: JSON."""

    kind: str
    message: str
    step: int | None = None
    time: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"time": self.time, "kind": self.kind, "step": self.step, "message": self.message, **self.details}


def to_stderr(line: str) -> None:
    """One line. A terminal that is gone is no reason to lose a run: the report is in the file."""
    try:
        print(printable(line), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return


class Report:
    """Events of all the processes that worked on a run, oldest first. Whoever holds the run's lock may write."""

    def __init__(self, run: Path, *, disk: Disk | None = None, say: Callable[[str], None] = to_stderr):
        self.path = run / NAME
        self.events: list[dict[str, Any]] = []
        """As in the file, those of earlier processes included."""
        self._disk = disk or Disk()
        self._say = say
        self._unwritten: set[Path] = set()

    def open(self, set_aside: Callable[[Path], Path]) -> None:
        """Read what earlier processes wrote. What is no report goes where `set_aside` moves it, and a new one begins.

        Raises `OSError` where it cannot be told which it is.
        """
        try:
            value = json.loads(read_file(self._disk, self.path, MAX_BYTES))
            events = value["events"] if isinstance(value, dict) else None
            if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
                raise ValueError("it lists no events")
            self.events = events
        except FileNotFoundError:
            self.events = []
        except (ValueError, KeyError, RecursionError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in DAMAGE:
                raise
            self.events = []
            self.add("report", f"{NAME} is damaged ({error}): moved to {set_aside(self.path)}")

    def add(self, kind: str, message: str, *, step: int | None = None, **details: Any) -> Event:
        """Say it, and write it down before this returns. A full disk does not end the run: the next event tries again with all of them.

        `kind` must be one of `KINDS`.
        """
        assert kind in KINDS, kind
        event = Event(kind, message, step, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), details)
        self.events.append(event.to_dict())
        self._say(f"warning[{kind}]: {message}")
        self.write()
        return event

    @contextlib.contextmanager
    def spared(self, path: Path) -> Iterator[None]:
        """Write a file in here that no result hangs on: where the file system refuses it, that is said, once, and the run goes on."""
        try:
            yield
            self._unwritten.discard(path)
        except (OSError, ResourceError) as error:
            if path not in self._unwritten:
                self._unwritten.add(path)
                self.add("unwritten", str(error) if isinstance(error, ResourceError) else f"{path}: {error.strerror or error}")

    def write(self) -> None:
        """Put all events into the file, at once or not at all."""
        try:
            replace_file(self._disk, self.path, (json.dumps({"format": 1, "events": self.events}, indent=1) + "\n").encode())
        except OSError as error:
            self._say(f"warning[report]: {self.path}: {error.strerror or error}; kept in memory")

    def count(self, kind: str) -> int:
        return sum(event.get("kind") == kind for event in self.events)
