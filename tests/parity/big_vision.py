"""big_vision's forward pass written out a second time, with einsums straight on the arrays of its checkpoints, in float64.

No line is shared with the package: heads stay an axis of their own, nothing is reshaped or transposed, attention is spelled out per head.
Written from the sources named in the specification of the model: `models/vit.py`, `models/ppp/gemma.py`, `models/proj/paligemma`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, einsum

from paligemma.config import PaliGemmaConfig

Arrays = dict[str, np.ndarray]


def random_arrays(config: PaliGemmaConfig, seed: int = 0) -> Arrays:
    """A checkpoint with random values, in float32, keys and shapes as big_vision writes them."""
    v, t = config.vision, config.text
    d, n, h, f = v.width, v.heads, v.width // v.heads, v.mlp_dim
    block, attn, mlp = "img/Transformer/encoderblock/", "MultiHeadDotProductAttention_0/", "MlpBlock_0/"
    shapes: dict[str, tuple[int, ...]] = {
        "img/embedding/kernel": (v.patch_size, v.patch_size, 3, d),
        "img/embedding/bias": (d,),
        "img/pos_embedding": (1, v.num_tokens, d),
        "img/Transformer/encoder_norm/scale": (d,),
        "img/Transformer/encoder_norm/bias": (d,),
        "img/head/kernel": (d, t.width),
        "img/head/bias": (t.width,),
        block + attn + "out/kernel": (v.depth, n, h, d),
        block + attn + "out/bias": (v.depth, d),
        block + mlp + "Dense_0/kernel": (v.depth, d, f),
        block + mlp + "Dense_0/bias": (v.depth, f),
        block + mlp + "Dense_1/kernel": (v.depth, f, d),
        block + mlp + "Dense_1/bias": (v.depth, d),
        "llm/embedder/input_embedding": (t.vocab_size, t.width),
        "llm/final_norm/scale": (t.width,),
        "llm/layers/attn/q_einsum/w": (t.depth, t.heads, t.width, t.head_dim),
        "llm/layers/attn/kv_einsum/w": (t.depth, 2, t.kv_heads, t.width, t.head_dim),
        "llm/layers/attn/attn_vec_einsum/w": (t.depth, t.heads, t.head_dim, t.width),
        "llm/layers/mlp/gating_einsum": (t.depth, 2, t.width, t.mlp_dim),
        "llm/layers/mlp/linear": (t.depth, t.mlp_dim, t.width),
    }
    for norm in ("LayerNorm_0", "LayerNorm_1"):
        shapes |= {f"{block}{norm}/{part}": (v.depth, d) for part in ("scale", "bias")}
    for name in ("query", "key", "value"):
        shapes |= {f"{block}{attn}{name}/kernel": (v.depth, d, n, h), f"{block}{attn}{name}/bias": (v.depth, n, h)}
    norms = ["pre_attention_norm", "pre_ffw_norm"] + (["post_attention_norm", "post_ffw_norm"] if t.post_norms else [])
    shapes |= {f"llm/layers/{name}/scale": (t.depth, t.width) for name in norms}
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) * 0.2).astype(np.float32) for name, shape in shapes.items()}


def forward(arrays: Arrays, config: PaliGemmaConfig, image: Tensor, text: Tensor, mask_ar: Tensor) -> tuple[Tensor, Tensor]:
    """image (B, side, side, 3), text and mask_ar (B, T) -> projected image tokens, and logits at the text positions."""
    a = {name: torch.from_numpy(array).double() for name, array in arrays.items()}
    soft = einsum("bpd,dw->bpw", _tower(a, config, image.double()), a["img/head/kernel"]) + a["img/head/bias"]
    table = a["llm/embedder/input_embedding"]
    x = torch.cat([soft, table[text] * math.sqrt(config.text.width)], 1)
    starts = torch.cat([torch.zeros(soft.shape[:2], dtype=torch.long), mask_ar.long()], 1)
    return soft, einsum("btw,vw->btv", _decoder(a, config, x, starts)[:, soft.shape[1] :], table)


def _tower(a: dict[str, Tensor], config: PaliGemmaConfig, image: Tensor) -> Tensor:
    v = config.vision
    patches = image.unflatten(2, (v.grid, v.patch_size)).unflatten(1, (v.grid, v.patch_size))  # b y p x q c
    x = einsum("bypxqc,pqcd->byxd", patches, a["img/embedding/kernel"]).flatten(1, 2) + a["img/embedding/bias"]
    x = x + a["img/pos_embedding"]
    for i in range(v.depth):
        block = {k.removeprefix("img/Transformer/encoderblock/"): w[i] for k, w in a.items() if "encoderblock/" in k}
        attn = {k.split("/", 1)[1]: w for k, w in block.items() if k.startswith("Multi")}
        y = _layer_norm(x, block["LayerNorm_0/scale"], block["LayerNorm_0/bias"])
        q, k, val = (einsum("bpd,dnh->bpnh", y, attn[f"{m}/kernel"]) + attn[f"{m}/bias"] for m in ("query", "key", "value"))
        weights = (einsum("bpnh,bsnh->bnps", q, k) / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + einsum("bnps,bsnh,nhd->bpd", weights, val, attn["out/kernel"]) + attn["out/bias"]
        y = _layer_norm(x, block["LayerNorm_1/scale"], block["LayerNorm_1/bias"])
        y = _gelu(einsum("bpd,df->bpf", y, block["MlpBlock_0/Dense_0/kernel"]) + block["MlpBlock_0/Dense_0/bias"])
        x = x + einsum("bpf,fd->bpd", y, block["MlpBlock_0/Dense_1/kernel"]) + block["MlpBlock_0/Dense_1/bias"]
    return _layer_norm(x, a["img/Transformer/encoder_norm/scale"], a["img/Transformer/encoder_norm/bias"])


def _decoder(a: dict[str, Tensor], config: PaliGemmaConfig, x: Tensor, starts: Tensor) -> Tensor:
    t = config.text
    block_of = starts.cumsum(1)
    visible = block_of[:, None, :] <= block_of[:, :, None]
    places = torch.arange(x.shape[1], dtype=torch.float64)
    for i in range(t.depth):
        w = {k.removeprefix("llm/layers/"): array[i] for k, array in a.items() if k.startswith("llm/layers/")}
        y = _rms_norm(x, w["pre_attention_norm/scale"])
        added = torch.zeros_like(x)
        for head in range(t.heads):
            shared = head // (t.heads // t.kv_heads)
            q = _rope(y @ w["attn/q_einsum/w"][head], places) * t.scale
            k = _rope(y @ w["attn/kv_einsum/w"][0, shared], places)
            scores = q @ k.transpose(1, 2)
            if t.attn_softcap is not None:
                scores = t.attn_softcap * torch.tanh(scores / t.attn_softcap)
            weights = scores.masked_fill(~visible, -2.3819763e38).softmax(-1)
            added = added + weights @ (y @ w["attn/kv_einsum/w"][1, shared]) @ w["attn/attn_vec_einsum/w"][head]
        x = x + (_rms_norm(added, w["post_attention_norm/scale"]) if t.post_norms else added)
        y = _rms_norm(x, w["pre_ffw_norm/scale"])
        added = (_gelu(y @ w["mlp/gating_einsum"][0]) * (y @ w["mlp/gating_einsum"][1])) @ w["mlp/linear"]
        x = x + (_rms_norm(added, w["post_ffw_norm/scale"]) if t.post_norms else added)
    return _rms_norm(x, a["llm/final_norm/scale"])


def _layer_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * scale + bias


def _rms_norm(x: Tensor, scale: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * (1 + scale)


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _rope(x: Tensor, places: Tensor) -> Tensor:
    """x (B, T, H): the halves are the real and imaginary parts of H/2 numbers, each turned by its own frequency."""
    half = x.shape[-1] // 2
    angles = places[:, None] * 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1)
