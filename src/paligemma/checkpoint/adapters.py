"""LoRA adapters in peft's file format: `adapter_config.json` and `adapter_model.safetensors`, named as in `adapter_layout`.

peft and transformers load what is written here, and the other way round. Only the layers of a model that are linear are adapted.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from ..errors import CheckpointError, UsageError
from .adapter_config import ADAPTER_BASE, ADAPTER_CONFIG, ADAPTER_WEIGHTS, AdapterInfo, alike, describe_adapter, inspect_adapter
from .adapter_layout import PREFIX, belongs, read_parts, their_names
from .locate import npz_files
from .outgoing import Outgoing
from .safetensors_files import weight_files
from .source import TensorSpec, byte_view, dtype_name
from .values import ValueCheck
from .write import replacing_together, write_safetensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..model.lora import LoraAdapter
    from ..model.paligemma import PaliGemma


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

    info = inspect_adapter(path)
    if name in adapter_names(model):
        raise UsageError(f"the model already has an adapter {name!r}", hint="choose another name, or remove that one first")
    shapes = layer_shapes(model)
    parts = read_parts(info, model.config, shapes)
    if check_base:
        demand_base(info, fingerprint(model), way_out="; check_base=False takes the risk")
    adapters: dict[str, LoraAdapter] = {}
    targets = tuple(alike(parts, shapes) or parts)
    for where, part in parts.items():
        tensors = [tensor.to(device=model.device, dtype=dtype or torch.float32) for tensor in (part.a, part.b)]
        config = LoraConfig(part.rank, part.alpha, info.dropout, targets, info.rslora, info.base)
        adapters[where] = LoraAdapter(config, *tensors, trainable=trainable)
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
    theirs = their_names(model.config)
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
    with replacing_together(folder / ADAPTER_CONFIG, folder / ADAPTER_BASE, folder / ADAPTER_WEIGHTS) as (file, own, weights):
        file.write((json.dumps(description, indent=2) + "\n").encode())
        own.write((json.dumps(recorded, indent=2) + "\n").encode())
        write_safetensors(weights, [_outgoing(*item) for item in tensors.items()])
    return folder


def layer_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The layers of a model that can be adapted, in its order -> numbers in and out of each."""
    from ..model.targets import linear_layers

    return {where: (cast(int, layer.in_features), cast(int, layer.out_features)) for where, layer in linear_layers(model).items()}


def fingerprint(model: PaliGemma) -> str:
    """Tells bases of equal size apart by their norms, which no adapter, merge or quantization touches and every other training moves.

    Equal for float32 and bfloat16 copies of the same weights; float16 rounds differently and has fingerprints of its own.
    """
    return fingerprint_of({name: _whole(tensor) for name, tensor in model.named_parameters() if is_norm(name)})


def is_norm(name: str) -> bool:
    """Whether `fingerprint` looks at the parameter of that name."""
    return "norm" in name


def fingerprint_of(norms: Mapping[str, Tensor]) -> str:
    """Of norms on the CPU, by our names."""
    import torch

    kind = torch.float16 if torch.float16 in {tensor.dtype for tensor in norms.values()} else torch.bfloat16
    digest = hashlib.sha256()
    for name, tensor in sorted(norms.items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + byte_view(tensor.to(kind).contiguous()))
    return f"{dtype_name(kind)}:{digest.hexdigest()}"


def demand_base(info: AdapterInfo, here: str, *, way_out: str = "", depth: int = 3) -> None:
    """Raise `CheckpointError` where an adapter was trained on other weights than those of this fingerprint; warn where nobody can tell."""
    if info.fingerprint is None or info.fingerprint.partition(":")[0] != here.partition(":")[0]:
        what = "the weights this adapter was trained on" + (f" ({info.base})" if info.base else "")
        warnings.warn(f"{info.path}: {what} cannot be compared with the model's; only shapes were", stacklevel=depth)
    elif info.fingerprint != here:
        raise CheckpointError(
            f"{info.path}: the adapter was trained on other weights than this model's",
            hint=belongs(info) + way_out,
            code="other_base",
        )


def _outgoing(name: str, tensor: Tensor) -> Outgoing:
    return Outgoing(name, TensorSpec(tuple(tensor.shape), dtype_name(tensor.dtype)), lambda: iter([tensor.reshape(-1)]))


def _whole(tensor: Tensor) -> Tensor:
    """On the CPU, and not sharded."""
    gather = getattr(tensor, "full_tensor", None)
    return (tensor if gather is None else gather()).detach().cpu()
