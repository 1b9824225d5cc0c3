"""Scenes and lessons -> tensors, one batch per number: batch i is a function of the seed and i, so a run resumes anywhere.

Each picture comes with one long text (boxes, masks, printed words) and several short ones, in two fixed lengths.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import queue
import signal
from collections.abc import Callable, Generator
from dataclasses import dataclass, fields
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import PaliGemmaError
from ..model.mask_codec import MaskCodec
from ..sequence import pad, training_example
from ..tokenizer import Tokenizer
from .dense import DenseTargets, dense_targets
from .lessons import Lesson, Mix, Teacher
from .pointing import Mention, PointTargets, point_targets
from .sprites import sprite_bank
from .train_codec import sprite_masks
from .world import SIZE, Scene, Split, World

LONG, SHORT = 56, 24
"""Text lengths (prompt and answer together) of the two kinds of lesson."""
SHORTS_PER_PICTURE = 2


@dataclass(frozen=True)
class TextBatch:
    """`ids`, `mask_ar`, `mask_loss`: (N, length); targets of position t are ids[:, t + 1], counted where mask_loss[:, t + 1].

    `points`: what the names in the prompts stand for.
    """

    ids: Tensor
    mask_ar: Tensor
    mask_loss: Tensor
    points: PointTargets


@dataclass(frozen=True)
class Batch:
    """`pixels` (B, 3, S, S) uint8; `long` one row per picture; `short` SHORTS_PER_PICTURE rows per picture, picture by picture."""

    pixels: Tensor
    long: TextBatch
    short: TextBatch
    dense: DenseTargets


class Making(TypedDict):
    """What a `BatchMaker` is made of; plain values, so that a child process can make one."""

    tokenizer_path: str
    codes: np.ndarray
    """Mask codes of the bank: see `bank_codes`."""
    size: int
    """Pictures in a batch."""
    bank_size: int
    bank_seed: int
    backgrounds: int
    seed: int
    text_share: float
    mix: Mix
    grid: int
    """Patches along a side of the picture."""
    side: int
    """Of the picture, in pixels."""


class BatchMaker:
    """Draws batches; everything heavy (sprites, backgrounds, tokenizer) is made once."""

    def __init__(self, making: Making):
        self.making = making
        self.tokenizer = Tokenizer.load(making["tokenizer_path"])
        self.world = World(
            Split.TRAIN,
            bank_size=making["bank_size"],
            bank_seed=making["bank_seed"],
            backgrounds=making["backgrounds"],
            seed=making["seed"],
            text_share=making["text_share"],
            side=making["side"],
        )
        self.teacher = Teacher(making["codes"], making["mix"])

    def __call__(self, index: int) -> Batch:
        size = self.making["size"]
        rng = np.random.default_rng([self.making["seed"], 0x1E55, index])
        scenes = [self.world.scene(index * size + i) for i in range(size)]
        long = [self.teacher.long(scene, rng) for scene in scenes]
        short = [self.teacher.short(scene, rng) for scene in scenes for _ in range(SHORTS_PER_PICTURE)]
        return Batch(pixels_of(scenes), self._text(long, LONG), self._text(short, SHORT), dense_targets(scenes, self.making["grid"]))

    def _text(self, lessons: list[Lesson], length: int) -> TextBatch:
        examples = [training_example(self.tokenizer, lesson.prefix, lesson.suffix, length) for lesson in lessons]
        assert not any(example.truncated for example in examples), f"a lesson is longer than {length} tokens"
        return TextBatch(
            torch.tensor(pad([e.ids for e in examples], self.tokenizer.pad_id, length)),
            torch.tensor(pad([e.mask_ar for e in examples], 1, length)),
            torch.tensor(pad([e.mask_loss for e in examples], 0, length)),
            point_targets([self._places(lesson) for lesson in lessons], length),
        )

    def _places(self, lesson: Lesson) -> list[tuple[int, Mention]]:
        """Each mention and the position of its last token; the prompt's first is the start token."""
        return [(len(self.tokenizer.encode(lesson.prefix[: mention.end])), mention) for mention in lesson.mentions]


def pixels_of(scenes: list[Scene]) -> Tensor:
    """(N, 3, S, S) uint8."""
    return torch.from_numpy(np.stack([scene.pixels for scene in scenes])).permute(0, 3, 1, 2).contiguous()


def bank_codes(codec: MaskCodec, bank_size: int, seed: int, side: int = SIZE) -> np.ndarray:
    """Mask codes of every sprite view of the bank that `World` draws from for pictures of `side`: (things, views, 16)."""
    with torch.inference_mode():
        codes = torch.cat([codec.encode(part) for part in sprite_masks(sprite_bank(seed, bank_size, side / SIZE)).split(512)])
    return codes.unflatten(0, (-1, bank_size)).numpy()


AHEAD = 6
"""Batches made before they are asked for."""
PATIENCE = 1.0
"""Seconds between looks at whether the other process is still there."""


M = TypeVar("M")
B = TypeVar("B")


def stream(making: Making, start: int) -> Generator[Batch, None, None]:
    """Batches start, start + 1, ... of a `BatchMaker`: see `stream_of`."""
    return stream_of(BatchMaker, making, start)


def stream_of(maker: Callable[[M], Callable[[int], B]], making: M, start: int) -> Generator[B, None, None]:
    """What `maker(making)` makes of start, start + 1, ... in a child process, which ends when the generator is closed or this process ends.

    Batches are dataclasses of tensors or of such dataclasses. Raises `PaliGemmaError` when the child ends by itself (what went wrong in it
    is on stderr).
    """
    context = mp.get_context("spawn")
    made = context.Queue(AHEAD)
    child = context.Process(target=_produce, args=(maker, making, start, made), daemon=True)
    child.start()
    try:
        while True:
            yield _from_numpy(_next(made, child))
    finally:
        child.terminate()
        child.join()


def _next(made: Queue[Any], child: BaseProcess) -> Any:
    while True:
        alive = child.is_alive()
        try:
            return made.get(timeout=PATIENCE)
        except queue.Empty:
            if not alive:
                reason = f"the process that draws training batches ended with code {child.exitcode}"
                raise PaliGemmaError(reason, hint="run again to continue from the last saved state", code="no_batches") from None


def _produce(make: Callable[[M], Callable[[int], Any]], making: M, start: int, made: Queue[Any]) -> None:
    _stand_back()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair: it ends, and so does this process
    made.cancel_join_thread()  # else this process would wait for ever to hand over batches that nobody takes
    torch.set_num_threads(1)
    maker = make(making)
    parent = mp.parent_process()
    index = start
    while parent is not None and parent.is_alive():
        batch = _to_numpy(maker(index))
        index += 1
        while parent.is_alive():
            try:
                made.put(batch, timeout=PATIENCE)
                break
            except queue.Full:
                continue


def _stand_back() -> None:
    """Run only where a processor is free: a training step waits for its slowest thread, so one that is held up holds up the step."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    elif hasattr(os, "nice"):
        os.nice(19)


def _to_numpy(value: Any) -> Any:
    """Dataclasses of tensors -> nested dicts of arrays: plain pickling, no shared-memory handles left behind by a killed child."""
    if isinstance(value, Tensor):
        return value.numpy()
    return {"class": type(value), **{f.name: _to_numpy(getattr(value, f.name)) for f in fields(value)}}


def _from_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value["class"](**{name: _from_numpy(inner) for name, inner in value.items() if name != "class"})
