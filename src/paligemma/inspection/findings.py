"""Everything that was found, as one frozen value: what the terminal, the page and `--json` show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.records import FAULTS, Fault
from .costs import Costs
from .counts import Counts, Tally
from .lengths import Lengths
from .repeats import Repeats
from .sampled import Sampled
from .samples import Sample
from .verdict import Remark

FAULTS_LISTED = 200
"""Records that cannot be used are named up to here; all are counted."""


@dataclass(frozen=True)
class SourceFound:
    """One source. `refused`: why `train` would not take it, in a line, and what to do; `quarantine`: code -> number of faults."""

    path: str
    format: str
    task: str
    split: str
    records: int
    bad_share: float
    quarantine: Mapping[str, int]
    faults: tuple[Fault, ...]
    notes: Mapping[str, int]
    refused: str = ""
    hint: str = ""

    @property
    def unusable(self) -> int:
        return sum(self.quarantine.values())

    @property
    def title(self) -> str:
        return f"{self.path}{f' ({self.split})' if self.split else ''}"

    def meaning(self, code: str) -> str:
        return FAULTS[code]


@dataclass(frozen=True)
class Findings:
    """`limit`: records at most whose pictures and masks were looked at; `held_out`: what to measure with, None: there is nothing."""

    sources: tuple[SourceFound, ...]
    model: str
    image_size: int
    recipe: str
    counts: Counts
    prompts: Tally
    lengths: Lengths
    repeats: Repeats
    sampled: Sampled
    limit: int
    held_out: SourceFound | None
    costs: Costs | None
    remarks: tuple[Remark, ...] = ()
    samples: tuple[Sample, ...] = field(default=(), repr=False)

    @property
    def records(self) -> int:
        return self.counts.records

    @property
    def everything(self) -> tuple[SourceFound, ...]:
        """What is learnt from, and what is held out."""
        return self.sources if self.held_out is None else (*self.sources, self.held_out)

    @property
    def unusable(self) -> int:
        return sum(source.unusable for source in self.sources)

    @property
    def fit(self) -> bool:
        return not any(remark.level == "error" for remark in self.remarks)

    def of(self, level: str) -> list[Remark]:
        return [remark for remark in self.remarks if remark.level == level]

    def to_dict(self) -> dict[str, Any]:
        """Values of JSON; of the records that are shown, all but the pictures."""
        found = dataclasses.asdict(self)
        for sample in found["samples"]:
            del sample["picture"]
        return {"fit": self.fit, **_plain(found)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value
