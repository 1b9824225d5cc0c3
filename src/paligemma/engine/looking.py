"""Where in the picture a model looked while it wrote: a known answer is read once more, in one pass, and attention is written down.

    image tokens  prompt  answer  -> forward, once -> of every token of the answer, how much each image token was attended to

A token was written by the position before it, and it is that one's attention which counts: the mean over all heads of all layers. No
gradients, so that quantized and rearranged models can be asked too. Why this and not another measure of the same: docs/explain.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.attention import attention_weights
from ..model.paligemma import PaliGemma


@torch.inference_mode()
def looks(model: PaliGemma, soft: Tensor, prompt: Sequence[int], answer: Sequence[int]) -> np.ndarray:
    """soft (1, P, D), ids of prompt and answer -> (tokens of the answer, P), float32: shares of attention. What a row lacks to 1 went to
    words."""
    if not prompt or not answer:
        raise ValueError("a prompt and an answer of at least one id are needed")
    # The last token wrote nothing.
    ids = torch.tensor([[*prompt, *answer[:-1]]], device=soft.device)
    after = torch.tensor([[0] * len(prompt) + [1] * (len(answer) - 1)], device=soft.device)
    total = torch.zeros(len(answer), soft.shape[1], device=soft.device)

    def add(weights: Tensor) -> None:
        total.add_(weights[0, :, :, : soft.shape[1]].mean(0))

    with _watched(model, len(answer), add):
        model.hidden_states(soft, ids, after)
    return (total / len(model.text.blocks)).cpu().numpy()


def smoothed(maps: np.ndarray) -> np.ndarray:
    """(..., rows, columns): every patch is mixed with its neighbours, 1 2 1 each way. Sums stay: at an edge, the patch stands for the
    neighbour it lacks."""
    for axis in (-2, -1):
        before, after = (np.take(maps, places, axis) for places in _neighbours(maps.shape[axis]))
        maps = (before + 2 * maps + after) / 4
    return maps


def _neighbours(count: int) -> tuple[np.ndarray, np.ndarray]:
    places = np.arange(count)
    return (places - 1).clip(min=0), (places + 1).clip(max=count - 1)


@contextmanager
def _watched(model: PaliGemma, last: int, told: Callable[[Tensor], None]) -> Iterator[None]:
    """`told` of every layer's weights of the last so many tokens, (B, N, last, S)."""

    def watch(attn: Any, inputs: tuple[Any, ...]) -> None:
        x, rope, mask, *_ = inputs
        c = attn.config
        q, k = attn.queries_and_keys(x, rope, last)
        told(attention_weights(q, k, mask[:, :, -last:], scale=c.scale, softcap=c.attn_softcap))

    hooks = [block.attn.register_forward_pre_hook(watch) for block in model.text.blocks]  # pyright: ignore
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
