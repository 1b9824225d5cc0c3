"""For every test: no network, one thread per process (they run side by side), the same property examples every time and no clock."""

import os

# Before anything imports torch or huggingface_hub, which read these once.
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

settings.register_profile("paligemma", deadline=None, derandomize=True)
settings.load_profile("paligemma")


@pytest.fixture
def shut(monkeypatch):
    """To call with a folder: from then on the disk does not say what is in it. (Permissions mean nothing to root.)"""
    closed, scandir = set(), os.scandir

    def refusing(path="."):
        if not isinstance(path, int) and os.fspath(path) in closed:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    return lambda folder: closed.add(str(folder))
