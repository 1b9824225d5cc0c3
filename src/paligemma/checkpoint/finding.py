"""Which file or folder a name means: a path, a bundled model, an id in Hugging Face's cache; and which the base that an adapter names."""

from __future__ import annotations

from pathlib import Path

from ..config import PRESETS
from ..errors import CheckpointError, UsageError, did_you_mean
from .adapter_config import find_base
from .dual_opening import is_encoder
from .hub import cached, is_hub_id

BUNDLED = Path(__file__).resolve().parent.parent / "bundled"
DEFAULT = "nano-112"
"""The bundled model that is used when none is named."""


def base_of(adapter: Path) -> Path:
    """The model an adapter is for, looked for as any model is; `CheckpointError` that names the adapter where it is not to be found."""
    try:
        return find(find_base(adapter))
    except CheckpointError as error:
        raise CheckpointError(
            f"{adapter} is an adapter, and its base is missing: {error.message}", hint=error.hint, code=error.code
        ) from error


def bundled_models() -> list[str]:
    """Names of the PaliGemmas that came with the package."""
    return sorted(name for name in _bundled() if not is_encoder(BUNDLED / name))


def bundled_encoders() -> list[str]:
    """Names of the SigLIPs that came with the package."""
    return sorted(name for name in _bundled() if is_encoder(BUNDLED / name))


def _bundled() -> list[str]:
    return [path.parent.name for path in BUNDLED.glob("*/config.json")]


def find(model: str | Path | None, default: str | None = None) -> Path:
    """The file or folder meant by `model`; `CheckpointError` with the nearest thing to do where there is none.

    `default`: the bundled model that is meant by None, `DEFAULT` unless told otherwise.
    """
    if model is None or str(model) in ("", "bundled"):
        model = DEFAULT if default is None else default
        if not (BUNDLED / model).is_dir():
            raise CheckpointError(
                f"this installation has no bundled model {model}",
                hint="name a checkpoint: a folder, or an id that `paligemma pull` fetched (`paligemma models` lists them)",
                code="no_bundled_model",
            )
        return BUNDLED / model
    if not isinstance(model, str | Path):
        raise UsageError(f"a model is named by a path or a text, found {type(model).__name__}")
    path = Path(model).expanduser()
    if path.exists():
        return path
    name = str(model)
    if name in _bundled():
        return BUNDLED / name
    if is_hub_id(name):
        if (fetched := cached(name)) is not None:
            return fetched
        if not path.parent.is_dir():
            what = f"{name} is neither a folder here nor in the local Hugging Face cache"
            raise CheckpointError(what, hint=f"fetch it: paligemma pull {name}", code="not_cached")
    if name in PRESETS:
        size = name.rsplit("-", 1)
        raise CheckpointError(f"{name} is a size, not a checkpoint", hint=f"for example google/{size[0]}-pt-{size[1]}", code="not_found")
    siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    otherwise = "name a folder, an .npz file, or a Hugging Face id such as google/paligemma2-3b-mix-224"
    hint = did_you_mean(path.name, [*siblings, *_bundled()], otherwise)
    raise CheckpointError(f"{name}: no such file or folder", hint=hint, code="not_found")
