"""Small JSON files that show any change to them: they end with the SHA-256 of the rest and have one spelling only."""

from __future__ import annotations

import hashlib
import json
from typing import Any

SEAL = "sha256_of_the_rest"


def seal(value: dict[str, Any]) -> bytes:
    """Raises `ValueError` for numbers that JSON does not have (NaN, infinity), `TypeError` for what is no JSON."""
    return _spelling(value | {SEAL: hashlib.sha256(_spelling(value)).hexdigest()})


def is_sealed(value: dict[str, Any]) -> bool:
    """Whether it holds a checksum, right or wrong."""
    return SEAL in value


def unseal(data: bytes) -> dict[str, Any]:
    """What was sealed. Raises `ValueError` when a single bit of `data` is not as it was written."""
    value = json.loads(data)
    if not isinstance(value, dict) or SEAL not in value:
        raise ValueError("it was not written to its end")
    rest = {key: item for key, item in value.items() if key != SEAL}
    if seal(rest) != data:
        raise ValueError("its checksum is wrong")
    return rest


def _spelling(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True, allow_nan=False) + "\n").encode()
