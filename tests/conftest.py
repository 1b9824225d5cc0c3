"""For every test: no network, one thread per process (they run side by side), the same property examples every time and no clock."""

import os

# Before anything imports torch or huggingface_hub, which read these once.
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("paligemma", deadline=None, derandomize=True)
settings.load_profile("paligemma")
