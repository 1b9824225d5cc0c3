"""Activation checkpointing: a block's inner states are not kept for the backward pass but computed once more there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run(block: nn.Module, again: bool, *inputs: Any) -> Tensor:
    """The block's output. With `again` and gradients wanted, only its inputs are kept: a third more arithmetic for far less memory.

    Random states are kept, so dropout drops the same numbers both times.
    """
    if again and torch.is_grad_enabled():
        return checkpoint(block, *inputs, use_reentrant=False)
    return block(*inputs)
