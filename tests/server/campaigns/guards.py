"""C22: each guard of the server is taken out of a copy of its code, one at a time, and the test that is there for it must fail.

python -m tests.server.campaigns C22 --tier release --journal guards.jsonl      all of them; broken off, it goes on where it was
python -m tests.server.campaigns.guards "Host header"                           one, with what the test says

The guards themselves are listed in `guarded.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .guarded import GUARDS, Guard

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "src" / "paligemma"
NAME = "C22"
TITLE = "guards taken out"
SIZES = {"push": 2, "ci": 8}
FAILED = 1
"""Exit code of pytest where tests failed; another one says that they could not be run."""
SECONDS = 120
"""For one test. Without its guard it may wait for what does not come."""
LEAN = ("-x", "--no-header", "--tb=short", "-p", "no:cacheprovider", "-p", "pytest_timeout", f"--timeout={SECONDS}")
"""Options of pytest: nothing is loaded or kept that one test does not need."""
SHARED = ("pytest", "fastapi", "uvicorn", "h11", "hypothesis", "numpy", "PIL.Image", "torch")
"""Imported once, in a process that every test is a fork of. Nothing of ours is among them."""


@dataclass(frozen=True)
class Copy:
    """The package, in a folder of its own: the code that is tested here stays whole whatever happens."""

    folder: Path
    passing: set[str] = field(default_factory=set)
    """Tests that pass while nothing is taken out."""

    @property
    def package(self) -> Path:
        return self.folder / "paligemma"

    @contextmanager
    def without(self, guard: Guard) -> Iterator[None]:
        self._write(guard.file, guard.taken_out((SOURCE / guard.file).read_text()))
        try:
            yield
        finally:
            self._write(guard.file, (SOURCE / guard.file).read_text())

    def _write(self, file: str, text: str) -> None:
        path = self.package / file
        path.write_text(text)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):  # known by size and second, which may be the same
            compiled.unlink()

    def test(self, test: str) -> tuple[int, str]:
        """pytest's exit code and what it says."""
        said = self.folder / "said.txt"
        run = PROCESSES.Process(target=_test, args=(str(self.folder), str(said), test))
        run.start()
        run.join(3 * SECONDS)
        run.kill()
        run.join()
        return run.exitcode or 0, said.read_text()


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([*SHARED])


def _test(folder: str, said: str, test: str) -> None:
    """In a process of its own: the test, against the package in this folder."""
    import pytest

    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    os.chdir(ROOT)
    sys.path.insert(0, folder)
    paths = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    os.environ |= {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
    code = pytest.main([*LEAN, f"tests/{test}"])
    sys.stdout.flush()
    os._exit(code)  # not waiting for what a test without its guard may have left


def points(tier: str, rng: random.Random) -> list[str]:
    """Names; other ones with another seed, where not all."""
    return rng.sample(list(GUARDS), SIZES.get(tier, len(GUARDS)))


@contextmanager
def stage() -> Iterator[Copy]:
    with tempfile.TemporaryDirectory(prefix="paligemma-guards-") as folder:
        copy = Copy(Path(folder))
        shutil.copytree(SOURCE, copy.package)
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by what is imported once
        yield copy


def check(stage: Copy, name: str, rng: random.Random) -> None:
    guard = GUARDS[name]
    with stage.without(guard):
        code, said = stage.test(guard.test)
    missed = code == FAILED and "\nFAILED tests/" in said
    assert missed, f"{guard.test} does not miss it (pytest ends with {code})\n{said[-1000:]}"
    if guard.test not in stage.passing:
        code, said = stage.test(guard.test)
        assert code == 0, f"{guard.test} fails with the guard too\n{said[-1000:]}"
        stage.passing.add(guard.test)


def main(name: str) -> int:
    guard = GUARDS[name]
    with stage() as copy, copy.without(guard):
        code, said = copy.test(guard.test)
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
