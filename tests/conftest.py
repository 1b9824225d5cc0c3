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
    """To call with a folder: from then on the disk does not say what is in it. (Permissions mean nothing to root.) `late`: it can be
    opened, and fails when it is read."""
    closed, scandir = {}, os.scandir

    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    def refusing(path="."):
        name = None if isinstance(path, int) else os.fspath(path)
        if name not in closed:
            return scandir(path)
        if not closed[name]:
            refused(name)
        return Listing(name)

    class Listing:
        def __init__(self, path):
            self.path = path

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def __iter__(self):
            return self

        def __next__(self):
            refused(self.path)

    monkeypatch.setattr(os, "scandir", refusing)
    return lambda folder, late=False: closed.update({str(folder): late})
