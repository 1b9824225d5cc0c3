"""Lines about long work, where no terminal shows a bar."""

from __future__ import annotations

import pytest

from paligemma.cli import progress as module
from paligemma.cli.progress import _rounded, progress


def test_a_line_now_and_then(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with progress("pictures") as shown:
        for second in range(1, 100):
            now = float(second)
            if second == 50:
                shown.total = 4000
            shown.at(10 * second, 10.0, ", 2 image_unknown_format" if second > 70 else "")
    assert capsys.readouterr().err.splitlines() == [
        "300 pictures, 10.00 a second",
        "600 of 4,000 pictures, 10.00 a second, 6 min left",
        "900 of 4,000 pictures, 10.00 a second, 2 image_unknown_format, 5 min left",
    ]


def test_a_bar_on_a_terminal(monkeypatch):
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with progress("items") as shown:
        shown.total = 40
        shown.at(10, 2.5, ", 1 missing")
    for part in ("items", "10/40", "2.50 a second, 1 missing"):
        assert part in terminal.getvalue()


@pytest.mark.parametrize(("seconds", "told"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (9000, "2.5 h")])
def test_times_are_round(seconds, told):
    assert _rounded(seconds) == told
