"""How much memory a process took: its own, not that of the one that started it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from paligemma.checkpoint.memory import peak_memory


def test_what_was_let_go_still_counts():
    held = np.ones(200_000_000, np.uint8)
    assert peak_memory() >= held.nbytes
    with_it = peak_memory()
    del held
    assert peak_memory() >= 0.99 * with_it  # Linux counts in steps


def test_a_new_process_begins_with_nothing():
    held = np.ones(200_000_000, np.uint8)
    code = "from paligemma.checkpoint.memory import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < held.nbytes
