"""Figures made up for tests: a model of PaliGemma 3B's size that reads and multiplies at round shares of a made-up machine."""

from __future__ import annotations

import dataclasses
from typing import Any

from paligemma.benchmark.counts import Work
from paligemma.benchmark.figures import Benchmark, Figure, Measured

WORK = Work(tokens=264, picture=200 * 10**9, prompt=10**12, token=5 * 10**9, weights=25 * 10**8, weight_bytes=25 * 10**8, cache_bytes=0)
MACHINE = {"read": ("B/s", 25e9), "peak": ("op/s", 800e9)}
TIMES = {
    "ready": ("s", 1.5), "load": ("s", 0.2), "cold": ("s", 4.0), "image": ("s", 0.5), "first": ("s", 2.5), "decode": ("ms", 125.0),
    "rate": ("tokens/s", 8.0), "answer": ("s", 6.375), "cpu": ("CPU-s", 12.0), "memory": ("GB", 3.0), "mask": ("s", 5.0),
}  # fmt: skip
TWO = {"first@2": ("s", 5.0), "decode@2": ("ms", 150.0), "rate@2": ("tokens/s", 13.3)}


def measured(work: Work = WORK, *, batches: bool = False, spread: float = 0.0, slower: float = 1.0, **more: Any) -> Measured:
    """`spread`: from the least to the most; `slower`: times this many times as long."""

    def figure(unit: str, value: float) -> Figure:
        value *= slower if unit in ("s", "ms", "CPU-s") else 1
        return Figure(unit, (value * (1 - spread / 2), value, value * (1 + spread / 2)))

    times = TIMES | (TWO if batches else {})
    figures = {name: figure(*told) for name, told in times.items()} | {name: Figure(unit, (v,) * 3) for name, (unit, v) in MACHINE.items()}
    whole = Measured(
        label="packed", name="paligemma-3b-224", description="PaliGemma 3B, int8 on cpu", engine="pack", numbers="int8", products="8-bit",
        threads=2, masks=True, tokens=32, work=work, figures=figures,
    )  # fmt: skip
    return dataclasses.replace(whole, **more)


def side_by_side() -> Benchmark:
    return Benchmark((measured(batches=True), measured(batches=True, label="a checkpoint", slower=2.0, spread=0.4)))
