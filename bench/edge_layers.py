"""`python -m bench.edge_layers`: how far the products of a pack are from those of the numbers it was made of, layer by layer.

A picture and a prompt go through the unquantized pack; whatever a matrix gets there, the quantized one gets too. Printed: the difference
over the size of the result (root mean squares), by kind of matrix: of all layers the median, the least and the most.

The default is a random PaliGemma-3B-224, whose weights are normal and whose activations have no outliers: a trained model may be harder.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from paligemma.config import PRESETS
from paligemma.edge.network import EdgeNetwork

from .edge import packed
from .worker import inputs

Errors = dict[str, list[float]]


@dataclass
class Compared:
    """A matrix that answers, and notes how far another one is from it."""

    plain: Any
    other: Any
    errors: list[float] = field(default_factory=list)

    def linear(self, x: np.ndarray, bias: np.ndarray | None = None, *, gelu: bool = False) -> np.ndarray:
        y = self.plain.linear(x)
        self.errors.append(float(np.sqrt(np.square(self.other.linear(x) - y).mean() / np.square(y).mean())))
        return self.plain.linear(x, bias, gelu=gelu) if gelu or bias is not None else y

    def embed(self, ids: np.ndarray) -> np.ndarray:
        return self.plain.embed(ids)


def compare(plain: Path, other: Path, decoded: int = 4) -> dict[str, Errors]:
    """Errors by kind of matrix: "text attn.q": one number for each use in each layer. Also while `decoded` tokens are read one by one."""
    exact, rough = EdgeNetwork(plain), EdgeNetwork(other)
    watched: dict[str, list[Compared]] = {}

    def watch(kind: str, a: Any, b: Any) -> Compared:
        one = Compared(a, b)
        watched.setdefault(kind, []).append(one)
        return one

    for mine, theirs in zip(exact.tower.blocks, rough.tower.blocks, strict=True):
        for name in ("qkv", "out", "up", "down"):
            mine[name] = (watch(f"image {name}", mine[name][0], theirs[name][0]), mine[name][1])
    for mine, theirs in zip(exact.decoder.blocks, rough.decoder.blocks, strict=True):
        for name in [name for name in mine if not name.endswith("norm")]:
            mine[name] = watch(f"text {name}", mine[name], theirs[name])
    exact.decoder.table = watch("text output", exact.decoder.table, rough.decoder.table)  # type: ignore[assignment]
    pixels, ids = inputs(1, exact.config.vision.image_size)
    rows = exact.begin(exact.encode(pixels), ids.tolist(), decoded)
    for _ in range(decoded):
        best = int(exact.decoder.logits(rows.hidden).argmax())
        rows.extend([best])
    return {kind: {str(i): one.errors for i, one in enumerate(ones)} for kind, ones in watched.items()}


def table(found: Mapping[str, Mapping[str, Errors]]) -> str:
    """Markdown, a column for each pack."""
    kinds = list(next(iter(found.values())))
    lines = ["| matrix | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for kind in kinds:
        cells = []
        for errors in found.values():
            layers = [statistics.mean(values) for values in errors[kind].values() if values]
            cells.append(f"{statistics.median(layers):.2%} ({min(layers):.2%} to {max(layers):.2%})")
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.edge_layers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=sorted(PRESETS), default="paligemma-3b-224", help="shapes (default paligemma-3b-224)")
    parser.add_argument("--packs", type=lambda text: text.split(","), default=["int8", "int4"], help="default int8,int4")
    parser.add_argument("--folder", type=Path, help="keep checkpoint and packs here (16 GB), or use those that are here: see bench.edge")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = (options.folder or Path(scratch)) / options.model
        if not (place / "model.safetensors").exists():
            from .random_checkpoint import write_random_checkpoint

            write_random_checkpoint(PRESETS[options.model], place)
        folders = {kind: packed(place, kind, place.with_name(f"{options.model}-{kind}")).folder for kind in ("bf16", *options.packs)}
        print(table({kind: compare(folders["bf16"], folders[kind]) for kind in options.packs}))


if __name__ == "__main__":
    main()
