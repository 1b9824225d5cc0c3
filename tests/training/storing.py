"""Stores for tests: small tensors, a report that is kept quiet, damage, and a disk that refuses."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import torch

from paligemma.training.disk import Disk
from paligemma.training.run_report import Report
from paligemma.training.saved import Saved
from paligemma.training.store import Store


def files(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"weight": torch.full((3, 2), value)}, "optimizer": {"weight.first": torch.full((3, 2), -value)}}


def store_of(run: Path, disk: Disk | None = None, **options: Any) -> Store:
    return Store(run, facts={"base": "x"}, disk=disk, report=Report(run, disk=disk, say=lambda line: None), **options)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def step_of(saved: Saved | None) -> int:
    return saved.step if saved else 0


def kinds(store: Store) -> list[str]:
    return [event["kind"] for event in store.report.events]


class Refusing(Disk):
    """Refuses one kind of call, for paths with a part in their name, while `left` is not used up."""

    def __init__(self, call: str, part: str = "", code: int = errno.ENOSPC, left: int = 10**9):
        self.left = left
        real = getattr(self, call)

        def refuse(target: Any, *rest: Any) -> Any:
            if self.left > 0 and part in str(getattr(target, "name", None) if call in ("write", "sync", "close") else target):
                self.left -= 1
                raise OSError(code, os.strerror(code), str(target))
            return real(target, *rest)

        self._refuse = call, refuse

    def begin(self) -> None:
        setattr(self, *self._refuse)
