"""One optimizer step: loss and gradients of a batch, a part at a time; clipping; the update, unless something is not finite. No files.

Axes as in `objective.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ..data.batch import Batch
from ..model.paligemma import PaliGemma
from .distributed import ALONE, Processes
from .objective import Loss, Mean, fused_loss, loss_weights, size_of
from .optim import clip_gradients
from .optimizer import Optimizer


class Objective(nn.Module):
    """A model and what its training minimises, as one module: all it does happens in one `forward`, which sharding needs.

    A tower nothing of which is trained runs without keeping anything for a backward pass.
    """

    def __init__(self, model: PaliGemma, *, mean: Mean = "example", smoothing: float = 0.0):
        super().__init__()
        self.model, self.smoothing = model, smoothing
        self.mean: Mean = mean

    def forward(self, batch: Batch, whole: int) -> Loss:
        """The share that these rows have in the loss of a batch of which `objective.size_of` is `whole`."""
        model = self.model
        looked_at = any(p.requires_grad for part in (model.vision, model.projector) for p in part.parameters())
        with contextlib.nullcontext() if looked_at else torch.no_grad():
            soft = model.encode_image(batch.pixels)
        hidden = model.hidden_states(soft, batch.ids, batch.mask_ar, batch.valid)
        weights = loss_weights(batch.mask_loss, self.mean, whole)[:, 1:]
        return fused_loss(
            hidden[:, :-1],
            model.text.embed.weight,
            batch.ids[:, 1:],
            weights,
            smoothing=self.smoothing,
            softcap=model.config.text.final_softcap,
        )


@dataclass(frozen=True)
class Outcome:
    """`loss` of the batch, `norm` of its gradient before clipping, share of answer tokens that were the likeliest; `applied`: updated."""

    loss: float
    norm: float
    right: float
    tokens: int
    applied: bool

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(torch.tensor([self.loss, self.norm])).all())


def train_step(
    objective: Objective,
    optimizer: Optimizer,
    batch: Batch,
    *,
    step: int,
    micro: int,
    clip: float,
    device: torch.device,
    precision: Callable[[], contextlib.AbstractContextManager],
    processes: Processes = ALONE,
) -> Outcome:
    """Update the parameters from one batch, `micro` rows at a time; an update that is not finite is left out, gradients are cleared.

    `step`: the place in the schedule. `clip`: largest norm of the gradient, 0: any. `precision` makes the context of
    the forward pass. `processes`: those that make the step, each with its part of the batch; the outcome is the whole batch's.
    """
    objective.train()
    whole = int(processes.total([size_of(batch.mask_loss, objective.mean)])[0])
    sums = torch.zeros(3, device=device)
    for start in range(0, len(batch.records), micro):
        part = batch.rows(start, start + micro).to(device)
        with precision():
            loss = objective(part, whole)
        loss.total.backward()
        sums += torch.stack([loss.total.detach().float(), loss.right.float(), loss.tokens.float()])
    loss_value, right, tokens = processes.total(sums.tolist())
    norm = float(clip_gradients(optimizer.parameters.values(), clip))
    outcome = Outcome(loss_value, norm, right / max(tokens, 1), int(tokens), applied=False)
    if outcome.finite:
        optimizer.step(step)
        outcome = Outcome(loss_value, norm, right / max(tokens, 1), int(tokens), applied=True)
    optimizer.clear_gradients()
    return outcome


@torch.no_grad()
def mean_loss(
    objective: Objective,
    batches: Iterable[Batch],
    *,
    micro: int,
    device: torch.device,
    precision: Callable[[], contextlib.AbstractContextManager],
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Loss by example, by token, and the share of right tokens of held-out batches, without dropout or smoothing.

    Of several processes, each has as many batches of its own.
    """
    objective.eval()
    smoothing, objective.smoothing = objective.smoothing, 0.0
    sums = torch.zeros(5, dtype=torch.float64)  # on the CPU: not every device has such numbers
    try:
        for batch in batches:
            for start in range(0, len(batch.records), micro):
                part = batch.rows(start, start + micro).to(device)
                with precision():
                    loss = objective(part, len(part.records))
                counts, each, right = (tensor.cpu().double() for tensor in (part.mask_loss[:, 1:].sum(1), loss.per_example, loss.right))
                rows = counts.new_tensor(len(each))
                sums += torch.stack([each.sum(), (each * counts).sum(), counts.sum(), right, rows])
    finally:
        objective.smoothing = smoothing
    by_example, by_token, tokens, right, rows = processes.total(sums.tolist())
    return {"loss": by_example / max(rows, 1), "token_loss": by_token / max(tokens, 1), "right": right / max(tokens, 1)}
