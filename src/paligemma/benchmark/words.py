"""What was measured, in sentences and in a table."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from ..printable import printable
from .figures import UNSTEADY, Benchmark, Figure, Limit, Measured, Share
from .limits import BYTE_PRODUCTS

NAMES: Mapping[str, str] = {
    "ready": "ready, from a cold start",
    "load": "of that, loading",
    "cold": "first token, from a cold start",
    "image": "image tower",
    "first": "first token",
    "decode": "each further token",
    "rate": "tokens a second",
    "answer": "a whole answer",
    "mask": "a mask (20 tokens)",
    "cpu": "CPU time of an answer",
    "memory": "peak memory",
    "read": "this machine: memory read",
    "peak": "this machine: products",
}
"""Figure -> what it is called. `first@2`: of two pictures at a time."""
LIMITED: Mapping[Limit, str] = {
    "memory": "Memory is what limits it.",
    "arithmetic": "Arithmetic is what limits it.",
    "overhead": "Overhead is what limits it: so small a model takes longer to start each step than to compute it.",
    "neither": "Neither memory nor arithmetic is near: other programs are at work, or the engine leaves some of the machine unused.",
}


WIDTH = 110
"""Of sentences in a terminal."""


def report(benchmark: Benchmark) -> str:
    """All of it, for a terminal."""
    parts = [line for model in benchmark.models for line in (headline(model), "", *said(model), "")]
    lines = [broken for line in parts for broken in textwrap.wrap(printable(line), WIDTH, subsequent_indent="  ") or [""]]
    return "\n".join([*lines, *table(benchmark), "", *textwrap.wrap(explained(benchmark), WIDTH)])


def explained(benchmark: Benchmark) -> str:
    """What the signs behind figures mean."""
    several = "; x is the middle of the ratios to the first model, repeat by repeat" if len(benchmark.models) > 1 else ""
    return f"Medians of {benchmark.repeats} repeats; ± is half the way from the least to the most{several}."


def headline(model: Measured) -> str:
    return f"{model.label}: {model.description}, {model.threads} thread{'s' if model.threads > 1 else ''}"


def said(model: Measured) -> list[str]:
    """What a person wants to know, in the order in which it is noticed."""
    value, decode = model.value, model.decode_share()
    mask = f"A mask (20 tokens) takes {seconds(value('mask'))}" + ("." if model.masks else ", without decoding it: there is no mask codec.")
    lines = [
        f"On this machine: a first answer token after {seconds(value('first'))}, then {number(value('rate'))} tokens a second; the picture"
        f" takes {seconds(value('image'))} of it; peak memory {size(1e9 * value('memory'))}.",
        f"An answer of {model.tokens} tokens takes {seconds(value('answer'))}, and {seconds(value('cpu'))} of CPU time. {mask}",
        f"From a cold start it is ready after {seconds(value('ready'))}, and has its first token after {seconds(value('cold'))}.",
        f"Decoding moves {size(model.step_bytes())} per token: {_of_memory(model, decode)}. {LIMITED[decode.limits]}",
        f"The prompt of {model.work.tokens} tokens is {operations(model.work.prompt)}, the picture {operations(model.work.picture)}:"
        f" {_percent(model.prompt_share.arithmetic)} and {_percent(model.picture_share.arithmetic)} of the peak"
        f" ({rate(model.limits.peak, model.products)}). {LIMITED[model.prompt_share.limits]}",
    ]
    if len(model.batches) > 1:
        most = model.batches[-1]
        lines.append(
            f"{most} pictures at a time give {number(value('rate', most))} tokens a second,"
            f" {value('rate', most) / value('rate'):.1f} times as many."
        )
    return lines


def _of_memory(model: Measured, share: Share) -> str:
    given = f"what memory gives ({size(model.limits.read)}/s)"
    return f"{_percent(share.memory)} of {given}" if share.memory <= 1 else f"more than {given}, so it comes from a cache"


def warnings(benchmark: Benchmark) -> list[str]:
    """What makes figures doubtful."""
    found = benchmark.unsteady
    if not found:
        return []
    label, name, spread = found[0]
    several = f" of {label}" if len(benchmark.models) > 1 else ""
    others = f", and {len(found) - 1} other figures by more than {_percent(UNSTEADY)}" if len(found) > 1 else ""
    return [f"the machine is busy: {title(name)!r}{several} varied by {_percent(spread)}{others}; measure again when it is quiet"]


def table(benchmark: Benchmark) -> Iterator[str]:
    """A row a figure; behind `x` the ratio to the first model, pair by pair."""
    rows = [["", *(model.label for model in benchmark.models)]]
    rows += [[title(name), *cells] for name, cells in cells_of(benchmark)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield printable("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def cells_of(benchmark: Benchmark) -> Iterator[tuple[str, list[str]]]:
    """(figure, what stands for each model)."""
    first = benchmark.models[0]
    names = [name for model in benchmark.models for name in model.figures]
    order = list(NAMES)
    for name in sorted(set(names), key=lambda name: (order.index(name.partition("@")[0]), int(name.partition("@")[2] or 1))):
        cells = []
        for place, model in enumerate(benchmark.models):
            figure, ratio = model.figures.get(name), benchmark.ratio(name, place)
            cell = "" if figure is None else shown(figure, model.products if name == "peak" else "")
            alike = name != "peak" or model.products == first.products
            cells.append(cell if place == 0 or ratio is None or not alike else f"{cell}, x {ratio:.2f}")
        yield name, cells


def title(name: str) -> str:
    kind, _, batch = name.partition("@")
    return f"{NAMES[kind]}, {batch} pictures" if batch else NAMES[kind]


def shown(figure: Figure, products: str = "") -> str:
    """`0.32 s ±4 %`: half the way from the least to the most. `products`: of what a rate of operations is."""
    middle = {
        "s": seconds, "CPU-s": seconds, "ms": lambda value: f"{number(value)} ms", "tokens/s": number,
        "GB": lambda value: size(1e9 * value), "B/s": lambda value: f"{size(value)}/s", "op/s": lambda value: rate(value, products),
    }[figure.unit]  # fmt: skip
    if len(figure.values) == 1:
        return middle(figure.median)
    return f"{middle(figure.median)} ±{100 * figure.spread / 2:.0f} %"


def number(value: float) -> str:
    """With a decimal place below ten."""
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def seconds(value: float) -> str:
    if value >= 0.0995:
        return f"{value:.0f} s" if value >= 9.95 else f"{value:.1f} s" if value >= 0.995 else f"{value:.2f} s"
    return f"{1e3 * value:.2g} ms"


def size(count: float) -> str:
    """Bytes."""
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.995 * step:
            return f"{count / step:.{0 if count >= 9.95 * step else 1}f} {unit}"
    return f"{count:.0f} bytes"


def operations(count: float) -> str:
    for unit, step in (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6)):
        if count >= 0.0995 * step or unit == "MFLOP":
            return f"{count / step:.{0 if count >= 99.5 * step else 1 if count >= 9.95 * step else 2}f} {unit}"
    raise AssertionError


def rate(value: float, products: str) -> str:
    """Operations a second, of numbers of a kind."""
    whole = products == BYTE_PRODUCTS
    return f"{value / 1e9:,.0f} {'GOP' if whole else 'GFLOP'}/s in {products}{' numbers' if whole else ''}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
