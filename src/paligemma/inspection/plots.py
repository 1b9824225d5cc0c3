"""Two small pictures as inline SVG in the page's own colours: token lengths against the limit, and who sees whom in one example."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..model.paligemma import prefix_lm_mask

WIDTH, HEIGHT = 560, 150
"""Of the plotting area, in the SVG's units."""
_LEFT, _TOP, _RIGHT, _BOTTOM = 52, 22, 16, 40
MOST_SIDE = 700
"""Tokens of an example whose attention is drawn; of a longer one there is no picture."""


def length_plot(histogram: Sequence[tuple[int, int, int]], limit: int) -> str:
    """(from, to, records), and a line where texts are cut; bars beyond it in another colour."""
    low, high = histogram[0][0], max(histogram[-1][1], limit) + 1
    most = max(count for *_, count in histogram)

    def x(tokens: float) -> float:
        return _LEFT + WIDTH * (tokens - low) / (high - low)

    bottom = _TOP + HEIGHT
    parts = [f'<line class="rule" x1="{_LEFT}" y1="{bottom}" x2="{_LEFT + WIDTH}" y2="{bottom}"/>']
    for start, stop, count in histogram:
        tall = HEIGHT * count / most
        wide = max(x(stop + 1) - x(start) - 1, 1)
        kind = "bar over" if start > limit else "bar"
        title = f"{start if start == stop else f'{start} to {stop}'} tokens: {count:,}"
        parts.append(
            f'<rect class="{kind}" x="{x(start):.1f}" y="{bottom - tall:.1f}" width="{wide:.1f}" height="{tall:.1f}">'
            f"<title>{title}</title></rect>"
        )
    parts.append(f'<line class="limit" x1="{x(limit + 1):.1f}" y1="{_TOP - 4}" x2="{x(limit + 1):.1f}" y2="{bottom}"/>')
    near_end = x(limit) > _LEFT + WIDTH / 2
    parts.append(
        f'<text class="mark" x="{x(limit + 1) + (-5 if near_end else 5):.1f}" y="{_TOP - 8}" '
        f'text-anchor="{"end" if near_end else "start"}">{limit} tokens fit</text>'
    )
    step = _step(high - low)
    parts += [
        f'<text class="tick" x="{x(tokens):.1f}" y="{bottom + 16}" text-anchor="middle">{tokens}</text>'
        for tokens in range(-(-low // step) * step, high, step)
    ]
    parts += [f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{n:,}</text>' for n, y in ((0, bottom), (most, _TOP))]
    parts.append(f'<text class="axis" x="{_LEFT + WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">tokens of prompt and answer</text>')
    middle = _TOP + HEIGHT / 2
    parts.append(f'<text class="axis" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">records</text>')
    return _svg(_LEFT + WIDTH + _RIGHT, bottom + _BOTTOM, parts, f"Lengths of the texts in tokens; {limit} fit", "wide")


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
    return _svg(side, side, [f'<path class="sees" d="{path}"/>', edges, frame], label, "square")


def _runs(line: Sequence[bool]) -> list[tuple[int, int]]:
    """(start, stop) of what is true in a row."""
    edges = [i for i in range(len(line) + 1) if (i > 0 and line[i - 1]) != (i < len(line) and line[i])]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _step(span: int) -> int:
    """A round distance between ticks, six or so of them."""
    return next(step for power in range(9) for step in (10**power, 2 * 10**power, 5 * 10**power) if span / step <= 8)


def _svg(width: float, height: float, parts: Sequence[str], label: str, kind: str) -> str:
    return f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
