"""A model shared out between processes, each holding some rows of every tensor (PyTorch's FSDP2); whole tensors into it and out of it.

What a block needs is gathered when it is its turn, and dropped after it. What stands outside the blocks, the embedding table above all, is
gathered once for forward and backward pass, since it is used first and last. Gradients are summed up, not averaged: a process's loss is its
share of the whole batch's.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .distributed import Processes
    from .step import Objective


def share_out(objective: Objective, processes: Processes) -> Objective:
    """A twin whose tensors are shared out, on the processes' device. The original stays whole and where it is, sharing nothing with it.

    All processes must hold the same values.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    assert processes.device is not None
    mesh = init_device_mesh(processes.device.type, (processes.world,))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    shared = [*objective.parameters(), *objective.buffers()]
    twin = copy.deepcopy(objective, {id(tensor): tensor for tensor in shared})
    for part in (*twin.model.vision.blocks, *twin.model.text.blocks, twin):
        _move(part, processes.device)
        fully_shard(part, mesh=mesh, mp_policy=policy)
    for module in twin.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return twin


def drop_whole(module: nn.Module) -> None:
    """Let go of the numbers of a module that is only needed for its shapes from now on."""
    module.to("meta")


def put_away(objective: Objective) -> None:
    """After a forward pass without a backward one: drop what was gathered, so that the parameters are this process's parts again."""
    reshard = getattr(objective, "reshard", None)
    if reshard is not None:
        reshard()


def is_shared(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor, in every process; all must ask for it."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def own_rows(tensor: Tensor) -> slice:
    """Which rows of a tensor this process holds."""
    placed: Any = tensor
    if not is_shared(tensor) or not placed.placements[0].is_shard(0):
        return slice(0, None)
    count = -(-len(tensor) // placed.device_mesh.size())
    start = min(count * placed.device_mesh.get_local_rank(), len(tensor))
    return slice(start, min(start + count, len(tensor)))


def local(tensor: Tensor) -> Tensor:
    """What this process holds of it."""
    part = getattr(tensor, "to_local", None)
    return tensor if part is None else part()


def all_rows(own: Tensor, like: Tensor) -> Tensor:
    """Rows that each process has for a tensor shared out as `like` is, one below the other."""
    from torch.distributed.tensor import DTensor, Shard

    return DTensor.from_local(own, _mesh(like), [Shard(0)]).full_tensor()


def summed(value: Tensor, like: Tensor) -> Tensor:
    """What each process has summed up over its part of `like`, summed up."""
    if not is_shared(like):
        return value
    from torch.distributed.tensor import DTensor, Partial, Replicate

    kinds = [Partial() if kind.is_shard() else Replicate() for kind in like.placements]  # pyright: ignore[reportAttributeAccessIssue]
    return DTensor.from_local(value, _mesh(like), kinds).full_tensor()


def replicated(tensor: Tensor) -> Tensor:
    """A tensor that is shared out, whole in every process."""
    if not is_shared(tensor):
        return tensor
    from torch.distributed.tensor import Replicate

    placed: Any = tensor
    return placed.redistribute(placements=[Replicate()] * placed.device_mesh.ndim)


def _mesh(tensor: Any) -> Any:
    return tensor.device_mesh


@torch.no_grad()
def fill(own: Tensor, values: Tensor) -> None:
    """Set a tensor; of one that is shared out, this process's rows from the whole `values`. Nothing is told or gathered."""
    if is_shared(own) and not is_shared(values):
        local: Any = own
        local.to_local().copy_(values[own_rows(own)])
    else:
        own.copy_(values)


def _move(part: nn.Module, device: torch.device) -> None:
    """Give a part of the twin tensors of its own, on the device; what is shared out already stays."""
    for module in part.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not is_shared(parameter):
                setattr(module, name, nn.Parameter(parameter.detach().to(device), requires_grad=parameter.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
