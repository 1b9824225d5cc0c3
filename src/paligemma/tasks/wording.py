"""What every task asks of the words it is given."""

from __future__ import annotations

from ..errors import UsageError


def words(value: object, what: str, *, empty: bool = False) -> str:
    """`value` without blanks around it; `UsageError` if it is no text, or (unless `empty`) an empty one. `what`: "the question"."""
    if not isinstance(value, str):
        raise UsageError(f"{what} must be text, found {type(value).__name__}")
    if not empty and not value.strip():
        raise UsageError(f"{what} is empty")
    return value.strip()
