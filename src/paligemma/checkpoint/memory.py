"""Will it fit? What is free, what was taken, and a refusal in one sentence before anything is allocated or written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ..errors import ResourceError

GB = 1e9


def free_memory(*, swap: bool = False) -> int | None:
    """Bytes that could be had without pushing anything but file caches out; None where the system does not tell.

    swap: count free swap too, for what may lie there, such as weights that are read once a token. What training works on may not.
    """
    free: int | None = None
    try:
        facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = sum(int(facts[key].split()[0]) * 1024 for key in ("MemAvailable", *(("SwapFree",) if swap else ())))
    except (OSError, KeyError, ValueError):
        free = _of_mac() if sys.platform == "darwin" else _physical()
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


def _of_mac() -> int | None:
    try:
        return available_pages(subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=10, check=True).stdout)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError):
        return _physical()


def available_pages(text: str) -> int:
    """Bytes of the pages that `vm_stat` calls free, speculative or inactive. Raises `KeyError` or `ValueError` for another text."""
    first, *rest = text.splitlines()
    size = int(first.partition("page size of ")[2].split()[0]) if "page size of " in first else 0
    if not size:
        raise ValueError("no size of pages")
    pages = dict(line.rsplit(":", 1) for line in rest if ":" in line)
    return size * sum(int(pages[f"Pages {kind}"].strip(" .")) for kind in ("free", "speculative", "inactive"))


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def free_on(device: str, *, swap: bool = False) -> int | None:
    """Bytes free on a device such as "cpu" or "cuda:1"; None where nobody can tell. `swap`: see `free_memory`."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(torch.device(device))[0]
    return free_memory(swap=swap) if device == "cpu" else None


def peak_memory() -> int:
    """Most bytes that this process ever had in memory.

    On Linux not `ru_maxrss`: it begins with what the process had that started this one. Windows does not tell: 0.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def need_memory(needed: int, what: str, device: str = "cpu") -> None:
    """Raise `ResourceError` where `needed` bytes are more than `device` has free."""
    free = free_on(device, swap=True)
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
