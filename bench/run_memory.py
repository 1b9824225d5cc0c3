"""What `paligemma train` really takes, held beside the plan it prints: `python -m bench.run_memory`.

Each run is a process of its own, whose peak memory is counted from after the imports; its plan is read from the run's memory.json. The
bundled model, and a medium one of random weights (50 million parameters), with pictures drawn for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from paligemma.checkpoint.memory import peak_memory

from .plans import MEDIUM

STEPS = 2
RUNS = (
    ("bundled", "full", 32, ""),
    ("bundled", "full", 32, "--micro 8"),
    ("bundled", "lora", 32, ""),
    ("medium", "full", 4, ""),
    ("medium", "full", 4, "--recompute"),
    ("medium", "freeze-vision", 4, ""),
)
"""Model, strategy, batch, further options."""


def main(only: str) -> None:
    from paligemma.checkpoint.memory import GB

    print("| model | strategy | batch | options | planned, GB | besides, GB | taken, GB | share of the plan |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        models = {"bundled": "bundled", "medium": str(_medium(Path(scratch) / "medium"))}
        data = _data(Path(scratch) / "data")
        for number, (model, strategy, batch, options) in enumerate(run for run in RUNS if only in run[0]):
            out = Path(scratch) / f"run-{number}"
            words = [
                "train", "--model", models[model], "--data", str(data), "--out", str(out), "--strategy", strategy,
                "--batch", str(batch), "--steps", str(STEPS), *options.split(),
            ]  # fmt: skip
            worker = [sys.executable, "-m", "bench.run_memory", "--worker", json.dumps(words)]
            done = subprocess.run(worker, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            plan = json.loads((out / "memory.json").read_text())
            total, besides, taken = plan["planned"]["total"], plan["besides"], int(done.stdout.splitlines()[-1])
            share = f"{100 * taken / (total + besides):.0f} %"
            print(
                f"| {model} | {strategy} | {batch} | {options} | {total / GB:.2f} | {besides / GB:.2f} | {taken / GB:.2f} | {share} |",
                flush=True,
            )


def _medium(folder: Path) -> Path:
    """With the bundled model's tokenizer."""
    import torch

    from paligemma.checkpoint import save_huggingface
    from paligemma.model.paligemma import PaliGemma
    from paligemma.predictor.loading import find
    from paligemma.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(find("bundled"))
    torch.manual_seed(0)
    config = dataclasses.replace(MEDIUM, text=dataclasses.replace(MEDIUM.text, vocab_size=tokenizer.vocab_size))
    save_huggingface(PaliGemma(config), folder)
    tokenizer.save(folder)
    return folder


def _data(folder: Path) -> Path:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    rows = []
    for i in range(8):
        Image.fromarray(np.full((64, 64, 3), 30 * i, np.uint8)).save(folder / f"{i}.png")
        rows.append(json.dumps({"image": f"{i}.png", "prefix": "caption en", "suffix": "a cat " * 60}))
    (folder / "annotations.jsonl").write_text("\n".join(rows))
    return folder / "annotations.jsonl"


def worker(words: list[str]) -> int:
    """Bytes that a run took in this process, beyond what it began with."""
    import torch

    import paligemma.training.memory_plan
    import paligemma.training.run  # noqa: F401
    from paligemma.cli import main as door

    torch.mm(torch.ones(600, 600), torch.ones(600, 600))  # wakes what products need
    before = peak_memory()
    assert door(words) == 0
    return peak_memory() - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("bundled", "medium"), default="")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(worker(json.loads(options.worker)))
    else:
        main(options.only)
