"""bfloat16 modules and inputs, and how far results are from exact ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paligemma.model.paligemma import PaliGemma

PROMPT = 6


def bf16(module: nn.Module) -> nn.Module:
    """Filled with random weights that keep activations at their size."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else parameter.numel()
        parameter.data = torch.randn(parameter.shape, generator=generator) * inputs**-0.5
    return module.to(torch.bfloat16).eval()


def random_input(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)


def error(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


def answer_logits(model: PaliGemma, pixels: Tensor, tokens: int) -> Tensor:
    """Logits after a prompt of `PROMPT` tokens, and after each of `tokens` more, through the cache."""
    ids = torch.randint(model.config.text.vocab_size, (len(pixels), PROMPT + tokens), generator=torch.Generator().manual_seed(0))
    soft = model.encode_image(pixels)
    cache = model.new_cache(len(pixels), soft.shape[1] + ids.shape[1])
    rows = [model.prefill(soft, ids[:, :PROMPT], None, cache)]
    rows += [model.extend(column, cache) for column in ids[:, PROMPT:].T]
    return model.logits(torch.stack(rows))
