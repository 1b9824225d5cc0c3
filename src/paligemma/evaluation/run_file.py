"""Which model was asked what about which data: `run.json` beside the predictions, so that those of two runs never mix."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint.locate import PACK_INDEX
from ..data.records import DataSet
from ..engine.scores import Calibration
from ..errors import InputError, UsageError

if TYPE_CHECKING:
    from ..predictor import Predictor

FILE = "run.json"
_WEIGHTS = (".safetensors", ".npz", ".model", ".packed")
_WHOLE, _STRIDE, _SAMPLE = 64 << 20, 1 << 20, 512  # bytes of a file: read whole at first, then a sample every so many
_MUST_AGREE = {
    "model_fingerprint": "the model",
    "calibration": "the model's calibration",
    "data_fingerprint": "the data",
    "options": "the options",
}
"""Fields without which two runs are one, and what to call them."""


@dataclass(frozen=True)
class Run:
    """`model`: `paligemma2-3b` where its dimensions are published ones, else ""; `resolution`: pixels; `model_fingerprint`: of
    what is in its files, "" for a model that is no file; `options`: how it was asked; `recipe`: what it was trained by, or "".
    """

    model: str
    model_path: str
    model_fingerprint: str
    description: str
    resolution: int
    calibration: Mapping[str, tuple[float, float]]
    data_path: str
    data_format: str
    data_split: str
    data_fingerprint: str
    records: int
    faults: int
    recipe: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """What may speak of a benchmark and of its split."""
        return tuple(filter(None, (self.recipe, self.data_path, self.data_split)))

    @property
    def is_mix(self) -> bool:
        """Whether the model calls itself one of the mix checkpoints."""
        return "mix" in re.split(r"[^a-z]+", Path(self.model_path).name.lower())

    def save(self, folder: Path) -> None:
        path = folder / FILE
        unfinished = path.with_name(f".{FILE}.{os.getpid()}")
        unfinished.write_text(json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
        unfinished.replace(path)

    @classmethod
    def load(cls, folder: Path) -> Run | None:
        """None where there is no such file; `InputError` where it is none of ours."""
        path = folder / FILE
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            calibration = {kind: (float(a), float(b)) for kind, (a, b) in data.pop("calibration").items()}
            return cls(calibration=calibration, **data)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            hint = "delete it: predictions are then scored without it"
            raise InputError(f"{path} does not describe an evaluation ({type(error).__name__}: {error})", hint=hint) from error

    def check_same(self, other: Run, folder: Path) -> None:
        """Raises `UsageError` naming what differs, unless predictions of one may be continued by the other."""
        mine, theirs = (json.loads(json.dumps(dataclasses.asdict(run), default=str)) for run in (self, other))
        differing = [what for name, what in _MUST_AGREE.items() if mine[name] != theirs[name]]
        if differing:
            raise UsageError(
                f"{folder} holds predictions of another evaluation: {' and '.join(differing)} differ",
                hint="choose another folder, or start afresh (--fresh) and lose them",
                code="other_run",
            )


def describe_run(predictor: Predictor, dataset: DataSet, *, recipe: str = "", options: Mapping[str, Any] | None = None) -> Run:
    """What is about to be asked."""
    from ..checkpoint.hf_config import named

    config = predictor.config
    size = re.fullmatch(r"(paligemma2?-\d+b)-\d+", named(config).name)
    return Run(
        model=size[1] if size else "",
        model_path=os.path.abspath(predictor.path) if predictor.path else "",
        model_fingerprint=fingerprint(predictor.path) if predictor.path else "",
        description=predictor.description.splitlines()[0],
        resolution=config.vision.image_size,
        calibration=dict(predictor.calibration.parameters),
        data_path=os.path.abspath(dataset.path),
        data_format=dataset.format,
        data_split=dataset.split,
        data_fingerprint=dataset.fingerprint,
        records=len(dataset.records),
        faults=len(dataset.faults),
        recipe=recipe,
        options=options or {},
    )


def calibration_of(run: Run | None) -> Calibration:
    """What was applied to the scores of its predictions."""
    return Calibration(run.calibration) if run else Calibration()


def fingerprint(path: Path) -> str:
    """Of the weights and tokenizer: of a folder, or of one file. Copies have the same one.

    Of large files the beginning, where the tensors are named, and a little of every mebibyte are read: training changes whole tensors.
    """
    others = ("tokenizer.json", PACK_INDEX)
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in _WEIGHTS or file.name in others]
    return hashlib.sha256(json.dumps(sorted(map(_facts_of, files))).encode()).hexdigest()[:32]


def _facts_of(file: Path) -> tuple[str, int, str]:
    size = file.stat().st_size
    with file.open("rb") as opened:
        digest = hashlib.sha256(opened.read(_WHOLE))
        for place in range(_WHOLE, size, _STRIDE):
            opened.seek(place)
            digest.update(opened.read(_SAMPLE))
    return file.name, size, digest.hexdigest()
