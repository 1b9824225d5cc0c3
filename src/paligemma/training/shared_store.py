"""The store of a run of several processes: the first one owns the folder, the others help it to gather what it writes.

Files are those of a run alone, with whole tensors, so a run goes on with any number of processes. A tensor is gathered when it is its turn
to be written, and dropped afterwards. Each process reads its own rows by itself, so the run's folder must be one that all machines see.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ResourceError
from .disk import write_file
from .distributed import Processes
from .run_report import Report
from .saved import Saved
from .sharding import is_shared, whole
from .store import Store
from .tensor_file import Later, Saveable

Files = Mapping[str, Mapping[str, Saveable]]


class SharedStore(Store):
    """As `Store`, which see: its methods are called by all processes, done by the first, and give all its result."""

    def __init__(self, run: str | Path, *, facts: Mapping[str, str], processes: Processes):
        super().__init__(run, facts=facts)
        self.processes = processes
        if not processes.first:
            self.report = _Unsaid(self.run)

    @contextlib.contextmanager
    def lock(self) -> Iterator[Store]:
        with super().lock() if self.processes.first else contextlib.nullcontext():
            self._demand_shared()
            yield self

    def _demand_shared(self) -> None:
        """Raise `ResourceError`, before anything is computed, where this process does not see what the first one has just written."""
        name = self.processes.lead(self._leave_sign)
        seen = self.processes.gather((self.run / name).is_file())
        if self.processes.first:
            (self.run / name).unlink(missing_ok=True)
        if not all(seen):
            raise ResourceError(
                f"process {seen.index(False)} does not see {self.run} of the first one",
                hint="--out must be a folder that the machines of the run share",
                code="folder_not_shared",
            )

    def _leave_sign(self) -> str:
        sign = self._temporary("sign")
        with self._explained():
            write_file(self._disk, sign, [b"?"])
        return sign.name

    def newest(self) -> Saved | None:
        return self.processes.lead(super().newest)

    def best(self) -> Saved | None:
        return self.processes.lead(super().best)

    def mark_best(self, step: int) -> bool:
        mark = super().mark_best
        return self.processes.lead(lambda: mark(step))

    def save(self, step: int, files: Files, state: Mapping[str, Any], *, required: bool = False) -> Path | None:
        if not self.processes.first:
            self._help(files)
            return self.processes.lead(lambda: None)
        later = {file: {name: self._later((file, name), t) for name, t in tensors.items()} for file, tensors in files.items()}
        try:
            folder = super().save(step, later, state, required=required)
        finally:
            self.processes.lead(lambda: None)
        return self.processes.lead(lambda: folder)

    def _later(self, place: tuple[str, str], tensor: Saveable) -> Saveable:
        """For the first process: one that the others are told to help with when it is wanted."""
        if not isinstance(tensor, Tensor) or not is_shared(tensor):
            return tensor

        def gathered() -> Tensor:
            self.processes.lead(lambda: place)
            return whole(tensor)

        return Later(tuple(tensor.shape), tensor.dtype, gathered)

    def _help(self, files: Files) -> None:
        """For the others: gather what the first process asks for, in the order in which it writes; None ends it, whatever happened."""
        wanted: tuple[str, str] | None = None
        while (wanted := self.processes.lead(lambda: wanted)) is not None:
            tensor = files[wanted[0]][wanted[1]]
            assert isinstance(tensor, Tensor)
            whole(tensor)


class _Unsaid(Report):
    """Of a process that is not the first: kept, but neither said nor written."""

    def __init__(self, run: Path):
        super().__init__(run, say=lambda line: None)

    def write(self) -> None:
        return
