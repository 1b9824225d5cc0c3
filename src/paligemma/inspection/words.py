"""Numbers as people read them: bytes, seconds."""

from __future__ import annotations

from ..checkpoint.memory import GB


def bytes_in_words(count: float) -> str:
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.0f} MB"


def seconds_in_words(seconds: float) -> str:
    """Two figures, in the largest unit that makes it at least 1."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0)):
        if seconds >= 2 * length or (unit == "seconds" and seconds >= 1):
            return f"{seconds / length:.{0 if seconds / length >= 10 else 1}f} {unit}"
    return f"{seconds * 1000:.1f} milliseconds"
