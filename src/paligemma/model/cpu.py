"""What this machine's CPU can multiply."""

from __future__ import annotations

import functools

import torch


@functools.cache
def has_bfloat16() -> bool:
    """Whether oneDNN has bfloat16 kernels for this CPU (AVX512 with BF16, AMX; not AVX2, so not most laptops).

    Elsewhere torch multiplies bfloat16 matrices number by number, many times more slowly than float32 ones (`python -m bench.kernels`);
    a single row is fine.
    """
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def multiplies(tensor: torch.Tensor) -> bool:
    """Whether products of this tensor's number type are quick where it is. On a CPU half precision never is, bfloat16 only on some."""
    if tensor.device.type != "cpu":
        return True
    return tensor.dtype in (torch.float32, torch.float64) or (tensor.dtype == torch.bfloat16 and has_bfloat16())
