"""Where readers put what they read: usable records, and for each of the others one fault that says why it was left out.

A reader wraps each record in `with to.record(...)`: a `Flaw` raised inside ends that record, not the reading. A picture with one bad
object is left out whole, because teaching that the object is not there would be worse.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..printable import printable
from ..tasks import describe_box
from . import checks
from .pictures import Pictures, Size
from .reading import read_bytes
from .records import Corners, Fault, Flaw, Record, Thing

PLACES = ("detect", "segment", "refer", "describe_box")
"""Tasks that pictures with things can be read for. Of the last two each thing is a record of its own."""


@dataclass
class Collector:
    """`task`: what a person asked the records to be for, or None for the format's own. `connected`: see `masks`."""

    root: Path
    pictures: Pictures
    task: str | None = None
    connected: bool = False
    records: list[Record] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    progress: Callable[[int], None] | None = None
    """Told how many records have been read, usable or not, after each."""
    classes: dict[str, None] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    _ids: set[str] = field(default_factory=set)
    _traces: set[str] = field(default_factory=set)

    def bytes_of(self, path: Path) -> bytes:
        """An annotation file, whole; it counts in the fingerprint. Raises `InputError`."""
        data = read_bytes(path)
        self.trace(path, hashlib.sha256(data).hexdigest())
        return data

    def hashed(self, path: Path) -> None:
        """Lets a file that is read in pieces count in the fingerprint."""
        with path.open("rb") as file:
            self.trace(path, hashlib.file_digest(file, "sha256").hexdigest())

    def trace(self, path: Path, content: str = "") -> None:
        """Lets a file count in the fingerprint: an annotation by its content, a picture by its name."""
        self._traces.add(f"{os.path.relpath(path, self.root)}\0{content}")

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(sorted(self._traces)).encode("utf-8", "surrogatepass")).hexdigest()

    @contextmanager
    def record(self, where: str, id: str = "", path: object = "") -> Iterator[None]:
        """What is read inside is one record, or becomes one fault. `path`: the picture, as the annotation names it."""
        try:
            yield
        except Flaw as flaw:
            self.fault(where, flaw.code, flaw.detail, id, path)
        except UsageError as error:  # a task refuses the words it is given
            self.fault(where, "field", error.message, id, path)
        if self.progress:
            self.progress(len(self.records) + len(self.faults))

    def fault(self, where: str, code: str, detail: str, id: str = "", path: object = "") -> None:
        self.faults.append(Fault(where, code, detail, id, path if isinstance(path, str) else str(path)))

    def add(self, record: Record) -> None:
        """Raises `Flaw` for an id that was there before."""
        self.new_id(record.id)
        self.records.append(record)

    def new_id(self, id: str) -> None:
        if id in self._ids:
            raise Flaw("duplicate", f"the id {id!r:.80} was there before")
        self._ids.add(id)

    def place(self, path: Path) -> str:
        """A file for people: relative to the data set's folder where it lies in it, fit for a terminal."""
        inside = path.is_relative_to(self.root)
        return printable(str(path.relative_to(self.root) if inside else path))

    def picture(self, name: object, folder: Path) -> Path:
        """A picture or video that an annotation names. Raises `Flaw`."""
        path = self.pictures.find(name, folder)
        self.trace(path)
        return path

    def box(self, corners: Corners, size: Size) -> Corners:
        """`checks.box`, counting those that it cuts."""
        cut = checks.box(corners, size)
        if cut != corners:
            self.notes[f"boxes reached over the edge by {checks.OVER_THE_EDGE:g} pixels at most and were cut there"] += 1
        return cut

    def things(
        self,
        id: str,
        where: str,
        picture: Path,
        size: Size,
        things: Sequence[Thing],
        *,
        texts: Sequence[Sequence[str]] = (),
        ignored: Iterable[Thing] = (),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """The record, or records, of a picture with things. `texts`: for each thing the sentences that mean it, if not its label."""
        about, task = about or {}, self.task or "detect"
        unique = dict(zip(things, texts or [()] * len(things), strict=True))
        self.once(things)
        if task in ("segment", "refer"):
            self._need_outlines(task, things)
        if task in ("detect", "segment"):
            self.add(Record(id, task, (picture,), where, things=tuple(unique), ignored=tuple(ignored), about=about))
        elif not unique:
            self.notes["pictures have no things to ask about"] += 1
        elif task == "refer":
            self._refer(id, where, picture, unique, about)
        else:
            for number, (thing, own) in enumerate(unique.items()):
                asked = describe_box.prompt(shares(thing.box, size))
                self.add(Record(f"{id}#{number}", task, (picture,), where, asked, tuple(own) or (thing.label,), about=about))

    def answers(self, given: object, what: str, target: Callable[[str], str], *, empty: bool = False) -> tuple[str, ...]:
        """One answer or several, each text or {"answer": text}. Of several, empty ones are left out and counted, if others are there."""
        several = given if isinstance(given, list) else [given]
        texts = [one.get("answer") if isinstance(one, Mapping) else one for one in several]
        there = [one for one in texts if not isinstance(one, str) or one.strip()] if not empty else texts
        if there and len(there) < len(texts):
            self.notes["answers were empty and left out beside others"] += len(texts) - len(there)
            texts = there
        if not texts:
            raise Flaw("answer", f"{what} is an empty list")
        return tuple(target(checks.answer(one, what, empty=empty)) for one in texts)

    def once(self, things: Sequence[Thing]) -> tuple[Thing, ...]:
        """Without those that stand there twice, label, box and outline, which are counted."""
        unique = tuple(dict.fromkeys(things))
        if len(unique) < len(things):
            self.notes["things stood in the same picture twice and were taken once"] += len(things) - len(unique)
        return unique

    def _refer(self, id: str, where: str, picture: Path, things: Mapping[Thing, Sequence[str]], about: Mapping[str, Any]) -> None:
        sentences = [(thing, sentence) for thing, own in things.items() for sentence in own or (thing.label,)]
        times = Counter(sentence for _, sentence in sentences)
        for number, (thing, sentence) in enumerate(sentences):
            with self.record(where, f"{id}#{number}", picture.name):
                if times[sentence] > 1:
                    raise Flaw("task", f"{sentence!r:.80} names {times[sentence]} things of the picture, refer needs what means one")
                self.add(Record(f"{id}#{number}", "refer", (picture,), where, asked=(sentence,), things=(thing,), about=about))

    def _need_outlines(self, task: str, things: Iterable[Thing]) -> None:
        bare = next((thing for thing in things if thing.outline is None), None)
        if bare is not None:
            raise Flaw("outline", f"{bare.label!r:.80} has a box and no mask, which {task} needs")


def shares(box: Corners, size: Size) -> Corners:
    """A box in pixels -> y0, x0, y1, x1 as shares of the picture's height and width."""
    width, height = size
    return box[1] / height, box[0] / width, box[3] / height, box[2] / width
