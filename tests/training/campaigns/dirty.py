"""C17: 2,000 records with 30 kinds of fault, 10 of each. Exactly those are left out, each for its reason, and the rest trains."""

from __future__ import annotations

import json
import math
import random

from tests.annotations.test_dirty import check_coco, check_lines, dirty_coco, dirty_lines

from .reference import Reference
from .trial import Running

NAME = "C17"
TITLE = "dirty data"
TRAINER = "tests.training.campaigns.real:train"
SEEDS = {"push": 1, "ci": 3, "release": 50}
FORMATS = {"jsonl": (check_lines, dirty_lines, "where"), "coco": (check_coco, dirty_coco, "id")}
"""What reads it, what writes it, and by what its faults are known."""
WORDS = "--epochs 1.1 --batch 20 --text-len 160 --max-bad-fraction 0.2"
"""Once through everything, so that pictures which only decoding finds out are found too."""

Point = tuple


def points(reference: Reference, tier: str, rng: random.Random) -> list[Point]:
    """(format, seed)."""
    return [(name, rng.randrange(1 << 30)) for _ in range(SEEDS[tier]) for name in FORMATS]


def check(reference: Reference, point: Point, rng: random.Random) -> None:
    name, seed = point
    read, write, known_by = FORMATS[name]
    with reference.trial() as run:
        read(run.parent / "read", seed)
        file, wrong, _ = write(run.parent / "trained" / "set", seed)
        reference.started.append(Running(f"{reference.trainer} --data {file} {WORDS}", run))
        done = reference.started[-1].end()
        assert done.code == 0, f"exit code {done.code}\n{done.stderr}"
        losses = [float.fromhex(loss) for _, loss, _ in done.of("step")]
        assert all(map(math.isfinite, losses)), f"losses that are no numbers: {losses}"
        faults = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
        found = {str(fault[known_by]).removeprefix("x.jsonl:"): fault["code"] for fault in faults}
        wanted = {str(key): code for key, code in wrong.items()}
        different = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
        few = [(key, wanted.get(key), found.get(key)) for key in different[:5]]
        assert not different, f"{len(different)} are not what was injected; (record, injected, quarantined): {few}"
        assert len(faults) == len(wanted), f"{len(faults)} lines for {len(wanted)} faults"
