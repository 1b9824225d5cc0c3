"""What the tasks return: frozen values that print, convert to JSON, COCO and `supervision`, and draw themselves.

All coordinates are pixels of the original picture, x to the right and y down, as floats; (0, 0) is its top left corner.
Labels and texts come from a model and are untrusted: everything here that shows them escapes them.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from . import drawing
from .errors import InputError, UsageError
from .mask_formats import Polygon, compress, decompress, from_run_lengths, polygons, run_lengths
from .printable import printable

if TYPE_CHECKING:
    from PIL import Image

NOTEBOOK_SIDE = 800
"""Longest side, in pixels, of a picture in a notebook."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """Base of every answer. `picture` is the original picture where it is still at hand; it takes no part in ==, repr or JSON."""

    picture: Image.Image | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `"type"` is the class name in lower case."""
        raise TypeError(f"{type(self).__name__} is not a result by itself")

    def to_json(self) -> str:
        """One line of JSON. Non-ASCII text stays readable."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def draw(self, image: Image.Image | None = None) -> Image.Image:
        """A new RGB picture with this result on it. Small pictures are enlarged first, so that the writing stays readable.

        `image` is the original picture; without it the one the result carries is used. Raises `UsageError` if there is neither, or if
        the size is not the one the result was made for.
        """
        image = self.picture if image is None else image
        if image is None:
            raise UsageError("there is no picture to draw on: this result does not carry its own", hint="call draw(image)")
        return self._draw(image)

    def _draw(self, image: Image.Image) -> Image.Image:
        raise TypeError(f"{type(self).__name__} is not a result by itself")

    def _thumbnail(self, kind: str) -> bytes:
        picture = self.draw()
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        written = io.BytesIO()
        picture.save(written, kind)
        return written.getvalue()

    def _repr_png_(self) -> bytes | None:
        return None if self.picture is None else self._thumbnail("png")

    def _repr_html_(self) -> str:
        text = f'<pre style="white-space: pre-wrap">{html.escape(str(self))}</pre>'
        if self.picture is None:
            return text
        # JPEG, because a notebook file keeps every picture as text.
        data = base64.b64encode(self._thumbnail("jpeg")).decode()
        return f'<img src="data:image/jpeg;base64,{data}" alt="{html.escape(type(self).__name__)}"/>{text}'


@dataclass(frozen=True)
class Text(Result):
    """An answer in words. `score`: probability of the text by the model, or None; `stop`: "eos", "length" (cut off) or "grammar"."""

    text: str
    score: float | None = None
    prompt: str = ""
    stop: str = "eos"

    def __str__(self) -> str:
        return printable(self.text, keep="\n\t")

    def to_dict(self) -> dict[str, Any]:
        return {"type": _type_name(self), "text": self.text, "score": self.score, "prompt": self.prompt, "stop": self.stop}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises `InputError` on a missing field."""
        return cls(_get(data, "text"), data.get("score"), data.get("prompt", ""), data.get("stop", "eos"))

    def _draw(self, image: Image.Image) -> Image.Image:
        return drawing.draw_text(image, self.text, title=self.prompt, note=_percent(self.score))


class Caption(Text):
    """What the picture shows."""


class Answer(Text):
    """The answer to a question."""


class Question(Text):
    """A question that has the given answer."""


class Reading(Text):
    """The text that is printed in the picture."""


@dataclass(frozen=True)
class Box:
    """A labelled rectangle: left x0, top y0, right x1, bottom y1, in pixels of the original picture. `score`: probability or None."""

    label: str
    x0: float
    y0: float
    x1: float
    y1: float
    score: float | None = None

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0

    @property
    def area(self) -> float:
        """Square pixels; 0 for a box that is inside out."""
        return max(self.width, 0.0) * max(self.height, 0.0)

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom)."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """(left, top, width, height), as COCO has it."""
        return self.x0, self.y0, self.width, self.height

    def iou(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        common = max(width, 0.0) * max(height, 0.0)
        union = self.area + other.area - common
        return common / union if union else 0.0

    def __str__(self) -> str:
        place = f"x {self.x0:.0f}-{self.x1:.0f}, y {self.y0:.0f}-{self.y1:.0f}"
        return f"{printable(self.label) or '(no label)'}  {place}{'' if self.score is None else '  ' + _percent(self.score)}"

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises `InputError` on a missing field."""
        x0, y0, x1, y1 = (_get(data, key) for key in ("x0", "y0", "x1", "y1"))
        return cls(_get(data, "label"), x0, y0, x1, y1, data.get("score"))


@dataclass(frozen=True, eq=False)
class Mask:
    """One object: its `box`, and which pixels of the original picture it covers: `mask`, boolean (H, W), read-only.

    `codes` are the 16 mask tokens (0..127) it was decoded from, row by row, or None.
    """

    label: str
    box: Box
    mask: np.ndarray = field(repr=False)
    score: float | None = None
    codes: tuple[int, ...] | None = None

    def __post_init__(self):
        mask = np.asarray(self.mask, bool).view()
        mask.setflags(write=False)
        object.__setattr__(self, "mask", mask)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self._values() == other._values() and np.array_equal(self.mask, other.mask)

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self):
        return self.label, self.box, self.score, self.codes, self.mask.shape

    @property
    def area(self) -> int:
        """Covered pixels."""
        return int(self.mask.sum())

    @property
    def rle(self) -> dict[str, Any]:
        """COCO run lengths, compressed: {"size": [H, W], "counts": str}. `pycocotools.mask` takes it as it is."""
        return {"size": list(self.mask.shape), "counts": compress(run_lengths(self.mask))}

    @property
    def polygon(self) -> tuple[Polygon, ...]:
        """One ring of (x, y) corners for each connected part, along the edges of pixels: exact. A hole is joined to its ring by a cut."""
        return polygons(self.mask)

    def __str__(self) -> str:
        score = "" if self.score is None else "  " + _percent(self.score)
        return f"{dataclasses.replace(self.box, label=self.label, score=None)}, {self.area} pixels{score}"

    def to_dict(self) -> dict[str, Any]:
        codes = None if self.codes is None else list(self.codes)
        return {"label": self.label, "box": self.box.to_dict(), "rle": self.rle, "score": self.score, "codes": codes}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises `InputError` on a missing field or a broken mask."""
        rle, codes = _get(data, "rle"), data.get("codes")
        try:
            height, width = map(int, _get(rle, "size"))
            mask = from_run_lengths(decompress(_get(rle, "counts")), height, width)
        except (TypeError, ValueError) as error:
            raise InputError(f"a mask of the result is broken: {error}") from error
        return cls(_get(data, "label"), Box.from_dict(_get(data, "box")), mask, data.get("score"), None if codes is None else tuple(codes))


class _Objects(Result):
    """What boxes and masks have in common. Not a dataclass, so that the fields below stay in the order of its two subclasses."""

    width: int
    height: int
    invalid: int

    @property
    def _items(self) -> tuple[Box, ...] | tuple[Mask, ...]:
        raise TypeError(f"{type(self).__name__} is not a result by itself")

    def __len__(self) -> int:
        return len(self._items)

    def __str__(self) -> str:
        lines = [str(item) for item in self._items] or ["nothing found"]
        if self.invalid:
            lines.append(f"({self.invalid} malformed in the model's answer, left out)")
        return "\n".join(lines)

    @property
    def labels(self) -> tuple[str, ...]:
        """The different labels, in order of first appearance."""
        return tuple(dict.fromkeys(item.label for item in self._items))

    def to_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "picture"}
        return {"type": _type_name(self)} | {k: [i.to_dict() for i in v] if isinstance(v, tuple) else v for k, v in plain.items()}

    def to_coco(self, *, image_id: int, category_ids: Mapping[str, int], first_id: int = 1) -> list[dict[str, Any]]:
        """COCO annotations, one dict an object: id (from `first_id` on), image_id, category_id, bbox, area, iscrowd, score if there is one.

        bbox is [left, top, width, height]. Masks have a segmentation (compressed run lengths), which `pycocotools` reads.
        `category_ids` gives the number of each label; a label that is not in it raises `UsageError`.
        """
        unknown = [label for label in self.labels if label not in category_ids]
        if unknown:
            raise UsageError(
                f"no category id is given for the label {printable(unknown[0])!r}",
                hint="category_ids must name every label, for example {'cat': 1, 'dog': 2}",
            )
        annotations = []
        for i, item in enumerate(self._items):
            box = item.box if isinstance(item, Mask) else item
            annotation = {"id": first_id + i, "image_id": image_id, "category_id": category_ids[item.label], "bbox": list(box.xywh)}
            annotation |= {"area": item.area, "iscrowd": 0}
            if isinstance(item, Mask):
                annotation["segmentation"] = item.rle
            if item.score is not None:
                annotation["score"] = item.score
            annotations.append(annotation)
        return annotations

    def to_supervision(self, classes: Sequence[str] | None = None):
        """`supervision.Detections`: xyxy, mask, confidence (if every object has a score), class_id, data["class_name"].

        class_id is the position of the label in `classes`, or in `labels` if None. Raises `UsageError` if the library is not installed
        or a label is not in `classes`.
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            if error.name != "supervision":
                raise
            raise UsageError(
                "to_supervision() needs the package supervision, which is not installed", hint="pip install 'paligemma[vision]'"
            ) from error
        names = list(self.labels if classes is None else classes)
        unknown = [label for label in self.labels if label not in names]
        if unknown:
            raise UsageError(f"the label {printable(unknown[0])!r} is not among the classes", hint="classes must name every label")
        items = self._items
        boxes = [item.box if isinstance(item, Mask) else item for item in items]
        masks = [item.mask for item in items if isinstance(item, Mask)]
        scores = [item.score for item in items if item.score is not None]
        return supervision.Detections(
            xyxy=np.array([box.xyxy for box in boxes], float).reshape(-1, 4),
            mask=np.stack(masks) if masks else None,
            confidence=np.array(scores, float) if len(scores) == len(items) else None,
            class_id=np.array([names.index(item.label) for item in items], int),
            data={"class_name": np.array([item.label for item in items], str)},
        )

    def _draw(self, image: Image.Image) -> Image.Image:
        if image.size != (self.width, self.height):
            raise UsageError(
                f"this result belongs to a picture of {self.width} x {self.height} pixels, not {image.width} x {image.height}",
                hint="draw on the picture that the model was given",
            )
        shapes = []
        for item in self._items:
            box, mask = (item.box, item.mask) if isinstance(item, Mask) else (item, None)
            shapes.append(drawing.Shape(item.label, box.xyxy, _percent(item.score), mask))
        return drawing.draw_shapes(image, shapes)


@dataclass(frozen=True)
class Detections(_Objects):
    """Boxes in the order in which the model named them.

    `width`, `height`: size of the original picture; `text`: the raw answer; `stop`: "eos", "length" (cut off) or "grammar";
    `leftover`: what of the answer was no object; `invalid`: how many malformed objects it held, which were left out.
    """

    boxes: tuple[Box, ...]
    width: int
    height: int
    text: str = ""
    prompt: str = ""
    stop: str = "eos"
    leftover: str = ""
    invalid: int = 0

    @property
    def _items(self) -> tuple[Box, ...]:
        return self.boxes

    def __iter__(self) -> Iterator[Box]:
        return iter(self.boxes)

    def __getitem__(self, index: int) -> Box:
        return self.boxes[index]

    def above(self, min_score: float) -> Self:
        """Only the boxes with a score of at least `min_score`; a box without a score is left out."""
        return dataclasses.replace(self, boxes=tuple(b for b in self.boxes if b.score is not None and b.score >= min_score))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises `InputError` on a missing field."""
        return cls(tuple(map(Box.from_dict, _get(data, "boxes"))), *_size(data), **_optional(data))


@dataclass(frozen=True)
class Masks(_Objects):
    """Masks in the order in which the model named them. The other fields are those of `Detections`."""

    masks: tuple[Mask, ...]
    width: int
    height: int
    text: str = ""
    prompt: str = ""
    stop: str = "eos"
    leftover: str = ""
    invalid: int = 0

    @property
    def _items(self) -> tuple[Mask, ...]:
        return self.masks

    def __iter__(self) -> Iterator[Mask]:
        return iter(self.masks)

    def __getitem__(self, index: int) -> Mask:
        return self.masks[index]

    def above(self, min_score: float) -> Self:
        """Only the masks with a score of at least `min_score`; a mask without a score is left out."""
        return dataclasses.replace(self, masks=tuple(m for m in self.masks if m.score is not None and m.score >= min_score))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises `InputError` on a missing field or a broken mask."""
        return cls(tuple(map(Mask.from_dict, _get(data, "masks"))), *_size(data), **_optional(data))


def _type_name(result: Result) -> str:
    return type(result).__name__.lower()


def _percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.0f}%"


def _get(data: Mapping[str, Any], key: str) -> Any:
    if not isinstance(data, Mapping) or key not in data:
        raise InputError(f"a result in JSON has no field {key!r}", hint="use what to_dict() returned")
    return data[key]


def _size(data: Mapping[str, Any]) -> tuple[int, int]:
    return _get(data, "width"), _get(data, "height")


def _optional(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: data[key] for key in ("text", "prompt", "stop", "leftover", "invalid") if key in data}
