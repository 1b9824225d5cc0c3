"""`python -m bench.edge`: packs of a random PaliGemma, int8 and int4, beside Hugging Face transformers in bfloat16, on a CPU.

All get the same pixels and ids and answer in turn, each in a process of its own, so that a machine that slows down slows all. The machine's
limits (reading memory, products of bytes in registers) are measured before and after. Printed: medians, spreads, ratios turn by turn;
what a pack's decoding reads a second, and its reading of prompts multiplies, beside those limits.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from paligemma.benchmark.counts import Work, work
from paligemma.benchmark.limits import byte_products, memory_read
from paligemma.config import PRESETS, VOCAB_SIZE
from paligemma.edge.native import Kernels
from paligemma.edge.pack_file import INDEX, read_index

from .__main__ import say, sizes, spread
from .remote import Remote
from .worker import PROMPT, THREADS

PEER = "transformers"
TARGETS = {
    ("int8", "first token, batch 1"): 0.45, ("int8", "decode, batch 1"): 0.28, ("int8", "peak memory"): 3.4,
    ("int4", "first token, batch 1"): 0.42, ("int4", "decode, batch 1"): 0.15, ("int4", "peak memory"): 2.3,
}  # fmt: skip
"""Ratios to transformers that we set out to reach; of memory, GB (1e9 bytes)."""
DECODE_SHARE, PREFILL_SHARE = 0.75, 0.60
"""Of the memory's and of the multipliers' limit."""
SEGMENT = 20
GB = 1e9


@dataclass
class Figure:
    """Values of one kind, by contender, turn by turn."""

    name: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)

    def ratio(self, kind: str) -> float | None:
        """Median of the turns' ratios to the peer's."""
        if kind == PEER or PEER not in self.values or kind not in self.values:
            return None
        return statistics.median(a / b for a, b in zip(self.values[kind], self.values[PEER], strict=False))


@dataclass(frozen=True)
class Contender:
    """`kind`: "int8", "int4", ..., or the peer. `folder`: what it loads."""

    kind: str
    folder: Path

    def start(self) -> Remote:
        return Remote(PEER if self.kind == PEER else "pack", self.folder)


@dataclass(frozen=True)
class Limit:
    """Bytes read a second, operations with bytes a second (a product and a sum are two)."""

    read: float
    multiply: float


def limit(kernels: Kernels) -> Limit:
    return Limit(memory_read(kernels), byte_products(kernels))


def run(contenders: Sequence[Contender], repeats: int, tokens: int, batches: Sequence[int]) -> tuple[list[Figure], dict[str, str]]:
    """All figures; and the contenders' names."""
    figures = [_loading(contenders, repeats)]
    with ExitStack() as stack:
        engines = {one.kind: stack.enter_context(one.start()) for one in contenders}
        for engine in engines.values():
            engine.ask("load")
        peak = Figure("peak memory", "GB")
        for kind, engine in engines.items():
            say(f"first answer, {kind}")
            engine.ask("generate", batch=1, tokens=tokens)
            peak.values[kind] = [engine.ask("memory")["peak"] / GB]
        figures.append(peak)
        figures.append(_turns("image, batch 1", "s", engines, repeats, lambda engine: engine.ask("image", batch=1)["seconds"]))
        for batch in batches:
            say(f"batch {batch}")
            figures += _answers(engines, batch, repeats, tokens)
        say(f"an object of {SEGMENT} tokens")
        whole = Figure(f"object of {SEGMENT} tokens", "s")
        for _ in range(repeats):
            for kind, engine in engines.items():
                times = engine.ask("generate", batch=1, tokens=SEGMENT, segment=True)["times"]
                whole.values.setdefault(kind, []).append(times[-1])
        figures.append(whole)
        names = {kind: engine.name for kind, engine in engines.items()} | _agreement(engines, tokens)
    return figures, names


def _turns(name: str, unit: str, engines: dict[str, Remote], repeats: int, ask: Callable[[Remote], float]) -> Figure:
    """After one turn that does not count."""
    figure = Figure(name, unit)
    for number in range(repeats + 1):
        for kind, engine in engines.items():
            value = ask(engine)
            if number:
                figure.values.setdefault(kind, []).append(value)
    return figure


def _loading(contenders: Sequence[Contender], repeats: int) -> Figure:
    """In a fresh process each time; the files are in the page cache."""
    figure = Figure("load", "s")
    for number in range(repeats + 1):
        for one in contenders:
            with one.start() as engine:
                seconds = engine.ask("load")["seconds"]
            if number:
                figure.values.setdefault(one.kind, []).append(seconds)
    return figure


def _answers(engines: dict[str, Remote], batch: int, repeats: int, tokens: int) -> list[Figure]:
    first, decode = Figure(f"first token, batch {batch}", "s"), Figure(f"decode, batch {batch}", "ms/token")
    busy = Figure(f"CPU-seconds of {tokens} tokens, batch {batch}", "s")
    for _ in range(repeats):
        for kind, engine in engines.items():
            done = engine.ask("generate", batch=batch, tokens=tokens)
            times = done["times"]
            first.values.setdefault(kind, []).append(times[0])
            decode.values.setdefault(kind, []).append(1000 * (times[-1] - times[0]) / (tokens - 1))
            busy.values.setdefault(kind, []).append(done["cpu"])
    return [first, decode, busy]


def _agreement(engines: dict[str, Remote], tokens: int) -> dict[str, str]:
    """How far packs' logits are from the peer's along one answer, in their spread."""
    if PEER not in engines:
        return {}
    found, logits = {}, {}
    ids = engines[PEER].ask("generate", batch=1, tokens=min(tokens, 5))["ids"]
    with tempfile.TemporaryDirectory() as folder:
        for kind, engine in engines.items():
            engine.ask("logits", batch=1, ids=ids, file=f"{folder}/logits.npy")
            logits[kind] = np.load(f"{folder}/logits.npy")[..., :VOCAB_SIZE]
    theirs = logits.pop(PEER)
    for kind, ours in logits.items():
        found[f"logits, {kind}"] = f"{float((ours - theirs).std() / theirs.std()):.3f} of their spread from {PEER}'"
    return found


def table(figures: list[Figure], kinds: Sequence[str]) -> str:
    """Markdown."""
    heads = [kind for kind in kinds if kind != PEER]
    ratios = PEER in kinds
    lines = ["| | " + " | ".join([*kinds, *(f"{kind} / {PEER}" for kind in heads if ratios)]) + " |"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    for figure in figures:
        cells = [spread(tuple(figure.values[kind])) if kind in figure.values else "" for kind in kinds]
        for kind in heads if ratios else ():
            ratio, target = figure.ratio(kind), TARGETS.get((kind, figure.name))
            absolute = figure.name == "peak memory"
            reached = target is not None and ratio is not None and (figure.values[kind][0] if absolute else ratio) <= target
            aim = "" if target is None else f" ({target}{' GB' if absolute else ''} {'reached' if reached else 'missed'})"
            cells.append("" if ratio is None else f"{ratio:.2f}{aim}")
        lines.append(f"| {figure.name}, {figure.unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shares(figures: list[Figure], contenders: Sequence[Contender], cost: Work, limits: Sequence[Limit]) -> str:
    """What packs make of the machine, at batch 1; limits are the means of those measured."""
    read, multiply = (statistics.mean(getattr(one, name) for one in limits) for name in ("read", "multiply"))
    by_name = {figure.name: figure for figure in figures}
    lines = ["| pack | bytes a token | decode reads | of memory | image | prompt | of the multipliers' limit, prompt |", "|---" * 7 + "|"]
    for one in contenders:
        if one.kind == PEER or one.kind not in by_name["first token, batch 1"].values:
            continue
        size = decoder_bytes(one.folder)
        token = statistics.median(by_name["decode, batch 1"].values[one.kind]) / 1000
        image = statistics.median(by_name["image, batch 1"].values[one.kind])
        prompt = statistics.median(by_name["first token, batch 1"].values[one.kind]) - image
        speed = cost.prompt / prompt
        cells = [
            one.kind,
            f"{size / GB:.2f} GB",
            f"{size / token / GB:.1f} GB/s",
            _aim(size / token / read, DECODE_SHARE),
            f"{cost.picture / image / GB:.0f} GFLOP/s",
            f"{speed / GB:.0f} GFLOP/s",
            _aim(speed / multiply, PREFILL_SHARE),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _aim(share: float, least: float) -> str:
    return f"{share:.0%} ({least:.0%} {'reached' if share >= least else 'missed'})"


def decoder_bytes(pack: Path) -> int:
    """Of the matrices and norms that one more token reads: all of the decoder, the table as output matrix."""
    return sum(entry.bytes for name, entry in read_index(pack).entries.items() if name.startswith("text."))


def packed(checkpoint: Path, kind: str, folder: Path) -> Contender:
    """Made here, or made before."""
    if not (folder / INDEX).is_file():
        from paligemma.edge.packer import pack_model

        start = time.perf_counter()
        pack_model(checkpoint, folder, kind)  # type: ignore[arg-type]
        say(f"packed to {kind} in {time.perf_counter() - start:.0f} s")
    return Contender(kind, folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.edge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(PRESETS), default="paligemma-3b-224", help="shapes (default paligemma-3b-224)")
    parser.add_argument("--packs", type=lambda text: text.split(","), default=["int8", "int4"], help="default int8,int4")
    parser.add_argument("--alone", action="store_true", help="without transformers")
    parser.add_argument("--repeats", type=int, default=3, help="turns that count (default 3)")
    parser.add_argument("--tokens", type=int, default=17, help="of each answer (default 17)")
    parser.add_argument("--batches", type=sizes, default="1", help="default 1")
    parser.add_argument("--folder", type=Path, help="keep checkpoint (6 GB) and packs here, or use those that are here")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    if options.repeats < 1 or options.tokens < 2:
        parser.error("--repeats must be at least 1 and --tokens at least 2")
    config, kernels = PRESETS[options.model], Kernels(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        place = (options.folder or Path(scratch)) / options.model
        if not (place / "model.safetensors").exists():
            from .random_checkpoint import write_random_checkpoint

            write_random_checkpoint(config, place)
        contenders = [packed(place, kind, place.with_name(f"{options.model}-{kind}")) for kind in options.packs]
        if not options.alone:
            contenders.append(Contender(PEER, place))
        limits = [limit(kernels)]
        figures, names = run(contenders, options.repeats, options.tokens, options.batches)
        limits.append(limit(kernels))
        kinds = [one.kind for one in contenders]
        cost = work(config, PROMPT, numbers="bfloat16", cached="bfloat16")
        text = shares(figures, contenders, cost, limits)
    tokens = f"{config.vision.num_tokens} image and {PROMPT} text tokens"
    print(f"{options.model}, {tokens}; Python {platform.python_version()}, {THREADS} threads.")
    for name, found in names.items():
        print(f"{name}: {found}")
    for when, one in zip(("before", "after"), limits, strict=True):
        print(f"Limits {when}: memory read {one.read / GB:.1f} GB/s, products of bytes {one.multiply / GB:.0f} GFLOP/s.")
    arithmetic = f"picture {cost.picture / 1e12:.2f}, prompt {cost.prompt / 1e12:.2f} TFLOP"
    print(f"Arithmetic: {arithmetic}; {cost.weights / 1e9:.2f} G weights a token.")
    print(f"\n{table(figures, kinds)}\n\n{text}")
    if options.json is not None:
        found = {"limits": [asdict(one) for one in limits], "names": names, "figures": [asdict(one) for one in figures]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
