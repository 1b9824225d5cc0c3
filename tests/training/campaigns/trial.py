"""One trial: a trainer in a process of its own, on a file system that dies or refuses at a chosen call, watched by its parent.

A trainer is a function `train(run, disk, watch) -> exit code` that begins or continues the run in that folder and hands `disk` to its
store. It tells `watch` when it resumed, did a step, saved, or marked the best; in `watch.step` the trial may spoil its tensors, raise, or
make it wait. Trials fork (torch is imported once, and no thread was ever started); `fresh` ones start a new interpreter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from paligemma.training.disk import Disk

HANG = 120.0
"""Seconds without a sign of life after which a trial counts as hanging: a busy machine is slow, but not that silent."""
CALLS = tuple(name for name, value in vars(Disk).items() if callable(value) and not name.startswith("_"))


@dataclass(frozen=True)
class Plan:
    """What is done to a trainer. `call`, `at_step`: counted from 1, 0 for never; a call's own effect is then missing, or half there.

    `action`: at that call "kill"; "tear" (write half, then kill); "fail" with `errno`, from then on always if `forever`.
    `incident`: at the end of that step "kill"; "poison FILE TENSOR"; "memory"; "wait" until the file `go` lies beside the run.
    """

    action: str = ""
    call: int = 0
    errno: int = 0
    forever: bool = False
    incident: str = ""
    at_step: int = 0
    at_export: int = 0
    """Kill before that file of a finished model is opened or put in place."""
    largest_file: int = 0
    """RLIMIT_FSIZE, 0 for none."""
    trace: bool = False
    """Send the name of every call."""
    record: str = ""
    """A file to which every call is written with its arguments (see `crashes`)."""


ALONE = Plan()
"""Nothing is done."""


class Watch:
    """What a trainer tells; everything goes to the parent as a line of JSON."""

    def __init__(self, plan: Plan, run: Path, pipe: int):
        self._plan, self._run, self._pipe = plan, run, pipe
        self._exports, self._exporting = 0, False

    @contextlib.contextmanager
    def exporting(self) -> Iterator[None]:
        """While the block lasts every file that is opened to be written, or renamed, is told of. Once in a process: hooks stay."""
        if not self._exports:
            sys.addaudithook(self._audit)
        self._exporting = True
        try:
            yield
        finally:
            self._exporting = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._exporting and (event == "os.rename" or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))):
            self._exports += 1
            if self._exports == self._plan.at_export:
                os.kill(os.getpid(), signal.SIGKILL)
            self.tell("exports")

    def tell(self, *note: Any) -> None:
        os.write(self._pipe, (json.dumps(note) + "\n").encode())

    def resumed(self, step: int) -> None:
        self.tell("resumed", step)

    def step(self, step: int, loss: float, batch: Sequence[Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """At the end of an optimizer step, before a save. `tensors`: by file and name, those that live on."""
        self.tell("step", step, float(loss).hex(), list(batch))
        if step == self._plan.at_step:
            self._disturb(tensors)

    def saved(self, step: int) -> None:
        self.tell("saved", step)

    def best(self, step: int) -> None:
        self.tell("best", step)

    def _disturb(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        what, *names = self._plan.incident.split()
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "memory":
            raise MemoryError("the system refused an allocation")
        elif what == "poison":
            file, name = names
            tensors[file][name].view(-1)[-1] = float("nan")
        elif what == "wait":
            self.tell("waits", os.getpid())
            parent = os.getppid()
            while not (self._run.parent / "go").exists() and os.getppid() == parent:
                time.sleep(0.002)


class FaultyDisk(Disk):
    """Counts its calls and, at the planned one, dies or refuses."""

    def __init__(self, plan: Plan, watch: Watch):
        self._plan, self._watch, self._count = plan, watch, 0

    def around(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        plan = self._plan
        self._count += 1
        if plan.trace:
            self._watch.tell("call", name)
        if plan.action and (self._count == plan.call or (plan.forever and self._count > plan.call)):
            if name == "write" and plan.action in ("tear", "fail"):
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            if plan.action in ("kill", "tear"):
                os.kill(os.getpid(), signal.SIGKILL)
            if name == "close":
                real(*args)  # also a close that fails lets go of the handle
            raise OSError(plan.errno, os.strerror(plan.errno))
        return real(*args)


def _faulty(name: str) -> Callable[..., Any]:
    def method(self: FaultyDisk, *args: Any) -> Any:
        return self.around(name, getattr(super(FaultyDisk, self), name), *args)

    return method


for _name in CALLS:
    setattr(FaultyDisk, _name, _faulty(_name))

Trainer = Callable[[Path, Disk, Watch], int]


def other(trainer: str) -> str:
    """The trainer of another run of the same shape: its function is called so too, with `_other` behind."""
    where, *words = trainer.split()
    return " ".join([f"{where}_other", *words])


def find_trainer(name: str) -> Trainer:
    """`module:function`, perhaps with words behind it that the function gets too."""
    where, *words = name.split()
    module, _, function = where.partition(":")
    found = getattr(importlib.import_module(module), function)
    return (lambda run, disk, watch: found(run, disk, watch, *words)) if words else found


@dataclass
class Outcome:
    """`code`: as the shell gives it for an exit, minus the signal's number for a death."""

    code: int
    notes: list[list[Any]] = field(default_factory=list)
    stderr: str = ""
    seconds: float = 0.0

    def of(self, kind: str) -> list[list[Any]]:
        return [note[1:] for note in self.notes if note[0] == kind]

    def last(self, kind: str) -> int:
        """The last step of which that was told, 0 for none."""
        return max((note[0] for note in self.of(kind)), default=0)

    @property
    def calls(self) -> list[str]:
        return [note[1] for note in self.notes if note[0] == "call"]


class Running:
    """A trainer at work. Its parent reads what it tells, and may send it signals."""

    def __init__(self, trainer: str, run: Path, plan: Plan = ALONE, *, fresh: bool = False):
        self._began = time.monotonic()
        self.notes: list[list[Any]] = []
        self._told, tell = os.pipe()
        self._stderr, stderr = os.pipe()
        self._got = {self._told: b"", self._stderr: b""}
        self._open = set(self._got)
        self._heard = time.monotonic()
        self.ended = False
        start = _start_fresh if fresh else _start_fork
        self.pid = start(trainer, run, plan, tell, stderr)
        os.close(tell)
        os.close(stderr)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def until(self, kind: str, count: int = 1) -> None:
        """Wait until that was told so often (or the end)."""
        self._until(lambda: sum(note[0] == kind for note in self.notes) >= count)

    def until_printed(self, text: str) -> None:
        """Wait until its stderr holds that (or the end)."""
        self._until(lambda: text.encode() in self._got[self._stderr])

    def _until(self, reached: Callable[[], bool]) -> None:
        while not reached() and self._read(self._patience()):
            assert self._patience(), "the trainer hung"

    def _patience(self) -> float:
        """Seconds that are left until silence counts as hanging."""
        return max(0.0, self._heard + HANG - time.monotonic())

    def ended_within(self, seconds: float) -> bool:
        """Whether it ends by itself in that time."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self._read(left):
                return True
        return False

    def end(self, *, kill_after: float | None = None) -> Outcome:
        """Wait for the end; `kill_after` seconds from the start it is brought about."""
        if kill_after is not None:
            self.ended_within(self._began + kill_after - time.monotonic())
            self.signal(signal.SIGKILL)
        hangs = False
        while self._read(self._patience()):
            if not self._patience():
                hangs = True
                self.signal(signal.SIGKILL)
                self._heard = time.monotonic()
        _, status = os.waitpid(self.pid, 0)
        self.ended = True
        text = self._got[self._stderr].decode(errors="replace")
        assert not hangs, f"the trainer hung\n{text}"
        return Outcome(os.waitstatus_to_exitcode(status), self.notes, text, time.monotonic() - self._began)

    def _read(self, seconds: float) -> bool:
        """Take what was told and printed within that time; False at the end."""
        for pipe in select.select(list(self._open), [], [], seconds)[0] if self._open else ():
            got = os.read(pipe, 1 << 16)
            self._heard = time.monotonic()
            self._got[pipe] += got
            if not got:
                self._open.remove(pipe)
                os.close(pipe)
        *lines, self._got[self._told] = self._got[self._told].split(b"\n")
        self.notes += [json.loads(line) for line in lines]
        return bool(self._open)


def _start_fork(trainer: str, run: Path, plan: Plan, tell: int, stderr: int) -> int:
    train = find_trainer(trainer)
    if os.path.isdir("/proc/self/task"):
        assert len(os.listdir("/proc/self/task")) == 1, "a thread was started, which would not survive the fork"
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 70  # whatever goes wrong, the child never returns into its parent's code
        try:
            os.dup2(stderr, 2)
            # Python's own streams still believe to be what they were in the parent, a terminal or a file.
            sys.stderr, sys.stdout = open(2, "w", buffering=1, closefd=False), open(os.devnull, "w")  # noqa: SIM115
            code = perform(train, run, plan, tell)
        finally:
            os._exit(code)
    return pid


def _start_fresh(trainer: str, run: Path, plan: Plan, tell: int, stderr: int) -> int:
    spec = json.dumps([trainer, str(run), dataclasses.asdict(plan), tell])
    return subprocess.Popen([sys.executable, "-m", "tests.training.campaigns.trial", spec], pass_fds=(tell,), stderr=stderr).pid


def perform(train: Trainer, run: Path, plan: Plan, pipe: int) -> int:
    """In the child: what the trainer returns, or 1 and a traceback for what it lets through."""
    import traceback

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started all of this with Ctrl-C ignored
    watch = Watch(plan, run, pipe)
    if plan.largest_file:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (plan.largest_file, resource.RLIM_INFINITY))
    if plan.record:
        from .crashes import RecordingDisk

        disk: Disk = RecordingDisk(Path(plan.record), run.parent, watch)
    else:
        disk = FaultyDisk(plan, watch)
    try:
        return train(run, disk, watch)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1


ERRORS = (errno.ENOSPC, errno.EIO, errno.EMFILE, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.ESTALE)
"""What a file system refuses with."""

if __name__ == "__main__":
    _trainer, _run, _plan, _pipe = json.loads(sys.argv[1])
    os._exit(perform(find_trainer(_trainer), Path(_run), Plan(**_plan), _pipe))
