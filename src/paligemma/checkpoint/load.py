"""Checkpoint -> `PaliGemma`: built without memory, filled with the file's tensors, each number resident once.

And `inspect`, which reads headers only.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..config import PaliGemmaConfig
from .detect import describe
from .locate import Format
from .memory import need_memory
from .opening import Opened, OpenedFiles, open_checkpoint
from .source import CHUNK_BYTES, ITEM_SIZE, dtype_name, torch_dtype
from .values import ValueCheck, known_good, remember_good
from .weight_maps import EMBEDDING

if TYPE_CHECKING:
    import torch

    from ..model.paligemma import PaliGemma


O = TypeVar("O", bound=OpenedFiles)


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint is, from its headers. An empty `problems` means that `load_model` would accept names and shapes."""

    path: Path
    format: Format
    files: tuple[Path, ...]
    config: PaliGemmaConfig
    config_from: str
    """Where the configuration was found: `config.json`, `the archive's comment` or `the shapes`."""
    description: str
    """`PaliGemma 2 3B at 224 px`."""
    dtype: str
    tensors: int
    file_bytes: int
    recorded_softcap: float | None
    """The final soft-cap the file names. It is not applied; see `TextConfig`."""
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def version(self) -> int:
        return self.config.version

    @property
    def resolution(self) -> int:
        """Side of the picture in pixels."""
        return self.config.vision.image_size

    @property
    def parameters(self) -> int:
        return self.config.num_parameters


def inspect(path: str | Path) -> CheckpointInfo:
    """Format, model, number type, and what is wrong, without reading a weight and without importing torch.

    Raises `CheckpointError` where the files cannot be described at all: unreadable headers, no or two formats, a refused configuration.
    """
    opened = open_checkpoint(path)
    problems = opened.problems if opened.summary is None else (opened.summary, *opened.problems)
    return CheckpointInfo(
        path=Path(path).expanduser(),
        format=opened.format,
        files=opened.located.files,
        config=opened.config,
        config_from=opened.config_from,
        description=describe(opened.config),
        dtype=opened.dtype,
        tensors=len(opened.raw.specs),
        file_bytes=sum(file.stat().st_size for file in opened.located.files),
        recorded_softcap=opened.recorded_softcap,
        problems=problems,
        warnings=opened.warnings,
    )


@contextmanager
def without_collection() -> Iterator[None]:
    """Building a model makes ten thousand objects and no garbage; a full collection on the way would take as long as all the rest."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@without_collection()
def load_model(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype | None = None,
    check_values: bool = True,
    mapped: bool = True,
) -> PaliGemma:
    """The model in evaluation mode.

    `path`: a Hugging Face folder, one of its files, or a big_vision `.npz`. `dtype`: the checkpoint's own by default.
    `check_values`: refuse NaN and infinity, and compare an output matrix that is stored beside the embedding table; done once per file.
    `mapped`: where nothing needs converting, the weights are the file's own pages. Loading is then instant and memory is shared between
    processes, but truncating the file kills the process (replacing it by renaming is harmless). `mapped=False` copies.

    Raises `CheckpointError` with every missing, unknown, misshapen or non-finite tensor, `ResourceError` when it does not fit into memory.
    """
    import torch

    from ..model.empty import empty_model

    device = torch.device(device)
    opened = open_checkpoint(path, mapped=mapped)
    opened.refuse_problems()
    kind = opened.dtype if dtype is None else dtype_name(dtype)
    need_memory(opened.config.num_parameters * ITEM_SIZE[kind], describe(opened.config), str(device))
    for warning in opened.warnings:
        warnings.warn(f"{opened.label}: {warning}", stacklevel=2)

    state = read_state(opened, device, kind, check_values=check_values, more=tied_problems)
    model = empty_model(opened.config)
    model.load_state_dict(state, assign=True)
    return model.eval()


def read_state(
    opened: O, device: torch.device, kind: str, *, check_values: bool, more: Callable[[O], list[str]] = lambda opened: []
) -> dict[str, torch.Tensor]:
    """All tensors under our names, on the device, in the number type `kind`.

    `check_values`: refuse NaN and infinity, and what `more` finds; done once per file. Warns of matrices of zeros.
    """
    check = check_values and not known_good(opened.located.files)
    values = ValueCheck(opened.label)
    weights = opened.weights()
    state: dict[str, torch.Tensor] = {}
    for name in weights.specs:
        tensor = weights.read(name)
        if check:
            values.look(name, tensor)
        state[name] = tensor.to(device=device, dtype=torch_dtype(kind))
    if check:
        values.problems += more(opened)
        values.finish()
        for name in values.zeros():
            if len(weights.specs[name].shape) > 1:
                warnings.warn(f"{opened.label}: {name} holds only zeros", stacklevel=3)
        remember_good(opened.located.files)
    return state


def tied_problems(opened: Opened) -> list[str]:
    """An output matrix stored beside the embedding table must be equal to it where rows are tokens: PaliGemma has only one table."""
    if opened.tied is None:
        return []
    table, raw = opened.actual[opened.layout.pieces[EMBEDDING].theirs], opened.raw
    tokens = opened.config.text.vocab_size * opened.config.text.width
    step = CHUNK_BYTES // max(ITEM_SIZE.values())  # values, not bytes: the two may be of different number types
    alike = raw.specs[table].dtype == raw.specs[opened.tied].dtype
    for start in range(0, tokens, step):
        part = start, min(step, tokens - start)
        if alike and np.array_equal(raw.array(table, *part), raw.array(opened.tied, *part)):
            continue
        if not np.array_equal(raw.floats(table, *part), raw.floats(opened.tied, *part)):
            return [f"{opened.tied} differs from the embedding table {table}; in PaliGemma they are one"]
    return []
