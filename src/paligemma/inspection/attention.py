"""Who sees whom in one example, as inline SVG in the page's own colours."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..model.paligemma import prefix_lm_mask
from ..pages.plots import svg

MOST_SIDE = 700
"""Tokens of an example whose attention is drawn; of a longer one there is no picture."""


def attention_plot(image_tokens: int, mask_ar: Sequence[int]) -> str:
    """Row: the token that looks; column: the token it may look at. From the model's own mask; "" for an example too long to draw."""
    side = image_tokens + len(mask_ar)
    if side > MOST_SIDE:
        return ""
    seen = prefix_lm_mask(torch.tensor([[0] * image_tokens + list(mask_ar)]))[0, 0].tolist()
    path = "".join(f"M{start} {row}h{stop - start}v1h{start - stop}z" for row, line in enumerate(seen) for start, stop in _runs(line))
    prompt = image_tokens + sum(1 for one in mask_ar if not one)
    edges = "".join(
        f'<line class="edge" x1="{at}" y1="0" x2="{at}" y2="{side}"/><line class="edge" x1="0" y1="{at}" x2="{side}" y2="{at}"/>'
        for at in (image_tokens, prompt)
    )
    label = f"Attention of {image_tokens} picture tokens, {prompt - image_tokens} of the prompt and {side - prompt} of the answer"
    frame = f'<rect class="frame" x="0" y="0" width="{side}" height="{side}"/>'
    return svg(side, side, [f'<path class="sees" d="{path}"/>', edges, frame], label)


def _runs(line: Sequence[bool]) -> list[tuple[int, int]]:
    """(start, stop) of what is true in a row."""
    edges = [i for i in range(len(line) + 1) if (i > 0 and line[i - 1]) != (i < len(line) and line[i])]
    return list(zip(edges[::2], edges[1::2], strict=True))
