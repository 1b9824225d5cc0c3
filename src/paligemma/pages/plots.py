"""Plots as inline SVG in the page's own colours: axes for any marks, and bars of how many things have which length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, RIGHT, TOP, BOTTOM = 52, 16, 24, 40
"""Around the plotting area, for ticks and names, in the SVG's units."""

Ticks = Sequence[tuple[float, str]]
"""(where, as a share of the side; what stands there)."""


@dataclass(frozen=True)
class Axes:
    """A plotting area of so many of the SVG's units. `x` and `y` place shares of its sides, from the lower left corner."""

    width: int
    height: int

    def x(self, share: float) -> float:
        return LEFT + self.width * share

    def y(self, share: float) -> float:
        return TOP + self.height * (1 - share)

    def draw(self, marks: Sequence[str], across: Ticks, up: Ticks, names: tuple[str, str], label: str) -> str:
        """Marks in a frame with ticks. `names`: of the axes, or ""; `label`: the plot in words, for those who do not see it."""
        bottom, middle = TOP + self.height, TOP + self.height / 2
        x_name, y_name = map(escape, names)
        parts = [f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{self.width}" height="{self.height}"/>', *marks]
        parts += [
            f'<text class="tick" x="{self.x(at):.1f}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>' for at, text in across
        ]
        parts += [f'<text class="tick" x="{LEFT - 6}" y="{self.y(at) + 4:.1f}" text-anchor="end">{escape(text)}</text>' for at, text in up]
        parts.append(f'<text class="axis" x="{self.x(0.5)}" y="{bottom + 34}" text-anchor="middle">{x_name}</text>')
        if y_name:
            parts.append(f'<text class="axis" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{y_name}</text>')
        return svg(LEFT + self.width + RIGHT, bottom + BOTTOM, parts, label)


def svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """`label`: the picture in words."""
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def length_plot(
    histogram: Sequence[tuple[int, int, int]], names: tuple[str, str], label: str, *, size: tuple[int, int], limit: int | None = None
) -> str:
    """(from, to, how many) of lengths in tokens, both ends included. `limit`: where texts are cut, a line; bars beyond it differ."""
    axes = Axes(*size)
    low = histogram[0][0] if limit is None else min(histogram[0][0], limit + 1)
    high = max(histogram[-1][1], limit or 0) + 1
    most = max(count for *_, count in histogram)

    def share(tokens: float) -> float:
        return (tokens - low) / (high - low)

    marks = []
    for start, stop, count in histogram:
        tall = count / most if most else 0.0
        kind = "bar over" if limit is not None and start > limit else "bar"
        left, wide = axes.x(share(start)), max(axes.width * (share(stop + 1) - share(start)) - 1, 1)
        title = f"{start if start == stop else f'{start} to {stop}'} tokens: {count:,}"
        marks.append(
            f'<rect class="{kind}" x="{left:.1f}" y="{axes.y(tall):.1f}" width="{wide:.1f}" height="{axes.height * tall:.1f}">'
            f"<title>{title}</title></rect>"
        )
    if limit is not None:
        at, side = axes.x(share(limit + 1)), -5 if share(limit) > 0.5 else 5
        marks.append(f'<line class="limit" x1="{at:.1f}" y1="{TOP - 4}" x2="{at:.1f}" y2="{axes.y(0)}"/>')
        anchor = "end" if side < 0 else "start"
        marks.append(f'<text class="mark" x="{at + side:.1f}" y="{TOP - 8}" text-anchor="{anchor}">{limit} tokens fit</text>')
    step = _step(high - low, axes.width)
    across = [(share(tokens), str(tokens)) for tokens in range(-(-low // step) * step, high, step)]
    return axes.draw(marks, across, [(0, "0"), (1, f"{most:,}")], names, label)


def _step(span: int, width: int) -> int:
    """A round distance between ticks, at most one for 50 units or so."""
    return next(step for power in range(18) for step in (10**power, 2 * 10**power, 5 * 10**power) if span / step <= max(width / 60, 1))
