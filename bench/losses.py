"""The loss over PaliGemma's 257,152 tokens, fused and not: seconds and memory, `python -m bench.losses` (each in a process of its own).

fused, SIZE     `training.objective`, with so many logits at once
plain           all logits of the positions that count, in the weights' type, then in float32
all             as a trainer does that takes logits everywhere: 256 image and 44 text tokens of each of 8 examples, of which 300 count
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

from paligemma.checkpoint.memory import peak_memory
from paligemma.config import VOCAB_SIZE

WIDTH, COUNTED, EVERYWHERE = 2048, 300, 8 * 300
WAYS = ("fused, 2**20", "fused, 2**22", "fused, 2**24", "fused, 2**26", "plain", "all")


def worker(way: str, learns: bool) -> dict[str, float]:
    import torch
    import torch.nn.functional as F

    from paligemma.training import objective

    table = torch.empty(VOCAB_SIZE, WIDTH, dtype=torch.bfloat16)
    for rows in table.split(8192):
        rows.copy_(torch.randn(len(rows), WIDTH).mul_(0.02))
    table.requires_grad_(learns)
    count = EVERYWHERE if way == "all" else COUNTED
    hidden = torch.randn(1, count, WIDTH).bfloat16().requires_grad_()
    targets = torch.randint(VOCAB_SIZE, (1, count))
    weights = objective.loss_weights((torch.arange(count) < COUNTED).long()[None])
    if way.startswith("fused"):
        base, power = way.removeprefix("fused, ").split("**")
        objective.MAX_LOGITS = int(base) ** int(power)
    before = peak_memory()
    seconds = []
    for _ in range(2):
        hidden.grad = table.grad = None
        start = time.perf_counter()
        if way.startswith("fused"):
            loss = objective.fused_loss(hidden, table, targets, weights)
        else:
            loss = objective.plain_loss(F.linear(hidden, table), targets, weights)
        loss.total.backward()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "memory": peak_memory() - before}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(*json.loads(options.worker))))
    else:
        print("| way | table | seconds | memory besides, GB |\n|---|---|---|---|")
        for learns in (False, True):
            for way in WAYS:
                arguments = [sys.executable, "-m", "bench.losses", "--worker", json.dumps([way, learns])]
                found = json.loads(subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout)
                print(f"| {way} | {'learns' if learns else 'frozen'} | {found['seconds']:.1f} | {found['memory'] / 1e9:.2f} |", flush=True)
