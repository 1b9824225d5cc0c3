"""Ending a run from outside: the first signal lets the step be finished and saved, a second one ends the process at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_code(number: int) -> int:
    """What a process ends with that a signal stopped, as in a shell: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


class Stopping:
    """While the block lasts, SIGTERM and SIGINT set `requested`, which the loop looks at when a step is done.

        with Stopping() as stopping:
            for step in ...:
                ...
                if stopping.requested:
                    save()
                    return stopping.exit_code

    A second signal leaves with `os._exit`: nothing is written any more, and the checkpoints on the disk are whole as always. A forked child
    (a data worker) is not asked to finish anything: it dies of SIGTERM and leaves SIGINT, which a terminal sends to all, to its parent.
    Handlers can only be set in the main thread; elsewhere signals keep their meaning and `requested` stays false.

    `quiet`: say nothing. `grace`: seconds in which a second signal is taken for the first, where it may come both from a launcher and from
    whoever told that to end.
    """

    def __init__(self, *, quiet: bool = False, grace: float = 0.0) -> None:
        self.quiet, self.grace = quiet, grace
        self._since = 0.0
        self.signal: signal.Signals | None = None
        """The first that came."""
        self._owner = os.getpid()
        self._before: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """143 after SIGTERM, 130 after SIGINT, 0 after neither."""
        return 0 if self.signal is None else exit_code(self.signal)

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._owner = os.getpid()
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            # None: it was set by something that is not Python, which Python cannot set again.
            signal.signal(number, signal.SIG_DFL if before is None else before)  # pyright: ignore[reportArgumentType]
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        if self.signal is not None:
            if time.monotonic() - self._since < self.grace:
                return
            os._exit(exit_code(number))
        self.signal = signal.Signals(number)
        self._since = time.monotonic()
        if self.quiet:
            return
        try:
            # Not through sys.stderr: the signal may have come while that was being written to.
            os.write(2, f"{self.signal.name}: finishing this step and saving; once more to leave at once\n".encode())
        except OSError:
            return
