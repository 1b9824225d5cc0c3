"""What a run is made of, as names and texts kept with every checkpoint, and whether a run may go on where some of it has changed.

A fact's name is `kind` or `kind.rest`; the kind decides what a difference means (`KINDS`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..errors import CheckpointError, InputError, UsageError

_CODE = ("model/*.py", "data/**/*.py", "tasks/*.py", "training/**/*.py", "sequence.py", "image.py", "tokenizer.py", "mask_formats.py")

Meaning = Literal["other model", "other data", "inexact", "free"]

KINDS: dict[str, Meaning] = {
    "base": "other model",
    "adapter": "other model",
    "parameters": "other model",
    "data": "other data",
    "recipe": "inexact",
    "machine": "inexact",
    "version": "inexact",
    "note": "free",
}
"""Kind of fact -> what a difference means. `base`: the model that is fine-tuned; `adapter`: rank and targets; `parameters`: names and
shapes of what is trained; `data`: the data set's fingerprint; `note`: for people. A kind that is not listed counts as inexact."""


@dataclass(frozen=True)
class Difference:
    """`saved`, `now`: None where the fact is not there."""

    name: str
    saved: str | None
    now: str | None

    @property
    def meaning(self) -> Meaning:
        return KINDS.get(self.name.partition(".")[0], "inexact")

    def __str__(self) -> str:
        saved, now = ("not recorded" if value is None else _short(value) for value in (self.saved, self.now))
        return f"{self.name}: saved {saved}, now {now}"


def differences(saved: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """All of them, those that are free included, by name."""
    names = sorted(saved.keys() | now.keys())
    return [Difference(name, saved.get(name), now.get(name)) for name in names if saved.get(name) != now.get(name)]


def check_resume(
    saved: Mapping[str, str], now: Mapping[str, str], *, allow_inexact: bool = False, allow_data_change: bool = False
) -> list[Difference]:
    """Whether a run with the facts `now` may go on from a checkpoint with the facts `saved`.

    Returns the differences that were allowed, which make it another run than the one that was never stopped: to be reported. Raises

    - `CheckpointError` (exit code 4) for another base model, adapter or set of parameters: nothing allows that;
    - `InputError` (3) for other data, unless `allow_data_change`;
    - `UsageError` (2) for any other difference, unless `allow_inexact`,

    listing every difference that is not allowed; of several kinds the first of this list is raised.
    """
    found = [difference for difference in differences(saved, now) if difference.meaning != "free"]
    allowed = {"other model": False, "other data": allow_data_change, "inexact": allow_inexact}
    refused = [difference for difference in found if not allowed[difference.meaning]]
    meanings = {difference.meaning for difference in refused}
    text = "\n".join(["this run differs from the one to be continued:", *(f"  {difference}" for difference in refused)])
    if "other model" in meanings:
        raise CheckpointError(text, hint="choose another --out folder for another model", code="resume_other_model")
    if "other data" in meanings:
        raise InputError(text, hint="put the data back as they were, or allow the change: --allow-data-change", code="resume_data_changed")
    if refused:
        hint = "set it as it was, or allow that the run ends otherwise than if it had not been stopped: --allow-inexact"
        raise UsageError(text, hint=hint, code="resume_differs")
    return found


def flat_facts(kind: str, values: Mapping[str, Any] | object) -> dict[str, str]:
    """A frozen dataclass or nested mapping as facts: `recipe.optimizer.lr` -> `0.001`. What is no mapping is written as JSON."""
    if dataclasses.is_dataclass(values) and not isinstance(values, type):
        values = dataclasses.asdict(values)
    if isinstance(values, Mapping):
        return {name: text for key, item in values.items() for name, text in flat_facts(f"{kind}.{key}", item).items()}
    return {kind: values if isinstance(values, str) else json.dumps(values, sort_keys=True, default=str)}


def machine_facts(device: str = "cpu") -> dict[str, str]:
    """What the last bit of a sum can depend on: versions, the processor's kind, threads, and switches of torch."""
    facts = {
        "version.paligemma": package_version(),
        "version.code": code_fingerprint(),
        "version.python": platform.python_version(),
        "version.torch": torch.__version__,
        "version.numpy": np.__version__,
        "machine.processor": f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "machine.threads": str(torch.get_num_threads()),
        "machine.device": torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else device,
        "machine.deterministic": str(torch.are_deterministic_algorithms_enabled()),
        "machine.matmul_precision": torch.get_float32_matmul_precision(),
    }
    if device.startswith("cuda"):
        facts["version.cuda"] = str(torch.version.cuda)
        facts["machine.devices"] = str(torch.cuda.device_count())
    return facts


def code_fingerprint() -> str:
    """Of the source of what a step is made of: model, data, tasks and training. Releases differ in it, and so does a changed checkout."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(path for part in _CODE for path in package.glob(part)):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def package_version() -> str:
    try:
        return version("paligemma")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"
