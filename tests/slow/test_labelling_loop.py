"""The example that walks the labelling loop runs from end to end. `pytest -m slow tests/slow/test_labelling_loop.py`: a minute or two."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "labelling_loop.py"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_it_runs(tmp_path: Path):
    out = tmp_path / "loop"
    done = subprocess.run([sys.executable, EXAMPLE, "--out", out, "--quick"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    points = json.loads((out / "corrections.json").read_text())["points"]
    assert {(point["way"], point["corrected"]) for point in points} == {(way, n) for way in ("by doubt", "at random") for n in (8, 12)}
    assert all(0 <= point["ap"] <= 1 for point in points)
    assert Image.open(out / "corrections.png").width > 500
    chosen = [set((out / "lots-1" / name / "1" / "coco" / "images").iterdir()) for name in ("by-doubt", "at-random")]
    assert [len(names) for names in chosen] == [4, 4]
