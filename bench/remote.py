"""An engine in a process of its own, spoken to in JSON lines: see `bench.worker`."""

from __future__ import annotations

import sys
from pathlib import Path

from paligemma.benchmark.remote import Remote as Process


class Remote(Process):
    """`kind`: of `worker.ENGINES`."""

    def __init__(self, kind: str, folder: Path):
        command = [sys.executable, "-m", "bench.worker", kind, str(folder)]
        super().__init__(command, kind, {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
        self.kind = kind
        self.name: str = self.read()["name"]
