"""C22: each guard of the server is taken out of a copy of its code, one at a time, and the test that is there for it must fail.

python -m tests.server.campaigns C22 --tier release --journal guards.jsonl      all of them; broken off, it goes on where it was
python -m tests.server.campaigns.guards "Host header"                           one, with what the test says

The guards themselves are listed in `guarded.py`.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
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

    def test(self, *tests: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": paths, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "pytest", *LEAN, *(f"tests/{test}" for test in tests)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS * (1 + len(tests)))


def points(tier: str, rng: random.Random) -> list[str]:
    """Names; other ones with another seed, where not all."""
    return rng.sample(list(GUARDS), SIZES.get(tier, len(GUARDS)))


@contextmanager
def stage() -> Iterator[Copy]:
    with tempfile.TemporaryDirectory(prefix="paligemma-guards-") as folder:
        copy = Copy(Path(folder))
        shutil.copytree(SOURCE, copy.package)
        yield copy


def check(stage: Copy, name: str, rng: random.Random) -> None:
    guard = GUARDS[name]
    with stage.without(guard):
        done = stage.test(guard.test)
    missed = done.returncode == FAILED and "\nFAILED tests/" in done.stdout
    assert missed, f"{guard.test} does not miss it (pytest ends with {done.returncode})\n{done.stdout[-1000:]}{done.stderr[-1000:]}"
    if guard.test not in stage.passing:
        whole = stage.test(guard.test)
        assert whole.returncode == 0, f"{guard.test} fails with the guard too\n{whole.stdout[-1000:]}"
        stage.passing.add(guard.test)


def main(name: str) -> int:
    guard = GUARDS[name]
    with stage() as copy, copy.without(guard):
        done = copy.test(guard.test)
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
