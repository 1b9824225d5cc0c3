"""Items -> rows, in two steps that may be done by two processes: a picture is opened once, and encoded once for all that is asked of it.

opened = work.open(item)                     Pillow and numpy: the square that the model sees, its original's size
done = work.answer([opened, ...])            one pass of the image tower; then each task as one batch
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import PaliGemmaConfig
from ..errors import InputError
from ..image import Clip, as_floats, squeeze
from ..results import Result
from .asked import Asked
from .items import Item
from .rows import Row

if TYPE_CHECKING:
    from PIL import Image

    from ..predictor import Predictor


@dataclass(frozen=True)
class Order:
    """What is asked of every picture. `how`: options of all tasks (see `predictor.How`); `places`: besides, of those that answer in places.
    `draw`: whether results are drawn too."""

    tasks: tuple[Asked, ...]
    how: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, Any] = field(default_factory=dict)
    draw: bool = False


@dataclass(frozen=True)
class Opened:
    """An item that was opened: `pixels` (F, S, S, 3) uint8, of F frames, and the size of its original; or why it cannot be.

    `picture`: the original, only where results are drawn.
    """

    item: Item
    pixels: np.ndarray | None = None
    width: int = 0
    height: int = 0
    picture: Image.Image | None = None
    error: InputError | None = None


@dataclass(frozen=True)
class Done:
    """What came of an item, as plain values: rows of both kinds, a drawing (PNG) by task, how many answers were cut short."""

    id: str
    rows: tuple[dict[str, Any], ...]
    errors: tuple[dict[str, Any], ...]
    drawings: tuple[tuple[str, bytes], ...] = ()
    cut: int = 0


def open_item(item: Item, config: PaliGemmaConfig, *, keep: bool) -> Opened:
    """`keep`: the original too. Never raises `InputError`: it becomes the item's."""
    try:
        found = item.open()
        frames = found.frames if isinstance(found, Clip) else (found,)
        pixels = np.stack([squeeze(frame, config.vision.image_size, config.resize) for frame in frames])
    except InputError as error:
        return Opened(item, error=error)
    return Opened(item, pixels, frames[0].width, frames[0].height, frames[0] if keep else None)


def answer(predictor: Predictor, order: Order, opened: Sequence[Opened]) -> list[Done]:
    """All tasks about all of them, in batches of as many as they are. Raises what the predictor raises for an order that it cannot fill at
    all (`UsageError`: masks without a codec); what is wrong with one picture becomes an error of that picture."""
    from ..predictor import CutShort
    from ..predictor.pictures import Prepared, encode

    good = [one for one in opened if one.pixels is not None]
    answers: list[list[Result | InputError]] = []
    if good:
        prepared = [Prepared(np.stack([as_floats(frame) for frame in _pixels(one)]), one.width, one.height, one.picture) for one in good]
        seen = encode(predictor.network, prepared)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutShort)  # counted instead
            answers = [_ask(predictor, task, seen, order) for task in order.tasks]
    each = iter(zip(*answers, strict=True))
    return [_done(one, order, () if one.error else next(each)) for one in opened]


def _pixels(one: Opened) -> np.ndarray:
    assert one.pixels is not None, "only what was opened is asked about"
    return one.pixels


def _ask(predictor: Predictor, task: Asked, seen: Sequence[Any], order: Order) -> list[Result | InputError]:
    """A batch; where it is refused, each picture by itself, so that only the one at fault fails."""
    how = {**order.how, **(order.places if task.in_places else {})}
    try:
        return [*task.ask(predictor, seen, batch_size=len(seen), **how)]
    except InputError as error:
        if len(seen) == 1:
            return [error]
    return [one for picture in seen for one in _ask(predictor, task, [picture], order)]


def _done(one: Opened, order: Order, answers: Sequence[Result | InputError]) -> Done:
    item = one.item
    if one.error is not None:
        return Done(item.id, (), (Row(item.id, item.where, None, item.kept, error=one.error).to_dict(),))
    rows, errors, drawings, cut = [], [], [], 0
    for task, result in zip(order.tasks, answers, strict=True):
        if isinstance(result, InputError):
            errors.append(Row(item.id, item.where, str(task), item.kept, error=result).to_dict())
            continue
        rows.append(Row(item.id, item.where, str(task), item.kept, result).to_dict())
        cut += getattr(result, "stop", "eos") == "length"
        if order.draw:
            drawings.append((str(task), _png(result.draw(one.picture))))
    return Done(item.id, tuple(rows), tuple(errors), tuple(drawings), cut)


def _png(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.save(written, "png")
    return written.getvalue()
