"""What the journal says of a part: which items, by a digest of their ids, and what its files must be to count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

RESULTS, ERRORS = "results", "errors"
KINDS = (RESULTS, ERRORS)
"""Of rows, each with a file of its own."""


@dataclass(frozen=True)
class File:
    """What a file must be to count."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Part:
    """The items from place `start` to `stop` of the source, without `stop`. `ids`: a digest of their ids; `failed`: items of which nothing
    came; `cut`: answers that were cut short; `codes`: how often what failed."""

    start: int
    stop: int
    ids: str
    results: File
    errors: File
    rows: int = 0
    failed: int = 0
    cut: int = 0
    codes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_line(cls, line: bytes) -> Part:
        """Raises `ValueError`, `TypeError` or `KeyError` for what is none."""
        data = json.loads(line)
        return cls(**{**data, RESULTS: File(**data[RESULTS]), ERRORS: File(**data[ERRORS])})

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


class Ids:
    """A digest over ids, one after the other."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, id: str) -> None:
        data = id.encode()
        self._digest.update(len(data).to_bytes(8, "big") + data)

    def __str__(self) -> str:
        return self._digest.hexdigest()[:32]
