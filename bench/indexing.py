"""`python -m bench.indexing`: pictures a second that `paligemma index` gets into an index, against what the image tower alone can do.

The tower gets pictures that are decoded and squeezed already; indexing begins with JPEG files and ends with a tidy index. They take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from paligemma.config import ENCODERS
from paligemma.embedding import Encoder, load_encoder
from paligemma.image import open_image
from paligemma.index.building import BATCH, THREADS, Builder
from paligemma.index.encoder import squeezed
from paligemma.index.entries import Facts
from paligemma.index.store import writing
from paligemma.model.dual_encoder import DualEncoder

TARGET = 0.9


def pictures(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """JPEG files as detailed as photos: noise at every scale."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        picture = np.zeros((size[1], size[0], 3), np.float32)
        for scale in (4, 16, 64, 256):
            small = rng.integers(0, 256, (scale, scale, 3), np.uint8)
            picture += np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC), np.float32) / 4
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(picture.astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def tower(encoder: Any, seen: Sequence[Image.Image], batch: int) -> float:
    """Pictures a second."""
    began = time.monotonic()
    for start in range(0, len(seen), batch):
        encoder.pictures(seen[start : start + batch])
    return len(seen) / (time.monotonic() - began)


def indexing(encoder: Any, root: Path, where: Path, count: int, batch: int, threads: int) -> float:
    """Pictures a second."""
    began = time.monotonic()
    with writing(where, Facts(encoder.name, encoder.dimensions, "", str(root)), overwrite=True) as writer:
        report = Builder(writer, root, encoder, batch=batch, threads=threads).run()
    assert report.counts["added"] == count, report
    return count / (time.monotonic() - began)


def random_encoder(name: str) -> Encoder:
    """Of a published size, with random weights: as quick as the real one. Its words, of which none are asked for, are the bundled one's."""
    config = ENCODERS[name]
    torch.manual_seed(0)
    model = DualEncoder(dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=2560)))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.02)
    return Encoder(model.requires_grad_(False), load_encoder().words)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.indexing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--encoder", help="a SigLIP; by default the bundled one")
    named.add_argument("--random", choices=ENCODERS, metavar="NAME", help="random weights of a published size: siglip2-base-patch16-224")
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    encoder = random_encoder(options.random) if options.random else load_encoder(options.encoder)
    alone, whole = [], []
    with tempfile.TemporaryDirectory() as scratch:
        root, where = Path(scratch, "pictures"), Path(scratch, "index")
        root.mkdir()
        seen = [squeezed(encoder, open_image(path)) for path in pictures(root, options.pictures, (width, height))]
        for number in range(options.repeats + 1):
            print(f"... {number or 'warm-up'}", file=sys.stderr, flush=True)
            pair = tower(encoder, seen, options.batch), indexing(encoder, root, where, len(seen), options.batch, options.threads)
            if number:
                alone.append(pair[0])
                whole.append(pair[1])
    ratio = statistics.median(b / a for a, b in zip(alone, whole, strict=True))
    print(f"{encoder.name}, {options.pictures} JPEGs of {options.size}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"image tower alone: {statistics.median(alone):.1f} pictures/s ({min(alone):.1f} to {max(alone):.1f})")
    print(f"indexing:          {statistics.median(whole):.1f} pictures/s ({min(whole):.1f} to {max(whole):.1f})")
    print(f"ratio: {ratio:.2f}, target {TARGET} {'reached' if ratio >= TARGET else 'missed'}")
    if options.json is not None:
        options.json.write_text(json.dumps({"tower": alone, "indexing": whole, "ratio": ratio}, indent=1) + "\n")


if __name__ == "__main__":
    main()
