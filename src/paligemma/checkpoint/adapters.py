"""LoRA adapters in peft's file format: `adapter_config.json` and `adapter_model.safetensors`, under Hugging Face's names of layers.

    base_model.model. model.language_model.layers.3.self_attn.q_proj .lora_A.weight       ours: text.blocks.3.attn.q, a
                      `-- the layer in transformers >= 5; the names of older ones are read too (see `hub_name`)

peft and transformers load what is written here, and the other way round. Only the layers of a model that are linear are adapted.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import PaliGemmaConfig
from ..errors import CheckpointError, UsageError
from .adapter_config import (
    ADAPTER_BASE,
    ADAPTER_CONFIG,
    ADAPTER_PICKLES,
    ADAPTER_WEIGHTS,
    AdapterInfo,
    alike,
    describe_adapter,
    inspect_adapter,
    value_for,
)
from .locate import npz_files
from .outgoing import Outgoing
from .recognise import pickle_refused
from .safetensors_files import SafetensorsFiles, byte_view, weight_files
from .source import TensorSpec, dtype_name, refuse
from .values import ValueCheck
from .weight_maps import hf_layout, hub_name
from .write import _replacing, write_container

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..model.lora import LoraAdapter
    from ..model.paligemma import PaliGemma

PREFIX = "base_model.model."


def load_adapter(
    model: PaliGemma,
    path: str | Path,
    name: str = "default",
    *,
    trainable: bool = False,
    dtype: torch.dtype | None = None,
    check_base: bool = True,
) -> AdapterInfo:
    """Put an adapter from disk on a model, under that name and at work; the base is frozen.

    trainable: to go on training it. dtype: float32 by default, as peft does. check_base: refuse an adapter that was trained on other
    weights; where its folder has no fingerprint of them, warn that only shapes could be compared.
    Raises `CheckpointError` with every layer that is unknown, incomplete, misshapen or not finite, `UsageError` for a name that is taken.
    """
    import torch

    from ..model.lora import LoraAdapter, LoraConfig, adapter_names, attach
    from ..model.targets import linear_layers

    info = inspect_adapter(path)
    if name in adapter_names(model):
        raise UsageError(f"the model already has an adapter {name!r}", hint="choose another name, or remove that one first")
    source = SafetensorsFiles([_weights(info.path)], mapped=False)
    shapes = {where: (layer.in_features, layer.out_features) for where, layer in linear_layers(model).items()}
    found, problems = _assign(source.specs, info, model.config, shapes)
    refuse(info.path, problems, summary="the adapter does not fit this model", hint=_belongs(info), code="adapter_differs")
    if check_base:
        _check_base(model, info)
    values = ValueCheck(ADAPTER_WEIGHTS)
    adapters: dict[str, LoraAdapter] = {}
    targets = tuple(alike(found, shapes) or found)
    for where, layer in found.items():
        tensors = []
        for theirs in (layer.a, layer.b):
            tensor = source.read(theirs)
            values.look(theirs, tensor)
            tensors.append(tensor.to(device=model.device, dtype=dtype or torch.float32))
        config = LoraConfig(layer.rank, layer.alpha, info.dropout, targets, info.rslora, info.base)
        adapters[where] = LoraAdapter(config, *tensors, trainable=trainable)
    values.finish()
    attach(model, name, adapters)
    return info


def save_adapter(model: PaliGemma, folder: str | Path, name: str = "default", *, base: str | Path | None = None) -> Path:
    """Write one adapter of a model; returns the folder. peft and transformers load it, `load_adapter` too.

    base: the folder or Hugging Face id of the model it is for (`owner/name@revision` for a branch); by default what the adapter was made
    or loaded with. An adapter in the folder is replaced once the new one is complete. Sharded tensors are gathered, which all processes
    must take part in. Raises `UsageError` without a base, for a folder that holds a model, and where there is no such adapter,
    `CheckpointError` for an adapter with values that are no numbers.
    """
    from ..model.lora import adapter_layers

    adapters = adapter_layers(model, name)
    folder = Path(folder).expanduser()
    config = next(iter(adapters.values())).config
    base = config.base if base is None else str(base)
    if not base or not base.isprintable() or len(base) > 1000:
        raise UsageError(f"adapter {name!r}: {base!r} names no model that it is for", hint="pass base=, a folder or a Hugging Face id")
    if folder.is_file() or folder.suffix in (".npz", ".safetensors"):
        raise UsageError(f"{folder}: expected a folder to write to")
    if folder.is_dir() and (weight_files(folder) or npz_files(folder)):
        raise UsageError(f"{folder} holds a model; an adapter beside it would not be found", hint="choose another folder")
    theirs = _their_names(model.config)
    tensors = {}
    for where, adapter in adapters.items():
        tensors[f"{PREFIX}{theirs[where]}.lora_A.weight"] = _whole(adapter.a)
        tensors[f"{PREFIX}{theirs[where]}.lora_B.weight"] = _whole(adapter.b)
    values = ValueCheck(f"adapter {name!r}")
    for theirs_name, tensor in tensors.items():
        values.look(theirs_name, tensor)
    values.finish()
    configs = {theirs[where]: adapter.config for where, adapter in adapters.items()}
    description = describe_adapter(base, configs, theirs.values())
    recorded = {"name": base, "fingerprint": fingerprint(model)}
    with _replacing(folder / ADAPTER_CONFIG) as file, _replacing(folder / ADAPTER_BASE) as own:
        file.write((json.dumps(description, indent=2) + "\n").encode())
        own.write((json.dumps(recorded, indent=2) + "\n").encode())
        write_container(folder / ADAPTER_WEIGHTS, [_outgoing(*item) for item in tensors.items()])
    return folder


def fingerprint(model: PaliGemma) -> str:
    """Tells bases of equal size apart by their norms, which no adapter, merge or quantization touches and every other training moves.

    Equal for float32 and bfloat16 copies of the same weights; float16 rounds differently and has fingerprints of its own.
    """
    import torch

    norms = {name: _whole(tensor) for name, tensor in model.named_parameters() if "norm" in name}
    kind = torch.float16 if torch.float16 in {tensor.dtype for tensor in norms.values()} else torch.bfloat16
    digest = hashlib.sha256()
    for name, tensor in sorted(norms.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + byte_view(tensor.to(kind).contiguous()))
    return f"{dtype_name(kind)}:{digest.hexdigest()}"


@dataclass(frozen=True)
class _Layer:
    """The file's names of an adapter's two tensors for one layer, and what the configuration says about that layer."""

    a: str
    b: str
    rank: int
    alpha: float


def _assign(
    specs: Mapping[str, TensorSpec], info: AdapterInfo, config: PaliGemmaConfig, shapes: Mapping[str, Any]
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


def _check_base(model: PaliGemma, info: AdapterInfo) -> None:
    here = fingerprint(model)
    if info.fingerprint is None or info.fingerprint.partition(":")[0] != here.partition(":")[0]:
        what = "the weights this adapter was trained on" + (f" ({info.base})" if info.base else "")
        warnings.warn(f"{info.path}: {what} cannot be compared with the model's; only shapes were", stacklevel=3)
    elif info.fingerprint != here:
        raise CheckpointError(
            f"{info.path}: the adapter was trained on other weights than this model's",
            hint=_belongs(info) + "; check_base=False takes the risk",
            code="other_base",
        )


def _belongs(info: AdapterInfo) -> str:
    return f"it belongs to {info.base}" if info.base else "use the model it was trained on"


def _hub_names(config: PaliGemmaConfig) -> dict[str, str]:
    return {ours: piece.theirs for ours, piece in hf_layout(config).pieces.items() if ours.endswith(".weight")}


def _their_names(config: PaliGemmaConfig) -> dict[str, str]:
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


def _outgoing(name: str, tensor: Tensor) -> Outgoing:
    return Outgoing(name, TensorSpec(tuple(tensor.shape), dtype_name(tensor.dtype)), lambda: iter([tensor.reshape(-1)]))


def _whole(tensor: Tensor) -> Tensor:
    """On the CPU, and not sharded."""
    gather = getattr(tensor, "full_tensor", None)
    return (tensor if gather is None else gather()).detach().cpu()


def _weights(folder: Path) -> Path:
    path = folder / ADAPTER_WEIGHTS
    if path.is_file():
        return path
    for name in ADAPTER_PICKLES:
        if (folder / name).is_file():
            raise pickle_refused(folder / name)
    raise CheckpointError(f"{folder}: no {ADAPTER_WEIGHTS} beside {ADAPTER_CONFIG}", hint="fetch it too", code="no_weights")
