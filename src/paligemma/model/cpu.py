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
