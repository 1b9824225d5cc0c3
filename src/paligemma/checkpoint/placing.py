"""Where a checkpoint's weights go, and in which numbers: a device that works, a number type that exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ResourceError, UsageError
from .source import dtype_name, torch_dtype

if TYPE_CHECKING:
    import torch

SMALL = 2**26
"""Models of fewer parameters compute in float32 on a CPU, unless told otherwise; and without PyTorch, packed or not."""


def device_of(device: str | torch.device | None) -> torch.device:
    """A device that works, the best there is by default. `UsageError` for no device's name, `ResourceError` for one that is not there."""
    import torch

    if device is None:
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(best)
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"{str(device)!r} is not the name of a device", hint="use cpu, cuda, cuda:1 or mps") from None
    try:
        torch.empty(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ResourceError(f"there is no usable device {str(chosen)!r} here", hint="use device='cpu'", code="no_device") from None
    return chosen


def dtype_of(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Of a name such as "bfloat16" or "bf16"; None stays None. `UsageError` for what weights cannot be."""
    return None if dtype is None else torch_dtype(dtype_name(dtype))
