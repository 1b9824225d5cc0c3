"""Runs that are compared: by several processes (`torchrun ... -m tests.training.together FOLDER`), or by the test itself, alone.

Not a test: `test_distributed.py` starts it once, since processes take longer to start than these runs take.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from paligemma.checkpoint import save_huggingface
from paligemma.data.opening import open_data
from paligemma.data.records import DataSet
from paligemma.errors import UsageError
from paligemma.predictor.loading import read
from paligemma.training.distributed import Processes, joined
from paligemma.training.objective import Loss
from paligemma.training.optim import clip_gradients, make_optimizer
from paligemma.training.recipes import recipe
from paligemma.training.run import Run, Setup
from paligemma.training.sharding import whole
from tests.tiny import tiny_model, tiny_tokenizer

BATCH, SHARE = 4, 2
STEPS = 5
WORDS = ("cat", "two cats and a dog on the grass", "dog", "a dog", "house", "a red apple", "tree", "bird and fish")


@dataclass(frozen=True)
class Case:
    """`dtype` of the weights; `held_out` records; `alone`: rows at a time of the run alone."""

    recipe: Mapping[str, Any]
    dtype: str = "float32"
    held_out: int = 0
    recompute: bool = False
    alone: int = 2


CASES = {
    "full": Case({"loss": "token", "label_smoothing": 0.1, "weight_decay": 0.01}, held_out=8),
    "lora": Case({"strategy": "lora", "lora_rank": 1}, held_out=1, recompute=True),
    "qlora": Case({"strategy": "qlora", "loss": "token"}),
    "small": Case({"optimizer": "adam-small"}),
    "descent": Case({"optimizer": "sgd", "strategy": "freeze-vision", "learning_rate": 0.03}, held_out=3, alone=4),
}
"""A rank of 1: the second process holds no row of half the adapter's tensors."""


def prepare(folder: Path) -> None:
    """The model and the data of all runs."""
    tiny_tokenizer().save(save_huggingface(tiny_model(), folder / "model"))
    for name in ("data", "holed"):
        (folder / name).mkdir()
        rows = []
        for i, word in enumerate(WORDS):
            Image.fromarray(np.full((28, 28, 3), 30 * i, np.uint8)).save(folder / name / f"{i}.png")
            rows.append(json.dumps({"image": f"{i}.png", "prefix": "caption en", "suffix": word}))
        (folder / name / "annotations.jsonl").write_text("\n".join(rows))


def a_run(
    folder: Path, name: str, processes: Processes, *, case: Case | None = None, data: DataSet | None = None, out: Path | None = None
) -> Run:
    case = case or CASES[name]
    data = data or open_data(folder / "data")
    settings = {"batch": BATCH, "steps": STEPS, "epochs": 0.0, "learning_rate": 3e-3, **case.recipe}
    held_out = dataclasses.replace(data, records=data.records[: case.held_out]) if case.held_out else None
    return Run(
        dataclasses.replace(recipe("simple"), **settings),
        read(folder / "model", device="cpu", dtype=case.dtype),
        [data],
        out or folder / name,
        base="tiny",
        held_out=held_out,
        setup=Setup(micro=case.alone if processes.alone else SHARE, recompute=case.recompute, save_every=0, evaluate_every=2),
        processes=processes,
    )


def main(folder: Path) -> None:
    with joined("cpu") as processes:
        assert processes.world == 2
        for name in CASES:
            a_run(folder, name, processes).go()
        chance(folder, processes)
        optimizers(processes)
        trouble(folder, processes)
        refused(folder, processes)


def chance(folder: Path, processes: Processes) -> None:
    """With dropout, and weights of two number types: a run that goes through, and one whose second process is asked to stop."""
    case = Case({"dropout": 0.2, "strategy": "lora"}, dtype="bfloat16")
    a_run(folder, "through", processes, case=case).go()
    cut = a_run(folder, "cut", processes, case=case)
    if not processes.first:

        def stop(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            if cut.optimizer.updates == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        cut.objective.register_forward_hook(stop)
    finished = cut.go()
    assert (finished.ending.exit_code, finished.ending.position.step) == (143, 3), finished
    a_run(folder, "cut", processes, case=case).go()


def optimizers(processes: Processes) -> None:
    """Steps on parameters that are shared out are those on whole ones, chance included; and so is a state that is put back."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (processes.world,))
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (40, 36), "b.weight": (33, 3, 14), "c.weight": (1, 50), "d.weight": (7,)}
    weights, *gradients = ({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()} for _ in range(4))
    for rule, dtype in itertools.product(("adam", "adam-small", "sgd"), (torch.float32, torch.bfloat16)):
        mine = dataclasses.replace(recipe("simple"), optimizer=rule, learning_rate=0.01, weight_decay=0.01, decay="matrices", warmup=0.0)

        def shared(tensor: torch.Tensor, dtype: torch.dtype = dtype) -> torch.Tensor:
            return distribute_tensor(tensor.to(dtype), mesh, [Shard(0)])

        one = make_optimizer(mine, {name: w.to(dtype) for name, w in weights.items()}, 3)
        two = make_optimizer(mine, {name: shared(w) for name, w in weights.items()}, 3)
        for step, gradient in enumerate(gradients):
            for name, value in gradient.items():
                one.parameters[name].grad, two.parameters[name].grad = value.to(dtype), shared(value)
            norms = [clip_gradients(optimizer.parameters.values(), 1.0) for optimizer in (one, two)]
            torch.testing.assert_close(*norms, rtol=1e-6, atol=0.0)
            one.step(step)
            if step == 1:  # a fresh one goes on from the state
                saved = {name: whole(tensor) for name, tensor in two.state_tensors().items()}
                old, two = two, make_optimizer(mine, two.parameters, 3)
                two.load_state_tensors(saved)
                for name, p in old.parameters.items():
                    two.parameters[name].grad = p.grad
            two.step(step)
        for name, w in one.parameters.items():
            apart = (whole(two.parameters[name]).float() - w.float()).abs()
            limit = 1e-6 if dtype == torch.float32 else 0.0
            assert (apart > limit).float().mean() < 0.01, f"{rule} {dtype} {name}: {apart.max():.1e}"


def trouble(folder: Path, processes: Processes) -> None:
    """A picture that only the second process misses, and a loss that is no number only there."""
    data = open_data(folder / "holed")
    run = a_run(folder, "trouble", processes, case=Case({}), data=data)
    missed = run.mixture.record(SHARE)
    if not processes.first:
        missed.pictures[0].unlink()
        passes = itertools.count(1)

        def poison(module: torch.nn.Module, arguments: Any, loss: Loss) -> Loss:
            return dataclasses.replace(loss, total=loss.total * float("nan")) if next(passes) == 3 else loss

        run.objective.register_forward_hook(poison)
    run.go()


def refused(folder: Path, processes: Processes) -> None:
    try:
        a_run(folder, "refused", processes, case=Case({"batch": 5}))
    except UsageError as error:
        (folder / f"refused-{processes.rank}.txt").write_text(f"{error.message}\n{error.hint}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
