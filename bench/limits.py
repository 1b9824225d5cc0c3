"""What the machine can do at best, measured in the same run as the engines: memory read and bfloat16 arithmetic."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from paligemma.benchmark.limits import memory_read, torch_products
from paligemma.edge import native


@dataclass(frozen=True)
class Limits:
    """Bytes read per second, and floating-point operations per second of a bfloat16 matrix product; `threads` at work."""

    read: float
    bf16: float
    threads: int


def measure(threads: int) -> Limits:
    """Medians; takes a few seconds and 1 GiB."""
    torch.set_num_threads(threads)
    read = memory_read(native.Kernels(threads) if native.available() else None, threads=threads)
    return Limits(read, torch_products("bfloat16"), threads)
