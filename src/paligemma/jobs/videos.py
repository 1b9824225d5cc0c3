"""Videos that are followed: boxes of every frame, joined into tracks; everything else once a scene.

Tracks are made by ByteTrack of the `trackers` package, which is kept by those who keep supervision and has no model of its own: it joins
boxes by where they are and were going. Boxes of different names are never joined. A thing has its number from its second frame on.

A scene ends where two frames are too unlike each other, as thumbnails: frames half a second apart are of one scene or of two, and to tell
that needs no more. (PySceneDetect looks at every frame, for cuts to the frame, and needs OpenCV.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from ..errors import InputError, UsageError
from ..results import Box, Detections

T = TypeVar("T")

THUMBNAIL = 16
"""Pixels of its side."""
CUT = 0.18
"""Mean difference of two thumbnails, of 1, from which on they are of two scenes."""
LONGEST = 60
"""Frames of a scene: a longer one is taken for several."""
SURE = 0.5
"""Boxes that score less begin no track; they may continue one."""
REMEMBERED = 2.0
"""Seconds after which a thing that was not seen is another."""


class Tracks:
    """Numbers for boxes, frame after frame. Raises `UsageError` where the package is missing. `every`: seconds between frames."""

    def __init__(self, every: float):
        if find_spec("trackers") is None:  # before supervision, which has something to say about OpenCV
            raise UsageError("--track needs the package trackers, which is not installed", hint="pip install 'paligemma[tracks]'")
        import supervision
        from trackers import ByteTrackTracker  # pyright: ignore[reportMissingImports]

        self._supervision, self._tracker, self._every = supervision, ByteTrackTracker, every
        self._trackers: dict[str, Any] = {}
        self._numbers: dict[tuple[str, int], int] = {}

    def add(self, found: Detections, seconds: float) -> tuple[int | None, ...]:
        """Of a frame so many seconds into the video: the number of each box, None for one that is of no track yet."""
        numbers: list[int | None] = [None] * len(found)
        for label in dict.fromkeys([*self._trackers, *(box.label for box in found)]):
            places = [place for place, box in enumerate(found) if box.label == label]
            tracked = self._of(label).update(self._as_theirs([found[place] for place in places]), timestamp=seconds)
            for place, id in zip(tracked.data.get("place", ()), tracked.tracker_id, strict=True):
                if id >= 0:
                    numbers[places[int(place)]] = self._numbers.setdefault((label, int(id)), len(self._numbers) + 1)
        return tuple(numbers)

    def _of(self, label: str) -> Any:
        if label not in self._trackers:
            self._trackers[label] = self._tracker(
                lost_track_buffer=round(30 * REMEMBERED),
                frame_rate=1 / self._every,
                track_activation_threshold=SURE,
                high_conf_det_threshold=SURE,
                minimum_consecutive_frames=2,
            )
        return self._trackers[label]

    def _as_theirs(self, boxes: list[Box]) -> Any:
        return self._supervision.Detections(
            xyxy=np.array([box.xyxy for box in boxes], float).reshape(-1, 4),
            confidence=np.array([1.0 if box.score is None else box.score for box in boxes], float),
            class_id=np.zeros(len(boxes), int),
            data={"place": np.arange(len(boxes))},
        )


@dataclass(frozen=True)
class Scene(Generic[T]):
    """From `start` to `stop`, in seconds; `middle`: what was kept of the frame in its middle."""

    start: float
    stop: float
    middle: T


@dataclass
class Scenes(Generic[T]):
    """Frames, one after the other -> scenes, each when it has ended. Of each frame what `add` is given is kept until then."""

    every: float
    _last: np.ndarray | None = None
    _kept: list[T] = field(default_factory=list)
    _start: float = 0.0

    def add(self, seconds: float, picture: Image.Image, keep: T) -> Scene[T] | None:
        """The scene that ended before this frame, if one did."""
        thumbnail = np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float32) / 255
        cut = self._last is not None and float(np.abs(thumbnail - self._last).mean()) >= CUT
        ended = self.end() if cut or len(self._kept) == LONGEST else None
        if not self._kept:
            self._start = seconds - self.every / 2
        self._last = thumbnail
        self._kept.append(keep)
        return ended

    def end(self) -> Scene[T] | None:
        """What is left where no more frames come."""
        if not self._kept:
            return None
        kept, self._kept = self._kept, []
        return Scene(max(self._start, 0.0), self._start + len(kept) * self.every, kept[len(kept) // 2])


def groups(frames: Iterator[tuple[float, Image.Image]], size: int) -> Iterator[list[tuple[float, Image.Image]]]:
    """So many at a time. Where the frames break off, those that came before are a group, before the error."""
    group: list[tuple[float, Image.Image]] = []
    try:
        for frame in frames:
            group.append(frame)
            if len(group) == size:
                yield group
                group = []
    except InputError:
        if group:
            yield group
        raise
    if group:
        yield group
