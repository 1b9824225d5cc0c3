"""`python -m tests.jobs.campaigns`: kills jobs, prints a table, and for each failure the command that replays it."""

from __future__ import annotations

import argparse
import sys

from tests.server.campaigns.frame import HEAD, TIERS, line, run_campaign

from . import kills

SHOWN = 10
"""Failures that are printed."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.jobs.campaigns", description=__doc__)
    parser.add_argument("--tier", choices=TIERS, default="push")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this case")
    parser.add_argument("--cases", type=int, default=0, help="at most so many, spread over all")
    options = parser.parse_args(arguments)
    print(HEAD, flush=True)
    result = run_campaign(kills, options.tier, options.seed, only=options.case, limit=options.cases)  # type: ignore[arg-type]
    print(line(result))
    for number, what in list(result.failures.items())[:SHOWN]:
        print(f"\n{result.name} case {number}: {what}")
        print(f"replay: python -m tests.jobs.campaigns --tier {options.tier} --seed {options.seed} --case {number}")
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
