"""`python -m bench.pack_quality`: what packs keep of the bundled model's scores, on fresh scenes, all asked the same.

float32 in PyTorch is what they are held against; a float32 pack is measured too, which should be the same. "int4 calibrated" is rounded by
what the decoder sees while it is asked about other scenes, of the training stream (`paligemma pack --calibrate` does that with a user's
pictures). Targets: int8 keeps 99.5 % of every score, int4 98 %.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import paligemma
from paligemma.checkpoint.finding import find
from paligemma.edge.calibration import Moments, observed
from paligemma.edge.network import EdgeNetwork
from paligemma.edge.packer import pack_model
from paligemma.nano.evaluate import Examination
from paligemma.nano.metrics import Score
from paligemma.nano.world import Split

from .__main__ import say

KINDS = ("float32", "int8", "int4", "int4 calibrated")
TARGETS = {"int8": 0.995, "int4": 0.98, "int4 calibrated": 0.98}
SEEN = 24
"""Samples of each task that rounding looks at, by default."""
SEEN_SEED = 77


def moments(model: Path, folder: Path, seen: int) -> Moments:
    """What the decoder's matrices see in scenes of the training stream."""
    predictor = paligemma.load(pack_model(model, folder, "bf16"))
    assert isinstance(predictor.network, EdgeNetwork)
    with observed(predictor.network) as found:
        Examination(predictor, seen, SEEN_SEED, lambda _line: None, split=Split.TRAIN).run()
    return found


def scores(model: Path, samples: int, seed: int, **how: Any) -> dict[str, Score]:
    found = Examination(paligemma.load(model, **how), samples, seed, lambda _line: None).run()
    return {name: score for name, score in found.items() if isinstance(score, Score)}


def table(found: dict[str, dict[str, Score]]) -> str:
    """Markdown: each pack's share of the score in PyTorch."""
    first, *packs = found
    lines = [f"| score | {first} | " + " | ".join(packs) + " |", "|---" * (len(found) + 1) + "|"]
    for name, exact in found[first].items():
        cells = []
        for kind in packs:
            score = found[kind].get(name)
            if score is None:
                cells.append("")
                continue
            share = score.value / exact.value if exact.value else 1.0
            aim = TARGETS.get(kind)
            missed = "" if aim is None or share >= aim else " missed"
            cells.append(f"{score.value:.3f} ({share:.1%}{missed})")
        lines.append(f"| {name} | {exact.value:.3f} (n={exact.count}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.pack_quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="bundled", help="of the bundled family (default: the one used when none is named)")
    parser.add_argument("--samples", type=int, default=600, help="of each task (default 600)")
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--seen", type=int, default=SEEN, help=f"of each task, for rounding that looks at data (default {SEEN})")
    parser.add_argument("--packs", type=lambda text: text.split(","), default=list(KINDS), help=f"of {', '.join(KINDS)} (default: all)")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    model = find(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        found = {"PyTorch": scores(model, options.samples, options.seed, device="cpu", dtype="float32")}
        for kind in options.packs:
            say(kind)
            bits, _, calibrated = kind.partition(" ")
            found_there = moments(model, Path(scratch) / "plain", options.seen) if calibrated else None
            pack = pack_model(model, Path(scratch) / kind.replace(" ", "-"), bits, moments=found_there)  # type: ignore[arg-type]
            found[kind] = scores(pack, options.samples, options.seed)
            if options.json is not None:
                options.json.write_text(
                    json.dumps({of: {name: asdict(s) for name, s in all_.items()} for of, all_ in found.items()}) + "\n"
                )
    print(table(found))


if __name__ == "__main__":
    main()
