"""A run's log once more, for TensorBoard: every entry of log.jsonl goes into event files in RUN/tensorboard too. Knows no training.

A run that goes on, or goes back, tells TensorBoard which points do not count any more (`purge_step`), so none is shown twice. The log stays
what counts: an event file that cannot be written ends no run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .loop import LOG, read_log
from .run_report import to_stderr

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

FOLDER = "tensorboard"
HELD_OUT = "held_out_"
HINT = "pip install 'paligemma[tensorboard]', or leave out --tensorboard: curves.png and log.jsonl are written anyway"


class Board:
    """Entries of the run in folder `run`, as they come; `held_out_loss` is called `held_out/loss` there, `loss` is `train/loss`.

    Of a run that began without it, the log's earlier entries are written first. Raises `UsageError` where the package is not installed.
    """

    def __init__(self, run: Path):
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise UsageError(f"event files for TensorBoard need the package {error.name}", hint=HINT, code="no_tensorboard") from error
        self.run, self.folder = run, run / FOLDER
        self._open_from = SummaryWriter
        self._writer: SummaryWriter | None = None
        self._last = 0
        self._lost = False

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write one entry, to be seen at once. What has no step is no entry."""
        if self._lost or "step" not in entry:
            return
        try:
            if self._writer is None or entry["step"] < self._last:
                self._begin(entry["step"])
            self._write(entry)
            assert self._writer is not None
            self._writer.flush()
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        if self._writer is None or self._lost:
            return
        try:
            self._writer.close()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        self._lost = True
        to_stderr(f"warning[tensorboard]: {self.folder}: {error.strerror or error}; nothing more is written there")

    def _begin(self, step: int) -> None:
        """A file for what is told from this step on; the first one begins with what the log has from before."""
        if self._writer is not None:
            self._writer.close()
        known = any(self.folder.glob("events.out.tfevents.*"))
        self._writer = self._open_from(str(self.folder), purge_step=step if known else None)
        for entry in [] if known else read_log(self.run / LOG):
            if entry["step"] < step:
                self._write(entry)

    def _write(self, entry: Mapping[str, Any]) -> None:
        assert self._writer is not None
        for name, value in entry.items():
            if name != "step" and isinstance(value, int | float):
                tag = f"held_out/{name.removeprefix(HELD_OUT)}" if name.startswith(HELD_OUT) else f"train/{name}"
                self._writer.add_scalar(tag, value if math.isfinite(value) else math.nan, entry["step"])
        self._last = entry["step"]
