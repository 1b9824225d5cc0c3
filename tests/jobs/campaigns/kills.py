"""C19: kill -9 before every call to the file system, within writes, at random times, while going on, and while a finished job grows.

Each case: a job over the same items is killed as the case says, then run again until it is finished. Its tables must be those of a job
that nothing disturbed, byte for byte (a Parquet table: value for value), and nothing else may be left. A job in a process of its own is a
fork; its answers come from `making.answered`, so that a case takes milliseconds. `command` cases are `paligemma batch` on a tiny model in a
new process, killed at a random time.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paligemma.jobs import job
from paligemma.jobs.items import items
from paligemma.jobs.job import run
from paligemma.jobs.journal import opened
from paligemma.jobs.rows import FORMS
from paligemma.training.disk import Disk

from ..making import TASKS, album, backwards, engine, lines

NAME = "C19"
TITLE = "kill -9 of a job, and on"
SIZES = {"push": 15, "ci": 150, "release": 1500}
"""At least. From "ci" on every call and every write of a job is among them."""
COMMANDS = {"push": 1, "ci": 6, "release": 40}
"""Of the cases, how many are the command itself."""
COUNT, BROKEN, TWICE = 30, (4, 17), (11,)
"""Items of the source, those that are no pictures, and those whose id was there before."""
GROWN = 6
"""Items that come at the end of a finished job's source."""
PART, SPAN = 5, 2
HANG = 120.0
MEMORY = Path("/dev/shm")
"""Where jobs lie: what a kill leaves is the same everywhere."""

Point = tuple[Any, ...]


@dataclass
class Stage:
    """`folder`: of all cases; `source`: a table of pictures; `wanted`: form -> tables of an undisturbed job; `calls`: names of its calls to
    the file system, in order; `seconds`: that it takes."""

    folder: Path
    source: Path
    wanted: dict[str, dict[str, Any]]
    calls: list[str]
    seconds: float
    model: Path | None = None
    command: dict[str, Any] | None = None


class Dying(Disk):
    """Kills its process before call number `at`, or in the middle of it where it is a write and `torn`. Counts from 1; 0 for never."""

    def __init__(self, at: int = 0, torn: bool = False):
        self._at, self._torn = at, torn
        self.names_called: list[str] = []

    def around(self, name: str, real: Callable[..., Any], *arguments: Any) -> Any:
        self.names_called.append(name)
        if len(self.names_called) == self._at:
            if self._torn and name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)


def _counted(name: str) -> Any:
    def call(self: Dying, *arguments: Any) -> Any:
        return self.around(name, getattr(super(Dying, self), name), *arguments)

    return call


for _name, _value in list(vars(Disk).items()):
    if callable(_value) and not _name.startswith("_"):
        setattr(Dying, _name, _counted(_name))


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="jobs-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        folder = Path(name)
        pictures = album(folder / "pictures", COUNT + GROWN, BROKEN)
        rows = [{"id": f"item {TWICE[0] - 1 if number in TWICE else number}", "image": f"{number}.png"} for number in range(COUNT + GROWN)]
        source = lines(pictures / "rows.jsonl", *rows[:COUNT])
        lines(pictures / "more.jsonl", *rows)
        made = Stage(folder, source, {}, [], 0.0)
        for form in FORMS:
            for grown in (False, True):
                disk, begun = Dying(), time.monotonic()
                work(made, folder / f"wanted {form} {grown}", form, disk, grown=grown)
                made.wanted[f"{form} {grown}"] = tables(folder / f"wanted {form} {grown}")
                if (form, grown) == ("jsonl", False):
                    made.calls, made.seconds = disk.names_called, time.monotonic() - begun
        yield made


def work(stage: Stage, out: Path, form: Any, disk: Disk, *, grown: bool = False, mixed: bool = False) -> None:
    """The job, to its end. `grown`: its source has more items at the end; `mixed`: workers are done in another order."""
    source = stage.source.with_name("more.jsonl" if grown else "rows.jsonl")
    before, job.ITEMS = job.ITEMS, PART
    try:
        with opened(out, {"tasks": list(TASKS)}, FORMS[form](), draw=out / "drawn", disk=disk) as journal:
            # Ids of rows are their own, so the grown table's first items are the same.
            run(items(source), journal, backwards if mixed else engine, span=SPAN)
    finally:
        job.ITEMS = before


def tables(out: Path) -> dict[str, Any]:
    """What a job left, comparable; without what names this place."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in sorted((out / "drawn").iterdir())}
    found["names"] = sorted(path.name for path in out.iterdir())
    found["parts"] = sorted(path.name for path in (out / "parts").iterdir())
    found["errors"] = _here((out / "errors.jsonl").read_text())
    if (out / "results.jsonl").exists():
        found["results"] = _here((out / "results.jsonl").read_text())
    else:
        import pyarrow.parquet

        found["results"] = _here(json.dumps(pyarrow.parquet.read_table(out / "results.parquet").to_pylist()))
    return found


def _here(text: str) -> str:
    return text.replace("more.jsonl", "rows.jsonl")


def points(tier: str, rng: random.Random) -> Sequence[Point]:
    """("call", share), ("write", share): enumerated from "ci" on; ("time", share); ("again", ...); ("grow", ...); ("command", share)."""
    total = SIZES[tier]
    commands = [("command", rng.random()) for _ in range(COMMANDS[tier])]
    if tier == "push":
        kinds = ("call", "write", "time", "again", "grow", "mixed", "parquet")
        return [*commands, *((kind, rng.random(), rng.random()) for kind in kinds for _ in range(2))]
    every = [*(("call", number) for number in range(1, CALLS + 1)), *(("write", number) for number in range(1, CALLS + 1))]
    rest = max(total - len(every), total // 2)
    kinds = ("time", "again", "grow", "mixed", "parquet")
    return [*commands, *every, *((kinds[place % 5], rng.random(), rng.random()) for place in range(rest))]


CALLS = 400
"""More than a job makes: numbers past its end are another job's that is never killed."""


def check(stage: Stage, point: Point, rng: random.Random) -> None:
    kind, *where = point
    out = Path(tempfile.mkdtemp(dir=stage.folder)) / "out"
    if kind == "command":
        return _check_command(stage, out, where[0])
    form = "parquet" if kind == "parquet" else "jsonl"
    grown = kind == "grow"
    if grown:
        work(stage, out, form, Disk())
    if kind == "time":
        _killed(stage, out, form, after=where[0] * stage.seconds)
    else:
        for place in where:
            number = place if isinstance(place, int) else 1 + int(place * len(stage.calls))
            torn = kind == "write"
            if torn:
                writes = [at for at, name in enumerate(stage.calls, 1) if name == "write"]
                number = writes[(number - 1) % len(writes)]
            _killed(stage, out, form, Dying(number, torn), grown=grown, mixed=kind == "mixed")
            if kind != "again":
                break
    _survived(out, form)
    work(stage, out, form, Disk(), grown=grown)
    found, wanted = tables(out), stage.wanted[f"{form} {grown}"]
    wrong = [name for name in wanted if found.get(name) != wanted[name]] + sorted(found.keys() - wanted.keys())
    assert not wrong, f"not as if undisturbed: {wrong}"


def _killed(stage: Stage, out: Path, form: str, disk: Disk | None = None, *, after: float | None = None, **how: bool) -> None:
    """A job in a fork, which dies at its call, after so many seconds, or not at all where its end comes first."""
    child = os.fork()
    if not child:
        code = 1
        try:
            work(stage, out, form, disk or Disk(), **how)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    end = time.monotonic() + HANG
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the job hangs")
        time.sleep(0.001)
    status = os.waitstatus_to_exitcode(ended[1])
    assert status in (0, -signal.SIGKILL), f"the job ended with {status}"


def _survived(out: Path, form: str) -> None:
    """Where a table is, it is whole; lines of the journal but the last can be read."""
    for name in ("results.jsonl", "errors.jsonl"):
        if (out / name).exists():
            for line in (out / name).read_text().splitlines(keepends=True):
                assert line.endswith("\n")
                json.loads(line)
    if (out / "journal.jsonl").exists():
        for line in (out / "journal.jsonl").read_bytes().split(b"\n")[:-1]:
            json.loads(line)


def _check_command(stage: Stage, out: Path, share: float) -> None:
    """`paligemma batch` on a tiny model; its clock starts when its folder is there, since an interpreter takes its time."""
    words = [sys.executable, "-m", "paligemma", "batch", str(stage.source), "--model", str(_model(stage)), "--batch", "3"]
    words += ["--task", "caption", "--task", "detect:cat", "--max-tokens", "6"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    if stage.command is None:
        whole = stage.folder / "command"
        begun = time.monotonic()
        done = subprocess.Popen([*words, "--out", str(whole)], **quiet)  # type: ignore[call-overload]
        while not (whole / "parts").is_dir():
            _still_beginning(done, begun)
        begun = time.monotonic()
        assert done.wait(HANG) == 6, done.stderr.read()
        stage.command = {"seconds": time.monotonic() - begun, "results": (whole / "results.jsonl").read_bytes()}
    process = subprocess.Popen([*words, "--out", str(out)], **quiet)  # type: ignore[call-overload]
    begun = time.monotonic()
    while not (out / "parts").is_dir():
        _still_beginning(process, begun)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(share * stage.command["seconds"])
    process.kill()
    process.communicate()
    done = subprocess.run([*words, "--out", str(out)], check=False, **quiet)  # type: ignore[call-overload]
    assert done.returncode == 6, done.stderr
    assert (out / "results.jsonl").read_bytes() == stage.command["results"], "not the results of an undisturbed command"


def _still_beginning(process: subprocess.Popen[bytes], begun: float) -> None:
    assert process.poll() is None, "the command ended before it began"
    assert time.monotonic() - begun < HANG, "the command does not begin"
    time.sleep(0.005)


def _model(stage: Stage) -> Path:
    if stage.model is None:
        from paligemma.checkpoint import save_huggingface
        from tests import tiny

        stage.model = save_huggingface(tiny.tiny_model(), stage.folder / "tiny")
        tiny.tiny_tokenizer().save(stage.model)
    return stage.model
