"""The labelling loop, walked whole on the drawn world: a model labels, a person corrects, it learns, and labels again.

    python examples/labelling_loop.py --out loop            # ten minutes on two cores; needs paligemma[torch,data,vision,eval]
    python examples/labelling_loop.py --out loop --quick    # a minute: that it runs, not what comes out

Boxes are to be called "animal", "shape" or "other", which the bundled model has not learnt. It learns them from a few pictures, and in each
round from some more. Which these are is chosen in two ways: the ones that the model is most doubtful of, and at random. Who corrects is the
world, which knows the truth. `corrections.json` and `corrections.png` have the score on other pictures (AP) by the number of pictures that
were corrected, whatever it is.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("animal", "shape", "other")
WAYS = ("by doubt", "at random")


@dataclass(frozen=True)
class Size:
    """`pool`: pictures that may be corrected; `test`: those that the score is of; `first`: corrected before the first round, at random;
    `each`: in each of the `rounds`; `steps`: updates of each training; `repeats` of it all with other lots, `seed` the first."""

    pool: int = 240
    test: int = 120
    first: int = 16
    each: int = 24
    rounds: int = 3
    steps: int = 120
    repeats: int = 2
    seed: int = 1


QUICK = Size(pool=24, test=8, first=8, each=4, rounds=1, steps=2, repeats=1)


class World:
    """The pictures, and who knows what is in them: a COCO file, as `paligemma nano data` draws it."""

    def __init__(self, folder: Path, size: Size):
        from paligemma.nano.datasets import write_data

        self.folder = write_data(folder, format="coco", count=size.pool, held_out=size.test, seed=size.seed)
        self.pool = self.folder / "train"
        self.truth = json.loads((self.folder / "annotations" / "instances_train.json").read_text())
        self.names = sorted(Path(image["file_name"]).name for image in self.truth["images"])

    def correct(self, labels: Path) -> None:
        """What a person would do: put right every picture of a folder that `paligemma label --to coco` wrote."""
        file = labels / "annotations" / "instances_default.json"
        given = json.loads(file.read_text())
        right = {Path(image["file_name"]).name: image["id"] for image in self.truth["images"]}
        of = {right[image["file_name"]]: image["id"] for image in given["images"]}
        there = [annotation for annotation in self.truth["annotations"] if annotation["image_id"] in of]
        given["annotations"] = [{**one, "image_id": of[one["image_id"]], "id": number} for number, one in enumerate(there, 1)]
        given["categories"] = self.truth["categories"]
        file.write_text(json.dumps(given))


def label(world: World, names: Sequence[str], model: str, out: Path, limit: int) -> list[str]:
    """`paligemma label` about these pictures; the names of the `limit` that it doubts most, which are the ones in `out/coco`."""
    table = world.pool / "waiting.jsonl"
    table.write_text("".join(json.dumps({"id": name, "image": name}) + "\n" for name in names))
    words = ["label", table, "--classes", ";".join(CLASSES), "--to", "coco", "--limit", limit, "--model", model, "--out", out]
    subprocess.run([sys.executable, "-m", "paligemma", *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line)["file"] for line in (out / "coco" / "doubtful.jsonl").read_text().splitlines()]


def train(corrected: Sequence[Path], out: Path, size: Size, seed: int) -> str:
    """The bundled model, taught all that was corrected so far, always as long; returns its folder."""
    from paligemma.data.opening import open_data
    from paligemma.predictor.loading import read
    from paligemma.training.recipes import recipe
    from paligemma.training.run import Run, Setup

    chosen = recipe("simple")
    chosen = dataclasses.replace(chosen, epochs=0.0, steps=size.steps, examples=0, batch=16, learning_rate=3e-4, seed=seed)
    data = [open_data(folder) for folder in corrected]
    finished = Run(chosen, read("bundled", mapped=False), data, out, base="bundled", setup=Setup(save_every=size.steps)).go()
    assert finished.model is not None
    return str(finished.model)


def measure(world: World, model: str, out: Path) -> dict[str, Any]:
    import paligemma
    from paligemma.data.opening import open_data
    from paligemma.evaluation.evaluate import evaluate

    scores = evaluate(paligemma.load(model), open_data(world.folder, split="test"), out=out, report=False)
    return {"ap": scores.value, "interval": list(scores.interval)}


def walk(world: World, size: Size, out: Path, seed: int, tell: Any) -> list[dict[str, Any]]:
    """Both ways from the same first pictures; a point for each round."""
    lots = np.random.default_rng(seed)
    first = [str(name) for name in lots.choice(world.names, size.first, replace=False)]
    label(world, first, "bundled", out / "first", size.first)
    world.correct(out / "first" / "coco")
    began = train([out / "first" / "coco"], out / "first" / "run", size, seed)
    at_first = measure(world, began, out / "first" / "measured")
    points = [{"seed": seed, "way": way, "corrected": size.first, **at_first} for way in WAYS]
    tell(points[0])
    for way in WAYS:
        model, done, folders = began, list(first), [out / "first" / "coco"]
        for number in range(1, size.rounds + 1):
            here = out / way.replace(" ", "-") / str(number)
            rest = [name for name in world.names if name not in done]
            if way == "at random":
                rest = [str(name) for name in lots.choice(rest, size.each, replace=False)]
            done += label(world, rest, model, here, size.each)
            world.correct(here / "coco")
            folders.append(here / "coco")
            model = train(folders, here / "run", size, seed)
            points.append({"seed": seed, "way": way, "corrected": len(done), **measure(world, model, here / "measured")})
            tell(points[-1])
    return points


def draw(points: Sequence[dict[str, Any]], path: Path) -> None:
    """A line for each way, the mean of the repeats; a dot for each of them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for way, colour in zip(WAYS, ("#d2691e", "#4169c8"), strict=True):
        of = [point for point in points if point["way"] == way]
        at = sorted({point["corrected"] for point in of})
        means = [float(np.mean([point["ap"] for point in of if point["corrected"] == one])) for one in at]
        axes.plot(at, means, color=colour, label=f"{way} (mean)")
        axes.plot([point["corrected"] for point in of], [point["ap"] for point in of], "o", color=colour, markersize=4, alpha=0.6)
    axes.set(xlabel="pictures corrected", ylabel="AP of boxes on other pictures", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    reading = argparse.ArgumentParser(description="The labelling loop on the drawn world, by doubt against at random.")
    reading.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    reading.add_argument("--quick", action="store_true", help="as little of everything as it runs with")
    reading.add_argument("--seed", type=int, default=1)
    reading.add_argument("--repeats", type=int, help="how often, with other lots")
    asked = reading.parse_args()
    size = dataclasses.replace(QUICK if asked.quick else Size(), seed=asked.seed)
    size = size if asked.repeats is None else dataclasses.replace(size, repeats=asked.repeats)
    asked.out.mkdir(parents=True)
    began = time.monotonic()

    def tell(point: dict[str, Any]) -> None:
        said = f"{point['corrected']:4} corrected {point['way']:9}  AP {100 * point['ap']:5.1f}"
        print(f"{said}   (lots {point['seed']}, {time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)

    world = World(asked.out / "world", size)
    points = []
    for seed in range(size.seed, size.seed + size.repeats):
        points += walk(world, size, asked.out / f"lots-{seed}", seed, tell)
    whole = {"size": dataclasses.asdict(size), "seconds": round(time.monotonic() - began), "points": points}
    (asked.out / "corrections.json").write_text(json.dumps(whole, indent=1) + "\n")
    draw(points, asked.out / "corrections.png")
    print(asked.out / "corrections.png")


if __name__ == "__main__":
    main()
