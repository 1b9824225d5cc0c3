"""`python -m bench.search`: an index of a million vectors: how long it takes to build and to ask, and how much of the truth it finds.

The vectors are generated: topics, each a direction with a spread of its own in few of the dimensions, as those of pictures lie, and then
every direction a little. Questions are vectors near some of them, not among them. The truth is what an exact search finds. Captions are
eight generated words each; every second picture has a cat, and one of 20,000 a dog.

Every question is asked in four ways, in a fresh process, alone, one after the other: its vector (`Index.nearest`, as deep as `search`
looks, then `Index.entries` for what would be shown); `index.query.search` with three words, as `paligemma search` and the server do it, by
vector and by full text; and that with a condition that half of the pictures meet, and with one that few do. The text tower is left out:
`--tower NAME` times that of a published size, with random weights.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paligemma.index import store
from paligemma.index.entries import Entry, Facts
from paligemma.index.filters import Has
from paligemma.index.query import DEPTH, Query, search
from paligemma.index.store import Index, writing
from paligemma.results import Box

DIMENSIONS = 768
"""SigLIP's of the base size."""
TOPICS, INNER = 2000, 48
"""How many topics, and in how many directions of its own each is spread."""
PIECE = 20_000
TOP = 10
VOCABULARY, LENGTH, ASKED = 5000, 8, 3
"""Words that captions are made of, in a caption, in a question."""
RARE = 20_000
"""One of so many pictures has a dog."""
TARGETS = {"vector, p50 ms": 50.0, "words, p50 ms": 50.0, "recall@10": 0.95}
GIB = 2**30


def world(dimensions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Topics' middles (T, D), and the directions (K, INNER, D) that they are spread in, of which some topics share one set."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((TOPICS, dimensions), np.float32)
    return middles / np.linalg.norm(middles, axis=1, keepdims=True), rng.standard_normal(
        (32, INNER, dimensions), np.float32
    ) / dimensions**0.5


def vectors(count: int, seed: int, dimensions: int, uniform: bool) -> np.ndarray:
    """float32 (count, D), of unit length."""
    rng = np.random.default_rng(seed)
    if uniform:
        found = rng.standard_normal((count, dimensions), np.float32)
    else:
        middles, spreads = world(dimensions)
        topics = rng.zipf(1.3, count) % TOPICS
        found = 0.15 * rng.standard_normal((count, dimensions), np.float32) / dimensions**0.5 + middles[topics]
        inner = rng.standard_normal((count, INNER), np.float32) * (0.7 / np.sqrt(np.arange(1, INNER + 1)))
        for kind in range(len(spreads)):
            own = topics % len(spreads) == kind
            found[own] += inner[own] @ spreads[kind].astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def sentences(count: int, length: int, seed: int) -> list[str]:
    """Words of a made-up language, few of which are frequent."""
    words = np.random.default_rng(seed).zipf(1.2, (count, length)) % VOCABULARY
    return [" ".join(f"w{number}" for number in row) for row in words.tolist()]


def things(number: int) -> tuple[Box, ...]:
    """What is in a picture."""
    names = ["cat"] * (number % 2) + ["dog"] * (number % RARE == 0)
    x, y = number * 7 % 101, number * 13 % 97
    return tuple(Box(name, x, y, x + 0.5 + number % 50, y + 0.25 + number % 60, 0.3 + number % 1000 / 1500) for name in names)


class Told:
    """An encoder that was told the vector of the words."""

    name, scale, bias, config = "generated", 1.0, 0.0, None

    def __init__(self, dimensions: int):
        self.dimensions, self.vector = dimensions, np.zeros(dimensions, np.float32)

    def texts(self, texts: Sequence[str], /) -> np.ndarray:
        return self.vector[None]

    def pictures(self, pictures: Sequence[Any], /) -> np.ndarray:
        return self.vector[None]


def questions(count: int, dimensions: int, uniform: bool) -> np.ndarray:
    return vectors(count, 10**6, dimensions, uniform)


def pieces(rows: int, dimensions: int, uniform: bool) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, rows, PIECE):
        yield start, vectors(min(PIECE, rows - start), start, dimensions, uniform)


def truth(rows: int, asked: np.ndarray, uniform: bool) -> list[set[str]]:
    """The ids of each question's nearest, by looking at all."""
    scores, ids = np.full((len(asked), TOP), -2.0, np.float32), np.zeros((len(asked), TOP), np.int64)
    for start, some in pieces(rows, asked.shape[1], uniform):
        own = asked @ some.T
        joined = np.concatenate([scores, own], axis=1)
        best = np.argpartition(-joined, TOP - 1, axis=1)[:, :TOP]
        known = np.concatenate([ids, np.broadcast_to(start + np.arange(own.shape[1]), own.shape)], axis=1)
        scores, ids = np.take_along_axis(joined, best, 1), np.take_along_axis(known, best, 1)
    return [{f"{number}" for number in row} for row in ids.tolist()]


def build(where: Path, rows: int, dimensions: int, uniform: bool) -> dict[str, float]:
    with writing(where, Facts("generated", dimensions, "", "/pictures"), overwrite=True) as writer:
        began, making = time.monotonic(), 0.0
        for start, some in pieces(rows, dimensions, uniform):
            made = time.monotonic()
            said = sentences(len(some), LENGTH, start)
            entries = [entry(start + n, one, caption) for n, (one, caption) in enumerate(zip(some, said, strict=True))]
            making += time.monotonic() - made
            writer.add(entries)
        written = time.monotonic()
        writer.tidy()
        tidied = time.monotonic()
    size = sum(file.stat().st_size for file in where.rglob("*") if file.is_file())
    return {
        "writing, s": written - began - making,
        "indexing and joining, s": tidied - written,
        "on disk, GiB": size / GIB,
        "memory while building, GiB": peak(),
    }


def entry(number: int, vector: np.ndarray, caption: str) -> Entry:
    size = (3000, 2000) if number % 3 else (800, 600)
    facts = (f"holiday/{number}.jpg", f"{number:032x}", 10**18 + 7919 * number, 10**5 + 7919 * number % 10**6)
    return Entry(f"{number}", *facts, *size, vector, "bundled", {"en": caption}, None, ("cat", "dog"), things(number))


def index(where: Path, rows: int, kind: str) -> dict[str, float]:
    """Another index in place of the one that is there."""
    facts = Index.open(where).facts
    with writing(where, facts) as writer:
        began = time.monotonic()
        writer.index_vectors(rows, kind)
        return {f"indexing ({kind}), s": time.monotonic() - began, "memory while indexing, GiB": peak()}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def ask(where: Path, asked: np.ndarray, expected: list[set[str]]) -> dict[str, float]:
    index = Index.open(where)
    for one in asked[:20]:  # the first ones bring the index into memory
        index.nearest(one, DEPTH)
    times, shares = [], []
    for one, right in zip(asked, expected, strict=True):
        began = time.perf_counter()
        found = index.entries([match.row for match in index.nearest(one, DEPTH)[:TOP]])
        times.append((time.perf_counter() - began) * 1000)
        shares.append(len({entry.id for entry in found} & right) / TOP)
    found = {**spread("vector", times), "recall@10": statistics.mean(shares)}
    for name, has in {"words": (), "words and a cat": (Has("cat"),), "words and a dog": (Has("dog"),)}.items():
        found |= whole(index, name, has, asked)
    return found | {"memory while asking, GiB": peak()}


def whole(index: Index, name: str, has: tuple[Has, ...], asked: np.ndarray) -> dict[str, float]:
    """Words and a condition, as a user asks."""
    encoder, meeting = Told(asked.shape[1]), index.count(has[0].sql) if has else index.count()
    times, counts = [], []
    for vector, words in zip(asked, sentences(len(asked), ASKED, 10**6), strict=True):
        encoder.vector = vector
        began = time.perf_counter()
        hits = search(index, Query(words, has=has), encoder, TOP)
        times.append((time.perf_counter() - began) * 1000)
        counts.append(len(hits))
    later = times[min(20, len(times) // 2) :]
    assert min(counts) == min(TOP, meeting), f"{min(counts)} found, where {meeting} meet the condition"
    return {**spread(name, later), f"{name}, pictures that meet it": meeting} if has else spread(name, later)


def spread(name: str, times: list[float]) -> dict[str, float]:
    return {f"{name}, p50 ms": statistics.median(times), f"{name}, p99 ms": float(np.percentile(times, 99))}


def tower(name: str) -> dict[str, float]:
    """The text tower of a published SigLIP, random weights, a text at a time."""
    from bench.indexing import random_encoder

    encoder, times = random_encoder(name), []
    for words in sentences(40, ASKED, 0):
        began = time.perf_counter()
        encoder.texts([words])
        times.append((time.perf_counter() - began) * 1000)
    return spread(f"text tower of {name}", times[10:])


def child(options: argparse.Namespace, part: str) -> dict[str, float]:
    """A part in a process of its own, so that its memory is its own."""
    command = [sys.executable, "-m", "bench.search", "--part", part, "--folder", str(options.folder)]
    command += ["--rows", str(options.rows), "--dimensions", str(options.dimensions), "--questions", str(options.questions)]
    command += ["--rows-a-partition", str(options.rows_a_partition), *(["--kind", options.kind] if options.kind else [])]
    command += ["--probes", str(options.probes), "--compared", str(options.compared), *(["--uniform"] if options.uniform else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def part(options: argparse.Namespace) -> dict[str, Any]:
    where = options.folder / "index"
    store.ROWS_A_PARTITION = options.rows_a_partition
    if options.part == "index":
        return index(where, options.rows, options.kind)
    if options.part == "build":
        return build(where, options.rows, options.dimensions, options.uniform)
    asked = questions(options.questions, options.dimensions, options.uniform)
    saved = options.folder / f"truth-{options.rows}-{options.dimensions}-{options.questions}-{options.uniform}.json"
    if options.part == "truth":
        if not saved.exists():
            saved.write_text(json.dumps([sorted(ids) for ids in truth(options.rows, asked, options.uniform)]))
        return {}
    store.PROBES, store.COMPARED = options.probes, options.compared
    return ask(where, asked, [set(ids) for ids in json.loads(saved.read_text())])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=DIMENSIONS)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--kind", help="another kind of index than ours: IvfPq, IvfSq, IvfRq, IvfHnswPq, ...")
    parser.add_argument("--rows-a-partition", type=int, default=store.ROWS_A_PARTITION)
    parser.add_argument("--probes", type=int, default=store.PROBES)
    parser.add_argument("--compared", type=int, default=store.COMPARED)
    parser.add_argument(
        "--uniform", action="store_true", help="directions without topics: the hardest there are, and nothing like pictures"
    )
    parser.add_argument("--folder", type=Path, help="keep the index here, and use the one that is here")
    parser.add_argument("--part", choices=("build", "index", "truth", "ask"), help=argparse.SUPPRESS)
    parser.add_argument("--tower", help="also the text tower of this published SigLIP, with random weights")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(part(options)))
        return
    scratch = None if options.folder else Path(tempfile.mkdtemp())
    options.folder = options.folder or scratch
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        found = {} if (options.folder / "index").exists() else child(options, "build")
        found |= child(options, "index") if options.kind else {}
        child(options, "truth")
        found |= child(options, "ask")
        found |= tower(options.tower) if options.tower else {}
    finally:
        if scratch:
            shutil.rmtree(scratch)
    kind = "uniform" if options.uniform else "topics"
    print(
        f"{options.rows:,} vectors of {options.dimensions} ({kind}), {options.questions} questions, probes {options.probes}, compared"
        f" {options.compared}; {platform.machine()}, Python {platform.python_version()}"
    )
    print("| | | target |\n|---|---|---|")
    for name, value in found.items():
        target = TARGETS.get(name)
        reached = "" if target is None else f"{target:g} {'reached' if (value >= target) == (name == 'recall@10') else 'missed'}"
        print(f"| {name} | {value:.3g} | {reached} |")
    if options.json is not None:
        options.json.write_text(
            json.dumps({"rows": options.rows, "dimensions": options.dimensions, "kind": kind, "found": found}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
