"""A fresh environment with `paligemma[edge]` alone: no PyTorch, small, quick to start, and the demonstration is answered.

Not run by default, and the only test that needs a package index. `pytest -m slow -s tests/slow/test_edge_install.py` takes a minute or two
and prints what was measured.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 250e6
"""Bytes of everything installed, pip itself included."""
SECONDS = 2.0
"""Of processor time from the command to its answer, the bundled model's computing included. On a machine that does nothing else it is
about what a clock shows: a start is one thread's work."""
STARTS = 7


@dataclass(frozen=True)
class Installed:
    folder: Path
    packages: Path

    def run(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A program of the environment, which knows nothing of this one."""
        command = [str(self.folder / ("Scripts" if sys.platform == "win32" else "bin") / str(words[0])), *map(str, words[1:])]
        alone = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OMP_"))}
        return subprocess.run(command, capture_output=True, text=True, check=check, env=alone, cwd=self.folder)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    tree, folder = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("venv")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so", "*.pyd"))
    venv.create(folder, with_pip=True)
    packages = next(folder.rglob("site-packages"))
    found = Installed(folder, packages)
    done = found.run("pip", "install", "-q", "--no-cache-dir", "-c", ROOT / "constraints.txt", f"{tree}[edge]", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.fixture(scope="module")
def pack(installed) -> Path:
    out = installed.folder / "packed"
    print(installed.run("paligemma", "pack", "nano-112", "--out", out).stdout, end="")
    return out


def test_it_is_small_and_without_pytorch(installed):
    sizes: dict[str, int] = {}
    for file in installed.packages.rglob("*"):
        if file.is_file():
            top = file.relative_to(installed.packages).parts[0]
            sizes[top] = sizes.get(top, 0) + file.stat().st_size
    total = sum(sizes.values())
    print(f"\n{total / 1e6:.0f} MB in site-packages, the largest:")
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True)[:12]:
        print(f"  {name:<24}{sizes[name] / 1e6:6.1f} MB")
    assert total < LIMIT
    assert not [name for name in sizes if name.startswith(("torch", "nvidia"))]
    assert installed.run("python", "-c", "import torch", check=False).returncode == 1
    assert [file.name for file in (installed.packages / "paligemma" / "edge").iterdir() if file.stem.startswith("_kernels")]


def test_the_demonstration(installed, pack):
    for words in ((), ("--model", pack)):
        out = installed.run("paligemma", "demo", *words).stdout
        print(f"demo {' '.join(map(str, words))}: {out.splitlines()[-1]}")
        right, total = out.splitlines()[-1].partition(" as expected")[0].split(" of ")
        assert int(right) > 0.9 * int(total)
        assert words or right == total, "in float32 all of it is as with PyTorch"


def test_a_cold_start_is_quick(installed, pack):
    picture = installed.packages / "paligemma" / "bundled" / "demo" / "objects1.png"
    commands = {
        "--help": ("--help",),
        "detect, a pack": ("detect", picture, "owl", "--model", pack),
        "detect, the bundled checkpoint": ("detect", picture, "owl"),
        "segment, a pack": ("segment", picture, "owl", "--model", pack),
    }
    for name, words in commands.items():
        clock, processor = [], []
        for _ in range(STARTS):
            start, before = time.perf_counter(), os.times()
            installed.run("paligemma", *words)
            after = os.times()
            clock.append(time.perf_counter() - start)
            processor.append(after.children_user + after.children_system - before.children_user - before.children_system)
        medians = statistics.median(processor), statistics.median(clock)
        by_clock = f"{medians[1]:.2f} s ({min(clock):.2f} to {max(clock):.2f}) by the clock"
        print(f"{name:<34} median {medians[0]:.2f} s of processor time, {by_clock}")
        assert medians[0] < SECONDS
