"""`paligemma doctor`: the checks of a model on this machine, as a list."""

from __future__ import annotations

import dataclasses

from ..printable import printable
from .options import Json, ModelOptions
from .show import as_json

DEFAULTS = ModelOptions(model="bundled")
SOMETHING_IS_WRONG = 1


def doctor(*, json: Json = False, options: ModelOptions = DEFAULTS) -> int:
    """Check that a model computes what it should on this machine."""
    from ..doctor import examine
    from .batch import load

    model = load(options)
    if not json:
        print(*map(printable, model.description.split("\n")), sep="\n", end="\n\n", flush=True)
    failed = 0
    for check in examine(model):
        failed += not check.ok
        if json:
            print(as_json(dataclasses.asdict(check)), flush=True)
            continue
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<16}  {printable(check.detail)}", flush=True)
        if check.advice:
            print(f"{'':<24}{printable(check.advice)}")
    if not json:
        print(f"\n{failed} of the checks failed" if failed else "\nall is well")
    return SOMETHING_IS_WRONG if failed else 0
