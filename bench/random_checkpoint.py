"""A Hugging Face folder of random weights, written tensor by tensor: what both sides of the comparison load."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import torch

from paligemma.checkpoint.hf_config import write_config
from paligemma.checkpoint.weight_maps import HF_EMBEDDING, PADDED_VOCAB, hf_layout
from paligemma.config import VOCAB_SIZE, PaliGemmaConfig

NOISE = (1 << 22) - 3
"""Random numbers drawn once and laid down end to end (drawing billions takes minutes); no multiple of a row, so that rows differ."""


def write_random_checkpoint(config: PaliGemmaConfig, folder: Path, seed: int = 0) -> Path:
    """`config.json` and one bfloat16 `model.safetensors` with the names and table size of the published files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(write_config(config, dtype="bfloat16"), indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}))
    shapes = hf_layout(config).shapes
    if config.text.vocab_size == VOCAB_SIZE:
        shapes[HF_EMBEDDING] = (PADDED_VOCAB, config.text.width)
    header, place = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = place + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(NOISE, generator=generator)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            scaled = _scaled(name, shape, noise).to(torch.bfloat16).view(torch.uint8).numpy()
            left, start = 2 * math.prod(shape), 2 * int(torch.randint(NOISE, (), generator=generator))
            while left:
                part = memoryview(scaled)[start : start + left]
                file.write(part)
                left, start = left - len(part), 0
    return folder


def _scaled(name: str, shape: tuple[int, ...], noise: torch.Tensor) -> torch.Tensor:
    """Magnitudes under which activations live through all layers and an answer is not one token for ever: weak embeddings (tied, they
    would repeat their token) and weak attention (it averages the same picture at every step)."""
    if "norm" in name and name.endswith("weight"):
        return 0.1 * noise + (1.0 if "vision" in name else 0.0)
    if len(shape) < 2 or "position" in name:
        return 0.1 * noise
    size = 0.003 if name == HF_EMBEDDING else math.prod(shape[1:]) ** -0.5
    return noise * (size * 0.1 if ".o_proj." in name else size)
