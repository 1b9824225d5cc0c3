"""What fine-tuning minimises: the answer's tokens, weighed by example or by token, without ever holding all logits. Tensors only.

    loss of a position   -sum_v q_v log p_v,  q: 1 - e on the target and e / (V - 1) on every other token, e the label smoothing
    loss of a batch      by example: mean over an example's answer tokens (its end token too), then mean over examples
                         by token:   mean over all answer tokens of the batch, as Hugging Face's trainer takes it

By example is the reference (big_vision `trainers/proj/paligemma/train.py`): a long answer weighs no more than a short one.

Axes: B batch, T text position, D width, V vocabulary, M positions that count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..errors import UsageError, did_you_mean
from ..model import cpu
from .recipes import Mean

MAX_LOGITS = 2**22
"""Logits held at once: 16 MB in float32, which stay in a CPU's cache (`python -m bench.losses` times other sizes). The loss needs two or
three such pieces, on an accelerator `ACCELERATED` times as large, since there every piece costs a launch."""
ACCELERATED = 16


@dataclass(frozen=True)
class Loss:
    """`total`: a scalar with a gradient. The rest has none and is for the log.

    `per_example` (B,): mean over the example's answer tokens, smoothing included. `right`, `tokens`: how many answer tokens there are,
    and how many of them were the likeliest of all; scalars.
    """

    total: Tensor
    per_example: Tensor
    right: Tensor
    tokens: Tensor


def size_of(mask_loss: Tensor, mean: Mean) -> int:
    """What a batch's loss is divided by: its examples, or its answer tokens. Of the parts of a batch, to be added up."""
    _known(mean)
    return mask_loss.shape[0] if mean == "example" else int(mask_loss.sum())


def loss_weights(mask_loss: Tensor, mean: Mean = "example", whole: int | None = None) -> Tensor:
    """mask_loss (B, T) in {0, 1} -> weights (B, T), float32; the loss is the sum of positions' losses times these.

    `whole`: `size_of` the whole batch where this is only a part of it, one of several to be accumulated or of several processes. Losses of
    the parts then add up to the loss of the whole, whatever their lengths. An example without an answer adds nothing, but is counted.
    Raises `UsageError` for another `mean`.
    """
    size = max(size_of(mask_loss, mean) if whole is None else whole, 1)
    mask = mask_loss.float()
    return mask / size if mean == "token" else mask / mask.sum(1, keepdim=True).clamp(min=1) / size


def fused_loss(
    hidden: Tensor, table: Tensor, targets: Tensor, weights: Tensor, *, smoothing: float = 0.0, softcap: float | None = None
) -> Loss:
    """hidden (B, T, D), output table (V, D), targets (B, T), weights (B, T) -> the loss, where weights are above zero.

    Equals `plain_loss(softcap * tanh(hidden @ table.T / softcap), ...)`, computed a piece of the vocabulary at a time for the positions
    that count, forwards and (anew) backwards: no more than `MAX_LOGITS` logits exist at once. Sums are float32 (float64 for float64
    states). Products are of half-precision numbers where states or table are such, or autocast says so, and the machine is quick at it.
    The table's gradient is made only if wanted, and rounded once.
    Under FSDP2, call it inside `forward` of the module that holds the table: outside, only a part of the table is there.
    """
    chosen = weights.flatten().nonzero()[:, 0]
    losses, right = losses_at(chosen, hidden, table, targets, smoothing=smoothing, softcap=softcap)
    return _summed(losses, right, chosen, weights)


def losses_at(
    chosen: Tensor, hidden: Tensor, table: Tensor, targets: Tensor, *, smoothing: float = 0.0, softcap: float | None = None
) -> tuple[Tensor, Tensor]:
    """As `fused_loss`, for the chosen (M,) of all B * T positions: their losses (M,), and whether the target was the likeliest (M,)."""
    wanted = targets.flatten()[chosen]
    losses, best = _VocabularyLoss.apply(hidden.flatten(0, 1), table, chosen, wanted, smoothing, softcap)
    return losses, best == wanted


def plain_loss(logits: Tensor, targets: Tensor, weights: Tensor, *, smoothing: float = 0.0) -> Loss:
    """logits (B, T, V), targets (B, T), weights (B, T) -> the loss, straight from its definition: what `fused_loss` must equal."""
    chosen = weights.flatten().nonzero()[:, 0]
    logp = F.log_softmax(logits.flatten(0, 1)[chosen], dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    aimed = torch.full_like(logp, smoothing / (logp.shape[-1] - 1))
    aimed.scatter_(1, targets.flatten()[chosen][:, None], 1 - smoothing)
    return _summed(-(aimed * logp).sum(-1), logp.argmax(-1) == targets.flatten()[chosen], chosen, weights)


def _summed(losses: Tensor, right: Tensor, chosen: Tensor, weights: Tensor) -> Loss:
    """Losses (M,) of the chosen positions -> what to minimise, and what to log."""
    total = (losses * weights.flatten()[chosen]).sum()
    row = chosen // weights.shape[1]
    zeros = losses.new_zeros(weights.shape[0])
    per_example = zeros.index_add(0, row, losses.detach()) / zeros.index_add(0, row, torch.ones_like(zeros[:1]).expand(len(row))).clamp(
        min=1
    )
    return Loss(total, per_example, right.sum(), torch.tensor(len(right), device=right.device))


class _VocabularyLoss(torch.autograd.Function):
    """states (N, D), table (V, D), chosen (M,), targets (M,) -> losses (M,), and the likeliest tokens (M,).

    Both passes go through the table in slices of its rows. Forwards keeps, per position, the log of the sum of exponentials so far, the
    target's logit and the sum of all (for the smoothing); backwards makes each slice's logits anew. That is a product more than a gradient
    made on the way forwards would take, but the table's gradient then needs no second, float32 copy of the table to be summed up in.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, chosen: Tensor, targets: Tensor, smoothing: float, softcap: float | None
    ) -> tuple[Tensor, Tensor]:
        hidden, device = states[chosen], states.device
        kind = torch.promote_types(hidden.dtype, torch.float32)
        if torch.is_autocast_enabled(device.type):
            hidden = hidden.to(torch.get_autocast_dtype(device.type))
        log_sum = torch.full((len(chosen),), -torch.inf, dtype=kind, device=device)
        aimed, everything, highest = torch.zeros_like(log_sum), torch.zeros_like(log_sum), log_sum.clone()
        best = torch.zeros_like(targets)
        for start, rows in _slices(table, len(chosen)):
            logits = _capped(_product(hidden, rows.T, kind), softcap)
            log_sum = torch.logaddexp(log_sum, logits.logsumexp(1))
            peak, place = logits.max(1)
            best = torch.where(peak > highest, place + start, best)
            highest = torch.maximum(highest, peak)
            inside, place = _inside(targets, start, len(rows))
            aimed = torch.where(inside, logits.gather(1, place[:, None])[:, 0], aimed)
            if smoothing:
                everything += logits.sum(1)
        off = smoothing / (len(table) - 1)
        ctx.save_for_backward(hidden, table, chosen, targets, log_sum)
        ctx.settings = smoothing, softcap, states.shape, states.dtype
        ctx.mark_non_differentiable(best)
        return log_sum - (1 - smoothing - off) * aimed - off * everything, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        hidden, table, chosen, targets, log_sum = ctx.saved_tensors
        smoothing, softcap, shape, dtype = ctx.settings
        kind = log_sum.dtype
        off = smoothing / (len(table) - 1)
        for_states, for_table = ctx.needs_input_grad[:2]
        states_grad = torch.zeros(hidden.shape, dtype=kind, device=hidden.device) if for_states else None
        table_grad = torch.empty_like(table) if for_table else None
        for start, rows in _slices(table, len(chosen)):
            logits = _capped(_product(hidden, rows.T, kind), softcap)
            slope = None if softcap is None else 1 - (logits / softcap).square_()
            error = logits.sub_(log_sum[:, None]).exp_().sub_(off)
            inside, place = _inside(targets, start, len(rows))
            error.scatter_add_(1, place[:, None], (inside * (off + smoothing - 1)).to(kind)[:, None])
            error.mul_(grad[:, None])
            if slope is not None:
                error.mul_(slope)
            if states_grad is not None:
                states_grad += _product(error, rows, kind)
            if table_grad is not None:
                table_grad[start : start + len(rows)] = _product(error.T, hidden, kind)
        if states_grad is not None:
            states_grad = torch.zeros(shape, dtype=dtype, device=hidden.device).index_copy_(0, chosen, states_grad.to(dtype))
        return states_grad, table_grad, None, None, None, None


def _slices(table: Tensor, positions: int):
    """(first row, rows) of the table in turn."""
    most = MAX_LOGITS if table.device.type == "cpu" else ACCELERATED * MAX_LOGITS
    step = max(1, most // max(positions, 1))
    for start in range(0, len(table), step):
        yield start, table[start : start + step]


def _inside(targets: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Which targets lie in a slice, and where; the first row for those that do not."""
    place = targets - start
    inside = (place >= 0) & (place < count)
    return inside, torch.where(inside, place, 0)


def _capped(logits: Tensor, softcap: float | None) -> Tensor:
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


def _product(a: Tensor, b: Tensor, kind: torch.dtype) -> Tensor:
    """a @ b in `kind`. Where that is quick, products are of the narrower of the two types; they are summed in float32 even so."""
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    with torch.autocast(a.device.type, enabled=False):
        if narrow.itemsize > 2 or not cpu.multiplies(a if a.dtype == narrow else b):
            return a.to(kind) @ b.to(kind)
        if a.is_cuda:
            return torch.mm(a.to(narrow), b.to(narrow), out_dtype=kind)
        return (a.to(narrow) @ b.to(narrow)).to(kind)


def _known(mean: str) -> None:
    if mean not in get_args(Mean):
        raise UsageError(f"a loss is a mean per 'example' or per 'token', found {mean!r}", hint=did_you_mean(mean, get_args(Mean)))
