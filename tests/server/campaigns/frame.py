"""What a campaign is, how its cases are run, and the line of the table that they come to.

A campaign is a module:

    NAME, TITLE
    points(tier, rng)           all cases, which depend on the seed alone
    stage()                     context manager: what the cases happen to, such as a running server
    check(stage, point, rng)    one case; raises where something is wrong. May return how many trials it was, and what was measured
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

TIERS = ("push", "ci", "release")


@dataclass(frozen=True)
class Trials:
    """What a case was, where it was more than one trial or something was measured."""

    count: int = 1
    measured: dict[str, Any] = field(default_factory=dict)


class Campaign(Protocol):
    NAME: str
    TITLE: str

    @staticmethod
    def points(tier: str, rng: random.Random) -> Sequence[Any]: ...
    @staticmethod
    def stage() -> AbstractContextManager[Any]: ...
    @staticmethod
    def check(stage: Any, point: Any, rng: random.Random) -> Trials | None: ...


@dataclass
class Result:
    name: str
    title: str
    tier: str
    seed: int
    cases: int = 0
    seconds: float = 0.0
    failures: dict[int, str] = field(default_factory=dict)
    """Case -> what was wrong."""
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def bound(self) -> float | None:
        """At 95% no more than this share of such cases fails (rule of three); None where one did."""
        return min(1.0, 3 / self.cases) if self.cases and not self.failures else None

    def to_dict(self) -> dict[str, Any]:
        return vars(self) | {"bound": self.bound}


class Passed(Protocol):
    """Cases that need not be run again. See `journal.Journal`."""

    def passed(self, case: str) -> Trials | None: ...
    def note(self, case: str, trials: Trials) -> None: ...


def run_campaign(
    campaign: Campaign, tier: str, seed: int, *, only: int | None = None, limit: int = 0, journal: Passed | None = None
) -> Result:
    """All cases, or one, or at most `limit` of them spread over all. A case depends on the tier, the seed and its number alone.

    `journal`: of cases that have passed before, and are not run again.
    """
    began = time.monotonic()
    result = Result(campaign.NAME, campaign.TITLE, tier, seed)
    points = campaign.points(tier, random.Random(f"{campaign.NAME} {seed}"))
    numbers: Sequence[int] = range(len(points)) if only is None else [only]
    if limit and len(points) > limit:
        numbers = sorted(random.Random(seed).sample(range(len(points)), limit))
    with campaign.stage() as stage:
        for number in numbers:
            case = f"{campaign.NAME} {tier} {seed} {number}"
            try:
                trials = journal.passed(case) if journal else None
                if trials is None:
                    trials = campaign.check(stage, points[number], random.Random(f"{campaign.NAME} {seed} {number}")) or Trials()
                    if journal:
                        journal.note(case, trials)
                result.cases += trials.count
                result.measured |= trials.measured
            except Exception as error:
                result.cases += 1
                what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
                result.failures[number] = f"{points[number]}: {what}"
    result.seconds = time.monotonic() - began
    return result


HEAD = f"{'campaign':<44}{'cases':>9}{'failures':>10}{'95% bound':>11}{'seconds':>9}{'seed':>6}"


def line(one: Result) -> str:
    """Of the table."""
    bound = "-" if one.bound is None else f"{one.bound:.3%}"
    return f"{one.name + ' ' + one.title:<44}{one.cases:>9,}{len(one.failures):>10}{bound:>11}{one.seconds:>9.1f}{one.seed:>6}"
