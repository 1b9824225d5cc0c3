"""`python -m tests.index.campaigns`: runs the campaign, prints its line, and for each failure the command that replays it."""

from __future__ import annotations

import argparse
import sys

from tests.server.campaigns.frame import HEAD, TIERS, line, run_campaign

from . import kills


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.index.campaigns", description=__doc__)
    parser.add_argument("--tier", choices=TIERS, default="push")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this one")
    options = parser.parse_args(arguments)
    result = run_campaign(kills, options.tier, options.seed, only=options.case)  # type: ignore[arg-type]
    print(HEAD, line(result), sep="\n")
    for what, value in result.measured.items():
        print(f"{what}: {value}")
    for number, what in result.failures.items():
        print(f"\ncase {number}: {what}")
        print(f"replay: python -m tests.index.campaigns --tier {result.tier} --seed {result.seed} --case {number}")
    return int(bool(result.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
