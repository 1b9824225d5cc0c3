"""The processes of one run, as `torchrun` starts them: who is which, what they tell each other, and how they end together.

    every process   reads its part of each batch and holds its part of each tensor (`sharding.py`); a step is made by all at once
    the first       also owns the run's folder (`shared_store.py`), and is the only one that says anything

What they tell each other goes through main memory (gloo); weights and gradients go between GPUs (NCCL). A run alone is `ALONE`, for which
nothing of this is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar, cast

import numpy as np
import torch

from ..checkpoint.placing import device_of
from ..errors import ResourceError, UsageError
from . import stopping

PATIENCE = timedelta(hours=1)
"""How long a process waits for the others: while the first one writes a large checkpoint, they do."""
ENDED = "paligemma/ended"
"""Where in torchrun's store the first process that fails says so."""
PARTING = 5.0
"""Seconds that a process gives its connections to close, after an error."""
BY_TORCHRUN = "start several processes by torchrun"
_GONE = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed out", re.IGNORECASE)

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """One of `world` processes, and its `device` (None: the model's). Its methods are called by all of them at the same place."""

    rank: int = 0
    world: int = 1
    device: torch.device | None = None
    group: Any = field(default=None, repr=False)
    """Of torch.distributed, for what is told."""

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every process's value, whatever it is, in the order of ranks; all get all."""
        if self.alone:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return values

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the processes, the same to the last bit in each of them."""
        return list(numbers) if self.alone else [sum(column) for column in self._columns(numbers)]

    def highest(self, number: float) -> float:
        """Of each process's number."""
        return number if self.alone else max(self._columns([number])[0])

    def _columns(self, numbers: Sequence[float]) -> list[list[float]]:
        """Number -> what each process has for it."""
        import torch.distributed as dist

        own = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(rows, own, group=self.group)
        return torch.stack(rows, dim=1).tolist()

    def lead(self, job: Callable[[], T]) -> T:
        """What the first process makes of a job; the others wait for it."""
        if self.alone:
            return job()
        import torch.distributed as dist

        box = [job() if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self.group)
        return cast(T, box[0])

    def share(self, batch: int) -> int:
        """How many of a batch's examples each process takes. Raises `UsageError` where they cannot take equally many."""
        share, over = divmod(batch, self.world)
        if over or not share:
            near = " or ".join(str(n) for n in (share * self.world, (share + 1) * self.world) if n)
            raise UsageError(
                f"a batch of {batch} examples cannot be shared out evenly between {self.world} processes",
                hint=f"--batch {near}, or another number of processes",
                code="uneven_batch",
            )
        return share

    def part(self, count: int) -> tuple[int, int]:
        """Of so many things, which one is this process's first, and how many are; of fewer things than processes, all are everyone's."""
        each, over = divmod(count, self.world)
        return (self.rank * each + min(self.rank, over), each + (self.rank < over)) if each else (0, count)

    def draw_apart(self, seed: int, step: int) -> None:
        """Let chance (dropout) be another one in each process, yet a function of seed and step, so that a run goes on as it would have."""
        if not self.alone:
            words = np.random.SeedSequence([seed, 0xD1CE, step, self.rank]).generate_state(2)
            torch.manual_seed(int(words[0]) << 31 ^ int(words[1]))


ALONE = Processes()


@contextlib.contextmanager
def joined(
    device: str | torch.device | None = None, *, exit_code: Callable[[BaseException], int] = lambda error: getattr(error, "exit_code", 1)
) -> Iterator[Processes]:
    """The processes that torchrun started, for the block; `ALONE` where it started none or one.

    device: "cpu", or "cuda" for one GPU a process (its LOCAL_RANK), which is the default where there are GPUs. exit_code: what a process
    ends with after an error. In the block only the first process has a standard output and error. Where one fails, its error leaves the
    block; in the others, which find it gone or fail like it, `SystemExit` with its exit code. Raises `UsageError` for a device that cannot
    be taken, or an environment that is not torchrun's; `ResourceError` for a device that is not there, where the processes cannot meet, or
    where one has ended without a word.
    """
    if _number("WORLD_SIZE", 1) <= 1:
        yield ALONE
        return
    import torch.distributed as dist

    store, rank, world = _meet()
    with _ending_together(store, exit_code):
        own = _own_device(device, _number("LOCAL_RANK", rank))
        dist.init_process_group("gloo" if own.type == "cpu" else "nccl", store=store, rank=rank, world_size=world, timeout=PATIENCE)
        group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
        processes = Processes(rank, world, own, group)
        with contextlib.nullcontext() if rank == 0 else _silence():
            yield processes
        # Not `gather`: a thread of gloo's that lets go of a tensor of Python's while the interpreter ends takes the process down with it.
        dist.barrier(group=group)
        dist.destroy_process_group()


def _meet() -> tuple[Any, int, int]:
    """torchrun's store, which process this is, and of how many."""
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UsageError(f"the environment has WORLD_SIZE, but no {missing[0]}", hint=BY_TORCHRUN)
    rank, world, port = _number("RANK", 0), _number("WORLD_SIZE", 1), _number("MASTER_PORT", 0)
    if rank >= world:
        raise UsageError(f"RANK is {rank} in the environment, of {world} processes that are counted from 0", hint=BY_TORCHRUN)
    if port >= 2**16:
        raise UsageError(f"MASTER_PORT is {port} in the environment, expected a number below {2**16}", hint=BY_TORCHRUN)
    try:
        return next(iter(rendezvous("env://", timeout=PATIENCE)))
    except dist.DistError as error:
        raise ResourceError(
            f"the processes cannot meet at {os.environ['MASTER_ADDR']}, port {port}: {first_line(error)}",
            hint="another program may have the port: torchrun takes another one with --rdzv-endpoint HOST:PORT or --master-port PORT",
            code="no_rendezvous",
        ) from error


@contextlib.contextmanager
def _ending_together(store: Any, exit_code: Callable[[BaseException], int]) -> Iterator[None]:
    """The first error of all is raised where it happened; what follows from it elsewhere becomes a silent exit."""
    try:
        yield
    except BaseException as error:
        lost = isinstance(error, RuntimeError) and _GONE.search(str(error)) is not None
        code = ResourceError.exit_code if lost else _exit_code(error, exit_code)
        mine = json.dumps([os.environ.get("RANK"), code])
        try:
            before = store.compare_set(ENDED, "", mine).decode()
        except RuntimeError:  # the store is gone too: torchrun has ended
            before = mine
        _part()
        if before != mine:
            raise SystemExit(json.loads(before)[1]) from error
        if lost:
            raise ResourceError(
                f"another process of this run has ended, or cannot be reached: {first_line(error)}",
                hint="see what it or its machine says; the same command goes on from the last checkpoint",
                code="process_lost",
            ) from error
        raise


def _part() -> None:
    """Leave the groups after an error: a thread of gloo's that is still at work when the interpreter ends takes the process down (SIGABRT),
    and with it the exit code. One that waits for a process that is gone is not waited for long."""
    import torch.distributed as dist

    def leave() -> None:
        with contextlib.suppress(Exception):  # there is an error to be told already
            dist.destroy_process_group()

    if dist.is_initialized():
        leaving = threading.Thread(target=leave, daemon=True)
        leaving.start()
        leaving.join(PARTING)


def _exit_code(error: BaseException, of_others: Callable[[BaseException], int]) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return stopping.exit_code(signal.SIGINT) if isinstance(error, KeyboardInterrupt) else of_others(error)


def first_line(error: BaseException) -> str:
    """Of what a library says, which may go on with a stack of C++."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _own_device(device: str | torch.device | None, local_rank: int) -> torch.device:
    wanted = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device is None else _parsed(device)
    if wanted.type == "cpu":
        return wanted
    if wanted.type != "cuda" or wanted.index is not None:
        raise UsageError(
            f"several processes cannot share the device {str(wanted)!r}", hint="--device cuda takes one for each, or --device cpu"
        )
    if local_rank >= torch.cuda.device_count():
        raise ResourceError(
            f"process {local_rank + 1} of this machine finds {torch.cuda.device_count()} GPUs",
            hint="--nproc-per-node must be no more than there are, or use --device cpu",
            code="no_device",
        )
    torch.cuda.set_device(local_rank)
    return device_of(f"cuda:{local_rank}")


def _parsed(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError:
        return device_of(device)


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    if text and not text.isdecimal():
        raise UsageError(f"{name} is {text!r} in the environment, expected a number", hint=BY_TORCHRUN)
    return int(text) if text else otherwise


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield
