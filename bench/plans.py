"""Memory plans: `python -m bench.plans` prints those of the published models; `--measure` holds one beside what a process really takes.

The measured model has 110 million parameters, random weights, float32 on the CPU; its steps run in a process of their own, whose peak
memory
is counted from after the imports.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys

from paligemma.checkpoint.memory import peak_memory
from paligemma.config import PRESETS, PaliGemmaConfig, TextConfig, VisionConfig, preset
from paligemma.training.recipes import Recipe, recipe

MEDIUM = PaliGemmaConfig(
    VisionConfig(width=384, depth=8, mlp_dim=1536, heads=6, image_size=224),
    TextConfig(width=512, depth=10, mlp_dim=2048, heads=8, kv_heads=1, head_dim=64, vocab_size=120_000),
    name="medium",
)
BATCH = 4
WAYS = {
    "full": ("full", "adam"),
    "full, adam-small": ("full", "adam-small"),
    "freeze-vision": ("freeze-vision", "adam"),
    "lora": ("lora", "adam"),
    "qlora": ("qlora", "adam"),
}
RUNS = (("full", "adam", False), ("full", "adam", True), ("full", "sgd", False), ("freeze-vision", "adam", False), ("lora", "adam", False))


def table() -> None:
    """GB in all with 8 examples at a time and blocks computed again; and what each example more takes, so, and with everything kept."""
    from paligemma.checkpoint.memory import GB
    from paligemma.training.memory_plan import Machine, plan

    print(f"| model | {' | '.join(WAYS)} | an example more | with everything kept |")
    print("|---" * (len(WAYS) + 3) + "|")
    for name in PRESETS:
        cells = []
        for strategy, optimizer in WAYS.values():
            mine = dataclasses.replace(recipe("simple"), strategy=strategy, optimizer=optimizer)
            cells.append(plan(preset(name), mine, 8, Machine(recompute=True)).total)
        for machine in (Machine(recompute=True), Machine()):
            eight, sixteen = (plan(preset(name), recipe("simple"), batch, machine).total for batch in (8, 16))
            cells.append((sixteen - eight) // 8)
        print(f"| {name} | " + " | ".join(f"{size / GB:.{2 if size < GB else 1}f}" for size in cells) + " |", flush=True)


def measure() -> None:
    from paligemma.checkpoint.memory import GB

    print("| strategy | optimizer | recomputed | planned, GB | taken, GB | of that without gaps, GB |")
    print("|---|---|---|---|---|---|")
    for run in RUNS:
        arguments = [sys.executable, "-m", "bench.plans", "--worker", json.dumps(run)]
        found = [
            json.loads(subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | extra).stdout)
            for extra in ({}, {"MALLOC_MMAP_THRESHOLD_": "131072"})
        ]
        sizes = (found[0]["planned"], found[0]["taken"], found[1]["taken"])
        strategy, optimizer, again = run
        print(
            f"| {strategy} | {optimizer} | {'yes' if again else 'no'} | " + " | ".join(f"{size / GB:.2f}" for size in sizes) + " |",
            flush=True,
        )


def worker(strategy: str, optimizer: str, again: bool) -> dict[str, int]:
    """Two parts of a batch and an update, in this process."""
    import torch

    from paligemma.model.paligemma import PaliGemma
    from paligemma.training.memory_plan import Machine, plan
    from paligemma.training.objective import fused_loss, loss_weights
    from paligemma.training.optim import make_optimizer
    from paligemma.training.strategies import prepare

    mine: Recipe = dataclasses.replace(recipe("simple"), strategy=strategy, optimizer=optimizer)
    planned = plan(MEDIUM, mine, BATCH, Machine("cpu", dtype=torch.float32, recompute=again))
    torch.mm(torch.ones(600, 600), torch.ones(600, 600))  # wakes what products need
    before = peak_memory()
    model = PaliGemma(MEDIUM).train()
    trainable = prepare(model, mine)
    model.vision.recompute = model.text.recompute = again
    update = make_optimizer(mine, trainable.parameters, 1)
    ids = torch.randint(5, 1000, (BATCH, mine.text_len + 1))
    mask = torch.ones_like(ids)
    for _ in range(2):
        soft = model.encode_image(torch.randn(BATCH, 3, 224, 224))
        hidden = model.hidden_states(soft, ids, mask, mask.bool())
        fused_loss(hidden[:, :-1], model.text.embed.weight, ids[:, 1:], loss_weights(mask)[:, 1:]).total.backward()
        del soft, hidden
    update.step(0)
    return {"planned": planned.total, "taken": peak_memory() - before}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(*json.loads(options.worker))))
    elif options.measure:
        measure()
    else:
        table()
