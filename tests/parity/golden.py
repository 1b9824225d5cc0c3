"""The files made with the original big_vision code (see `tests/data/golden/README.md`), and our models holding the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from paligemma.config import PaliGemmaConfig, TextConfig, VisionConfig
from paligemma.model.mask_codec import MaskCodec
from paligemma.model.paligemma import PaliGemma

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


def load_tiny() -> PaliGemma:
    """The tiny model of `bv_tiny1.npz`."""
    model = PaliGemma(CONFIG)
    z = {k.removeprefix("params/"): torch.from_numpy(v) for k, v in np.load(FOLDER / "bv_tiny1.npz").items()}
    s = {}
    s["vision.patch_embed.weight"] = z["img/embedding/kernel"].permute(3, 2, 0, 1)
    s["vision.patch_embed.bias"] = z["img/embedding/bias"]
    s["vision.pos_embed"] = z["img/pos_embedding"][0]
    E = "img/Transformer/encoderblock/"
    for i in range(3):
        for a, b in (("0", "1"), ("1", "2")):
            s[f"vision.blocks.{i}.norm{b}.weight"] = z[E + f"LayerNorm_{a}/scale"][i]
            s[f"vision.blocks.{i}.norm{b}.bias"] = z[E + f"LayerNorm_{a}/bias"][i]
        for a, b in (("query", "q"), ("key", "k"), ("value", "v")):
            s[f"vision.blocks.{i}.attn.{b}.weight"] = z[E + f"MultiHeadDotProductAttention_0/{a}/kernel"][i].reshape(48, 48).T
            s[f"vision.blocks.{i}.attn.{b}.bias"] = z[E + f"MultiHeadDotProductAttention_0/{a}/bias"][i].reshape(48)
        s[f"vision.blocks.{i}.attn.out.weight"] = z[E + "MultiHeadDotProductAttention_0/out/kernel"][i].reshape(48, 48).T
        s[f"vision.blocks.{i}.attn.out.bias"] = z[E + "MultiHeadDotProductAttention_0/out/bias"][i]
        for a, b in (("0", "up"), ("1", "down")):
            s[f"vision.blocks.{i}.mlp.{b}.weight"] = z[E + f"MlpBlock_0/Dense_{a}/kernel"][i].T
            s[f"vision.blocks.{i}.mlp.{b}.bias"] = z[E + f"MlpBlock_0/Dense_{a}/bias"][i]
        L = "llm/layers/"
        s[f"text.blocks.{i}.attn.q.weight"] = z[L + "attn/q_einsum/w"][i].permute(0, 2, 1).reshape(128, 64)
        s[f"text.blocks.{i}.attn.k.weight"] = z[L + "attn/kv_einsum/w"][i, 0].permute(0, 2, 1).reshape(32, 64)
        s[f"text.blocks.{i}.attn.v.weight"] = z[L + "attn/kv_einsum/w"][i, 1].permute(0, 2, 1).reshape(32, 64)
        s[f"text.blocks.{i}.attn.o.weight"] = z[L + "attn/attn_vec_einsum/w"][i].permute(2, 0, 1).reshape(64, 128)
        s[f"text.blocks.{i}.mlp.gate.weight"] = z[L + "mlp/gating_einsum"][i, 0].T
        s[f"text.blocks.{i}.mlp.up.weight"] = z[L + "mlp/gating_einsum"][i, 1].T
        s[f"text.blocks.{i}.mlp.down.weight"] = z[L + "mlp/linear"][i].T
        s[f"text.blocks.{i}.pre_attn_norm.weight"] = z[L + "pre_attention_norm/scale"][i]
        s[f"text.blocks.{i}.pre_mlp_norm.weight"] = z[L + "pre_ffw_norm/scale"][i]
    s["vision.norm.weight"], s["vision.norm.bias"] = z["img/Transformer/encoder_norm/scale"], z["img/Transformer/encoder_norm/bias"]
    s["projector.weight"], s["projector.bias"] = z["img/head/kernel"].T, z["img/head/bias"]
    s["text.embed.weight"], s["text.norm.weight"] = z["llm/embedder/input_embedding"], z["llm/final_norm/scale"]
    model.load_state_dict(s)
    return model.eval()
