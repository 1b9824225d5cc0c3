"""Work of fixed shapes, recorded once as a CUDA graph and replayed: one launch where there were hundreds. On other devices it is just done.

Recorded here rather than by `torch.compile(mode="reduce-overhead")`: that copies what a function changes in place, or refuses it, and the
key/value pool is changed in place at every step. What is recorded may itself be compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

WARM_UPS = 2
"""Runs before the recording: the first compiles, and libraries set themselves up."""


class Graphs:
    """Recordings by name. All share one memory for what lies between their inputs and outputs, for they run one after the other."""

    def __init__(self, device: torch.device):
        self.device = device
        self._recorded: dict[Hashable, _Recorded] = {}
        self._memory: Any = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def __call__(self, name: Hashable, work: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`work(*inputs)`. A name stands for one function and one set of shapes and types; running it twice must do no harm.

        What comes back is overwritten by the next call of any name.
        """
        if self.device.type != "cuda":
            return work(*(tensor.to(self.device) for tensor in inputs))
        if name not in self._recorded:
            self._recorded[name] = _Recorded(work, inputs, self.device, self._memory)
        return self._recorded[name](*inputs)

    def clear(self) -> None:
        """Forget all: where something that was recorded has another address now, or does something else."""
        self._recorded.clear()

    def __len__(self) -> int:
        return len(self._recorded)


class _Recorded:
    def __init__(self, work: Callable[..., Tensor], inputs: tuple[Tensor, ...], device: torch.device, memory: Any):
        self.inputs = [tensor.to(device, copy=True) for tensor in inputs]
        self.graph = torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream(device)
        aside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(aside):
            for _ in range(WARM_UPS):
                work(*self.inputs)
        torch.cuda.current_stream(device).wait_stream(aside)
        with torch.cuda.graph(self.graph, pool=memory):
            self.output = work(*self.inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.output
