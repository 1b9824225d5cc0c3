"""The files made with the original big_vision code (see `tests/data/golden/README.md`), and our models holding the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from paligemma.config import PaliGemmaConfig, TextConfig, VisionConfig
from paligemma.model.mask_codec import MaskCodec

FOLDER = Path(__file__).parents[1] / "data" / "golden"

CONFIG = PaliGemmaConfig(
    VisionConfig(width=48, depth=3, mlp_dim=112, heads=4, image_size=56),
    TextConfig(width=64, depth=3, mlp_dim=160, heads=4, kv_heads=1, head_dim=32, vocab_size=1200),
)


def reference(name: str) -> dict[str, torch.Tensor]:
    """Inputs and results stored beside the weights."""
    with np.load(FOLDER / f"{name}_ref.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def codec_arrays() -> dict[str, np.ndarray]:
    """The mask codec's weights under the names of `vae-oid.npz`.

    They are redrawn from the seed they were first drawn with, which saves 7.6 MB of noise; sums tell if NumPy's stream ever changes.
    """
    rng = np.random.default_rng(11)
    arrays = {}
    for name, tensor in MaskCodec().state_dict().items():
        transposed = name.startswith("decoder") and name.split(".")[1] in {
            "4",
            "6",
            "8",
            "10",
        }  # stride 2: a quarter of 4x4 meets each pixel
        inputs = tensor.shape[0] * 4 if transposed else tensor[0].numel()
        spread = 1.0 if name == "_vq_vae._embedding" else 0.05 if tensor.dim() == 1 else 1.3 / np.sqrt(inputs)
        arrays[name] = (rng.standard_normal(tensor.shape) * spread).astype(np.float32)
    total = sum(float(np.square(a, dtype=np.float64).sum()) for a in arrays.values())
    assert abs(total - CODEC_SQUARES) < 1e-6 * CODEC_SQUARES, "NumPy draws other numbers than when these files were made"
    return arrays


CODEC_SQUARES = 71127.62679511629
