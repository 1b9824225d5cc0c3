"""Outputs of every stage, stored beside a model in `reference.json`, and where today's first differ from them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..model.paligemma import PaliGemma
from ..predictor import Predictor
from .patient import Patient, apart

FILE_NAME = "reference.json"
ANSWER_TOKENS = 32
DIGITS = 6


def write_reference(predictor: Predictor) -> Path:
    """Store the outputs of every stage and a greedy answer, computed in float32, in the model's folder. Returns the file."""
    if predictor.path is None or not predictor.path.is_dir():
        raise CheckpointError("reference outputs belong into a model's folder, and this model was not loaded from one")
    exact = PaliGemma(predictor.model.config)
    exact.load_state_dict({name: tensor.float() for name, tensor in predictor.model.state_dict().items()})
    patient = Patient(Predictor(exact, predictor.tokenizer))
    (answer,) = patient.answers(patient.prompts[:1], ANSWER_TOKENS)
    tokens = patient.written(answer)
    stored = {
        "stages": {name: [float(f"{v:.{DIGITS}g}") for v in value.flatten().tolist()] for name, value in patient.stages.items()},
        "answer": tokens,
        "logprob": patient.score(patient.prompts[0], tokens),
    }
    path = predictor.path / FILE_NAME
    path.write_text(json.dumps(stored) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class Comparison:
    """`stages`: how far each is from what was stored, as a share of its size, in the order of computation.
    `answer`: how far the stored answer's mean log-probability is from the stored one."""

    stages: dict[str, float]
    answer: float


def compare(patient: Patient) -> Comparison | None:
    """None where nothing is stored. Raises `CheckpointError` for a damaged file."""
    path = None if patient.predictor.path is None else patient.predictor.path / FILE_NAME
    if path is None or not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text("utf-8"))
        expected = {name: torch.tensor(stored["stages"].get(name, ()), dtype=torch.float32) for name in patient.stages}
        answer, logprob = [int(id) for id in stored["answer"]], float(stored["logprob"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged", hint="fetch it again, or delete it: this check is then left out") from error
    found = {name: value.flatten().cpu() for name, value in patient.stages.items()}
    stages = {name: apart(found[name], e) if found[name].shape == e.shape else math.inf for name, e in expected.items()}
    return Comparison(stages, abs(patient.score(patient.prompts[0], answer) - logprob))
