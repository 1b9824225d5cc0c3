"""Small plots as inline SVG, drawn with the page's own colours: intervals, reliability, and lengths of answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .calibration import Reliability

SIDE = 260
"""Of the plotting area, in the SVG's units."""
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 10, 14, 40


def reliability_plot(found: Reliability) -> str:
    """Score against share right, one point a bin, its area by the number of guesses; on the diagonal a score is a frequency."""
    most = max(one.count for one in found.bins)
    marks = [f'<line class="guide" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>']
    path = " ".join(f"{_x(one.score):.1f},{_y(one.right):.1f}" for one in found.bins)
    marks.append(f'<polyline class="curve" points="{path}"/>')
    for one in found.bins:
        words = f"{one.count} guesses: mean score {one.score:.2f}, {one.right:.0%} right"
        radius = 2 + 4 * (one.count / most) ** 0.5
        marks.append(
            f'<line class="gap" x1="{_x(one.score):.1f}" y1="{_y(one.score):.1f}" x2="{_x(one.score):.1f}" y2="{_y(one.right):.1f}"/>'
        )
        marks.append(
            f'<circle class="dot" cx="{_x(one.score):.1f}" cy="{_y(one.right):.1f}" r="{radius:.1f}"><title>{words}</title></circle>'
        )
    ticks = [(value / 4, f"{value / 4:g}") for value in range(5)]
    label = f"Reliability of {found.count} scores: expected calibration error {found.ece:.3f}"
    return _svg(SIDE, marks, ticks, ticks, "score", "share right", label)


def interval_plot(rows: Sequence[tuple[str, float, tuple[float, float]]], top: float, shown: Callable[[float], str], name: str) -> str:
    """(what, value, its interval) of each row, one below the other on an axis from 0 to `top`. `shown` writes a value."""
    height = 34 * len(rows)
    marks, up = [], []
    for place, (what, value, (low, high)) in enumerate(rows):
        y = _TOP + 34 * (place + 0.5)
        words = f"{what}: {shown(value)}, {shown(low)} to {shown(high)}"
        marks.append(f'<line class="span" x1="{_x(low / top):.1f}" y1="{y}" x2="{_x(high / top):.1f}" y2="{y}"/>')
        marks.append(f'<circle class="dot" cx="{_x(value / top):.1f}" cy="{y}" r="5"><title>{words}</title></circle>')
        up.append((1 - (place + 0.5) / len(rows), what))
    across = [(value / 4, shown(top * value / 4).removesuffix(".0")) for value in range(5)]
    label = "; ".join(f"{what} {shown(value)}" for what, value, _ in rows)
    return _svg(height, marks, across, up, name, "", f"{name}: {label}")


def length_plot(histogram: Sequence[tuple[int, int, int]]) -> str:
    """(from, to, how many) of answers' lengths in tokens."""
    height = SIDE // 2
    most = max((count for *_, count in histogram), default=1)
    wide = 1 / max(len(histogram), 1)
    marks = []
    for place, (low, high, count) in enumerate(histogram):
        tall = height * count / most
        title = f"{low if low == high else f'{low} to {high}'} tokens: {count}"
        x, y = _x(place * wide), _TOP + height - tall
        marks.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{SIDE * wide - 1:.1f}" height="{tall:.1f}"><title>{title}</title></rect>'
        )
    step = max(1, -(-len(histogram) // 5))
    across = [((place + 0.5) * wide, str(histogram[place][0])) for place in range(0, len(histogram), step)]
    return _svg(height, marks, across, [(0, "0"), (1, str(most))], "tokens from", "answers", "Lengths of the answers in tokens")


Ticks = Sequence[tuple[float, str]]


def _svg(height: int, marks: Sequence[str], across: Ticks, up: Ticks, x_name: str, y_name: str, label: str) -> str:
    """With axes. Tick positions are shares of the side."""
    bottom = _TOP + height
    parts = [f'<rect class="frame" x="{_LEFT}" y="{_TOP}" width="{SIDE}" height="{height}"/>', *marks]
    parts += [f'<text class="tick" x="{_x(at):.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>' for at, text in across]
    parts += [f'<text class="tick" x="{_LEFT - 6}" y="{bottom - height * at + 4:.1f}" text-anchor="end">{text}</text>' for at, text in up]
    parts.append(f'<text class="axis" x="{_LEFT + SIDE / 2}" y="{bottom + 34}" text-anchor="middle">{x_name}</text>')
    middle = _TOP + height / 2
    if y_name:
        parts.append(f'<text class="axis" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{y_name}</text>')
    size = f"0 0 {_LEFT + SIDE + _RIGHT} {bottom + _BOTTOM}"
    return f'<svg viewBox="{size}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _x(share: float) -> float:
    return _LEFT + SIDE * share


def _y(share: float) -> float:
    return _TOP + SIDE * (1 - share)
