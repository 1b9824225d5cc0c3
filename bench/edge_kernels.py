"""`python -m bench.edge_kernels`: the compiled kernels on the decoder's MLP, 1 row and 264, beside what the machine can do.

One row reads memory (the matrices together are larger than most caches), 264 rows multiply. The limits are measured in the same run:
reading 1 GiB, and products of bytes in registers alone.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from paligemma.benchmark.limits import byte_products, median_seconds, memory_read
from paligemma.edge.native import Kernels, instruction_sets
from paligemma.edge.packing import ALIGN, Bits, Packed, pack

SHAPES = ((2048, 16384), (16384, 2048))
KINDS: tuple[tuple[Bits, int | None], ...] = ((8, None), (4, 128), (4, 32))
MATRICES = 12
ROWS = 264


def matrices(inputs: int, outputs: int, bits: Bits, group: int | None) -> list[Packed]:
    """Alike, each in memory of its own."""
    rng = np.random.default_rng(0)
    values = rng.integers(-7, 8, (outputs, inputs), np.int8)
    scales = np.full(outputs, 0.01, np.float32) if bits == 8 else np.full((outputs, inputs // (group or 1)), 0.01, np.float16)
    first = pack(values, scales, bits, group)
    return [first, *(Packed.from_bytes(_copy(first.data)) for _ in range(MATRICES - 1))]


def _copy(data: np.ndarray) -> np.ndarray:
    memory = np.empty(data.size + ALIGN, np.uint8)
    copy = memory[(start := -memory.ctypes.data % ALIGN) : start + data.size]
    copy[:] = data
    return copy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--isa", choices=instruction_sets())
    options = parser.parse_args()
    kernels = Kernels(options.threads, options.isa)
    read, most = memory_read(kernels), byte_products(kernels)
    print(f"{kernels.isa}, {kernels.threads} threads: memory read {read / 1e9:.1f} GB/s, products of bytes {most / 1e9:.0f} GFLOP/s\n")
    print(f"| in x out | bits, group | 1 row, G weights/s | GB/s | of memory | {ROWS} rows, GFLOP/s | of peak | 1 row from cache, us |")
    print("|---|---|---|---|---|---|---|---|")
    for (inputs, outputs), (bits, group) in itertools.product(SHAPES, KINDS):
        work = matrices(inputs, outputs, bits, group)
        x = np.random.default_rng(1).standard_normal((ROWS, inputs), np.float32)
        turn = itertools.cycle(work)
        one = median_seconds(lambda turn=turn, x=x[:1]: kernels.linear(next(turn), x))
        many = median_seconds(lambda turn=turn, x=x: kernels.linear(next(turn), x))
        small = pack(np.zeros((64, inputs), np.int8), np.ones(64, np.float32), 8)
        near = median_seconds(lambda small=small, x=x[:1]: kernels.linear(small, x))
        weights, size, flop = inputs * outputs, work[0].data.size, 2 * ROWS * inputs * outputs
        cells = [
            f"{weights / one / 1e9:.1f}",
            f"{size / one / 1e9:.1f}",
            f"{size / one / read:.0%}",
            f"{flop / many / 1e9:.0f}",
            f"{flop / many / most:.0%}",
            f"{1e6 * near:.0f}",
        ]
        print(f"| {inputs} x {outputs} | {bits}{f', {group}' if group else ''} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
