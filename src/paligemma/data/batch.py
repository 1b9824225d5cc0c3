"""Places of a mixture -> tensors for training, decoded and resized ahead of time; the same place gives the same row, always.

A picture that cannot be opened in the middle of a run is put in quarantine, and its place is taken by another record of its source: the
draw depends on the seed and the place only, and the quarantine is part of the run's state, so a resumed run sees the same rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..config import PaliGemmaConfig
from ..errors import InputError, ResourceError
from ..image import open_image, to_pixels
from ..model.mask_codec import MaskCodec
from ..sequence import Example, pad, training_example
from ..tokenizer import Tokenizer
from ..video import EXTENSIONS as VIDEO_EXTENSIONS
from ..video import sample_frames
from .augment import Augment
from .lessons import Codes, Lesson, lesson
from .mixture import Mixture
from .records import Fault, Record

TRIES = 32
"""Records drawn for one place before it is given up: a data set of which almost nothing can be opened."""
AHEAD = 4
"""Batches that are made ahead of time."""
SECONDS = 300.0
"""What one record may take before the run ends and says which it was."""


@dataclass(frozen=True)
class Batch:
    """`pixels` (B, 3, S, S), or (B, F, 3, S, S) of several pictures a prompt, float32 in [-1, 1]; the rest is (B, T).

    Targets of position t are ids[:, t + 1], counted where mask_loss[:, t + 1] is 1; `valid` marks what is no padding.
    """

    pixels: Tensor
    ids: Tensor
    mask_ar: Tensor
    mask_loss: Tensor
    valid: Tensor
    records: tuple[str, ...]
    truncated: int
    """Rows whose answer was cut to fit."""

    def to(self, device: torch.device | str) -> Batch:
        tensors = {name: getattr(self, name).to(device, non_blocking=True) for name in ("pixels", "ids", "mask_ar", "mask_loss", "valid")}
        return Batch(**tensors, records=self.records, truncated=self.truncated)

    def rows(self, start: int, stop: int) -> Batch:
        """A part of it."""
        tensors = {name: getattr(self, name)[start:stop] for name in ("pixels", "ids", "mask_ar", "mask_loss", "valid")}
        return Batch(**tensors, records=self.records[start:stop], truncated=self.truncated)


@dataclass(frozen=True)
class Row:
    """One example before it is batched. `pixels` (F, 3, S, S)."""

    pixels: np.ndarray
    example: Example
    record: str


class Reader(Protocol):
    """A record and a generator -> a row. Raises `InputError` for a picture that cannot be used, `ValueError` for such an outline."""

    def __call__(self, record: Record, classes: Sequence[str], rng: np.random.Generator | None) -> Row: ...


@dataclass
class RowReader:
    """Opens the pictures, writes the lesson, makes ids of it."""

    tokenizer: Tokenizer
    config: PaliGemmaConfig
    text_len: int
    codec: MaskCodec | None = None
    frames: int = 16
    augment: Augment = field(default_factory=Augment)

    def __call__(self, record: Record, classes: Sequence[str], rng: np.random.Generator | None) -> Row:
        pictures = []
        for path in record.pictures:
            if path.suffix.lower() in VIDEO_EXTENSIONS:
                pictures += sample_frames(path, self.frames)
            else:
                pictures.append(open_image(path))
        if self.augment and rng is not None and len(pictures) == 1:
            pictures[0], record = self.augment(pictures[0], record, rng)
        text = self.lesson(record, pictures[0].size, classes, rng)
        example = training_example(self.tokenizer, text.prefix, text.suffix, self.text_len)
        vision = self.config.vision
        pixels = np.stack([to_pixels(picture, vision.image_size, self.config.resize) for picture in pictures])
        return Row(pixels, example, record.id)

    def lesson(self, record: Record, size: tuple[int, int], classes: Sequence[str], rng: np.random.Generator | None) -> Lesson:
        return lesson(record, size, classes=classes, codes=self.codes, rng=rng)

    @property
    def codes(self) -> Codes | None:
        return None if self.codec is None else mask_codes(self.codec)


def mask_codes(codec: MaskCodec) -> Codes:
    """The codec's encoder, as lessons want it."""

    def codes(mask: np.ndarray) -> tuple[int, ...]:
        with torch.inference_mode():
            return tuple(codec.encode(torch.tensor(mask)[None])[0].tolist())

    return codes


def fault_of(record: Record, error: ValueError) -> Fault:
    """Why a `Reader` gave no row of a record, as the quarantine has it. `error`: what it raised."""
    path = record.pictures[0]
    code = "outline"
    if isinstance(error, InputError):
        code = "too_long" if error.code == "context_length_exceeded" else "picture" if path.exists() else "missing"
    return Fault(record.where, code, str(error), record.id, str(path))


class Batches:
    """Batches of a mixture, made `ahead` of time by threads (decoding and resizing leave the interpreter free).

    Quarantined ids (`quarantine`, in the order they came in) are never opened; `on_fault` hears of each new one.
    """

    def __init__(
        self,
        mixture: Mixture,
        read: Reader,
        *,
        pad_id: int,
        seed: int = 0,
        length: int | None = None,
        threads: int = 2,
        ahead: int = AHEAD,
        quarantine: Sequence[str] = (),
        on_fault: Callable[[Fault], None] = lambda fault: None,
    ):
        self.mixture, self.read, self.pad_id, self.seed, self.length = mixture, read, pad_id, seed, length
        self.threads, self.ahead = threads, ahead
        self.quarantine: dict[str, None] = dict.fromkeys(quarantine)
        self.on_fault = on_fault

    def stream(self, start: int, size: int, count: int, *, offset: int = 0, stride: int | None = None) -> Generator[Batch, None, None]:
        """`count` batches of `size` rows from place `start` on. Of several processes each takes its part of a larger stride."""
        stride = size if stride is None else stride
        places = [range(start + i * stride + offset, start + i * stride + offset + size) for i in range(count)]
        with ThreadPoolExecutor(self.threads, "rows") as pool:
            waiting: list = []
            coming = iter(places)
            try:
                for batch in itertools.islice(coming, self.ahead):
                    waiting.append([(place, pool.submit(self._try, place, 0)) for place in batch])
                while waiting:
                    rows = [self._settled(place, result) for place, result in waiting.pop(0)]
                    for batch in itertools.islice(coming, 1):
                        waiting.append([(place, pool.submit(self._try, place, 0)) for place in batch])
                    yield self.collate(rows)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _record(self, place: int, attempt: int) -> tuple[Record, Sequence[str], np.random.Generator]:
        drawn = self.mixture.draw(place)
        source = self.mixture.sources[drawn.source]
        rng = np.random.default_rng([self.seed, 0x20E, place, attempt])
        number = drawn.record if attempt == 0 else int(rng.integers(len(source)))
        return source.records[number], source.classes, rng

    def _try(self, place: int, attempt: int) -> Row | Fault:
        """The row of a place, or why there is none. Runs in a thread, so it tells nobody else."""
        record, classes, rng = self._record(place, attempt)
        if record.id in self.quarantine:
            return Fault(record.where, "missing", "is in quarantine", record.id)
        try:
            return self.read(record, classes, rng)
        except ValueError as error:
            return fault_of(record, error)

    def _settled(self, place: int, result) -> Row:
        """The row of a place; where it cannot be had, that of another record. Faults are taken in order of places, whoever came first."""
        try:
            row = result.result(timeout=SECONDS)
        except TooSlow:
            record, _, _ = self._record(place, 0)
            raise ResourceError(
                f"reading record {record.id} ({record.where}) took more than {SECONDS:.0f} seconds",
                hint="look at its picture, or at the disk it lies on",
                code="reader_hangs",
            ) from None
        attempt = 0
        while not isinstance(row, Row):
            if row.id not in self.quarantine:
                self.quarantine[row.id] = None
                self.on_fault(row)
            attempt += 1
            if attempt == TRIES:
                raise InputError(
                    f"{TRIES} records in a row cannot be used; the last: {row}",
                    hint="see the run's quarantine.jsonl",
                    code="no_usable_records",
                )
            row = self._try(place, attempt)
        return row

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows made equally long on the right; to `length`, where it is given."""
        examples = [row.example for row in rows]
        length = self.length or 0
        ids = torch.tensor(pad([e.ids for e in examples], self.pad_id, length))
        frames = {len(row.pixels) for row in rows}
        if len(frames) > 1:
            raise InputError(
                f"the prompts of one batch have {min(frames)} to {max(frames)} pictures",
                hint="keep such records in separate runs",
                code="frames",
            )
        pixels = torch.from_numpy(np.stack([row.pixels for row in rows]))
        return Batch(
            pixels[:, 0] if frames == {1} else pixels,
            ids,
            torch.tensor(pad([e.mask_ar for e in examples], 1, length)),
            torch.tensor(pad([e.mask_loss for e in examples], 0, length)),
            torch.tensor(pad([[1] * len(e.ids) for e in examples], 0, length)).bool(),
            tuple(row.record for row in rows),
            sum(e.truncated for e in examples),
        )
