"""The list of guards that C22 takes out is whole and true: each stands in the code, and each test is there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.campaigns.guarded import GUARDS, Guard
from tests.server.campaigns.guards import SOURCE
from tests.server.test_attacks import exists

REFUSING = ("_refuse", "abort")
"""Functions that end what they are called in, as `raise` does."""


@pytest.mark.parametrize("name", GUARDS)
def test_it_stands_there_once_and_its_test_is_there(name: str):
    guard = GUARDS[name]
    source = (SOURCE / guard.file).read_text()
    without = guard.taken_out(source)
    assert without != source
    compile(without, guard.file, "exec")
    assert exists(guard.test), guard.test


def refusals(path: Path) -> Iterator[int]:
    """Lines of conditions under which something is refused."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and any(map(_refuses, node.body)):
            yield node.lineno


def _refuses(statement: ast.stmt) -> bool:
    called = statement.value.func if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) else None
    return isinstance(statement, ast.Raise) or getattr(called, "id", getattr(called, "attr", "")) in REFUSING


def covered(file: str) -> set[int]:
    """Lines that the list takes out or changes."""
    source = (SOURCE / file).read_text()
    lines = set()
    for guard in GUARDS.values():
        if guard.file == file:
            first = source[: source.index(guard.text)].count("\n") + 1
            lines |= set(range(first, first + guard.text.count("\n") + 1))
    return lines


@pytest.mark.parametrize("file", ["download.py", *sorted(f"server/{path.name}" for path in (SOURCE / "server").glob("*.py"))])
def test_every_condition_that_refuses_something_is_in_the_list(file: str):
    text = (SOURCE / file).read_text().splitlines()
    assert not [f"{line}: {text[line - 1].strip()}" for line in refusals(SOURCE / file) if line not in covered(file)]


def test_a_guard_that_has_gone_is_missed():
    with pytest.raises(ValueError, match="expected once, found 0 times"):
        Guard("server/gate.py", "if moon:", "").taken_out("if sun:")
