"""The page's modules in Node: a script is given a value and returns one, both as JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

APP = Path(__file__).resolve().parents[2] / "src" / "paligemma" / "web" / "page" / "app"

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node (nodejs), to run the page's modules without a browser")


class Node:
    """`folder`: an empty one."""

    def __init__(self, folder: Path):
        shutil.copytree(APP, folder / "app")
        (folder / "app" / "package.json").write_text('{"type": "module"}')
        self.folder = folder

    def __call__(self, script: str, value: Any) -> Any:
        """`script`: statements of a module, which know `value` and the modules below ./app, and put what they find into `result`."""
        program = (
            "import { readFileSync, writeFileSync } from 'node:fs';\n"
            f"{script.partition('---')[0]}\n"
            "const value = JSON.parse(readFileSync('in.json', 'utf8'));\nlet result;\n"
            f"{script.partition('---')[2]}\n"
            "writeFileSync('out.json', JSON.stringify(result));\n"
        )
        (self.folder / "run.mjs").write_text(program, encoding="utf-8")
        (self.folder / "in.json").write_text(json.dumps(value), encoding="utf-8")
        done = subprocess.run(["node", "run.mjs"], cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads((self.folder / "out.json").read_text(encoding="utf-8"))
