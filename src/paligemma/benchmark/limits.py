"""What this machine can do at best, measured in the same run as a model: bytes read a second, and the products that its engine makes.

Memory is read by the compiled kernels where there are any, else by numpy in threads; on an accelerator by torch. Products: of bytes in
registers alone (what packs make with compiled kernels), or of two square matrices of floats, in torch or in numpy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint.memory import free_memory
from ..edge import native

if TYPE_CHECKING:
    from ..engine.network import Network

READ_BYTES = 2**30
"""Read at a time: more than caches hold. Less in less than a second, and where memory is short a quarter of what is free."""
SIDE = {"cpu": 1024, "cuda": 8192}
"""Of the square matrices, by the kind of device."""
ROUNDS = 2**20
SECONDS = 1.0
"""Time given to each measurement, after one run that is not counted."""
BYTE_PRODUCTS = "8-bit"


@dataclass(frozen=True)
class Limits:
    """Bytes read a second, and operations a second (a product and a sum are two)."""

    read: float
    peak: float


def measure(network: Network, seconds: float = SECONDS) -> Limits:
    """Of the machine, for this engine. Takes twice `seconds`, and up to 1 GiB of memory for a moment."""
    model, products = getattr(network, "model", None), products_of(network)
    if model is not None and model.device.type != "cpu":
        return Limits(_device_read(str(model.device), seconds), torch_products(products, str(model.device), seconds))
    kernels = native.Kernels() if native.available() else None
    read = memory_read(kernels, seconds=seconds)
    if model is not None:
        return Limits(read, torch_products(products, "cpu", seconds))
    assert kernels is not None or products != BYTE_PRODUCTS
    return Limits(read, numpy_products(seconds) if kernels is None or products != BYTE_PRODUCTS else byte_products(kernels, seconds))


def products_of(network: Network) -> str:
    """The kind of numbers that an engine multiplies: "8-bit", "float32", "bfloat16", "float16"."""
    model = getattr(network, "model", None)
    if model is None:
        index, kernels = getattr(network, "index", None), getattr(network, "kernels", None)
        whole = getattr(index, "quantize", "") in ("int8", "int4") and isinstance(kernels, native.Kernels)
        return BYTE_PRODUCTS if whole else "float32"
    from ..model import cpu

    # A CPU that cannot multiply a type turns it into float32 first (model/strip_linear.py).
    return str(model.dtype).removeprefix("torch.") if cpu.multiplies(model.projector.weight) else "float32"


def threads_of(network: Network) -> int:
    """At work when it computes on the CPU."""
    if getattr(network, "model", None) is not None:
        import torch

        return torch.get_num_threads()
    return getattr(getattr(network, "kernels", None), "threads", None) or native.default_threads()


def memory_read(kernels: native.Kernels | None, *, threads: int | None = None, seconds: float = SECONDS) -> float:
    """Bytes a second that the CPU reads; `threads`: of numpy's, without kernels."""
    size, free = int(READ_BYTES * min(seconds, 1.0)), free_memory()
    data = np.ones(max(size if free is None else min(size, free // 4), 2**20) // 8, np.int64)
    if kernels is not None:
        return data.nbytes / median_seconds(lambda: kernels.read(data), seconds)
    count = threads or native.default_threads()
    parts = np.array_split(data, count)
    with ThreadPoolExecutor(count) as pool:
        return data.nbytes / median_seconds(lambda: list(pool.map(np.sum, parts)), seconds)


def byte_products(kernels: native.Kernels, seconds: float = SECONDS) -> float:
    """Operations a second of the compiled kernels' products."""
    return kernels.peak(ROUNDS) / median_seconds(lambda: kernels.peak(ROUNDS), seconds)


def numpy_products(seconds: float = SECONDS) -> float:
    """Operations a second of numpy's float32 matrix product."""
    side = SIDE["cpu"]
    matrix = np.random.default_rng(0).standard_normal((side, side), np.float32)
    return 2 * side**3 / median_seconds(lambda: matrix @ matrix, seconds)


def torch_products(numbers: str, device: str = "cpu", seconds: float = SECONDS) -> float:
    """Operations a second of torch's matrix product. `numbers`: of its type, such as "bfloat16"."""
    import torch

    side = SIDE.get(torch.device(device).type, SIDE["cuda"])
    matrix = torch.randn(side, side, device=device).to(getattr(torch, numbers))
    return 2 * side**3 / median_seconds(_awaited(lambda: matrix @ matrix, device), seconds)


def _device_read(device: str, seconds: float) -> float:
    import torch

    data = torch.ones(READ_BYTES // 4, device=device)
    return READ_BYTES / median_seconds(_awaited(data.sum, device), seconds)


def _awaited(work: Callable[[], Any], device: str) -> Callable[[], Any]:
    """An accelerator answers before it has computed."""
    import torch

    if torch.device(device).type == "cpu":
        return work

    def wait() -> None:
        work()
        torch.accelerator.synchronize(torch.device(device))

    return wait


def median_seconds(work: Callable[[], object], seconds: float = SECONDS) -> float:
    """Of as many runs as fill `seconds`, after one that is not counted."""
    work()
    times: list[float] = []
    while sum(times) < seconds:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
