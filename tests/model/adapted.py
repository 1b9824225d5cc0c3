"""Small models with an adapter that has learnt something, and what they answer."""

from __future__ import annotations

import torch

from paligemma.model.lora import LoraConfig, adapter_layers, add_adapter
from paligemma.model.paligemma import PaliGemma
from tests.tiny import TINY_1, random_model, random_pixels


def logits(model: PaliGemma) -> torch.Tensor:
    """Of two pictures with prompts of four tokens and suffixes of three."""
    ids = torch.randint(6, 200, (2, 7), generator=torch.Generator().manual_seed(0))
    mask_ar = (torch.arange(7) >= 4).long().expand(2, -1)
    return model(model.encode_image(random_pixels(model.config, 2)), ids, mask_ar)


def adapted(config=TINY_1, lora: LoraConfig | None = None, name: str = "default", seed: int = 0, model: PaliGemma | None = None):
    """An adapter on a random model, or on `model`."""
    model = random_model(config) if model is None else model
    generator = torch.Generator().manual_seed(seed)
    add_adapter(model, lora or LoraConfig(), name, generator=generator)
    with torch.no_grad():
        for adapter in adapter_layers(model, name).values():
            adapter.b.copy_(torch.randn(adapter.b.shape, generator=generator) * 0.05)
    return model
