"""Scenes and lessons -> tensors, one batch per number: batch i is a function of the seed and i, so a run resumes anywhere.

Each picture comes with one long text (boxes, masks, printed words) and several short ones, in two fixed lengths.
"""

from __future__ import annotations

import multiprocessing as mp
import queue as queue_module
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..sequence import training_example
from ..tokenizer import Tokenizer
from .dense import DenseTargets, dense_targets
from .lessons import Lesson, Teacher
from .sprites import sprite_bank
from .train_codec import square_mask
from .world import Scene, Split, World

LONG, SHORT = 56, 32
"""Text lengths (prompt and answer together) of the two kinds of lesson."""
SHORTS_PER_PICTURE = 2


@dataclass(frozen=True)
class TextBatch:
    """`ids`, `mask_ar`, `mask_loss`: (N, length); targets of position t are ids[:, t + 1], counted where mask_loss[:, t + 1]."""

    ids: Tensor
    mask_ar: Tensor
    mask_loss: Tensor


@dataclass(frozen=True)
class Batch:
    """`pixels` (B, 3, S, S) uint8; `long` one row per picture; `short` SHORTS_PER_PICTURE rows per picture, picture by picture."""

    pixels: Tensor
    long: TextBatch
    short: TextBatch
    dense: DenseTargets


class BatchMaker:
    """Draws batches; everything heavy (sprites, backgrounds, tokenizer) is made once."""

    def __init__(self, tokenizer_path: str, codes: np.ndarray, *, size: int, bank_size: int, bank_seed: int, seed: int, grid: int):
        self.tokenizer = Tokenizer.load(tokenizer_path)
        self.world = World(Split.TRAIN, bank_size=bank_size, bank_seed=bank_seed, seed=seed)
        self.teacher = Teacher(codes)
        self.size, self.seed, self.grid = size, seed, grid

    def __call__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.seed, 0x1E55, index])
        scenes = [self.world.scene(index * self.size + i) for i in range(self.size)]
        long = [self.teacher.long(scene, rng) for scene in scenes]
        short = [self.teacher.short(scene, rng) for scene in scenes for _ in range(SHORTS_PER_PICTURE)]
        return Batch(pixels_of(scenes), self._text(long, LONG), self._text(short, SHORT), dense_targets(scenes, self.grid))

    def _text(self, lessons: list[Lesson], length: int) -> TextBatch:
        examples = [training_example(self.tokenizer, lesson.prefix, lesson.suffix, length) for lesson in lessons]

        def rows(values: list[list[int]], fill: int) -> Tensor:
            return torch.tensor([row + [fill] * (length - len(row)) for row in values])

        return TextBatch(
            rows([e.ids for e in examples], self.tokenizer.pad_id),
            rows([e.mask_ar for e in examples], 1),
            rows([e.mask_loss for e in examples], 0),
        )


def pixels_of(scenes: list[Scene]) -> Tensor:
    """(N, 3, S, S) uint8."""
    return torch.from_numpy(np.stack([scene.pixels for scene in scenes])).permute(0, 3, 1, 2).contiguous()


def bank_codes(codec, bank_size: int, seed: int) -> Tensor:
    """Mask codes of every sprite view of the bank that `World` draws from: (things, views, 16)."""
    masks = torch.from_numpy(np.stack([square_mask(s.mask) for views in sprite_bank(seed, bank_size) for s in views]))
    with torch.inference_mode():
        codes = torch.cat([codec.encode(part) for part in masks.split(512)])
    return codes.unflatten(0, (-1, bank_size))


def stream(maker_arguments: dict, start: int, *, ahead: int = 6) -> Iterator[Batch]:
    """Batches start, start + 1, ... made in a child process that stays `ahead` of the consumer."""
    context = mp.get_context("spawn")
    queue = context.Queue(ahead)
    process = context.Process(target=_produce, args=(maker_arguments, start, queue), daemon=True)
    process.start()
    try:
        while True:
            yield _from_numpy(queue.get())
    finally:
        process.terminate()


def _produce(maker_arguments: dict, start: int, queue) -> None:
    torch.set_num_threads(1)
    maker = BatchMaker(**maker_arguments)
    index = start
    parent = mp.parent_process()
    while parent is not None and parent.is_alive():
        batch = _to_numpy(maker(index))
        index += 1
        while parent.is_alive():
            try:
                queue.put(batch, timeout=5)
                break
            except queue_module.Full:
                continue


def _to_numpy(value):
    """Dataclasses of tensors -> nested dicts of arrays: plain pickling, no shared-memory handles left behind by a killed child."""
    if isinstance(value, Tensor):
        return value.numpy()
    return {"class": type(value), **{f.name: _to_numpy(getattr(value, f.name)) for f in fields(value)}}


def _from_numpy(value):
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value["class"](**{name: _from_numpy(inner) for name, inner in value.items() if name != "class"})
