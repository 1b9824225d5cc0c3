"""`python -m bench.kernels`: a matrix of the decoder's MLP in bfloat16, through torch's own layer and through ours, 1, 4 and 264 rows.

What the choices in `model/fast_linear.py` and `model/strip_linear.py` rest on. Ways that this CPU does not have are left out.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from paligemma.model import cpu
from paligemma.model.fast_linear import FastLinear, can_pack
from paligemma.model.strip_linear import StripLinear

from .limits import measure
from .worker import THREADS

SHAPES = ((2048, 16384), (16384, 2048))
ROWS = (1, 4, 264)
NEVER, AT_ONCE = 2**62, 0
SECONDS = 1.0
"""Time given to each measurement."""


def ways(linear: nn.Linear) -> dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]]:
    """Name -> (layer, seconds that preparing it took)."""
    found: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {"torch": (linear, 0.0)}
    if can_pack(linear):
        kinds = {"fused": (FastLinear, NEVER), "packed": (FastLinear, AT_ONCE)}
    else:
        kinds = {"strips": (StripLinear, NEVER), "packed": (StripLinear, AT_ONCE)}
    few = torch.zeros(1, linear.in_features, dtype=torch.bfloat16)
    for name, (kind, patience) in kinds.items():
        start = time.perf_counter()
        layer = kind(linear, patience)
        layer(few)
        found[name] = layer, time.perf_counter() - start
    return found


def seconds(work: Callable[[], object]) -> float:
    """Median of as many runs as fit into `SECONDS`, after one that is not counted."""
    work()
    times: list[float] = []
    while sum(times) < SECONDS and len(times) < 50:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.inference_mode()
def main() -> None:
    limit = measure(THREADS)
    print(f"memory read {limit.read / 1e9:.1f} GB/s, {'bfloat16' if cpu.has_bfloat16() else 'no fast bfloat16'}, {THREADS} threads\n")
    print("| in x out | way | prepared in, s | " + " | ".join(f"{rows} row{'s' * (rows > 1)}, ms" for rows in ROWS) + " |")
    print("|---|---|---|" + "---|" * len(ROWS))
    for inputs, outputs in SHAPES:
        linear = nn.Linear(inputs, outputs, bias=False, dtype=torch.bfloat16)
        for name, (layer, prepared) in ways(linear).items():
            inputs_by_rows = [torch.randn(rows, inputs).bfloat16() for rows in ROWS]
            cells = [f"{1000 * seconds(functools.partial(layer, x)):.1f}" for x in inputs_by_rows]
            print(f"| {inputs} x {outputs} | {name} | {prepared:.2f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
