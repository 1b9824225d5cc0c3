"""`adapter_config.json`, peft's description of a LoRA adapter: read and checked, and written.

What the format can say and this package does not do (DoRA, trained biases, whole trained layers, adapters of other kinds) is refused.
Beside it lies `base.json`, which is ours: a fingerprint of the weights the adapter was trained on. Nothing here imports torch.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .hub import is_hub_id
from .locate import npz_files
from .recognise import beginning, refuse_by_name, why_not_weights
from .safetensors_files import weight_files

if TYPE_CHECKING:
    from ..model.lora import LoraConfig

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_PICKLES = ("adapter_model.bin", "adapter_model.pt")
ADAPTER_BASE = "base.json"
MAX_JSON = 1 << 20
MAX_RANK = 4096
LARGEST = 1e12

READ = (
    "peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern",
    "bias", "init_lora_weights",
)  # fmt: skip
NEUTRAL = (
    "task_type", "auto_mapping", "peft_version", "inference_mode", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "fan_in_fan_out", "megatron_core", "megatron_config", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    "qalora_group_size", "runtime_config", "ensure_weight_tying",
)  # fmt: skip
"""Fields that change nothing about a finished adapter: which layers it is for is told by its tensors."""
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
"""`init_lora_weights` that left the base's own weights alone."""
REFUSED = {
    "use_dora": "it is a DoRA adapter, which is not supported",
    "modules_to_save": "it holds whole trained layers (modules_to_save) besides LoRA, which is not supported",
    "trainable_token_indices": "it holds trained rows of the embedding table, which is not supported",
    "target_parameters": "it adapts bare parameters (target_parameters), which is not supported",
    "lora_bias": "it adds trained biases (lora_bias), which is not supported",
    "layer_replication": "it repeats layers of the base (layer_replication), which is not supported",
}


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter's files say about it. `base`: a folder or Hugging Face id, None where it is not named; see `find_base`."""

    path: Path
    base: str | None
    rank: int
    alpha: float
    dropout: float
    rslora: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    """Layers, or ends of their names, that differ from the rest."""
    fingerprint: str | None
    """Of the base; None in folders written by others."""


def is_adapter(path: str | Path) -> bool:
    """Whether it is a folder with an adapter and without a model, or one of an adapter's files."""
    path = Path(path).expanduser()
    if path.name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        return path.is_file()
    if not path.is_dir() or weight_files(path) or npz_files(path):
        return False
    return any((path / name).is_file() for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, *ADAPTER_PICKLES))


def inspect_adapter(path: str | Path) -> AdapterInfo:
    """Read `adapter_config.json`. Raises `CheckpointError` for what is missing, malformed or not supported. Imports no torch."""
    folder = _folder(path)
    data = _json(folder, ADAPTER_CONFIG, hint="peft writes it beside the weights: fetch it too")
    if data.get("peft_type") != "LORA":
        raise _bad(f"peft_type is {_short(data.get('peft_type'))}; only LORA is supported")
    for field, what in REFUSED.items():
        if data.get(field):
            raise _bad(what, code="unsupported_adapter")
    if data.get("bias", "none") != "none":
        raise _bad(f"it trained biases (bias is {_short(data['bias'])}), which is not supported", code="unsupported_adapter")
    start = data.get("init_lora_weights")
    if not any(start is plain or (isinstance(start, str) and start == plain) for plain in PLAIN_STARTS):
        raise _bad(
            f"init_lora_weights is {_short(start)}, which may have changed the weights of the base",
            hint="let peft convert it: save_pretrained(..., path_initial_model_for_weight_conversion=...)",
            code="unsupported_adapter",
        )
    unknown = [field for field in data if field not in (*READ, *NEUTRAL, *REFUSED) and data[field]]
    if unknown:
        raise _bad(f"{unknown[0][:60]!a} is not supported", hint="it may come from a newer peft", code="unsupported_adapter")
    base, revision = _line(data, "base_model_name_or_path"), _line(data, "revision")
    if base and revision and "@" not in base and is_hub_id(f"{base}@{revision}"):
        base = f"{base}@{revision}"
    recorded = _json(folder, ADAPTER_BASE) if (folder / ADAPTER_BASE).is_file() else {}
    rslora = data.get("use_rslora")
    if rslora not in (True, False, None):
        raise _bad(f"use_rslora is {_short(rslora)}, expected true or false")
    return AdapterInfo(
        path=folder,
        base=base,
        rank=_rank(data.get("r", 8), "r"),
        alpha=_number(data.get("lora_alpha", 8), "lora_alpha"),
        dropout=_number(data.get("lora_dropout", 0.0), "lora_dropout"),
        rslora=bool(rslora),
        ranks={key: _rank(value, "rank_pattern") for key, value in _pattern(data, "rank_pattern")},
        alphas={key: _number(value, "alpha_pattern") for key, value in _pattern(data, "alpha_pattern")},
        fingerprint=_line(recorded, "fingerprint"),
    )


def find_base(path: str | Path) -> str:
    """The model an adapter belongs to: an existing folder (named from the adapter's folder or from here), else what it is called.

    Raises `CheckpointError` where the adapter does not say.
    """
    info = inspect_adapter(path)
    if info.base is None:
        raise CheckpointError(
            f"{info.path}: {ADAPTER_CONFIG} does not say which model the adapter belongs to",
            hint="write the model's folder or Hugging Face id into base_model_name_or_path there",
            code="no_base",
        )
    beside = info.path / Path(info.base).expanduser()
    if is_adapter(beside):
        raise CheckpointError(f"{info.path}: its base {info.base} is an adapter itself", hint="merge that one first", code="no_base")
    return str(beside) if beside.exists() else info.base


def describe_adapter(base: str, configs: Mapping[str, LoraConfig], everything: Iterable[str]) -> dict[str, Any]:
    """`adapter_config.json` of an adapter.

    configs: by Hugging Face's names of the layers; the most frequent rank and alpha stand for all, others are listed. everything: the
    names of all layers of the model. Where every block is adapted alike, `target_modules` is one expression, else a list of layers:
    short names such as `q_proj`, which most files have there, would adapt the image tower too.
    """
    (rank, alpha), _ = Counter((own.rank, own.alpha) for own in configs.values()).most_common(1)[0]
    first = next(iter(configs.values()))
    kinds = alike(configs, everything)
    name, _, revision = base.partition("@") if is_hub_id(base) and not Path(base).exists() else (base, "", "")
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "revision": revision or None,
        "r": rank,
        "lora_alpha": _shortest(alpha),
        "lora_dropout": first.dropout,
        "use_rslora": first.rslora,
        "target_modules": list(configs) if kinds is None else _expression(kinds),
        "rank_pattern": {where: own.rank for where, own in configs.items() if own.rank != rank},
        "alpha_pattern": {where: _shortest(own.alpha) for where, own in configs.items() if own.alpha != alpha},
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_dora": False,
    }


def _expression(kinds: Iterable[str]) -> str:
    towers: dict[str, list[str]] = {}
    for kind in kinds:
        tower, star, layer = kind.rpartition("*.")
        towers.setdefault(re.escape(tower + star).replace(r"\*", r"\d+"), []).append(re.escape(layer))
    return "|".join(f"{tower}({'|'.join(layers)})" for tower, layers in towers.items())


def alike(names: Iterable[str], everything: Iterable[str]) -> list[str] | None:
    """Names of layers with `*` for the block, where of each kind every block there is is among them; else None."""
    asked, there = (Counter(re.sub(r"\.\d+\.", ".*.", name) for name in group) for group in (names, everything))
    return list(asked) if all(there[kind] == count for kind, count in asked.items()) else None


def value_for(layer: str, table: Mapping[str, Any], otherwise: Any) -> Any:
    """The value of the first key that is the layer's name or, unless it begins with ^, a whole end of it; as in peft."""
    for key, value in table.items():
        plain = key.removeprefix("^").replace("\\.", ".")
        if layer == plain or (not key.startswith("^") and layer.endswith("." + plain)):
            return value
    return otherwise


def _folder(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.is_file():
        refuse_by_name(path)
    folder = path.parent if path.name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) else path
    if not folder.is_dir():
        raise CheckpointError(f"{path}: no such folder", code="not_found")
    return folder


def _json(folder: Path, name: str, hint: str | None = None) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise CheckpointError(f"{folder}: no {name}", hint=hint, code="no_config")
    if (error := why_not_weights(path, beginning(path))) is not None:
        raise error
    if path.stat().st_size > MAX_JSON:
        raise _bad(f"{path.stat().st_size:,} bytes, the limit is {MAX_JSON:,}", name)
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _bad(f"not JSON ({type(error).__name__})", name) from None
    if not isinstance(data, dict):
        raise _bad("not a JSON object", name)
    return data


def _rank(value: object, field: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_RANK:
        raise _bad(f"{field} is {_short(value)}, expected whole numbers from 1 to {MAX_RANK}")
    return value


def _number(value: object, field: str) -> float:
    dropout = field == "lora_dropout"
    if not isinstance(value, int | float) or isinstance(value, bool) or not (0 <= value < 1 if dropout else 0 < value <= LARGEST):
        raise _bad(f"{field} is {_short(value)}, expected numbers " + ("from 0 to below 1" if dropout else "above 0"))
    return float(value)


def _pattern(data: Mapping[str, Any], field: str) -> Iterable[tuple[str, object]]:
    """Names of layers -> values. peft takes regular expressions too; whole ones could run for years, so only plain names are read."""
    table = data.get(field) or {}
    if not isinstance(table, dict):
        raise _bad(f"{field} is {_short(table)}, expected a table")
    for key in table:
        if not re.fullmatch(r"\^?[\w.]{1,200}", key.replace("\\.", ".")):
            raise _bad(f"{field} has the expression {_short(key)}; only names of layers are supported", code="unsupported_adapter")
    return table.items()


def _line(data: Mapping[str, Any], field: str) -> str | None:
    value = data.get(field)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise _bad(f"{field} is {_short(value)}, expected a line of text")
    return value


def _shortest(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number


def _short(value: object) -> str:
    return ascii(value) if len(ascii(value)) <= 60 else ascii(value)[:57] + "..."


def _bad(message: str, where: str = ADAPTER_CONFIG, *, hint: str | None = None, code: str = "bad_config") -> CheckpointError:
    return CheckpointError(f"{where}: {message}", hint=hint, code=code)
