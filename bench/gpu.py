"""`python -m bench.gpu`: the GPU engine beside Hugging Face transformers and beside the GPU's own limits, all in one run.

PaliGemma-3B-224 in bfloat16 with random weights; 264 tokens of picture and prompt. Both engines hold the same file, get the same pixels and
ids, and answer in turn. Theirs is taken at its best: with a static cache, which their `generate` compiles for, or without, whichever is
faster; for the mixed requests with the batch size that suits it best. `--quantize` gives ours weights of fewer bits. `--device cpu --tiny`
shows that this program works, with a model of toy size; its numbers mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from paligemma.config import PRESETS, PaliGemmaConfig, TextConfig, VisionConfig

from .gpu_engines import Ours, Request, Theirs, synchronised
from .random_checkpoint import write_random_checkpoint

NO_GPU = "there is no GPU here: nothing was measured (--device cpu --tiny shows that this program works)"
TINY = PaliGemmaConfig(VisionConfig(32, 1, 32, 2, image_size=28), TextConfig(32, 2, 32, 2, 1, 16), name="tiny")
LENGTHS = (4, 24, 32, 8, 12, 64, 4, 40, 48)
"""Tokens of the mixed requests' answers, in turn: an answer, boxes, a caption, and so on."""
MIXED = 64
PROMPT = 8


@dataclass(frozen=True)
class Row:
    """One figure. `share`: of what the target asks for: a ratio to theirs, or a part of the machine's limit."""

    name: str
    unit: str
    ours: float
    theirs: float | None
    share: float
    meaning: str
    target: float
    at_least: bool

    @property
    def reached(self) -> bool:
        return self.share >= self.target if self.at_least else self.share <= self.target


@dataclass(frozen=True)
class Scale:
    """How much is measured. `warm_ups`: runs before those that count, which compile and record. `longest`: tokens of the decoded answer.
    `lengths`: of the mixed requests' answers, in turn."""

    config: PaliGemmaConfig
    large: PaliGemmaConfig
    warm_ups: int
    repeats: int
    longest: int
    requests: int
    lengths: tuple[int, ...]
    read_bytes: int
    side: int


FULL = Scale(PRESETS["paligemma-3b-224"], PRESETS["paligemma-3b-896"], 2, 7, 129, MIXED, LENGTHS, 2**33, 8192)
TOY = Scale(TINY, dataclasses.replace(TINY, vision=dataclasses.replace(TINY.vision, image_size=56)), 0, 1, 4, 4, (1, 2, 3), 2**20, 128)


class Bench:
    def __init__(self, folder: Path, device: torch.device, scale: Scale, quantize: str | None):
        self.scale, self.device, self.wait = scale, device, synchronised(device)
        self.read, self.bf16 = self._limits()
        say("loading ours")
        self.ours = Ours(folder, device, quantize, rows=scale.requests)  # pyright: ignore[reportArgumentType]
        say("loading theirs")
        self.theirs = Theirs(folder, device)

    def rows(self) -> list[Row]:
        return [*self._decode(), self._first(), self._mixed(), self._prefill()]

    def _limits(self) -> tuple[float, float]:
        """Bytes read per second, and bfloat16 operations per second."""
        numbers = torch.ones(self.scale.read_bytes // 4, device=self.device)
        summed = self.scale.read_bytes / self._median(numbers.sum)
        copied = 2 * self.scale.read_bytes / self._median(numbers.clone)
        a, b = (torch.randn(self.scale.side, self.scale.side, device=self.device).bfloat16() for _ in range(2))
        return max(summed, copied), 2 * self.scale.side**3 / self._median(lambda: a @ b)

    def _time(self, work: Callable[[], object]) -> float:
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def _median(self, work: Callable[[], object]) -> float:
        for _ in range(self.scale.warm_ups):
            work()
        return statistics.median(self._time(work) for _ in range(self.scale.repeats))

    def _in_turn(self, ours: Callable[[], object], theirs: Sequence[Callable[[], object]]) -> tuple[float, float]:
        """Medians of ours, and of the fastest of theirs."""
        works = [ours, *theirs]
        for work in works * self.scale.warm_ups:
            work()
        times: list[list[float]] = [[] for _ in works]
        for _ in range(self.scale.repeats):
            for work, taken in zip(works, times, strict=True):
                taken.append(self._time(work))
        medians = [statistics.median(taken) for taken in times]
        return medians[0], min(medians[1:])

    def _their(self, work: Callable[[], object]) -> list[Callable[[], object]]:
        """With either cache."""

        def once(cache: str | None) -> Callable[[], object]:
            def run() -> object:
                self.theirs.cache = cache  # pyright: ignore[reportAttributeAccessIssue]
                return work()

            return run

        return [once(None), once("static")]

    def _decode(self) -> list[Row]:
        say("decode at batch 1")
        few, many = 2, self.scale.longest
        one = requests(1, self.scale, seed=1)
        seconds = [
            self._in_turn(lambda n=n: self.ours.answer(one, n), self._their(lambda n=n: self.theirs.answer(one, n))) for n in (few, many)
        ]
        ours, theirs = ((seconds[1][side] - seconds[0][side]) / (many - few) for side in (0, 1))
        roof = self._bytes_a_token() / self.read
        return [
            Row("decode, batch 1, of the memory roof", "ms/token", 1000 * ours, 1000 * theirs, roof / ours, "of the roof", 0.7, True),
            Row("decode, batch 1, speed to theirs", "ms/token", 1000 * ours, 1000 * theirs, theirs / ours, "times theirs", 3.0, True),
        ]

    def _bytes_a_token(self) -> int:
        """Of weights and of keys and values in the middle of the answer: what must be read at least."""
        text = self.ours.model.text
        weights = sum(t.numel() * t.element_size() for t in dict.fromkeys([*text.parameters(), *text.buffers()]) if t.numel())
        config = self.scale.config
        seen = config.vision.num_tokens + PROMPT + self.scale.longest // 2
        return weights + 2 * 2 * seen * config.text.depth * config.text.kv_heads * config.text.head_dim

    def _first(self) -> Row:
        say("first token")
        one = requests(1, self.scale, seed=2)
        ours, theirs = self._in_turn(lambda: self.ours.answer(one, 1), self._their(lambda: self.theirs.answer(one, 1)))
        return Row(
            f"first token, {self.scale.config.vision.image_size} px",
            "ms",
            1000 * ours,
            1000 * theirs,
            ours / theirs,
            "of theirs",
            0.5,
            False,
        )

    def _mixed(self) -> Row:
        count = self.scale.requests
        say(f"{count} mixed requests")
        many = requests(count, self.scale, seed=3)
        sizes = sorted({max(1, count // part) for part in (8, 4, 2, 1)})
        theirs = [work for size in sizes for work in self._their(lambda size=size: self.theirs.mixed(many, size))]
        seconds = self._in_turn(lambda: self.ours.mixed(many), theirs)
        ours, best = (count / taken for taken in seconds)
        return Row(f"{count} mixed requests", "answers/s", ours, best, ours / best, "times theirs", 3.0, True)

    def _prefill(self) -> Row:
        """Ours alone, on a model of its own with random weights."""
        from paligemma.engine.static_network import StaticNetwork
        from paligemma.model.paligemma import PaliGemma

        config = self.scale.large
        say(f"first token, {config.vision.image_size} px")
        with torch.device(self.device):
            model = PaliGemma(config).to(torch.bfloat16).eval().requires_grad_(False)
        network = StaticNetwork(model)
        (one,) = requests(1, self.scale, seed=4, large=True)
        pixels = one.pixels[None].numpy()
        taken = self._median(lambda: network.begin(network.encode(pixels), [one.ids], 1))
        share = operations(config, PROMPT) / taken / self.bf16
        return Row(f"prefill, {config.vision.image_size} px", "ms", 1000 * taken, None, share, "of bf16 peak", 0.5, True)


def operations(config: PaliGemmaConfig, words: int) -> float:
    """Floating-point operations that one picture and `words` tokens need, attention included; the last layer's MLP for one token only."""
    v, t = config.vision, config.text
    patches, tokens = v.num_tokens, v.num_tokens + words
    tower = v.depth * (4 * v.width**2 + 2 * v.width * v.mlp_dim) + 3 * v.patch_size**2 * v.width + v.width * t.width
    sight = 2 * patches * tower + v.depth * 4 * patches**2 * v.width
    attention = t.width * t.head_dim * (2 * t.heads + 2 * t.kv_heads)
    block = tokens * (attention + 3 * t.width * t.mlp_dim)
    last = tokens * attention + 3 * t.width * t.mlp_dim
    scores = (t.depth - 1) * 4 * tokens**2 * t.heads * t.head_dim
    return sight + 2 * ((t.depth - 1) * block + last) + scores


def requests(count: int, scale: Scale, seed: int, *, large: bool = False) -> list[Request]:
    """Pictures of their own, prompts of unequal length where there are several, and lengths of answers in turn."""
    generator = torch.Generator().manual_seed(seed)
    side = (scale.large if large else scale.config).vision.image_size
    made = []
    for number in range(count):
        words = PROMPT if count == 1 else 4 + number % 9
        ids = torch.randint(1000, 200_000, (words - 2,), generator=generator).tolist()
        pixels = torch.rand(3, side, side, generator=generator) * 2 - 1
        made.append(Request(pixels, (2, *ids, 108), scale.lengths[number % len(scale.lengths)]))
    return made


def table(bench: Bench, rows: Sequence[Row]) -> str:
    """Markdown."""
    where = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else "CPU, toy model: no measurement"
    lines = [
        f"{where}; torch {torch.__version__}; {bench.ours.name}; {bench.theirs.name}.",
        f"Limits in this run: memory read {bench.read / 1e9:.0f} GB/s, bfloat16 {bench.bf16 / 1e12:.1f} TFLOP/s.",
        "",
        "| | ours | theirs at best | | target |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = "" if row.theirs is None else f"{row.theirs:.3g}"
        target = f"{'>=' if row.at_least else '<='} {row.target} {'reached' if row.reached else 'missed'}"
        lines.append(f"| {row.name}, {row.unit} | {row.ours:.3g} | {theirs} | {row.share:.2f} {row.meaning} | {target} |")
    return "\n".join(lines)


def say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu with --tiny (default cuda)")
    parser.add_argument("--tiny", action="store_true", help="a model of toy size")
    parser.add_argument("--quantize", choices=("int8", "int4"), help="weights of ours; bfloat16 by default")
    parser.add_argument("--folder", type=Path, help="keep the random checkpoint (6 GB) here, or use the one that is here")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu" and not options.tiny:
        parser.error("--device cpu goes with --tiny")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit(NO_GPU)
    scale = TOY if options.tiny else FULL
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if not (folder / "model.safetensors").exists():
            say("writing a random checkpoint")
            write_random_checkpoint(scale.config, folder)
        bench = Bench(folder, device, scale, options.quantize)
        rows = bench.rows()
    print(table(bench, rows))
    if options.json is not None:
        found = {"limits": {"read": bench.read, "bf16": bench.bf16}, "rows": [asdict(row) | {"reached": row.reached} for row in rows]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
