"""From what was found to what it means: errors, which keep a run from beginning or from learning anything; warnings; what is fine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .counts import RARE
from .words import bytes_in_words

if TYPE_CHECKING:
    from .findings import Findings

Level = Literal["error", "warning", "fine"]
LEVELS: tuple[Level, ...] = ("error", "warning", "fine")

LOW_IOU = 0.7
"""Masks that come back worse than this on average are a warning."""
FEW_UPDATES = 20
"""A run of fewer is over before its learning rate has done much."""
NAMED = 8


@dataclass(frozen=True)
class Remark:
    """`code`: a stable name; `text`: what is so; `hint`: what to do about it, or ""."""

    level: Level
    code: str
    text: str
    hint: str = ""


def judge(found: Findings) -> tuple[Remark, ...]:
    """All remarks, the worst first."""
    remarks = [remark for part in (_reading, _texts, _places, _repeats, _classes, _run) for remark in part(found)]
    return tuple(sorted(remarks, key=lambda remark: LEVELS.index(remark.level)))


def _reading(found: Findings) -> Iterator[Remark]:
    for source in found.everything:
        if source.refused:
            yield Remark("error", "refused", source.refused, source.hint)
        elif source.unusable:
            what = f"{source.title}: {_count(source.unusable, 'record')} cannot be used and will be left out ({source.bad_share:.2%})"
            yield Remark("warning", "unusable_records", what, "they are listed with place and reason")
    if found.records and not any(source.unusable or source.refused for source in found.everything):
        yield Remark("fine", "readable", "every record is usable")
    sampled = found.sampled
    if sampled.faults:
        share = len(sampled.faults) / sampled.records
        what = f"{_count(len(sampled.faults), 'record')} of {sampled.records:,} looked at cannot be read whole: {sampled.faults[0]}"
        if share == 1:
            yield Remark("error", "unreadable", what, _codec_hint(sampled.faults[0].detail))
        else:
            yield Remark("warning", "unreadable", what, "a run leaves such records out when it meets them")
    elif sampled.records:
        yield Remark("fine", "pictures", f"pictures of all {sampled.records:,} records looked at open whole")
    if len(sampled.frames) > 1:
        kinds = " and ".join(f"{number} ({records:,})" for number, records in sampled.frames)
        what = f"prompts have {kinds} pictures; a batch needs the same number in each"
        yield Remark("error", "frames", what, "keep such records in separate runs")


def _codec_hint(detail: str) -> str:
    return "name one with --codec; the published one is vae-oid.npz" if "mask codec" in detail else "mend the data"


def _texts(found: Findings) -> Iterator[Remark]:
    lengths = found.lengths
    level: Level = "error" if lengths.unwritten + lengths.no_room == found.records else "warning"
    enough = f"--text-len {max(lengths.longest - 1, 1)} would hold all of them, for more memory"
    if lengths.unwritten:
        where, reason = lengths.reasons[0]
        yield Remark(level, "unwritten", f"{_count(lengths.unwritten, 'record')} cannot be made a text: {where}: {reason}")
    if lengths.no_room:
        what = f"the prompts of {_count(lengths.no_room, 'record')} leave no room for an answer within {lengths.limit} tokens"
        yield Remark(level, "no_room", f"{what}; a run leaves them out", enough)
    if lengths.cut:
        what = f"the answers of {_count(lengths.cut, 'record')} ({lengths.cut / found.records:.1%}) are cut at {lengths.limit} tokens"
        yield Remark("warning", "cut", f"{what}; the longest has {lengths.longest}", enough)
    if lengths.longest and not lengths.cut and not lengths.no_room:
        yield Remark("fine", "lengths", f"no text is cut: the longest has {lengths.longest} of {lengths.limit} tokens")


def _places(found: Findings) -> Iterator[Remark]:
    rounding = found.sampled.rounding
    if rounding.iou_mean is not None:
        what = f"{_count(rounding.masks, 'mask')} through 16 tokens and back: IoU {rounding.iou_mean:.3f} on average"
        low = f", {rounding.iou_low:,} below a half" if rounding.iou_low else ""
        if rounding.iou_mean < LOW_IOU:
            worst = "see the worst: masks of many parts, or thin ones"
            yield Remark("warning", "iou_ceiling", f"{what}{low}; no model can do better", worst)
        else:
            yield Remark("fine", "iou_ceiling", what + low)
    if rounding.tiny > rounding.things / 10:
        what = f"{rounding.tiny:,} of {rounding.things:,} things are smaller than one patch of the model's {found.image_size} pixels"
        yield Remark("warning", "tiny", what, "a model for larger pictures would see them")
    if rounding.things:
        yield Remark("fine", "rounding", f"location tokens move boxes by {rounding.error:.2g} pixels at most")


def _repeats(found: Findings) -> Iterator[Remark]:
    repeats = found.repeats
    if repeats.contradictions:
        first = repeats.contradicting[0].answers[0][0]
        what = f"answers that contradict each other: {_count(repeats.contradictions, 'question')}, first {first}"
        yield Remark("warning", "contradictions", what, "where a picture has several things, all belong into one record")
    if repeats.repeated:
        what = f"repeated word for word: {_count(repeats.repeated, 'record')}, first {repeats.repeated_where[0]}"
        yield Remark("warning", "repeated", what, "each counts twice in training")
    if repeats.files.surplus:
        names = " = ".join(path.name for path in repeats.files.groups[0][:3])
        yield Remark("warning", "same_pictures", f"copies under another name: {_count(repeats.files.surplus, 'picture')}, first {names}")
    if repeats.leaked:
        what = f"held out and learnt from: {_count(len(repeats.leaked), 'picture')}, first {repeats.leaked[0].name}"
        yield Remark("warning", "leaked", what, "what is measured on them says nothing about new pictures")
    if found.records and not (repeats.contradictions or repeats.repeated or repeats.files.surplus or repeats.leaked):
        files = repeats.files
        alike = f"; of {files.candidates:,} files of equal length {files.read:,} were compared" if files.read < files.candidates else ""
        yield Remark("fine", "repeats", f"nothing was found twice, and no answers contradict each other{alike}")


def _classes(found: Findings) -> Iterator[Remark]:
    counts = found.counts
    if counts.unused:
        what = f"never there: {_count(len(counts.unused), 'class', 'classes')}: {_names(counts.unused)}"
        yield Remark("warning", "unused_classes", what, "prompts ask for them all the same")
    if counts.rare:
        rare = [f"{one.name} ({one.things})" for one in reversed(counts.rare)]
        what = f"there fewer than {RARE} times: {_count(len(rare), 'class', 'classes')}: {_names(rare)}"
        yield Remark("warning", "rare_classes", what, "what was seen so seldom is hardly learnt")


def _run(found: Findings) -> Iterator[Remark]:
    if found.held_out is None and found.records:
        what = "nothing is held out, so nobody will know which checkpoint is best"
        yield Remark("warning", "not_held_out", what, "name some data with --valid")
    costs = found.costs
    if costs is None:
        return
    if costs.batch > found.records:
        what = f"an update takes {costs.batch} examples and there are {found.records:,}: each is in it several times"
        yield Remark("warning", "batch", what, "a smaller --batch gives more updates")
    elif costs.updates < FEW_UPDATES:
        yield Remark("warning", "few_updates", f"the run has only {_count(costs.updates, 'update')}", "more --epochs, or a smaller --batch")
    memory = costs.memory
    if memory is None:
        yield Remark("error", "memory", costs.refused, costs.hint)
    elif memory.free is not None:
        there = f"{bytes_in_words(memory.total)} of the {bytes_in_words(memory.free)} of memory that are free"
        yield Remark("fine", "memory", f"the run needs {there}, with {memory.micro:,} examples at a time")


def _names(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
