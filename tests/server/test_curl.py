"""Lines of the documents that call curl: against the real server they do what they say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.server.conftest import DEMO

ROOT = Path(__file__).resolve().parents[2]
SAID = {
    "/v1/caption": "caption de",
    "/v1/detect": "detect cat ; dog",
    "/v1/describe-box": "caption <loc",
}


def lines() -> list[str]:
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/serving.md")]
    return [line.strip() for text in texts for line in text.splitlines() if re.match(r"    .*curl localhost:8000/", line)]


def test_there_are_some():
    assert len(lines()) > 4


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("line", lines())
def test_it_asks_what_it_says(nano, line, tmp_path):
    shutil.copy(DEMO / "objects1.png", tmp_path / "photo.jpg")
    command = re.sub(r"curl localhost:8000", f"curl -sS localhost:{nano.port}", line).replace("10,20,110,220", "10,20,100,110")
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    path = re.search(r"localhost:8000(\S+)", line)[1]
    if path == "/v1/models":
        assert [one["id"] for one in answer["data"]] == ["nano-112"]
    else:
        assert answer["result"]["prompt"].startswith(SAID[path]), answer
