"""axe-core, which finds what keeps people out of a page. `.ci/browser` fetches it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

VERSION = "4.14.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paligemma" / "web"
SCRIPT = CACHE / "node_modules" / "axe-core" / "axe.min.js"

STILL = """() => Promise.allSettled(
  document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime < 5000).map((one) => one.finished),
)"""
"""A colour on its way to another is neither."""


def violations(page: Any) -> list[str]:
    """What axe-core calls serious or critical on a Playwright page as it is now, one line for each element."""
    page.evaluate(SCRIPT.read_text(encoding="utf-8"))
    page.evaluate(STILL)
    found = page.evaluate("async () => (await axe.run()).violations")
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {node['html'][:160]} {node['failureSummary']}" for one in grave for node in one["nodes"]]
