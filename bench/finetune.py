"""`python -m bench.finetune`: a fine-tuning step of ours beside Hugging Face's Trainer and PEFT: same weights, same batch, same loss.

Examples a second, peak memory, and the share of the machine's best matrix product that went into work a step cannot do without. Contenders
take turns, each time in a process of its own (`finetune_worker.py` says what they are told), so that a machine that slows down slows all.
The first step of each is not counted, but its loss and the norm of its gradient are held beside each other, and so is the last step's loss:
both did the same.

Memory is the most that the process ever had, libraries included: what a machine must have, and what the target is about. Beside it stands
what came on top once the libraries were imported.

The model has PaliGemma's proportions at 0.3 billion parameters: the image tower is SigLIP's base size, the decoder has a quarter of every
width of Gemma 2B's and two thirds of its depth, and the vocabulary is whole, so that its table is almost half of the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from paligemma.benchmark.limits import SIDE, torch_products
from paligemma.checkpoint import load_model, save_adapter
from paligemma.checkpoint.memory import need_memory
from paligemma.config import PRESETS, PaliGemmaConfig, TextConfig, VisionConfig
from paligemma.model.empty import empty_model
from paligemma.training.strategies import prepare

from .__main__ import GIB, say
from .finetune_worker import CONTENDERS, Job, Report, tuned
from .random_checkpoint import write_random_checkpoint

OURS, THEIRS, FEW = CONTENDERS
STRATEGIES = ("full", "lora")
MODELS = PRESETS | {
    "0.3b": PaliGemmaConfig(
        VisionConfig(width=768, depth=12, mlp_dim=3072, heads=12, image_size=224),
        TextConfig(width=512, depth=12, mlp_dim=4096, heads=8, kv_heads=1, head_dim=64),
        name="0.3b",
    )
}
SPEED, MEMORY, SHARE = 1.3, 0.8, 0.45
"""Targets. On a CPU: at least so many times their examples a second, with at most that share of their memory. On an accelerator: at least
that share of the best product, where all of the model learns."""
LOSS_APART, NORM_APART = 1e-3, 2e-2
"""How far apart losses (first and last) and norms of the first gradients may be, in proportion: bfloat16 rounds here and there."""
THEIR_LOGITS = 18
"""Bytes that the Trainer holds for a logit at worst: bfloat16, float32 twice, its logarithm, its gradient. To refuse what cannot fit."""


@dataclass(frozen=True)
class Figure:
    """One figure of every contender, a value a round. `target`: for the ratio to `THEIRS`, or for ours alone where `alone`."""

    name: str
    values: dict[str, tuple[float, ...]]
    target: float | None = None
    more_is_better: bool = True
    alone: bool = False

    def ratio(self, other: str) -> float | None:
        """Ours to another's, median of the rounds' ratios; None where one of them did not take part."""
        if OURS not in self.values or other not in self.values:
            return None
        return statistics.median(a / b for a, b in zip(self.values[OURS], self.values[other], strict=True))

    @property
    def reached(self) -> bool | None:
        own = statistics.median(self.values[OURS]) if OURS in self.values else None
        found = own if self.alone else self.ratio(THEIRS)
        if found is None or self.target is None:
            return None
        return found >= self.target if self.more_is_better else found <= self.target


def work(config: PaliGemmaConfig, job: Job) -> int:
    """Floating-point operations that a step needs: forwards and backwards through what learns, nothing computed again, logits of the
    answer only, and an adapter's gradients but not its base's. Counted on a real pass of a model without numbers."""
    model = empty_model(config).train()
    prepare(model, tuned(job.strategy))
    side, length = config.vision.image_size, job.prompt + job.answer
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ids = torch.zeros(job.batch, length, dtype=torch.long)
        with torch.set_grad_enabled(job.strategy == "full"):
            soft = model.encode_image(torch.zeros(job.batch, 3, side, side))
        hidden = model.hidden_states(soft, ids, torch.ones_like(ids))
        model.logits(hidden[:, -job.answer - 1 : -1]).sum().backward()
    return counter.get_total_flops()


def compare(job: Job, rounds: int, contenders: Sequence[str]) -> dict[str, list[Report]]:
    """Every contender's reports, a round after the other. Raises `RuntimeError` where they do not do the same work, or one fails."""
    reports: dict[str, list[Report]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in contenders if number % 2 == 0 else contenders[::-1]:
            say(f"{job.strategy}, round {number + 1}, {name}")
            reports[name].append(_run(dataclasses.replace(job, contender=name)))
            _check_alike({name: found[0] for name, found in reports.items() if found})
    return reports


def _run(job: Job) -> Report:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "bench.finetune_worker", json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"the process of {job.contender} ended with code {done.returncode}; what went wrong is above")
    return Report(**json.loads(done.stdout))


def _check_alike(first: dict[str, Report]) -> None:
    checked = (
        ("first losses", lambda report: report.losses[0], LOSS_APART),
        ("norms of the first gradients", lambda report: report.norms[0], NORM_APART),
        ("last losses", lambda report: report.losses[-1], LOSS_APART),
    )
    for what, value, apart in checked:
        values = {name: value(report) for name, report in first.items()}
        low, high = min(values.values()), max(values.values())
        if not all(map(math.isfinite, values.values())) or high - low > apart * min(abs(low), abs(high)):
            raise RuntimeError(f"this is not the same work: {what} are {values}")


def figures(job: Job, reports: dict[str, list[Report]], needed: int, best: float) -> list[Figure]:
    """`needed`: operations of a step; `best`: of a second, of which a share is used."""
    seconds = {name: [statistics.median(report.seconds[1:]) for report in found] for name, found in reports.items()}
    here = job.device == "cpu"
    return [
        Figure(
            f"{job.strategy}: examples/s",
            {name: tuple(job.batch / each for each in found) for name, found in seconds.items()},
            SPEED if here else None,
        ),
        Figure(
            f"{job.strategy}: peak memory, GiB",
            {name: tuple(report.memory / GIB for report in found) for name, found in reports.items()},
            MEMORY if here else None,
            more_is_better=False,
        ),
        Figure(
            f"{job.strategy}: of that since the imports, GiB",
            {name: tuple((report.memory - report.imported) / GIB for report in found) for name, found in reports.items()},
            more_is_better=False,
        ),
        Figure(
            f"{job.strategy}: needed work / best product",
            {name: tuple(needed / each / best for each in found) for name, found in seconds.items()},
            SHARE if not here and job.strategy == "full" else None,
            alone=True,
        ),
    ]


def table(rows: Sequence[Figure]) -> str:
    """Markdown. The few-logits contender stands beside, without a target."""
    lines = [f"| | ours | transformers | ratio | target | {FEW} | ratio |", "|---" * 7 + "|"]
    for row in rows:
        goal = (
            ""
            if row.target is None
            else f"{row.target} {'not measured' if row.reached is None else 'reached' if row.reached else 'missed'}"
        )
        cells = [row.name, *(_spread(row.values.get(OURS)), _spread(row.values.get(THEIRS)), _number(row.ratio(THEIRS)), goal)]
        lines.append("| " + " | ".join([*cells, _spread(row.values.get(FEW)), _number(row.ratio(FEW))]) + " |")
    return "\n".join(lines)


def _spread(values: tuple[float, ...] | None) -> str:
    if values is None:
        return ""
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g} to {max(values):.3g})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def best_product(job: Job) -> float:
    """Operations a second of a large matrix product, in the type that products have here."""
    torch.set_num_threads(job.threads)
    return torch_products("bfloat16" if job.half else "float32", job.device)


def write_weights(config: PaliGemmaConfig, folder: Path) -> tuple[Path, Path]:
    """(weights, a first adapter) for all contenders."""
    weights, adapter = folder / "weights", folder / "adapter"
    if not (weights / "model.safetensors").exists():
        write_random_checkpoint(config, weights)
    if not adapter.exists():
        model = load_model(weights)
        prepare(model, tuned("lora"))
        save_adapter(model, adapter, base=weights)
    return weights, adapter


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.finetune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", choices=MODELS, default="0.3b", metavar="NAME", help="0.3b (default) or a preset, such as paligemma-3b-224"
    )
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--batch", type=_count, default=Job.batch, help=f"examples a step (default {Job.batch})")
    parser.add_argument("--rounds", type=_count, default=3, help="processes of each contender (default 3)")
    parser.add_argument("--steps", type=_count, default=Job.steps, help=f"counted steps of each process (default {Job.steps})")
    parser.add_argument("--recompute", action="store_true", help="compute blocks again in the backward pass, all contenders")
    parser.add_argument("--attention", choices=("sdpa", "eager"), default=Job.attention, help=f"theirs (default {Job.attention})")
    parser.add_argument("--device", choices=SIDE, default="cpu")
    parser.add_argument("--folder", type=Path, help="keep the random weights here, or use those that are here")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    options = parser.parse_args()
    config: PaliGemmaConfig = MODELS[options.model]
    if THEIRS in options.contenders:
        positions = options.batch * (config.vision.num_tokens + Job.prompt + Job.answer)
        need = positions * config.text.vocab_size * THEIR_LOGITS + 16 * config.num_parameters * ("full" in options.strategies)
        need_memory(need, f"a step of Hugging Face's Trainer with {options.batch} examples", options.device)
    rows: list[Figure] = []
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        weights, adapter = write_weights(config, options.folder or Path(scratch))
        job = Job(
            OURS, str(weights), "full", str(adapter), batch=options.batch, steps=options.steps, recompute=options.recompute,
            attention=options.attention, words=config.text.vocab_size, device=options.device,
        )  # fmt: skip
        best = best_product(job)
        for strategy in options.strategies:
            mine = dataclasses.replace(job, strategy=strategy)
            reports, needed = compare(mine, options.rounds, options.contenders), work(config, mine)
            rows += figures(mine, reports, needed, best)
            found[strategy] = {"needed": needed} | {n: [dataclasses.asdict(each) for each in many] for n, many in reports.items()}
    print(heading(config, job, best, found))
    print(table(rows))
    if options.json is not None:
        settings = {"model": options.model, "best": best, "job": dataclasses.asdict(job), "torch": torch.__version__}
        options.json.write_text(json.dumps(settings | {"strategies": found}, indent=1) + "\n")


def heading(config: PaliGemmaConfig, job: Job, best: float, found: dict[str, Any]) -> str:
    """What was run, with what, and that contenders did the same."""
    kind, again = "bfloat16" if job.half else "float32", ", blocks computed again" if job.recompute else ""
    lines = [
        f"{config.num_parameters / 1e6:,.0f} million parameters, {job.batch} examples of {config.vision.num_tokens} image tokens,"
        f" {job.prompt} of the prompt and {job.answer} of the answer; products in {kind}{again}.",
        f"torch {torch.__version__}, Python {platform.python_version()}, {job.device}, {job.threads} threads; best product"
        f" {best / 1e9:.0f} GFLOP/s; theirs with {job.attention} attention.",
    ]
    for strategy, sides in found.items():
        for name, reports in sides.items():
            if name != "needed":
                first = reports[0]
                lines.append(f"{strategy}, {first['name']} ({name}): first loss {first['losses'][0]:.4f}, norm {first['norms'][0]:.4f}.")
    return "\n".join([*lines, ""])


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
