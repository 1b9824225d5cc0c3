"""The whole check: sources that were opened, a model's tokenizer and codec, a recipe -> `Findings`."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..data.batch import Batches, RowReader
from ..data.mixture import Mixture
from ..data.records import DataSet, counts, evenly
from ..errors import ResourceError
from ..training.fitting import Fit
from ..training.recipes import Recipe
from .costs import Timing, costs
from .counts import count
from .findings import FAULTS_LISTED, Findings, SourceFound
from .items import Item, items_of
from .lengths import read_texts
from .ready import Ready
from .repeats import find_repeats
from .sampled import look
from .samples import Sample, show
from .verdict import judge

Tell = Callable[[str, int, int], None]
"""What is being done, how much of it is done, of how much."""
ODD = 3
"""Records shown of each kind of oddity."""


@dataclass(frozen=True)
class Opened:
    """A source as `open_data` gave it. `refused`: what it raised instead, and `hint` what to do; `data` holds then what was read."""

    data: DataSet
    refused: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Setup:
    """`samples`: records shown, evenly drawn; `limit`: records whose pictures and masks are looked at, and files compared, at most."""

    samples: int = 12
    limit: int = 2000


def check(
    opened: Sequence[Opened],
    model: Ready,
    recipe: Recipe,
    fitted: Fit | ResourceError,
    *,
    weights: Sequence[float] | None = None,
    held_out: Opened | None = None,
    setup: Setup = Setup(),
    timing: Timing | None = None,
    tell: Tell = lambda what, done, total: None,
) -> Findings:
    """Nothing is written. `fitted`: what planning the run's memory gave or raised. `weights`: of the sources in the mixture."""
    items = items_of([one.data for one in opened])
    reader = model.reader(recipe)
    texts = read_texts(items, model.tokenizer, reader.text_len, lambda done: tell("reading texts", done, len(items)))
    apart = () if held_out is None else (path for record in held_out.data.records for path in record.pictures)
    repeats = find_repeats(items, apart, setup.limit, lambda done, total: tell("comparing pictures", done, total))
    looked = evenly(items, setup.limit)
    sampled = look(looked, len(items), reader, lambda done: tell("opening pictures", done, len(looked)))
    counted = count(items)
    mixture = _mixture(opened, weights, recipe)
    found = Findings(
        sources=tuple(map(_source, opened)),
        model=str(model.path),
        image_size=model.config.vision.image_size,
        recipe=recipe.name,
        counts=counted,
        prompts=texts.prompts,
        lengths=texts.lengths,
        repeats=repeats,
        sampled=sampled,
        limit=setup.limit,
        held_out=None if held_out is None else _source(held_out),
        costs=None if mixture is None else costs(recipe, len(mixture), fitted, timing),
    )
    shown = [] if mixture is None else _samples(items, found, reader, mixture, model.tokenizer.pad_id, setup.samples)
    return dataclasses.replace(found, remarks=judge(found), samples=tuple(shown))


def _source(one: Opened) -> SourceFound:
    data = one.data
    return SourceFound(
        str(data.path), data.format, data.task, data.split, len(data.records), data.bad_share, counts(data.faults),
        data.faults[:FAULTS_LISTED], dict(data.notes), one.refused, one.hint,
    )  # fmt: skip


def _mixture(opened: Sequence[Opened], weights: Sequence[float] | None, recipe: Recipe) -> Mixture | None:
    """None where there is nothing to mix."""
    kept = [number for number, one in enumerate(opened) if len(one.data)]
    if not kept:
        return None
    return Mixture([opened[i].data for i in kept], None if weights is None else [weights[i] for i in kept], seed=recipe.seed)


def _samples(items: Sequence[Item], found: Findings, reader: RowReader, mixture: Mixture, pad_id: int, number: int) -> list[Sample]:
    odd = oddities(items, found)
    chosen = dict.fromkeys([*odd, *(item.number for item in evenly(items, number))])
    batches = Batches(mixture, reader, pad_id=pad_id)
    return show([items[place] for place in chosen], odd, reader, batches)


def oddities(items: Sequence[Item], found: Findings) -> dict[int, list[str]]:
    """Number of an item -> what is odd about it; a few of each kind."""
    repeats, sampled = found.repeats, found.sampled
    odd: dict[int, list[str]] = defaultdict(list)
    for over in found.lengths.over[:ODD]:
        cut = f"{over.tokens} tokens where {found.lengths.limit} fit: its answer loses its end"
        odd[over.number] += [cut] if over.fate == "cut" else []  # of others its sample says why there is no text
    for worst in sampled.rounding.worst[:ODD]:
        odd[worst.number].append(f"a mask that comes back badly: {worst.label or 'thing'}, IoU {worst.value:.2f}")
    for group in repeats.contradicting[:ODD]:
        for number in group.numbers[:2]:
            odd[number].append("another record answers this question about this picture otherwise")
    broken = {fault.id for fault in sampled.faults[:ODD]}
    first = {path: group for group in repeats.files.groups[:ODD] for path in group}
    rare = [one.name for one in reversed(found.counts.classes) if one.seldom == "rare"][:ODD]
    for item in items if broken or first or rare else ():
        record = item.record
        if record.id in broken:
            broken.remove(record.id)
            odd[item.number] += []
        if group := first.get(record.pictures[0]):
            names = ", ".join(path.name for path in group if path != record.pictures[0])
            odd[item.number].append(f"the same picture as {names}")
            first = {path: other for path, other in first.items() if other is not group}
        label = next((name for name in rare if any(thing.label == name for thing in record.things)), None)
        if label is not None:
            rare.remove(label)
            odd[item.number].append(f"a rare class: {label}")
        if not (broken or first or rare):
            break
    return dict(odd)
