"""Cases that have passed, in a file: a long run that was broken off goes on where it was. What passed with other code does not count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from .frame import Trials


class Journal:
    """`path`: lines are added to it. `code`: what is tested, in a word."""

    def __init__(self, path: Path, code: str):
        self._path, self._code = path, code
        self._passed: dict[str, Trials] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                noted = json.loads(line)
            except ValueError:  # empty, or cut when a run was killed
                continue
            if noted["code"] == code:
                self._passed[noted["case"]] = Trials(noted["count"], noted["measured"])

    def passed(self, case: str) -> Trials | None:
        return self._passed.get(case)

    def note(self, case: str, trials: Trials) -> None:
        self._passed[case] = trials
        with self._path.open("a") as file:  # an end before it too: the line before may lack it
            file.write("\n" + json.dumps({"code": self._code, "case": case, **vars(trials)}) + "\n")


def digest(folders: Iterable[Path]) -> str:
    """Of all Python files below."""
    found = hashlib.sha256()
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        found.update(f"{path.name}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]
