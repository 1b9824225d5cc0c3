"""Items -> rows, in two steps that may be done by two processes: a picture is opened once, and encoded once for all that is asked of it.

opened = open_item(item, config, order)              Pillow and numpy: the square that the model sees, its original's size
done = answer(predictor, order, [opened, ...])       one pass of the image tower; then each task as one batch
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..config import PaliGemmaConfig
from ..errors import InputError
from ..image import Clip, as_floats, squeeze
from ..predictor import CutShort, EncodedImage, Predictor
from ..predictor.asking import How, batches, read_how
from ..predictor.pictures import Prepared, encode, prepare
from ..predictor.reading import Search
from ..results import Detections, Reading, Result
from ..video import frames_every
from .asked import Asked
from .items import Item
from .rows import Row
from .tiles import Tile, merge_boxes, merge_readings, tiles
from .videos import Scene, Scenes, Tracks, groups

if TYPE_CHECKING:
    from PIL import Image


MOST_FRAMES = 8
"""Frames of a video that is followed, that are in memory at a time, or a batch where that is more."""


@dataclass(frozen=True)
class Order:
    """What is asked of every picture. `how`: options of all tasks (see `predictor.How`); `places`: besides, of those that answer in places.
    `draw`: whether results are drawn too. `tiles`: large pictures are searched and read in parts besides (see `tiles`).
    `every`: videos are followed, a frame every so many seconds (see `videos`); None: a video is one clip. Raises `UsageError` for options
    that no picture can be asked with."""

    tasks: tuple[Asked, ...]
    how: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, Any] = field(default_factory=dict)
    draw: bool = False
    tiles: bool = False
    every: float | None = None

    def __post_init__(self) -> None:
        read_how(cast(How, self.how), max_tokens=1)
        Search(**self.places)

    def follows(self, item: Item) -> bool:
        """Whether it is a video that is followed: it may take as long as a thousand pictures."""
        return self.every is not None and item.video is not None


@dataclass(frozen=True)
class Opened:
    """An item that was opened: `pixels` (F, S, S, 3) uint8, of F frames, and the size of its original; or why it cannot be.

    `tiles`: of a large picture, with the pixels (1, S, S, 3) of each. `picture`: the original, only where results are drawn. A video that
    is followed has nothing of it: its frames are read while they are asked about.
    """

    item: Item
    pixels: np.ndarray | None = None
    width: int = 0
    height: int = 0
    tiles: tuple[tuple[Tile, np.ndarray], ...] = ()
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


def open_item(item: Item, config: PaliGemmaConfig, order: Order) -> Opened:
    """Never raises `InputError`: it becomes the item's."""
    if order.follows(item):
        return Opened(item)
    try:
        found = item.open()
    except InputError as error:
        return Opened(item, error=error)
    frames = found.frames if isinstance(found, Clip) else (found,)
    first, side = frames[0], config.vision.image_size

    def seen(*pictures: Image.Image) -> np.ndarray:
        return np.stack([squeeze(picture, side, config.resize) for picture in pictures])

    parts = tiles(first.width, first.height, side) if order.tiles and len(frames) == 1 else []
    cut = tuple((tile, seen(first.crop(tile.box))) for tile in parts)
    return Opened(item, seen(*frames), first.width, first.height, cut, first if order.draw else None)


def answer(predictor: Predictor, order: Order, opened: Sequence[Opened]) -> list[Done]:
    """All tasks about all of them, in batches of as many as they are. Raises what the predictor raises for an order that it cannot fill at
    all (`UsageError`: masks without a codec); what is wrong with one picture becomes an error of that picture."""
    good = [one for one in opened if one.pixels is not None]
    answers: list[list[Result | InputError]] = [[] for _ in order.tasks]
    if good:
        seen = encode(predictor.network, [_prepared(cast(np.ndarray, one.pixels), one.width, one.height, one.picture) for one in good])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutShort)  # counted instead
            answers = [_ask(predictor, task, seen, order, len(opened)) for task in order.tasks]
            for place, one in enumerate(good):
                if one.tiles:
                    _look_closer(predictor, order, one, place, answers)
    each = iter(zip(*answers, strict=True))
    return [
        _follow(predictor, order, one.item, len(opened))
        if one.error is None and one.pixels is None
        else _done(one, order, () if one.error else next(each))
        for one in opened
    ]


def _prepared(pixels: np.ndarray, width: int, height: int, picture: Image.Image | None = None) -> Prepared:
    return Prepared(np.stack([as_floats(frame) for frame in pixels]), width, height, picture)


def _ask(predictor: Predictor, task: Asked, seen: Sequence[EncodedImage], order: Order, batch: int | None) -> list[Result | InputError]:
    """All in batches of that size; where that is refused, each picture by itself, so that only the one at fault fails."""
    how = {**order.how, **(order.places if task.in_places else {}), "batch_size": batch}
    try:
        return [*task.ask(predictor, seen, **how)]
    except InputError as error:
        if len(seen) == 1:
            return [error]
    return [one for picture in seen for one in _ask(predictor, task, [picture], order, batch)]


def _look_closer(predictor: Predictor, order: Order, one: Opened, place: int, answers: list[list[Result | InputError]]) -> None:
    """What its tiles say goes into the answers of the picture at that place. They are encoded once, in batches of their own. Where one
    fails, the answer does: half a picture is not the picture."""
    places = [tile for tile, _ in one.tiles]
    prepared = [_prepared(pixels, tile.x1 - tile.x0, tile.y1 - tile.y0) for tile, pixels in one.tiles]
    groups = batches([predictor.config.vision.num_tokens] * len(prepared), None)
    seen = [made for group in groups for made in encode(predictor.network, prepared[group.start : group.stop])]
    for task, found in zip(order.tasks, answers, strict=True):
        whole = found[place]
        if not isinstance(whole, Detections | Reading):
            continue
        parts = _ask(predictor, task, seen, order, None)
        failed = next((part for part in parts if isinstance(part, InputError)), None)
        if failed is not None:
            found[place] = failed
        elif isinstance(whole, Detections):
            boxes = [(tile, part) for tile, part in zip(places, parts, strict=True) if isinstance(part, Detections)]
            found[place] = merge_boxes(whole, boxes, order.places.get("max_objects"))
        else:
            lines = [(tile, part) for tile, part in zip(places, parts, strict=True) if isinstance(part, Reading)]
            found[place] = merge_readings(whole, lines)


def _follow(predictor: Predictor, order: Order, item: Item, batch: int) -> Done:
    """A video, a few frames at a time: rows task by task, in the order of time. Of one that breaks off, those of what came before, and
    an error."""
    assert item.video is not None and order.every is not None, "only videos are followed"  # noqa: PT018
    rows: dict[Asked, list[Row]] = {task: [] for task in order.tasks}
    tracks = {task: Tracks(order.every) for task in order.tasks if task.verb == "detect"}
    scenes: Scenes[Any] = Scenes(order.every)
    broken: tuple[Row, ...] = ()

    def tell(scene: Scene[Any] | None) -> None:
        others = [task for task in order.tasks if task not in tracks]
        if scene is None or not others:
            return
        seen = encode(predictor.network, [scene.middle])
        for task in others:
            (result,) = _ask(predictor, task, seen, order, 1)
            rows[task].append(_row(item, task, result, seconds=scene.start, until=scene.stop))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutShort)
        try:
            for group in groups(frames_every(item.video, order.every), max(batch, MOST_FRAMES)):
                seen: Sequence[Any] = [replace(prepare(predictor.config, picture), picture=None) for _, picture in group]
                if tracks:
                    seen = encode(predictor.network, seen)
                for task, numbers in tracks.items():
                    for (seconds, _), result in zip(group, _ask(predictor, task, seen, order, len(group)), strict=True):
                        found = numbers.add(result, seconds) if isinstance(result, Detections) else None
                        rows[task].append(_row(item, task, result, seconds=seconds, tracks=found))
                for (seconds, picture), one in zip(group, seen, strict=True):
                    tell(scenes.add(seconds, picture, one))
        except InputError as error:
            broken = (Row(item.id, item.where, None, item.kept, error=error),)
        tell(scenes.end())
    every = [*(row for of_task in rows.values() for row in of_task), *broken]
    good = tuple(row.to_dict() for row in every if row.error is None)
    cut = sum(getattr(row.result, "stop", "eos") == "length" for row in every)
    return Done(item.id, good, tuple(row.to_dict() for row in every if row.error is not None), cut=cut)


def _row(item: Item, task: Asked, result: Result | InputError, **when: Any) -> Row:
    if isinstance(result, InputError):
        return Row(item.id, item.where, str(task), item.kept, error=result, seconds=when["seconds"])
    return Row(item.id, item.where, str(task), item.kept, result, **when)


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
