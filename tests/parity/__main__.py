"""`python -m tests.parity`: run the comparisons with the original and with transformers, and print how large the differences were."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

from .differences import SEEN


def table() -> str:
    """Markdown, one row per test, its cases taken together."""
    rows: dict[str, list[tuple[float, float, float]]] = {}
    for test, seen in SEEN.items():
        rows.setdefault(test.split("[")[0].removeprefix("tests/parity/"), []).append(seen)
    lines = ["| test | cases | largest difference | bound | largest number compared |", "|---|---|---|---|---|"]
    for name, cases in rows.items():
        difference, bound, size = (max(case[part] for case in cases) for part in range(3))
        lines.append(f"| `{name}` | {len(cases)} | {difference:.1e} | {bound:.1e} | {size:.3g} |")
    return "\n".join(lines)


if __name__ == "__main__":
    code = pytest.main(["-q", "-p", "no:xdist", str(Path(__file__).parent)])
    print(f"\ntorch {importlib.metadata.version('torch')}, transformers {importlib.metadata.version('transformers')}\n")
    print(table())
    sys.exit(code)
