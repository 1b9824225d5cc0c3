"""The records that are shown: some evenly drawn, and those with something odd, each as a batch of a run holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from ..data.batch import Batch, Batches, Row, RowReader, fault_of
from ..drawing import data_url
from ..errors import InputError
from ..evaluation.predict import open_pictures
from ..image import Clip
from ..sequence import Part, parts
from .drawn import draw
from .items import Item

SIDE = 520
"""Longest side, in pixels, of a picture in the page."""
MOST_TOKENS = 400
"""More of one text are counted, not shown."""


@dataclass(frozen=True)
class Token:
    """`piece` as the vocabulary writes it; the masks as the batch has them: `causal`: it sees only what came before it and is seen only by
    what comes after, else all picture and prompt tokens see each other; `counted`: the loss counts it."""

    piece: str
    part: Part
    causal: bool
    counted: bool


@dataclass(frozen=True)
class Sample:
    """`why`: what is odd about it. `picture`: a data URL; `tokens`: the first `MOST_TOKENS` of `length`, which `padding` more follow;
    `image_tokens` come before them. `mask_ar`: of all that is no padding. `problem`: why there is no text."""

    number: int
    id: str
    where: str
    task: str
    why: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""
    tokens: tuple[Token, ...] = ()
    length: int = 0
    padding: int = 0
    image_tokens: int = 0
    mask_ar: tuple[int, ...] = ()
    truncated: bool = False
    answers: int = 1
    names_are_drawn: bool = False
    picture: str = ""
    caption: str = ""
    problem: str = ""


def show(items: Sequence[Item], why: Mapping[int, Sequence[str]], reader: RowReader, batches: Batches) -> list[Sample]:
    """A sample of each. `why`: number of an item -> what is odd about it. `batches` pads their rows as those of one batch."""
    rows: list[Row | str] = []
    for item in items:
        try:
            rows.append(reader(item.record, item.classes, item.rng()))
        except ValueError as error:
            rows.append(fault_of(item.record, error).detail)
    whole = {index: row for index, row in enumerate(rows) if isinstance(row, Row)}
    places: dict[int, tuple[Batch, int]] = {}
    for frames in {len(row.pixels) for row in whole.values()}:  # one batch holds prompts of as many pictures
        chosen = [index for index, row in whole.items() if len(row.pixels) == frames]
        batch = batches.collate([whole[index] for index in chosen])
        places |= {index: (batch, line) for line, index in enumerate(chosen)}
    return [
        _sample(item, why.get(item.number, ()), reader, whole.get(index), places.get(index), rows[index])
        for index, item in enumerate(items)
    ]


def _sample(
    item: Item, why: Sequence[str], reader: RowReader, row: Row | None, place: tuple[Batch, int] | None, failed: Row | str
) -> Sample:
    record = item.record
    common = {"number": item.number, "id": record.id, "where": record.where, "task": record.task, "why": tuple(why)}
    if row is None or place is None:
        picture, caption = _picture(item, "", reader)
        return Sample(**common, problem=str(failed), picture=picture, caption=caption)
    batch, line = place
    ids, valid = batch.ids[line].tolist(), batch.valid[line].tolist()
    causal, counted = batch.mask_ar[line].tolist(), batch.mask_loss[line].tolist()
    length, kinds = sum(valid), parts(row.example)
    prefix, suffix = (
        reader.tokenizer.decode([id for id, part in zip(ids, kinds, strict=False) if part == kind]) for kind in ("prefix", "suffix")
    )
    tokens = tuple(
        Token(_piece(reader, ids[place]), kinds[place], bool(causal[place]), bool(counted[place]))
        for place in range(min(length, MOST_TOKENS))
    )
    picture, caption = _picture(item, suffix if record.task != "describe_box" else prefix, reader)
    return Sample(
        **common,
        prefix=prefix,
        suffix=suffix,
        tokens=tokens,
        length=length,
        padding=len(ids) - length,
        image_tokens=reader.config.vision.num_tokens * len(row.pixels),
        mask_ar=tuple(causal[:length]),
        truncated=row.example.truncated,
        answers=len(set(record.answers)),
        names_are_drawn=item.names_are_drawn,
        picture=picture,
        caption=caption,
    )


def _piece(reader: RowReader, id: int) -> str:
    return reader.tokenizer.piece(id).replace("▁", "␣").replace("\n", "⏎")


def _picture(item: Item, text: str, reader: RowReader) -> tuple[str, str]:
    """A data URL, and what it shows."""
    record = item.record
    try:
        opened = open_pictures(record.pictures, reader.frames)
    except InputError as error:
        return "", error.message
    first, several = (opened.frames[0], len(opened.frames)) if isinstance(opened, Clip) else (opened, 1)
    told = f"{first.width} x {first.height} pixels" + (f", the first of {several} pictures" if several > 1 else "")
    try:
        drawn, count = draw(first, record, item.classes, text, reader.codec)
    except ValueError as error:
        return data_url(_large_enough(first), SIDE), f"{told}; {error}"
    if count:
        told += f"; {count} {'thing' if count == 1 else 'things'} as the tokens say"
    return data_url(drawn if count else _large_enough(first), SIDE), told


def _large_enough(picture: Image.Image) -> Image.Image:
    """A very small picture is enlarged in whole steps, so that its pixels stay visible."""
    scale = max(1, SIDE // 2 // max(picture.size))
    return picture if scale == 1 else picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
