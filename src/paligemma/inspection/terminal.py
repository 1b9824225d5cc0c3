"""Findings -> a summary for the terminal, in lines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ..data.quarantine import EXAMPLES
from ..printable import printable
from .counts import ClassCount, Tally
from .findings import Findings, SourceFound
from .words import bytes_in_words, seconds_in_words

BAR = 24
CLASSES = 15
NAME = 10
"""Columns of what a line is about."""


def summary(found: Findings) -> str:
    """Several lines, the verdict last."""
    return "\n".join(chain(_sources(found), _contents(found), _texts(found), _pictures(found), _costs(found), _verdict(found)))


def _line(name: str, text: str) -> str:
    return f"{name:<{NAME}}{printable(text)}".rstrip()


def _sources(found: Findings) -> Iterator[str]:
    for source in found.sources:
        usable = f"{source.records:,} records are usable, {source.unusable:,} are not"
        yield _line("data", f"{source.title}: {source.format}, {source.task}; {usable}")
        yield from _faults(source)
        yield from (_line("", f"  {count:,} {what}") for what, count in source.notes.items())
    held_out = found.held_out
    yield _line("held out", "nothing" if held_out is None else f"{held_out.records:,} records of {held_out.title}")
    yield from () if held_out is None else _faults(held_out)
    yield _line("for", f"{found.model}, {found.image_size} pixels, recipe {found.recipe}")


def _faults(source: SourceFound) -> Iterator[str]:
    for code, count in source.quarantine.items():
        yield _line("", f"  {count:,} {code}: {source.meaning(code)}")
        examples = [fault for fault in source.faults if fault.code == code][:EXAMPLES]
        yield from (_line("", f"    {fault.where}: {fault.detail}") for fault in examples)


def _contents(found: Findings) -> Iterator[str]:
    counts = found.counts
    if not counts.records:
        return
    yield ""
    yield _line("tasks", ", ".join(f"{task} {number:,}" for task, number in counts.tasks.items()))
    if counts.classes:
        empty = f"; {counts.empty:,} records without any" if counts.empty else ""
        yield _line("classes", f"{len(counts.classes):,}, {counts.things:,} things{empty}")
        yield from _bars(counts.classes)
    yield from _tally("prompts", found.prompts)
    if counts.answers.total:
        yield from _tally("answers", counts.answers)
    repeats = found.repeats
    same = f"copied pictures {repeats.files.surplus:,}"
    if repeats.files.read < repeats.files.candidates:
        same += f" (of {repeats.files.read:,} of the {repeats.files.candidates:,} files that have a length in common)"
    leaked = "" if found.held_out is None else f", pictures held out too {len(repeats.leaked):,}"
    yield _line("twice", f"{same}, repeated records {repeats.repeated:,}, contradictions {repeats.contradictions:,}{leaked}")
    for one in repeats.contradicting[:EXAMPLES]:
        yield _line("", f"  {one.picture}, {one.question}: " + " / ".join(f"{answer} ({where})" for where, answer in one.answers[:2]))


def _bars(classes: tuple[ClassCount, ...]) -> Iterator[str]:
    shown = classes if len(classes) <= CLASSES + 1 else (*classes[: CLASSES - 5], *classes[-5:])
    width = min(max(len(printable(one.name)) for one in shown), 28)
    for place, one in enumerate(shown):
        if len(shown) < len(classes) and place == CLASSES - 5:
            yield _line("", f"  and {len(classes) - len(shown):,} more, then the rarest")
        bar = "█" * round(BAR * one.things / max(classes[0].things, 1)) or ("▏" if one.things else "")
        yield _line("", f"  {_short(one.name, width):<{width}} {one.things:>9,} {' '.join(filter(None, (bar, one.seldom)))}")


def _tally(name: str, tally: Tally) -> Iterator[str]:
    yield _line(name, f"{tally.distinct:,} different")
    for text, count in tally.most[:EXAMPLES]:
        yield _line("", f"  {count:,} x {_short(text, 90)}")


def _texts(found: Findings) -> Iterator[str]:
    lengths = found.lengths
    if lengths.longest:
        longest = f"longest {lengths.longest} ({lengths.longest_where})"
        yield _line("tokens", f"median {lengths.median:g}, 95 % up to {lengths.p95}, {longest}; {lengths.limit} fit")
        yield from (_line("", f"  {over.where}: {over.tokens} tokens, {over.fate}") for over in lengths.over[:EXAMPLES])


def _pictures(found: Findings) -> Iterator[str]:
    sampled = found.sampled
    if not sampled.records:
        return
    part = "" if sampled.records == sampled.of else f" (of {sampled.records:,} of {sampled.of:,} records, evenly drawn)"
    sizes = sampled.sizes
    if sizes:
        small, middle, large = (f"{width} x {height}" for width, height in (sizes.smallest, sizes.middle, sizes.largest))
        yield _line("pictures", f"{found.counts.pictures:,}; {small} to {large} pixels, middle {middle}{part}")
    yield from (_line("", f"  {fault}") for fault in sampled.faults[:EXAMPLES])
    rounding = sampled.rounding
    if rounding.things:
        yield _line("boxes", f"{rounding.things:,}; location tokens move them by {rounding.error:.2g} pixels at most{part}")
    if rounding.iou_mean is not None:
        yield _line("masks", f"{rounding.masks:,}; IoU through 16 tokens {rounding.iou_mean:.3f} on average{part}")
        yield from (_line("", f"  {one.value:.2f} {one.label or 'thing'} ({one.where})") for one in rounding.worst[:EXAMPLES])


def _costs(found: Findings) -> Iterator[str]:
    costs = found.costs
    if costs is None:
        return
    yield ""
    yield _line("run", f"{costs.updates:,} updates of {costs.batch:,}: {costs.seen:,} examples, {costs.epochs:.3g} times through the data")
    memory = costs.memory
    if memory is None:
        yield _line("memory", "more than there is: see below")
    else:
        free = "" if memory.free is None else f", {bytes_in_words(memory.free)} are free"
        yield _line("memory", f"{bytes_in_words(memory.total)} ({memory.described}){free}")
    if costs.timing and costs.seconds is not None:
        timing = costs.timing
        each = f"{seconds_in_words(timing.seconds)} an update on {timing.device}, measured on {timing.updates}"
        yield _line("time", f"{seconds_in_words(costs.seconds)} ({each})")
    else:
        yield _line("time", "not measured: --measure times two updates")
    if found.sampled.seconds is not None:
        yield _line("reading", f"{seconds_in_words(found.sampled.seconds)} a record on one thread; a run uses two")


def _verdict(found: Findings) -> Iterator[str]:
    yield ""
    for remark in found.remarks:
        yield printable(f"{remark.level + ':':<9}{remark.text.splitlines()[0]}")
        if remark.hint and remark.level != "fine":
            yield from (printable(f"{'':9}{line}") for line in remark.hint.splitlines())
    yield verdict(found)


def verdict(found: Findings) -> str:
    """In one sentence."""
    errors, warnings = len(found.of("error")), len(found.of("warning"))
    some = f"{warnings} warning{'' if warnings == 1 else 's'}"
    if errors:
        return f"not fit to train on: {errors} error{'' if errors == 1 else 's'}" + (f", {some}" if warnings else "")
    return f"fit to train on, with {some}" if warnings else "fit to train on"


def _short(text: str, width: int) -> str:
    """One line of at most so many characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= width else line[: width - 3] + "..."
