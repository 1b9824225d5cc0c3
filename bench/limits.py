"""What the machine can do at best, measured in the same run as the engines: memory read and bfloat16 arithmetic."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

READ_BYTES = 2**30
SIDE = 1024
SECONDS = 1.0
"""Time given to each measurement, after one run that is not counted."""


@dataclass(frozen=True)
class Limits:
    """Bytes read per second, and floating-point operations per second of a bfloat16 matrix product; `threads` at work."""

    read: float
    bf16: float
    threads: int


def measure(threads: int) -> Limits:
    """Medians; takes a few seconds and 1 GiB."""
    torch.set_num_threads(threads)
    numbers = torch.ones(READ_BYTES // 8, dtype=torch.int64)
    read = READ_BYTES / median_seconds(lambda: numbers.sum())
    a, b = torch.randn(SIDE, SIDE).bfloat16(), torch.randn(SIDE, SIDE).bfloat16()
    return Limits(read, 2 * SIDE**3 / median_seconds(lambda: a @ b), threads)


def median_seconds(work: Callable[[], object]) -> float:
    """Of as many runs as fill `SECONDS`, after one that is not counted."""
    work()
    times: list[float] = []
    while sum(times) < SECONDS:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
