"""`paligemma train` itself as a trainer: its command line on a tiny model, on the trial's disk, and the trial told of every step.

Every path from words to weights is the real one. Put in its place are the calls to the file system (the trial's), and the fingerprint of
the code, since somebody may be at work on it while campaigns run. `tests.training.campaigns.real:train WORDS` adds words to the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.cli import evaluation, failures, main, training  # noqa: F401 - imported once here, not in every forked trial
from paligemma.config import PaliGemmaConfig, TextConfig, VisionConfig
from paligemma.data import jsonl, opening  # noqa: F401
from paligemma.training import export, loop
from paligemma.training import run as runs
from paligemma.training.disk import Disk
from paligemma.training.facts import machine_facts
from paligemma.training.recipes import Recipe, to_text
from paligemma.training.saved import Saved
from paligemma.training.store import Store
from tests.tiny import TOKENIZER_VOCAB, random_codec, random_model, tiny_tokenizer

from .trial import Watch

STEPS, EVERY, EXAMPLES, SIDE = 15, 3, 10, 28
CONFIG = PaliGemmaConfig(
    VisionConfig(width=8, depth=1, mlp_dim=12, heads=2, image_size=SIDE),
    TextConfig(width=8, depth=2, mlp_dim=12, heads=2, kv_heads=1, head_dim=4, vocab_size=TOKENIZER_VOCAB),
    version=1,
    name="campaign",
)
RECIPE = Recipe(
    name="campaign", steps=STEPS, batch=3, text_len=24, max_tokens=8, dropout=0.1, label_smoothing=0.1, lora_dropout=0.1, lora_rank=2,
    learning_rate=0.03, weight_decay=1e-4, schedule="constant", warmup=0.2, seed=1,
)  # fmt: skip
"""Everything that is left to chance is in use; at this rate the best step is not the last."""


def train(run: Path, disk: Disk, watch: Watch, *words: str) -> int:
    """Begin or continue the run; its exit code. `threads=2` among the words is torch's number of threads, which is no option."""
    given = materials(run.parent.parent / "materials")
    options = [word for word in words if not word.startswith("threads=")]
    torch.set_num_threads(next((int(word.partition("=")[2]) for word in words if word not in options), 1))
    if "--seed" not in options:
        options += ["--seed", str(RECIPE.seed)]
    if "--data" not in options:
        options += ["--data", str(given / "data"), "--colour", "0.2", "--jpeg", "0.5"]
    command = ["train", "--model", given / "model", "--recipe", given / "recipe.toml", "--out", run]
    command += ["--save-every", EVERY, "--evaluate-every", EVERY]
    with in_place(disk, watch):
        return main([*map(str, command), *options])


def train_other(run: Path, disk: Disk, watch: Watch, *words: str) -> int:
    """Another run of the same shape."""
    return train(run, disk, watch, "--seed", str(RECIPE.seed + 1), *words)


@contextlib.contextmanager
def in_place(disk: Disk, watch: Watch) -> Iterator[None]:
    """While the block lasts, the trainer writes on this disk and tells this watch."""

    class Telling(Store):
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **options, disk=disk)

        def save(self, step: int, *arguments: Any, **options: Any) -> Path | None:
            saved = super().save(step, *arguments, **options)
            if saved is not None:
                watch.saved(step)
            return saved

        def mark_best(self, step: int) -> bool:
            done = super().mark_best(step)
            if done:
                watch.best(step)
            return done

    real_step, restore = loop.train_step, loop.Loop._restore

    def step(objective: Any, optimizer: Any, batch: Any, *, step: int, **options: Any) -> Any:
        outcome = real_step(objective, optimizer, batch, step=step, **options)
        tensors = {"model": loop.trained_tensors(objective), "optimizer": optimizer.state_tensors()}
        watch.step(step + 1, outcome.loss, batch.records, tensors)
        return outcome

    def restored(self: loop.Loop, saved: Saved, allow_inexact: bool) -> None:
        restore(self, saved, allow_inexact)
        watch.resumed(saved.step)

    def facts(device: str = "cpu") -> dict[str, str]:
        return {name: fact for name, fact in machine_facts(device).items() if name != "version.code"}

    def exporting(*arguments: Any, **options: Any) -> Path:
        with watch.exporting():
            return export.export(*arguments, **options)

    with contextlib.ExitStack() as stack:
        for place, name, instead in (
            (runs, "Store", Telling), (runs, "Disk", lambda: disk), (loop, "Disk", lambda: disk), (runs, "machine_facts", facts),
            (loop, "train_step", step), (loop.Loop, "_restore", restored), (runs, "export", exporting),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(place, name, instead))
        yield


def materials(folder: Path) -> Path:
    """A tiny model, pictures that are dark or light with a split to choose by, and the recipe; made once."""
    if folder.exists():
        return folder
    making = folder.with_name(f"{folder.name}-{os.getpid()}")
    save_huggingface(random_model(CONFIG, seed=2), making / "model")
    tiny_tokenizer().save(making / "model")
    save_codec(random_codec(width=8, codebook_dim=4), making / "model" / "mask_codec.safetensors")
    (making / "data").mkdir()
    for split, count in (("train", EXAMPLES), ("valid", 4)):
        rows = []
        for i in range(count):
            name = f"{split}{i}.png"
            Image.fromarray(np.full((SIDE, SIDE, 3), 255 * i // count, np.uint8)).save(making / "data" / name)
            rows.append({"image": name, "prefix": "caption en", "suffix": ["a cat", "two cats"] if 2 * i < count else "dog"})
        (making / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (making / "recipe.toml").write_text(to_text(RECIPE))
    try:
        making.rename(folder)
    except OSError:  # somebody else was first
        shutil.rmtree(making)
    return folder
