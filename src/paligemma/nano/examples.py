"""Examples for the transfers of the bundled family: drawn with their truth, and written as JSON lines that `paligemma train` reads.

Training and held-out examples come from the training stream of the world, those of the test from the test stream: see `world.Split`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError, UsageError, did_you_mean
from ..mask_formats import compress, run_lengths
from ..printable import printable
from .films import film
from .referring import draw_reference
from .scenes import corners
from .world import Split, World

SPLITS = {"train": (Split.TRAIN, 0), "valid": (Split.TRAIN, 1), "test": (Split.TEST, 0)}
"""Name -> stream of the world, and what is added to the seed: no two of them share a picture."""
FIRST_SEED = 5000
"""Seeds of the transfers begin here, far from those that pretraining draws from."""
QUALITY = 95
"""Of the JPEG files of a film's frames."""

Example = tuple[list[Image.Image], str, dict[str, Any]]
"""Pictures, the ending of their files' names, and the fields of the row besides them."""


def refer_examples(split: Split, seed: int) -> Iterator[Example]:
    """Scenes with a sentence that means one of three or four things, and its box and mask. One sentence a picture."""
    world = World(split, seed=seed, text_share=0.0)
    index = 0
    while True:
        scene = world.scene(index)
        meant = draw_reference(scene, np.random.default_rng([seed, split.value, 0x2EF, index]))
        index += 1
        if meant is None:
            continue
        mask = scene.mask(meant.target)
        truth = {
            "box": corners(scene.objects[meant.target]),
            "rle": {"size": list(mask.shape), "counts": compress(run_lengths(mask))},
        }
        yield [Image.fromarray(scene.pixels)], "png", {"task": "refer", "sentence": meant.sentence, "target": truth, "kind": meant.kind}


def video_examples(split: Split, seed: int) -> Iterator[Example]:
    """Films and what happens in them: `caption en`."""
    index = 0
    while True:
        drawn = film(split, seed, index)
        index += 1
        yield [Image.fromarray(frame) for frame in drawn.frames], "jpg", {"task": "caption", "caption": drawn.caption, "kind": drawn.event}


EXAMPLES: dict[str, Callable[[Split, int], Iterator[Example]]] = {"refer": refer_examples, "video": video_examples}


def write_examples(kind: str, out: Path, *, split: str, count: int, seed: int = 0) -> Path:
    """Draw `count` examples into `out/SPLIT/`; returns the file `out/SPLIT.jsonl`, written last. Another seed gives other examples.

    Raises `UsageError` for an unknown kind or split, or a count below 1, `InputError` where that split is there already.
    """
    for what, name, known in (("data", kind, EXAMPLES), ("split", split, SPLITS)):
        if name not in known:
            raise UsageError(f"no {what} is called {name!r}", hint=did_you_mean(name, known, f"one of: {', '.join(known)}"))
    if count < 1:
        raise UsageError(f"--count must be at least 1, got {count}")
    listing = out / f"{split}.jsonl"
    if listing.exists():
        raise InputError(f"{printable(str(listing))} is there already", hint="name another folder, or remove it")
    stream, further = SPLITS[split]
    (out / split).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (pictures, ending, fields) in zip(range(count), EXAMPLES[kind](stream, FIRST_SEED + 10 * seed + further), strict=False):
        names = []
        for place, picture in enumerate(pictures):
            frame = f"-{place}" if len(pictures) > 1 else ""
            names.append(f"{split}/{number:05d}{frame}.{ending}")
            picture.save(out / names[-1], quality=QUALITY)
        shown = {"image": names[0]} if len(names) == 1 else {"images": names}
        rows.append(json.dumps({"id": f"{split}{number:05d}", **shown, **fields}))
    listing.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return listing
