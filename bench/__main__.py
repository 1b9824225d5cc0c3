"""`python -m bench`: this project and Hugging Face transformers on one random PaliGemma-3B-224 in bfloat16, side by side on a CPU.

Both engines hold the same file and get the same pixels and ids. They answer in turn, so that a machine that slows down slows both. Printed:
medians, spreads, ratios pair by pair, the machine's limits, and how far apart the two engines' logits are (both do the same work).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paligemma.config import PRESETS, VOCAB_SIZE

from . import limits
from .random_checkpoint import write_random_checkpoint
from .remote import Remote
from .worker import PROMPT, THREADS

ENGINES = ("ours", "transformers")
WARM_UP = 420
"""Tokens of the first answer, after which the decoder is as it stays: ours rearranges its matrices while it decodes, the last of them
after some 400 rows (`strip_linear.PATIENCE`, and eight more from block to block) where the CPU has no bfloat16, sooner where it has."""
GIB = 2**30
TARGETS = {"load": 0.5, "first token, batch 1": 1.0, "decode, batch 1": 0.8, "peak memory": 1.0}
"""Ratios to transformers that we set out to reach."""


@dataclass(frozen=True)
class Row:
    """One figure of both engines, pair by pair, in `unit`."""

    name: str
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of the pairs' ratios."""
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))

    @property
    def target(self) -> float | None:
        return TARGETS.get(self.name)


def compare(folder: Path, repeats: int, tokens: int, batches: Sequence[int], warm_up: int = WARM_UP) -> tuple[list[Row], dict[str, Any]]:
    """All rows, and facts about the engines: their names, whether their logits agree."""
    rows = [_loading(folder, repeats)]
    with ExitStack() as stack:
        pair = [stack.enter_context(Remote(kind, folder)) for kind in ENGINES]
        for engine in pair:
            engine.ask("load")
        say("first answers")
        first = [engine.ask("generate", batch=1, tokens=warm_up)["times"] for engine in pair]
        peaks = [engine.ask("memory")["peak"] / GIB for engine in pair]
        rows.append(Row("very first token after loading", "s", (first[0][0],), (first[1][0],)))
        rows.append(Row(f"very first answer of {warm_up} tokens", "s", (first[0][-1],), (first[1][-1],)))
        rows.append(Row("peak memory", "GiB", (peaks[0],), (peaks[1],)))
        for batch in batches:
            say(f"batch {batch}")
            rows += _answers(pair, batch, repeats, tokens)
        facts = {engine.kind: engine.name for engine in pair} | _agreement(pair, tokens)
    return rows, facts


def _loading(folder: Path, repeats: int) -> Row:
    """Seconds to load in a fresh process each time; the file is in the page cache for both."""
    seconds: dict[str, list[float]] = {kind: [] for kind in ENGINES}
    for number in range(repeats + 1):
        for kind in ENGINES:
            say(f"loading, {number or 'warm-up'}")
            with Remote(kind, folder) as engine:
                taken = engine.ask("load")["seconds"]
            if number:
                seconds[kind].append(taken)
    return Row("load", "s", tuple(seconds["ours"]), tuple(seconds["transformers"]))


def _answers(pair: list[Remote], batch: int, repeats: int, tokens: int) -> list[Row]:
    first: list[list[float]] = [[], []]
    decode: list[list[float]] = [[], []]
    for number in range(repeats + 1):
        for side, engine in enumerate(pair if number % 2 else pair[::-1]):
            side = side if number % 2 else 1 - side
            times = engine.ask("generate", batch=batch, tokens=tokens)["times"]
            if number:
                first[side].append(times[0])
                decode[side].append(1000 * (times[-1] - times[0]) / (tokens - 1))
    return [
        Row(f"first token, batch {batch}", "s", tuple(first[0]), tuple(first[1])),
        Row(f"decode, batch {batch}", "ms/token", tuple(decode[0]), tuple(decode[1])),
    ]


def _agreement(pair: list[Remote], tokens: int) -> dict[str, Any]:
    """Both engines' logits along the answer that ours gives: the same shapes, and as close as bfloat16 lets them be."""
    ids = pair[0].ask("generate", batch=1, tokens=tokens)["ids"]
    logits = []
    with tempfile.TemporaryDirectory() as folder:
        for engine in pair:
            file = f"{folder}/{engine.kind}.npy"
            engine.ask("logits", batch=1, ids=ids, file=file)
            logits.append(np.load(file)[..., :VOCAB_SIZE])
    ours, theirs = logits
    return {
        "same best token": f"{int((ours.argmax(-1) == theirs.argmax(-1)).sum())} of {ours.shape[1]}",
        "logits: difference / spread": f"{float((ours - theirs).std() / theirs.std()):.4f}",
    }


def table(rows: list[Row], facts: dict[str, Any], limit: limits.Limits) -> str:
    """Markdown."""
    lines = [
        f"{facts['ours']} and {facts['transformers']}; torch {torch.__version__}, Python {platform.python_version()},"
        f" {limit.threads} threads.",
        f"Limits in this run: memory read {limit.read / 1e9:.1f} GB/s, bfloat16 {limit.bf16 / 1e9:.0f} GFLOP/s.",
        f"Same work: best token the same at {facts['same best token']} positions, logits differ by"
        f" {facts['logits: difference / spread']} of their spread.",
        "",
        "| | ours | transformers | ratio | target |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        target = "" if row.target is None else f"{row.target} {'reached' if row.ratio <= row.target else 'missed'}"
        lines.append(f"| {row.name}, {row.unit} | {spread(row.ours)} | {spread(row.theirs)} | {row.ratio:.2f} | {target} |")
    return "\n".join(lines)


def spread(values: tuple[float, ...]) -> str:
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g} to {max(values):.3g})"


def sizes(text: str) -> list[int]:
    """`1,2,4` -> [1, 2, 4]"""
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"expected sizes such as 1,2,4, found {text!r}")
    return [int(part) for part in parts]


def say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="counted repeats of everything, after one that is not (default 5)")
    parser.add_argument("--tokens", type=int, default=17, help="tokens of each answer (default 17)")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help=f"tokens of the very first answer (default {WARM_UP})")
    parser.add_argument("--batches", type=sizes, default="1,2,4", help="batch sizes (default 1,2,4)")
    parser.add_argument("--folder", type=Path, help="keep the random checkpoint (6 GB) here, or use the one that is here")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    if options.repeats < 1 or options.tokens < 2 or options.warm_up < 1:
        parser.error("--repeats and --warm-up must be at least 1 and --tokens at least 2")
    say(f"prompt: 256 image tokens and {PROMPT} text tokens; the checkpoint is written first")
    limit = limits.measure(THREADS)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / "model.safetensors").exists():
            write_random_checkpoint(PRESETS["paligemma-3b-224"], folder)
        rows, facts = compare(folder, options.repeats, options.tokens, options.batches, options.warm_up)
    print(table(rows, facts, limit))
    if options.json is not None:
        found = {
            "limits": asdict(limit),
            "facts": facts,
            "rows": [asdict(row) | {"ratio": row.ratio, "target": row.target} for row in rows],
        }
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
