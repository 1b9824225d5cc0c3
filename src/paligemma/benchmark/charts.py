"""What was measured, as bars: which, how long, what stands beside them. Knows neither pictures nor pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..drawing import COLOURS, Colour
from . import words
from .figures import Benchmark, Measured

KINDS: Mapping[str, Colour] = {"picture": COLOURS[4], "prompt": COLOURS[1], "tokens": COLOURS[0]}
"""What bars are made of."""


@dataclass(frozen=True)
class Part:
    """A piece of a bar: its `kind` says the colour; its length, as a share of the chart's width; what it is."""

    kind: str
    length: float
    words: str


@dataclass(frozen=True)
class Bar:
    """`note`: what stands behind it."""

    label: str
    parts: tuple[Part, ...]
    note: str


@dataclass(frozen=True)
class Chart:
    """Bars in groups, one a model; `mark`: where a line stands across them, as a share of the width, and what it says. `kinds`: what the
    colours mean, where a bar has several."""

    title: str
    groups: tuple[tuple[str, tuple[Bar, ...]], ...]
    mark: tuple[float, str] | None = None
    kinds: tuple[str, ...] = ()


def charts(benchmark: Benchmark) -> list[Chart]:
    """Shares of the limits, the time line of an answer, tokens a second by how many pictures go through at a time."""
    found = [_shares(benchmark), _time_line(benchmark)]
    return [*found, _rates(benchmark)] if any(len(model.batches) > 1 for model in benchmark.models) else found


def _shares(benchmark: Benchmark) -> Chart:
    def bar(label: str, share: float, of: str) -> Bar:
        # What comes from a cache may be more than memory gives: the words say so, the bar is full.
        return Bar(label, (Part("picture", min(share, 1.0), ""),), f"{100 * share:.0f} % of {of}")

    def bars(model: Measured) -> tuple[Bar, ...]:
        read, peak = f"{words.size(model.limits.read)}/s", words.rate(model.limits.peak, model.products)
        found = [bar("image tower", model.picture_share.arithmetic, peak), bar("prompt", model.prompt_share.arithmetic, peak)]
        for batch in model.batches:
            label = "decoding" if batch == 1 else f"decoding, {batch} pictures"
            found.append(bar(label, model.decode_share(batch).memory, f"memory's {read}"))
        return tuple(found)

    return Chart("Of what this machine allows", _groups(benchmark, bars), (1.0, "all there is"))


def _time_line(benchmark: Benchmark) -> Chart:
    longest = max(model.value("answer") for model in benchmark.models)

    def bars(model: Measured) -> tuple[Bar, ...]:
        image, first, whole = model.value("image"), model.value("first"), model.value("answer")
        pieces = (image, max(first - image, 0.0), max(whole - first, 0.0))
        told = tuple(Part(kind, piece / longest, f"{kind} {words.seconds(piece)}") for kind, piece in zip(KINDS, pieces, strict=True))
        return (Bar(f"{model.tokens} tokens", told, " + ".join(map(words.seconds, pieces))),)

    return Chart("One answer", _groups(benchmark, bars), kinds=tuple(KINDS))


def _rates(benchmark: Benchmark) -> Chart:
    most = max(model.value("rate", batch) for model in benchmark.models for batch in model.batches)

    def bars(model: Measured) -> tuple[Bar, ...]:
        found = []
        for batch in model.batches:
            value = model.value("rate", batch)
            label = f"{batch} picture{'s' if batch > 1 else ''}"
            found.append(Bar(label, (Part("tokens", value / most, ""),), f"{words.number(value)} tokens/s"))
        return tuple(found)

    return Chart("Tokens a second, several pictures at a time", _groups(benchmark, bars))


def _groups(benchmark: Benchmark, bars: Callable[[Measured], tuple[Bar, ...]]) -> tuple[tuple[str, tuple[Bar, ...]], ...]:
    return tuple((model.label, bars(model)) for model in benchmark.models)
