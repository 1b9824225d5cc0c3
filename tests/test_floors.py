"""Imports go in one direction, by the floor list in docs/architecture.md; importing the light modules stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "paligemma"
HEAVY = ("torch", "transformers", "supervision", "cv2", "av", "scipy", "matplotlib")


def floors() -> dict[str, int]:
    """Top-level module of the package -> how high it stands."""
    listed = re.search(r"^```\nfloor list\n(.*?)^```", (ROOT / "docs" / "architecture.md").read_text(), re.S | re.M)
    assert listed, "docs/architecture.md has no floor list"
    lines = listed[1].splitlines()
    return {module: height for height, line in enumerate(reversed(lines)) for module in line.split()[1:]}


def top_level_modules() -> set[str]:
    found = {path.stem for path in SOURCE.glob("*.py")} | {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    return found - {"__init__", "__main__"}


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level module of this package) of every import in the file, also those inside functions and `if TYPE_CHECKING`."""
    package = ["paligemma", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == "paligemma" and len(name) > 1:
                yield node.lineno, name[1]


def test_every_module_has_a_floor():
    assert top_level_modules() <= floors().keys(), "a module is missing from the floor list in docs/architecture.md"


def test_every_floor_is_inhabited():
    assert floors().keys() <= top_level_modules(), "docs/architecture.md lists a module that is not there"


def test_imports_go_down():
    height = floors()
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if here in ("__init__", "__main__"):
            continue
        for line, there in imports(path):
            if there in height and there != here and height[there] >= height[here]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} must not import {there}")
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_every_kind_of_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    folder = tmp_path / "tasks"
    folder.mkdir()
    file = folder / "x.py"
    file.write_text(
        "from ..a import x\nfrom .. import b\nimport paligemma.c.d\nfrom .own import y\ndef f():\n    from paligemma import e\nimport os\n"
    )
    assert [name for _, name in imports(file)] == ["a", "b", "c", "tasks", "e"]


@pytest.mark.parametrize("module", ["paligemma", "paligemma.tasks", "paligemma.results", "paligemma.sources", "paligemma.cli"])
def test_importing_is_light(module: str):
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
