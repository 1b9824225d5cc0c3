"""docs/pitfalls.md: thirty rows, each with a test that exists or a reason."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = [
    line.split("|")[1:4] for line in (ROOT / "docs" / "pitfalls.md").read_text(encoding="utf-8").splitlines() if re.match(r"\| \d", line)
]


def test_there_is_a_row_for_each_of_the_thirty():
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 31))


def test_every_row_names_a_test_or_gives_a_reason():
    for number, _, proof in ROWS:
        assert "::test_" in proof or len(proof.split()) >= 6, f"row {number} has neither"


def test_every_test_named_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", "".join(proof for _, _, proof in ROWS))
    assert len(named) > 30
    missing = []
    for path, name in named:
        file = ROOT / path
        if not file.exists() or f"\ndef {name}(" not in file.read_text(encoding="utf-8"):
            missing.append(f"{path}::{name}")
    assert not missing
