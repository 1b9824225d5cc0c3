"""The list of attacks is whole, and each of its tests is there."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.server import attacks
from tests.server.attacks import ATTACKS

TESTS = Path(__file__).resolve().parents[1]


@functools.cache
def functions(file: str) -> dict[str, str]:
    """Tests of a file by name, with their decorators."""
    path = TESTS / file
    if not path.is_file():
        return {}
    source = path.read_text()
    return {
        node.name: "".join(ast.get_source_segment(source, one) or "" for one in node.decorator_list)
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def exists(test: str) -> bool:
    """`test`: file::function, or file::function[case] where the case is spelt in its decorator. One that is skipped is none,
    unless it is by another operating system."""
    found = re.fullmatch(r"([\w/]+\.py)::(\w+)(?:\[(\w+)\])?", test)
    if not found or found[2] not in functions(found[1]):
        return False
    decorators = functions(found[1])[found[2]]
    return not re.search(r"mark\.(skip(?!if\(sys\.platform)|slow)", decorators) and (found[3] is None or f'"{found[3]}"' in decorators)


def test_every_row_is_there():
    assert list(ATTACKS) == [f"S{number}" for number in range(1, 36)]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_row_has_tests_that_are_there(name: str):
    attack = ATTACKS[name]
    assert attack.tests
    assert not [test for test in attack.tests if not exists(test)]


@pytest.mark.parametrize(
    "test",
    [
        "server/test_gate.py::test_nothing_of_the_kind", "server/test_moon.py::test_size_of_headers", "test_gate.py::test_no_key_no_entry",
        "server/test_campaigns.py::test_nothing_is_found[C99]", "server/test_campaigns.py::test_nothing_is_found_in_minutes",
        "server/test_gate.py", "",
    ],
)  # fmt: skip
def test_a_test_that_is_not_there_is_missed(test: str):
    assert not exists(test)


def test_what_is_held_in_part_is_said_in_the_documentation():
    """By the same names."""
    text = (TESTS.parent / "docs" / "reliability.md").read_text()
    told = re.search(r"Held in part: ([^:]*?)\.\n", text)
    assert told
    assert re.findall(r"S\d+", told[1]) == [name for name, attack in ATTACKS.items() if attack.but]


def test_the_list_is_printed(capsys):
    attacks.main()
    printed = capsys.readouterr().out
    assert all(test in printed for attack in ATTACKS.values() for test in attack.tests)
