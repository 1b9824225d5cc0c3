"""The tools that labels are for read them, by their own code, each in an environment of its own: their pins are not ours.

`pytest -m slow tests/slow/test_annotation_tools.py` needs a package index and takes some minutes: FiftyOne alone is a gigabyte.
"""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

import pytest
from PIL import Image

from paligemma.cli import main
from paligemma.nano.scenes import write_scenes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LOADERS = Path(__file__).parents[1] / "labelling" / "loaders.py"
SIZES = [(302, 293), (97, 211), (112, 112), (640, 481)]
FORMS = ("labelstudio", "cvat", "fiftyone")


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    """Pictures of several sizes and names, labelled with boxes and with masks."""
    root = tmp_path_factory.mktemp("labels")
    write_scenes(root / "scenes", count=12, seed=0, split="test")
    (root / "album" / "holiday").mkdir(parents=True)
    for number, path in enumerate(sorted((root / "scenes").glob("*.png"))):
        picture = Image.open(path).resize(SIZES[number % 4])
        picture.save(root / "album" / (f"Käse & <{number}>.png" if number % 3 == 2 else f"holiday/a {number}.jpg"), quality=95)
    for kind, more, forms in (("boxes", (), FORMS), ("masks", ("--masks",), FORMS[:2])):
        for form in forms:
            words = ["label", str(root / "album"), "--classes", "owl;fish;heart;cat;horse", "--to", form, "--out", str(root / kind), *more]
            assert main(words) == 0
    return root


@pytest.mark.parametrize(
    ("tool", "package", "kinds"),
    [
        ("labelstudio", "label-studio-sdk", ("boxes", "masks")),
        ("datumaro", "datumaro", ("boxes", "masks")),
        ("cvat", "cvat-sdk[masks]", ("masks",)),
        ("fiftyone", "fiftyone", ("boxes",)),
    ],
)
def test_it_reads_what_was_said(labels, tool, package, kinds, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    alone |= {"HOME": str(tmp_path), "FIFTYONE_DO_NOT_TRACK": "1"}
    done = subprocess.run([python, "-m", "pip", "install", "-q", package], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr[-3000:]
    done = subprocess.run([python, LOADERS, tool, *(labels / kind for kind in kinds)], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    assert done.stdout.count("as they were said") == len(kinds)
    assert " 0 things" not in done.stdout
