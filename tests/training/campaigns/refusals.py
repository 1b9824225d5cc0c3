"""C14: the n-th call to the file system fails, for every n and many errors, once or for good; files may not grow; a disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .reference import Reference, events
from .trial import ERRORS, Plan

NAME = "C14"
TITLE = "n-th call fails"
SIZES = {"push": 60, "ci": 400, "release": 4000}

Point = tuple


def points(reference: Reference, tier: str, rng: random.Random) -> list[Point]:
    """("once" | "resume once" | "for good", n, errno), ("file size", bytes), ("full disk",).

    "ci" goes through every call once with some error; "release" through every call with every error.
    """
    calls = range(1, len(reference.calls) + 1)
    resumed = range(1, 40)
    if tier == "release":
        everything = [(kind, n, code) for kind, among in _kinds(calls, resumed) for n in among for code in ERRORS]
        return [*everything, *_sizes(20), *([("full disk",)] if _may_mount() else [])]
    everything = [(kind, n, rng.choice(ERRORS)) for kind, among in _kinds(calls, resumed) for n in among]
    if tier == "ci":
        return [*everything, *_sizes(5)]
    return [*rng.sample(everything, SIZES[tier] - 3), *_sizes(3)]


def _kinds(calls: range, resumed: range) -> list[tuple[str, range]]:
    return [("once", calls), ("resume once", resumed), ("for good", calls[::7])]


def _sizes(count: int) -> list[Point]:
    return [("file size", 150 * (1 + number)) for number in range(count)]


def check(reference: Reference, point: Point, rng: random.Random) -> None:
    kind, *where = point
    if kind == "full disk":
        _full_disk(reference)
        return
    with reference.trial() as run:
        before = []
        if kind == "resume once":
            before = [reference.start(run, Plan(incident="kill", at_step=reference.steps - 1)).end()]
        plan = Plan(largest_file=where[0]) if kind == "file size" else Plan("fail", where[0], where[1], forever=kind == "for good")
        done = reference.start(run, plan).end()
        allowed = {0, 5} | ({4} if plan.forever or plan.errno == errno.EIO else set())
        assert done.code in allowed, f"exit code {done.code}, expected one of {sorted(allowed)}\n{done.stderr}"
        if done.code != 0:
            assert "error[" in done.stderr, f"no error was printed\n{done.stderr}"
        if run.exists():
            reference.survived(run, *before, done)
        failed = done.stderr.count("warning[save_failed]")
        assert failed <= 3, f"{failed} saves failed in a row and the run went on"
        if done.code == 0:
            reported = [event["kind"] for event in events(run)].count("save_failed")
            assert reported == failed, f"I5: {failed} saves failed, {reported} are in the report"
        reference.finish(run, *before, done)


def _may_mount() -> bool:
    with tempfile.TemporaryDirectory() as place:
        if _mount(place):
            subprocess.run(["umount", place], check=True)
            return True
    print(f"{NAME}: the real full disk is left out: this process may not mount one", file=sys.stderr)
    return False


def _mount(place: str) -> bool:
    return (
        shutil.which("mount") is not None
        and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", place], capture_output=True).returncode
    )


def _full_disk(reference: Reference) -> None:
    """A real one, of 64 MB: it fills up to the last bytes in the middle of a run."""
    with tempfile.TemporaryDirectory() as place:
        assert _mount(place)
        try:
            for room in (0, 4096, 20_000, 45_000):
                run = Path(place) / f"trial-{room}" / "run"
                run.parent.mkdir()
                running = reference.start(run, Plan(incident="wait", at_step=reference.steps // 2))
                running.until("waits")
                ballast = Path(place) / "ballast"
                with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))
                os.truncate(ballast, max(0, ballast.stat().st_size - room))
                (run.parent / "go").touch()
                done = running.end()
                assert done.code in (0, 5), f"exit code {done.code}\n{done.stderr}"
                assert "No space left on device" in done.stderr or "are free" in done.stderr, f"it was not full\n{done.stderr}"
                ballast.unlink()
                reference.survived(run, done)
                reference.finish(run, done)
        finally:
            subprocess.run(["umount", place], check=True)
