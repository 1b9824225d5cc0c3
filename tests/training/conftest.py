"""A run's folder and its store, for the tests of checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from .storing import store_of


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def store(run):
    """Locked, and known to be empty."""
    store = store_of(run)
    with store.lock():
        assert store.newest() is None
        yield store
