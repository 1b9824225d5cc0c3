"""Faults for people and programs: a JSON line for each record that was left out, and a summary to read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import InputError, ResourceError
from ..printable import printable
from .reading import json_of, numbered_lines
from .records import FAULTS, DataSet, Fault, counts

EXAMPLES = 3


def write_quarantine(faults: Iterable[Fault], path: str | Path) -> None:
    """`{where, id, path, code, detail}` a line; the file is whole or not there. Raises `ResourceError` where it cannot be written."""
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.part")
    lines = "".join(json.dumps(fault.to_dict(), ensure_ascii=False) + "\n" for fault in faults)
    try:
        with unfinished.open("wb") as file:
            file.write(lines.encode("utf-8", "backslashreplace"))  # half characters in names of files
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        raise ResourceError(f"{printable(str(path))}: the quarantine cannot be written ({error.strerror})") from error


def read_quarantine(path: str | Path) -> tuple[Fault, ...]:
    """The inverse of `write_quarantine`. Raises `InputError` for a file that is none."""
    path = Path(path)
    try:
        rows = [json_of(line, path) for _, line in numbered_lines(path.read_bytes())]
        return tuple(Fault(row["where"], row["code"], row["detail"], row["id"], row["path"]) for row in rows)
    except OSError as error:
        raise InputError(f"{printable(str(path))}: cannot be read ({error.strerror})", code="not_found") from error
    except (KeyError, TypeError) as error:
        raise InputError(f"{printable(str(path))}: no list of faults", code="bad_annotations") from error


def summary(data: DataSet) -> str:
    """How much is usable, faults by kind with the first few of each, and what was read in its own way. Several lines."""
    lines = [f"{len(data.records):,} records are usable, {len(data.faults):,} are not"]
    for code, count in counts(data.faults).items():
        lines.append(f"  {count:,} {code}: {FAULTS[code]}")
        examples = [fault for fault in data.faults if fault.code == code]
        lines += [f"    {printable(fault.where)}: {printable(fault.detail)}" for fault in examples[:EXAMPLES]]
        if count > EXAMPLES:
            lines.append(f"    and {count - EXAMPLES:,} more")
    lines += [f"  {count:,} {printable(what)}" for what, count in data.notes.items()]
    return "\n".join(lines)
