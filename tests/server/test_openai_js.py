"""OpenAI's JavaScript client, unchanged, in Node: it streams a caption and gets boxes from a completion.

Needs Node and the npm package openai; `.ci/browser` fetches the package. Where one is missing the test is skipped, unless
PALIGEMMA_BROWSER=required, as in CI.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from tests.server import axe
from tests.server.conftest import DEMO
from tests.server.test_openai import turn

VERSION = "6.49.0"
"""Of the npm package; from 7 on it asks for Node 22."""
MODULES = axe.CACHE / "node_modules"
SCRIPT = """
const OpenAI = require("openai");
const { baseURL, caption, boxes } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
(async () => {
  const pieces = [];
  const stream = await client.chat.completions.create({ model: "nano-112", messages: [caption], stream: true });
  for await (const chunk of stream) pieces.push(chunk.choices[0].delta.content ?? "");
  const { choices } = await client.chat.completions.create({ model: "nano-112", messages: [boxes] });
  console.log(JSON.stringify({ pieces, boxes: choices[0].message.paligemma.boxes }));
})();
"""


def lacking() -> str | None:
    if shutil.which("node") is None:
        return "Node (nodejs)"
    return None if (MODULES / "openai" / "package.json").is_file() else f"the npm package openai in {MODULES}"


def test_a_caption_is_streamed_and_boxes_come_with_a_completion(nano, predictor):
    if (what := lacking()) is not None:
        assert os.environ.get("PALIGEMMA_BROWSER") != "required", f"{what} is missing"
        pytest.skip(f"needs {what} (.ci/browser fetches it)")
    asked = {"baseURL": f"http://127.0.0.1:{nano.port}/v1", "caption": turn("caption en"), "boxes": turn("detect owl ; fish")}
    environment = os.environ | {"NODE_PATH": str(MODULES)}
    done = subprocess.run(["node", "-e", SCRIPT], input=json.dumps(asked), capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert "".join(said["pieces"]) == predictor.caption(DEMO / "objects1.png").text
    assert len(said["pieces"]) > 4
    expected = predictor.detect(DEMO / "objects1.png", ["owl", "fish"])
    assert [(box["label"], box["x0"], box["y1"]) for box in said["boxes"]] == [(box.label, box.x0, box.y1) for box in expected]
