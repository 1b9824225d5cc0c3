"""`python -m tests.server.screenshots`: pictures of the page in the README and docs, made by the test that asks the bundled model there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
TEST = "tests/server/test_page.py::test_the_bundled_model_answers"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PALIGEMMA_SCREENSHOTS": folder, "PALIGEMMA_BROWSER": "required"}
        subprocess.run([sys.executable, "-m", "pytest", "-n", "0", TEST], env=environment, check=True)
        for taken, kept in {"nano-detect": "page", "nano-why": "page-why"}.items():
            Image.open(Path(folder) / f"{taken}.png").convert("RGB").save(PICTURES / f"{kept}.jpg", quality=88)


if __name__ == "__main__":
    main()
