"""Small SigLIPs for tests: random weights in transformers' model, their folders, and the same weights as big_vision would store them.

Nothing here uses the package's table of names: that is what is tested.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from paligemma.config import DualEncoderConfig, TextTowerConfig, VisionConfig

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import SiglipModel

    from paligemma.model.dual_encoder import DualEncoder

VISION = VisionConfig(width=24, depth=3, mlp_dim=44, heads=2, image_size=30, patch_size=14)
"""Two by two patches, and two pixels at the edge that no patch sees, as with 384 and 14."""
TEXT = TextTowerConfig(width=32, depth=2, mlp_dim=40, heads=4, vocab_size=97, length=9)
"""Another width than the image tower's, so that a swapped matrix cannot fit."""
TINY_ENCODER = DualEncoderConfig(VISION, TEXT, "tiny-siglip")


def with_vocabulary(size: int, config: DualEncoderConfig = TINY_ENCODER) -> DualEncoderConfig:
    return dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=size))


def their_config(config: DualEncoderConfig):
    from transformers import SiglipConfig

    def tower(one: VisionConfig | TextTowerConfig) -> dict[str, Any]:
        return {
            "hidden_size": one.width, "num_hidden_layers": one.depth, "intermediate_size": one.mlp_dim, "num_attention_heads": one.heads,
        }  # fmt: skip

    v, t = config.vision, config.text
    text = {
        "vocab_size": t.vocab_size, "max_position_embeddings": t.length, "projection_size": v.width, "bos_token_id": None,
        "eos_token_id": None,
    }  # fmt: skip
    return SiglipConfig(text_config=tower(t) | text, vision_config=tower(v) | {"image_size": v.image_size, "patch_size": v.patch_size})


@functools.cache
def their_encoder(config: DualEncoderConfig = TINY_ENCODER, seed: int = 0) -> SiglipModel:
    """transformers' model in float32 with random weights: norms, biases, scale and all."""
    import torch
    from transformers import SiglipModel

    model = SiglipModel(their_config(config)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise * p[0].numel() ** -0.5 if p.dim() > 1 else 0.1 * noise + (1.0 if "norm" in name and "weight" in name else 0.0))
        model.logit_scale.fill_(2.5)
        model.logit_bias.fill_(-3.0)
    return model


def our_encoder(config: DualEncoderConfig = TINY_ENCODER, seed: int = 0) -> DualEncoder:
    """The package's own model with random weights, norms and biases too."""
    import torch

    from paligemma.model.dual_encoder import DualEncoder

    torch.manual_seed(seed)
    model = DualEncoder(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.add_(0.2 * torch.randn(p.shape)) if p.dim() < 2 or "pos" in name else p.copy_(torch.randn(p.shape) * p[0].numel() ** -0.5)
    return model.eval()


def random_inputs(config: DualEncoderConfig, count: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """pixels (count, 3, S, S) in [-1, 1] and ids (count, T)."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    side = config.vision.image_size
    pixels = torch.rand(count, 3, side, side, generator=generator) * 2 - 1
    return pixels, torch.randint(config.text.vocab_size, (count, config.text.length), generator=generator)


def big_vision_arrays(theirs: SiglipModel, *, scanned: bool, prefix: str = "params/") -> dict[str, np.ndarray]:
    """The model's weights under big_vision's names, turned as flax has them; `scanned`: the layers of each tower stacked."""
    state = {name: tensor.detach().numpy() for name, tensor in theirs.state_dict().items()}
    out: dict[str, np.ndarray] = {}
    towers = (
        ("img/Transformer", "vision_model", theirs.config.vision_config, "img/Transformer/encoder_norm", "post_layernorm"),
        ("txt/Encoder_0", "text_model", theirs.config.text_config, "txt/Encoder_0/encoder_norm", "final_layer_norm"),
    )
    for folder, tower, config, norm, their_norm in towers:
        heads = config.num_attention_heads
        layers = []
        for number in range(config.num_hidden_layers):
            layers.append(_layer(state, f"{tower}.encoder.layers.{number}.", heads))
        if scanned:
            out |= {f"{folder}/encoderblock/{name}": np.stack([layer[name] for layer in layers]) for name in layers[0]}
        else:
            out |= {f"{folder}/encoderblock_{n}/{name}": array for n, layer in enumerate(layers) for name, array in layer.items()}
        out |= {f"{norm}/scale": state[f"{tower}.{their_norm}.weight"], f"{norm}/bias": state[f"{tower}.{their_norm}.bias"]}
    vision, text = "vision_model.embeddings.", "text_model.embeddings."
    out["img/embedding/kernel"] = state[vision + "patch_embedding.weight"].transpose(2, 3, 1, 0)
    out["img/embedding/bias"] = state[vision + "patch_embedding.bias"]
    out["img/pos_embedding"] = state[vision + "position_embedding.weight"][None]
    out["txt/Embed_0/embedding"] = state[text + "token_embedding.weight"]
    out["txt/pos_embedding"] = state[text + "position_embedding.weight"][None]
    out["txt/head/kernel"], out["txt/head/bias"] = state["text_model.head.weight"].T, state["text_model.head.bias"]
    heads, head = theirs.config.vision_config.num_attention_heads, "vision_model.head."
    three = zip(np.split(state[head + "attention.in_proj_weight"], 3), np.split(state[head + "attention.in_proj_bias"], 3), strict=True)
    for name, (weight, bias) in zip(("query", "key", "value"), three, strict=True):
        out |= _projection(f"img/MAPHead_0/MultiHeadDotProductAttention_0/{name}", weight, bias, heads)
    out |= _output("img/MAPHead_0/MultiHeadDotProductAttention_0/out", state, head + "attention.out_proj", heads)
    out |= _norm("img/MAPHead_0/LayerNorm_0", state, head + "layernorm")
    out |= _dense("img/MAPHead_0/MlpBlock_0/Dense_0", state, head + "mlp.fc1")
    out |= _dense("img/MAPHead_0/MlpBlock_0/Dense_1", state, head + "mlp.fc2")
    out["img/MAPHead_0/probe"] = state[head + "probe"]
    out["t"], out["b"] = state["logit_scale"], state["logit_bias"]
    return {prefix + name: np.ascontiguousarray(array) for name, array in out.items()}


def _layer(state: dict[str, np.ndarray], start: str, heads: int) -> dict[str, np.ndarray]:
    attention = "MultiHeadDotProductAttention_0/"
    out = _norm("LayerNorm_0", state, start + "layer_norm1") | _norm("LayerNorm_1", state, start + "layer_norm2")
    for name, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        weight, bias = (state[f"{start}self_attn.{theirs}.{kind}"] for kind in ("weight", "bias"))
        out |= _projection(attention + name, weight, bias, heads)
    out |= _output(attention + "out", state, start + "self_attn.out_proj", heads)
    return out | _dense("MlpBlock_0/Dense_0", state, start + "mlp.fc1") | _dense("MlpBlock_0/Dense_1", state, start + "mlp.fc2")


def _projection(name: str, weight: np.ndarray, bias: np.ndarray, heads: int) -> dict[str, np.ndarray]:
    return {f"{name}/kernel": weight.T.reshape(len(weight.T), heads, -1), f"{name}/bias": bias.reshape(heads, -1)}


def _output(name: str, state: dict[str, np.ndarray], theirs: str, heads: int) -> dict[str, np.ndarray]:
    kernel = state[theirs + ".weight"].T
    return {f"{name}/kernel": kernel.reshape(heads, -1, kernel.shape[1]), f"{name}/bias": state[theirs + ".bias"]}


def _dense(name: str, state: dict[str, np.ndarray], theirs: str) -> dict[str, np.ndarray]:
    return {f"{name}/kernel": state[theirs + ".weight"].T, f"{name}/bias": state[theirs + ".bias"]}


def _norm(name: str, state: dict[str, np.ndarray], theirs: str) -> dict[str, np.ndarray]:
    return {f"{name}/scale": state[theirs + ".weight"], f"{name}/bias": state[theirs + ".bias"]}


def their_folder(folder: Path, config: DualEncoderConfig = TINY_ENCODER, shard: str = "5GB") -> Path:
    """As transformers writes it."""
    their_encoder(config).save_pretrained(folder, max_shard_size=shard)
    return folder
