"""`segment {a} ; {b}` -> boxes with masks, written `<loc>x4<seg>x16 label ; ...`; where a decoded mask lands in the picture.

The codes stand for a 64x64 mask of what the box holds; `model.mask_codec` turns one into the other.
Source: big_vision `pp/proj/paligemma/segmentation.py` (cropping), `evaluators/proj/paligemma/transfers/segmentation.py` (pasting).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from ..config import MASK_CODES, MASK_SIZE, NUM_SEG
from ..results import Box, Masks
from . import detect
from .detect import SEPARATOR, Bins, Parsed, Vocabulary, check_label, class_names, from_bin, loc_tokens, sort_by_class, tidy

name = "segment"
result = Masks
max_tokens = 1024


def prompt(classes: str | Sequence[str]) -> str:
    """`classes`: names or phrases, or one string with ";" between them. Raises `UsageError` if there is none."""
    return f"segment {SEPARATOR.join(class_names(classes))}"


def code_tokens(codes: Sequence[int]) -> str:
    """16 codes, 0 to 127 -> `<seg...>` sixteen times."""
    assert len(codes) == MASK_CODES, f"{len(codes)} mask codes, expected {MASK_CODES}"
    assert all(0 <= code < NUM_SEG for code in codes), f"mask codes out of range: {codes}"
    return "".join(f"<seg{code:03d}>" for code in codes)


def target(objects: Iterable[tuple[str, Bins, Sequence[int]]], classes: Sequence[str] | None = None) -> str:
    """(label, bins, codes) each -> training text, "" for none. With `classes`, grouped in their order; else in the order given."""
    ordered = sort_by_class(objects, classes, lambda item: item[0])
    return SEPARATOR.join(f"{loc_tokens(bins)}{code_tokens(codes)} {check_label(tidy(label))}".rstrip() for label, bins, codes in ordered)


def parse(text: str, classes: Sequence[str] | None = None) -> Parsed:
    """Any text -> its objects with masks, as `detect.parse`. An object without its 16 codes counts as invalid."""
    return _with_codes(detect.parse(text, classes))


def parse_ids(ids: Sequence[int], tokenizer: Vocabulary, classes: Sequence[str] | None = None) -> Parsed:
    """As `parse`, from token ids: see `detect.parse_ids`."""
    return _with_codes(detect.parse_ids(ids, tokenizer, classes))


def paste(mask: np.ndarray, bins: Bins, width: int, height: int) -> np.ndarray:
    """Soft 64x64 mask (object above 0) -> which pixels of a width x height picture the object covers, boolean (height, width).

    The soft mask is resized to the box in pixels (bilinear), then cut at 0. The box's edges go to the nearest pixel, the reverse of
    `crop`; the reference's evaluator rounds them down, which moves half of all masks by a pixel and costs small ones a tenth of their IoU.
    A box whose edges go to the same pixel covers nothing.
    """
    y0, x0, y1, x1 = (round(from_bin(bin) * size) for bin, size in zip(bins, (height, width, height, width), strict=True))
    whole = np.zeros((height, width), bool)
    if y1 > y0 and x1 > x0:
        soft = Image.fromarray(np.ascontiguousarray(mask, np.float32))
        whole[y0:y1, x0:x1] = np.asarray(soft.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR)) > 0
    return whole


def crop(mask: np.ndarray, box: Box) -> np.ndarray:
    """Boolean mask of the whole picture (H, W) -> what its box holds, float32 (64, 64) in [0, 1], ready for the codec's encoder.

    The reverse of `paste`: edges rounded to whole pixels, at least one pixel, then a bilinear resize that averages.
    """
    height, width = mask.shape
    x0, y0 = min(max(round(box.x0), 0), width - 1), min(max(round(box.y0), 0), height - 1)
    x1, y1 = min(max(round(box.x1), x0 + 1), width), min(max(round(box.y1), y0 + 1), height)
    part = Image.fromarray(mask[y0:y1, x0:x1].astype(np.float32))
    return np.asarray(part.resize((MASK_SIZE, MASK_SIZE), Image.Resampling.BILINEAR))


def _with_codes(parsed: Parsed) -> Parsed:
    whole = tuple(o for o in parsed.objects if o.codes is not None)
    bare = [f"{loc_tokens(o.bins)} {o.label}".strip() for o in parsed.objects if o.codes is None]
    return Parsed(whole, " ".join(filter(None, [parsed.leftover, *bare])), parsed.invalid + len(bare))
