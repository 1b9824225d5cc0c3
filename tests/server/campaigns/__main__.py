"""`python -m tests.server.campaigns`: runs campaigns, prints their table, and for each failure the command that replays it."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from .frame import HEAD, TIERS, Campaign, line, run_campaign
from .journal import Journal, digest

ROOT = Path(__file__).resolve().parents[3]
CAMPAIGNS = {"C5": "prompts", "C7": "requests", "C8": "wire", "C9": "load", "C10": "leaving", "C11": "soak", "C22": "guards"}
"""Name -> module."""
BY_NAME = ("C9", "C11", "C22")
"""Those that run only when they are asked for: two take minutes and a quiet machine, one is about the tests."""
SHOWN = 10
"""Failures that are printed for each campaign."""


def find(name: str) -> Campaign:
    return importlib.import_module(f"{__package__}.{CAMPAIGNS[name]}")  # type: ignore[return-value]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m tests.server.campaigns", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CAMPAIGNS)}; by default all but {', '.join(BY_NAME)}")
    parser.add_argument("--tier", choices=TIERS, default="push")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this case, of one campaign")
    parser.add_argument("--cases", type=int, default=0, help="at most so many of each campaign, spread over all")
    parser.add_argument("--journal", type=Path, help="cases that passed are noted there, and not run again with the same code")
    parser.add_argument("--json", type=Path, help="write the results there too")
    options = parser.parse_args(arguments)
    names = options.names or [name for name in CAMPAIGNS if name not in BY_NAME]
    if unknown := set(names) - set(CAMPAIGNS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if options.case is not None and len(names) != 1:
        parser.error("--case needs the name of one campaign")
    journal = Journal(options.journal, digest(ROOT / name for name in ("src", "tests", "bench"))) if options.journal else None
    print(HEAD, flush=True)
    results = []
    for name in names:
        results.append(run_campaign(find(name), options.tier, options.seed, only=options.case, limit=options.cases, journal=journal))
        print(line(results[-1]), flush=True)
    for one in results:
        for what, value in one.measured.items():
            print(f"{one.name}: {what}: {value}")
        for number, what in list(one.failures.items())[:SHOWN]:
            print(f"\n{one.name} case {number}: {what}")
            print(f"replay: python -m tests.server.campaigns {one.name} --tier {one.tier} --seed {one.seed} --case {number}")
    if options.json:
        options.json.write_text(json.dumps([one.to_dict() for one in results], indent=1) + "\n")
    return int(any(one.failures for one in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
