"""How far work over a collection is, on standard error: a bar on a terminal, elsewhere a line now and then. With the time left in both."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

EVERY = 30.0
"""Seconds between two lines."""
_Show = Callable[[int, "int | None", float, str], None]


@dataclass
class Progress:
    """`total`: how many there are, to be set when it is known."""

    _show: _Show
    total: int | None = None

    def at(self, done: int, rate: float, more: str = "") -> None:
        """So many are done, so many a second now; `more` is shown with it."""
        self._show(done, self.total, rate, more)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Progress]:
    """`what`: that which is counted, in the plural."""
    if not sys.stderr.isatty():
        yield Progress(_lines(what))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[more]}"))
    with Bars(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bars:
        bar = bars.add_task(what, total=None, more="")

        def show(done: int, total: int | None, rate: float, more: str) -> None:
            bars.update(bar, completed=done, total=total, more=f"{rate:.2f} a second{more}")

        yield Progress(show)


def _lines(what: str) -> _Show:
    said = time.monotonic()

    def show(done: int, total: int | None, rate: float, more: str) -> None:
        nonlocal said
        if time.monotonic() - said >= EVERY:
            said = time.monotonic()
            of = "" if total is None else f" of {total:,}"
            left = "" if total is None or rate <= 0 else f", {_rounded((total - done) / rate)} left"
            print(f"{done:,}{of} {what}, {rate:.2f} a second{more}{left}", file=sys.stderr, flush=True)

    return show


def _rounded(seconds: float) -> str:
    """`40 s`, `3 min`, `2.5 h`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
