"""One picture or several, one prompt for all or one each: what a verb was given, told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

from ..errors import UsageError

W = TypeVar("W")
Pictures = list[Any] | tuple[Any, ...]
"""Several pictures."""
Questions = list[str] | tuple[str, ...]
"""Several prompts: as many as pictures, or, for `ask` and `run`, all about one picture, which is then encoded once."""
Classes = str | Sequence[str]
"""Names, or one string with ";" between them."""


def is_many(image: Any) -> bool:
    """Whether it is several pictures."""
    return isinstance(image, list | tuple)


def each(asked: str | Questions, write: Callable[[str], W]) -> W | list[W]:
    """A text, or each of several, through `write`. What is neither text nor several texts goes to `write`, which says so."""
    several = isinstance(asked, Iterable) and not isinstance(asked, str | bytes)
    return [write(one) for one in asked] if several else write(cast(str, asked))


def each_list(classes: Classes | Sequence[Classes], write: Callable[[Any], W]) -> W | list[W]:
    """Names for all pictures, or a list of lists of names."""
    several = isinstance(classes, Sequence) and not isinstance(classes, str) and len(classes) > 0 and not isinstance(classes[0], str)
    return [write(one) for one in classes] if several else write(classes)


def at(values: W | list[W], place: int) -> W:
    """The one for all, or that of a place."""
    return cast(W, values[place]) if isinstance(values, list) else values


def check_pairs(values: Any, image: Any, what: str) -> None:
    """`UsageError` where a list has another length than the pictures."""
    pictures = len(image) if is_many(image) else 1
    if isinstance(values, list) and len(values) != pictures:
        raise UsageError(f"{len(values)} {what} for {pictures} pictures: expected one for all, or one each")
