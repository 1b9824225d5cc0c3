"""Muon: momentum whose matrices are made orthogonal before they are applied; in float32, in stacks of one shape.

Source: Keller Jordan's Muon. `torch.optim.Muon` does the same one matrix at a time, always in bfloat16, which many CPUs cannot multiply:
there its step takes longer than all the rest of a training step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic that drives singular values towards one."""
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal, times `lr` and, for tall matrices, sqrt(rows / columns). Weight decay is decoupled.

    All parameters must be matrices; those without a gradient rest.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for shape, matrices in by_shape.items():
                directions = orthogonal(torch.stack([self._direction(p, group["momentum"]) for p in matrices]))
                size = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, direction in zip(matrices, directions, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=size)

    def _direction(self, p: nn.Parameter, momentum: float) -> Tensor:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(p)
        average = state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(average, momentum)


def orthogonal(stack: Tensor) -> Tensor:
    """(n, rows, columns) -> as near to orthogonal as `ITERATIONS` bring them: singular values between about 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    tall = stack.shape[1] > stack.shape[2]
    x = (stack.mT if tall else stack).float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
