"""Small plots for the report: intervals, and whether scores are frequencies."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..pages.plots import Axes
from .calibration import Reliability

SIDE = 260
"""Of the plotting area, in the SVG's units."""
ROW = 34


def reliability_plot(found: Reliability) -> str:
    """Score against share right, one point a bin, its area by the number of guesses; on the diagonal a score is a frequency."""
    most = max(one.count for one in found.bins)
    axes = Axes(SIDE, SIDE)
    marks = [f'<line class="guide" x1="{axes.x(0)}" y1="{axes.y(0)}" x2="{axes.x(1)}" y2="{axes.y(1)}"/>']
    path = " ".join(f"{axes.x(one.score):.1f},{axes.y(one.right):.1f}" for one in found.bins)
    marks.append(f'<polyline class="curve" points="{path}"/>')
    for one in found.bins:
        words = f"{one.count} guesses: mean score {one.score:.2f}, {one.right:.0%} right"
        radius = 2 + 4 * (one.count / most) ** 0.5
        x, y = axes.x(one.score), axes.y(one.right)
        marks.append(f'<line class="gap" x1="{x:.1f}" y1="{axes.y(one.score):.1f}" x2="{x:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{words}</title></circle>')
    ticks = [(value / 4, f"{value / 4:g}") for value in range(5)]
    label = f"Reliability of {found.count} scores: expected calibration error {found.ece:.3f}"
    return axes.draw(marks, ticks, ticks, ("score", "share right"), label)


def interval_plot(rows: Sequence[tuple[str, float, tuple[float, float]]], top: float, shown: Callable[[float], str], name: str) -> str:
    """(what, value, its interval) of each row, one below the other on an axis from 0 to `top`. `shown` writes a value."""
    axes = Axes(SIDE, ROW * len(rows))
    marks, up = [], []
    for place, (what, value, (low, high)) in enumerate(rows):
        y = axes.y(1 - (place + 0.5) / len(rows))
        words = f"{what}: {shown(value)}, {shown(low)} to {shown(high)}"
        marks.append(f'<line class="span" x1="{axes.x(low / top):.1f}" y1="{y}" x2="{axes.x(high / top):.1f}" y2="{y}"/>')
        marks.append(f'<circle class="dot" cx="{axes.x(value / top):.1f}" cy="{y}" r="5"><title>{words}</title></circle>')
        up.append((1 - (place + 0.5) / len(rows), what))
    across = [(value / 4, shown(top * value / 4).removesuffix(".0")) for value in range(5)]
    label = "; ".join(f"{what} {shown(value)}" for what, value, _ in rows)
    return axes.draw(marks, across, up, (name, ""), f"{name}: {label}")
