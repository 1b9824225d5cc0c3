"""Will it fit? What is free, and a refusal in one sentence before anything is allocated or written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import ResourceError

GB = 1e9


def free_memory() -> int | None:
    """Bytes that could be had without pushing anything but file caches out, swap included; None where the system does not tell."""
    free: int | None = None
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = sum(int(facts[key].split()[0]) * 1024 for key in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        free = _physical()
    for limit, used, stat in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat"),
    ):
        try:
            cache = next(int(line.split()[1]) for line in Path(stat).read_text().splitlines() if line.startswith(("file ", "cache ")))
            room = int(Path(limit).read_text()) - int(Path(used).read_text()) + cache
        except (OSError, ValueError, StopIteration):  # no such group, or its limit reads "max"
            continue
        free = room if free is None else min(free, room)
    return free


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def free_on(device: str) -> int | None:
    """Bytes free on a device such as "cpu" or "cuda:1"; None where nobody can tell."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0]
    return free_memory() if device == "cpu" else None


def need_memory(needed: int, what: str, device: str = "cpu") -> None:
    """Raise `ResourceError` where `needed` bytes are more than `device` has free."""
    free = free_on(device)
    if free is not None and needed > free:
        raise ResourceError(
            f"{what} needs {needed / GB:.1f} GB of memory, {free / GB:.1f} GB are free",
            hint="close other programs, use a smaller model, or --dtype bfloat16 where it is not already",
            code="out_of_memory",
        )


def need_disk(needed: int, folder: Path) -> None:
    """Raise `ResourceError` where `needed` bytes do not fit on the disk of `folder` (or of its nearest existing parent)."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise ResourceError(f"{folder} needs {needed / GB:.1f} GB of disk, {free / GB:.1f} GB are free", code="disk_full")
