"""`python -m tests.training.campaigns`: runs campaigns, prints their table, and for each failure the command that replays it."""

from __future__ import annotations

import os

# Before torch is imported: a thread would not survive the fork. Where a trial has several, they wait without turning in circles.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")

import argparse
import json
import random
import shlex
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch

from . import arithmetic, crashes, damage, dirty, incidents, kills, mutants, refusals
from .reference import Reference

CAMPAIGNS: dict[str, ModuleType] = {module.NAME: module for module in (kills, crashes, refusals, damage, incidents, dirty, arithmetic)}
"""Those with a `TRAINER` of their own make no sense with another."""
TIERS = ("push", "ci", "release")
TRAINERS = {"toy": "tests.training.campaigns.toy:train", "real": "tests.training.campaigns.real:train"}
MEMORY = Path("/dev/shm")
"""Where runs lie unless told otherwise: what a kill leaves is the same everywhere, and power cuts are played in memory."""
SHOWN = 10
"""Failures that are printed for each campaign."""


@dataclass
class Result:
    name: str
    title: str
    seed: int
    cases: int = 0
    seconds: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)
    """Case -> what was wrong."""

    @property
    def bound(self) -> float | None:
        """At 95% no more than this share of such cases fails (rule of three); None where one did."""
        return min(1.0, 3 / self.cases) if self.cases and not self.failures else None


def run_campaign(reference: Reference, campaign: ModuleType, tier: str, seed: int, *, only: int | None = None, limit: int = 0) -> Result:
    """All cases, or one, or at most `limit` of them spread over all. A case depends on the seed and its number alone."""
    began = time.monotonic()
    result = Result(campaign.NAME, campaign.TITLE, seed)
    points = campaign.points(reference, tier, random.Random(f"{campaign.NAME} {seed}"))
    numbers = range(len(points)) if only is None else [only]
    if limit and len(points) > limit:
        numbers = sorted(random.Random(seed).sample(range(len(points)), limit))
    for number in numbers:
        result.cases += 1
        try:
            campaign.check(reference, points[number], random.Random(f"{campaign.NAME} {seed} {number}"))
        except Exception as error:
            what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            result.failures[number] = f"{points[number]}: {what}"
    result.seconds = time.monotonic() - began
    return result


HEAD = f"{'campaign':<36}{'cases':>7}{'failures':>10}{'95% bound':>11}{'seconds':>9}{'seed':>6}"


def line(one: Result) -> str:
    """Of the table."""
    bound = "-" if one.bound is None else f"{one.bound:.2%}"
    return f"{one.name + ' ' + one.title:<36}{one.cases:>7}{len(one.failures):>10}{bound:>11}{one.seconds:>9.1f}{one.seed:>6}"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.training.campaigns", description=__doc__)
    parser.add_argument("--tier", choices=TIERS, default="push")
    parser.add_argument("--campaign", choices=list(CAMPAIGNS), action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this case, of one campaign")
    parser.add_argument("--cases", type=int, default=0, help="at most so many of each campaign, spread over all")
    parser.add_argument("--trainer", default="toy", help="toy, real (`paligemma train` on a tiny model), or module:function, see trial.py")
    parser.add_argument("--folder", type=Path, default=MEMORY if os.access(MEMORY, os.W_OK) else None, help="where runs lie")
    parser.add_argument("--mutants", action="store_true", help="instead: remove each guard and see that its campaign finds it out")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args(arguments)
    if options.case is not None and len(options.campaign or ()) != 1:
        parser.error("--case needs one --campaign")
    torch.set_num_threads(1)
    trainer = TRAINERS.get(options.trainer, options.trainer)
    with tempfile.TemporaryDirectory(prefix="campaigns-", dir=options.folder) as folder:
        if options.mutants:
            return mutants.main(trainer, Path(folder), options.seed)
        print(HEAD, flush=True)
        references: dict[str, Reference] = {}
        results = []
        for campaign in [CAMPAIGNS[name] for name in options.campaign or CAMPAIGNS]:
            name = getattr(campaign, "TRAINER", trainer)
            if name not in references:
                references[name] = Reference.of(name, Path(folder) / f"trials-{len(references)}")
            results.append(run_campaign(references[name], campaign, options.tier, options.seed, only=options.case, limit=options.cases))
            print(line(results[-1]), flush=True)
    for one in results:
        for number, what in list(one.failures.items())[:SHOWN]:
            print(f"\n{one.name} case {number}: {what}")
            which = f"--campaign {one.name} --tier {options.tier} --seed {one.seed} --case {number}"
            which += f" --trainer {shlex.quote(options.trainer)}" if options.trainer != "toy" else ""
            print(f"replay: python -m tests.training.campaigns {which}")
    if options.json:
        options.json.write_text(json.dumps([vars(one) for one in results], indent=1) + "\n")
    return int(any(one.failures for one in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
