"""Every test gets a cache folder of its own, so that no checked file is remembered from one test to the next."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PALIGEMMA_CACHE", str(folder))
    return folder
