"""An adapter's tensors, matched with the layers of a model: which belong together, which are unknown, incomplete, misshapen or not finite.

base_model.model. model.language_model.layers.3.self_attn.q_proj .lora_A.weight       ours: text.blocks.3.attn.q, a
                  `-- the layer in transformers >= 5; the names of older ones are read too (see `hub_name`)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import PaliGemmaConfig
from ..errors import CheckpointError
from .adapter_config import ADAPTER_CONFIG, ADAPTER_PICKLES, ADAPTER_WEIGHTS, AdapterInfo, value_for
from .recognise import pickle_refused
from .safetensors_files import SafetensorsFiles
from .source import TensorSpec, main_dtype, refuse
from .values import ValueCheck
from .weight_maps import EMBEDDING, hf_layout, hub_name, our_shapes

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "base_model.model."
Shapes = Mapping[str, tuple[int, int]]
"""The layers of a model that can be adapted -> numbers in and out of each."""


def adaptable(config: PaliGemmaConfig) -> dict[str, tuple[int, int]]:
    """The layers of such a model that can be adapted, as `adapters.layer_shapes` has them, without building it."""
    matrices = {name: shape for name, shape in our_shapes(config).items() if len(shape) == 2 and name.endswith(".weight")}
    return {name.removesuffix(".weight"): (shape[1], shape[0]) for name, shape in matrices.items() if name != EMBEDDING}


@dataclass(frozen=True)
class Part:
    """What an adapter has for one layer: `a` (rank, in), `b` (out, rank)."""

    a: Tensor
    b: Tensor
    rank: int
    alpha: float

    def scale(self, rslora: bool) -> float:
        return self.alpha / (self.rank**0.5 if rslora else self.rank)


def read_parts(info: AdapterInfo, config: PaliGemmaConfig, shapes: Shapes) -> dict[str, Part]:
    """Our layers, in the model's order -> what the adapter has for them. Raises one `CheckpointError` for all that does not fit."""
    source = SafetensorsFiles([weights_file(info.path)], mapped=False)
    found, problems = _assign(source.specs, info, config, shapes)
    refuse(info.path, problems, summary="the adapter does not fit this model", hint=belongs(info), code="adapter_differs")
    values = ValueCheck(ADAPTER_WEIGHTS)
    parts = {}
    for where, layer in found.items():
        a, b = source.read(layer.a), source.read(layer.b)
        values.look(layer.a, a)
        values.look(layer.b, b)
        parts[where] = Part(a, b, layer.rank, layer.alpha)
    values.finish()
    return parts


def fit_problems(info: AdapterInfo, config: PaliGemmaConfig, shapes: Shapes) -> list[str]:
    """Why the adapter does not fit a model; reads headers only."""
    return _assign(SafetensorsFiles([weights_file(info.path)]).specs, info, config, shapes)[1]


@dataclass(frozen=True)
class Contents:
    """An adapter's file by its headers. `layers`: the file's own names with `*` for the block -> how many layers."""

    layers: Mapping[str, int]
    parameters: int
    dtype: str
    file_bytes: int


def contents(info: AdapterInfo) -> Contents:
    """Raises `CheckpointError` where there is no file of tensors, or none that can be read."""
    path = weights_file(info.path)
    specs = SafetensorsFiles([path]).specs
    layers = [name.removeprefix(PREFIX).partition(".lora_A.")[0] for name in specs if ".lora_A." in name]
    kinds = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in layers)
    return Contents(dict(kinds), sum(spec.numel for spec in specs.values()), main_dtype(specs), path.stat().st_size)


def weights_file(folder: Path) -> Path:
    """Raises `CheckpointError` where there is none, or only a pickle."""
    path = folder / ADAPTER_WEIGHTS
    if path.is_file():
        return path
    for name in ADAPTER_PICKLES:
        if (folder / name).is_file():
            raise pickle_refused(folder / name)
    raise CheckpointError(f"{folder}: no {ADAPTER_WEIGHTS} beside {ADAPTER_CONFIG}", hint="fetch it too", code="no_weights")


def belongs(info: AdapterInfo) -> str:
    """A hint: to what."""
    return f"it belongs to {info.base}" if info.base else "use the model it was trained on"


def their_names(config: PaliGemmaConfig) -> dict[str, str]:
    """Our layers -> where transformers >= 5 has them in memory, which is what peft sees."""
    moved = {
        "language_model.model.": "model.language_model.",
        "vision_tower.vision_model.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    }
    names = {}
    for ours, hub in _hub_names(config).items():
        start = next(start for start in moved if hub.startswith(start))
        names[ours.removesuffix(".weight")] = moved[start] + hub.removeprefix(start).removesuffix(".weight")
    return names


def _hub_names(config: PaliGemmaConfig) -> dict[str, str]:
    return {ours: piece.theirs for ours, piece in hf_layout(config).pieces.items() if ours.endswith(".weight")}


@dataclass(frozen=True)
class _Layer:
    """The file's names of an adapter's two tensors for one layer, and what the configuration says about that layer."""

    a: str
    b: str
    rank: int
    alpha: float


def _assign(
    specs: Mapping[str, TensorSpec], info: AdapterInfo, config: PaliGemmaConfig, shapes: Shapes
) -> tuple[dict[str, _Layer], list[str]]:
    """Our layers -> tensors of the file, and everything that does not fit."""
    ours = {hub.removesuffix(".weight"): where.removesuffix(".weight") for where, hub in _hub_names(config).items()}
    parts: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    for name in specs:
        match = re.fullmatch(rf"(?:{re.escape(PREFIX)})?(.+)\.lora_([AB])\.weight", name)
        where = ours.get(hub_name(match[1]), "") if match else ""
        if match is None or where not in shapes:
            problems.append(f"{name} {_why(name)}")
        elif match[2] in parts.setdefault(where, {}):
            problems.append(f"{parts[where][match[2]]} and {name} are for the same layer")
        else:
            parts[where][match[2]] = name
    found: dict[str, _Layer] = {}
    for where in (where for where in shapes if where in parts):
        pair = parts[where]
        if len(pair) < 2:
            present = next(iter(pair))
            problems.append(f"{pair[present]} has no lora_{'B' if present == 'A' else 'A'} to go with it")
            continue
        inside = pair["A"].removeprefix(PREFIX).removesuffix(".lora_A.weight")
        rank, alpha = value_for(inside, info.ranks, info.rank), value_for(inside, info.alphas, info.alpha)
        inputs, outputs = shapes[where]
        for name, expected in ((pair["A"], (rank, inputs)), (pair["B"], (outputs, rank))):
            if specs[name].shape != expected:
                problems.append(f"{name} has shape {specs[name].shape}, expected {expected}")
        found[where] = _Layer(pair["A"], pair["B"], rank, alpha)
    return found, problems


def _why(name: str) -> str:
    """What is wrong with a tensor that is no part of an adapter for this model."""
    if "lora_magnitude_vector" in name:
        return "belongs to a DoRA adapter, which is not supported"
    if "lora_embedding_" in name or ".embed_tokens." in name or "lm_head." in name:
        return "is for the embedding table, which is not adapted here"
    if ".lora_" in name:
        return "is for a layer that the model does not have"
    return "is not part of a LoRA adapter"
