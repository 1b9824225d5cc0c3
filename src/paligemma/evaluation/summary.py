"""Scores as a few lines of text for a terminal."""

from __future__ import annotations

from ..printable import printable
from .gain import Gain
from .scores import Scores

SHOWN_GROUPS = 8
"""Of each grouping, the largest."""
SHOWN_FAILURES = 3


def summary(scores: Scores, before: Gain | None = None) -> str:
    """What was measured, on how much, with which interval; beside it what was published, and what was measured before; groups, reliability,
    lengths, speed, failures."""
    kind = scores.kind
    lines = [printable(f"{scores.title}: {scores.count:,} answers") + (f", {len(scores.failed):,} failed" if scores.failed else "")]
    wide = max(len(name) for name in kind.keys.values())
    for key, value in scores.values.items():
        line = f"  {kind.keys[key]:<{wide}}  {kind.shown(value, key):>7}"
        if key == kind.main:
            low, high = scores.interval
            line += f"  [{kind.shown(low)}, {kind.shown(high)}] in 95 of 100 draws" + ("" if kind.higher_is_better else "; less is better")
        lines.append(line)
    lines += [f"  published  {row}" for row in scores.published]
    lines += [f"  {before.shown(kind)}"] if before else []
    for name, groups in scores.groups.items():
        largest = sorted(groups.items(), key=lambda item: -item[1].count)[:SHOWN_GROUPS]
        parts = [f"{printable(group)} {kind.shown(one.value)} ({one.count:,})" for group, one in largest]
        more = f", and {len(groups) - len(largest)} more" if len(groups) > len(largest) else ""
        lines.append(f"  by {printable(name)}: {', '.join(parts)}{more}")
    for of, found in scores.reliability.items():
        lines.append(f"  {of} scores: expected calibration error {found.ece:.3f} over {found.count:,} guesses")
    cut = scores.stops.get("length", 0)
    lines.append(f"  answers of {scores.lengths.median:g} tokens (median), at most {scores.lengths.longest}; {cut:,} cut off")
    if scores.invalid or scores.leftover:
        lines.append(f"  {scores.invalid:,} malformed objects, {scores.leftover:,} answers with text that belongs to no object")
    lines.append(f"  {scores.speed.records_per_second:.1f} records a second, {scores.speed.seconds:.1f} s in all")
    lines += [printable(f"  failed: {one.where or one.id}: {one.message}") for one in scores.failed[:SHOWN_FAILURES]]
    if len(scores.failed) > SHOWN_FAILURES:
        lines.append(f"  ... and {len(scores.failed) - SHOWN_FAILURES:,} more, in the report")
    return "\n".join(lines)
