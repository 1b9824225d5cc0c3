"""What the user names -> a `Predictor`: which files, which device, which numbers. Every choice made here can be read in `description`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from .. import checkpoint
from ..checkpoint.finding import base_of, find
from ..checkpoint.locate import CALIBRATION, locate
from ..checkpoint.placing import SMALL, device_of, dtype_of
from ..checkpoint.source import torch_dtype
from ..edge.pack_file import is_pack
from ..engine.scores import Calibration
from ..errors import CheckpointError, UsageError, no_torch
from ..tokenizer import Tokenizer
from .packs import open_pack, open_small, words_of
from .verbs import Predictor

if TYPE_CHECKING:
    import torch

    from ..engine.network import Network
    from ..model.mask_codec import MaskCodec
    from ..model.paligemma import PaliGemma


def load(
    model: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tokenizer: str | Path | Tokenizer | None = None,
    codec: str | Path | MaskCodec | None = None,
    adapters: Mapping[str, str | Path] | None = None,
    engine: Literal["static"] | None = None,
    quantize: Literal["int8", "int4"] | None = None,
    mapped: bool = True,
) -> Predictor:
    """A model that is ready to be asked.

    model: None for the bundled one; a Hugging Face folder; an adapter's folder (PEFT's format), whose base is loaded with it; a big_vision
        `.npz`; a Hugging Face id that was fetched with `paligemma pull`; the name of a bundled model; a pack (`paligemma pack`), which
        answers without PyTorch.
    device: "cpu", "cuda", "cuda:1", "mps"; by default the best there is.
    dtype: "float32", "bfloat16" or "float16"; by default the checkpoint's own, of a model below 67 million parameters on a CPU float32:
        that costs it nothing, and its answers are the same on every CPU, which round bfloat16 each in its own way.
    tokenizer, codec: files, where the checkpoint has none beside it.
    adapters: several for one base, by the names that `Predictor.use_adapter` takes; the first is at work. They stay beside the weights,
        which costs a little time a token; a single one that is named as `model` is added to them.
    engine: "static" computes in few shapes, compiled for a GPU (docs/gpu.md): the same answers, the first of each shape slower, the others
        faster. By default the plain engine, on all devices.
    quantize: "int8" or "int4": the decoder's weights, rounded. Less to read a token on a GPU, with engine="static"; without it slower than
        not rounded. For a CPU there are packs.
    mapped: of a pack: its weights are used where they lie in their file, so that it is ready at once and memory is lent, not taken; a file
        that is cut while a model answers from it ends the process. False reads them into memory first. Checkpoints are always read.

    Without PyTorch, packs and checkpoints of fewer than 67 million parameters answer, on the CPU; the latter in float32.

    Raises `CheckpointError` for what is not there or is refused, `UsageError` for a device or number type that does not exist,
    `ResourceError` where the model does not fit, or needs PyTorch, which is not there.

    >>> paligemma.load().caption("photo.jpg").text
    'a cat and two dogs'
    """
    path = find(model)
    if is_pack(path):
        given = {"codec": codec, "adapters": adapters, "engine": engine, "quantize": quantize}
        others = [name for name, other in given.items() if other]
        return open_pack(path, tokenizer=tokenizer, device=device, dtype=dtype, others=others, mapped=mapped)
    if find_spec("torch") is None:
        if engine or quantize:
            raise no_torch("engine and quantize")
        file = cast("str | Path | None", codec)
        return open_small(path, tokenizer=tokenizer, codec=file, device=device, dtype=dtype, adapters=adapters)
    from ..model import weight_only
    from ..model.lora import adapter_names, merge

    if adapters and checkpoint.is_adapter(path):
        raise UsageError(
            f"{model} is an adapter itself, and adapters= are for a base", hint="name all of them in adapters=, the base as model"
        )
    parts = read(model, device=device, dtype=dtype, tokenizer=tokenizer, codec=codec)
    network = parts.network.eval().requires_grad_(False)
    for name in adapter_names(network):
        merge(network, name, dequantize=True)
    calibrations = _add_adapters(network, {} if adapters is None else adapters)
    if quantize is not None:
        weight_only.quantize(network, quantize)
    predictor = Predictor(
        _engine(network, engine), parts.tokenizer, parts.codec, calibration=parts.calibration, path=parts.path, calibrations=calibrations
    )  # fmt: skip
    if calibrations:
        predictor.use_adapter(next(iter(calibrations)))
    return predictor


def _engine(model: PaliGemma, engine: str | None) -> Network | PaliGemma:
    """The model as what answers. Raises `UsageError` for an engine that does not exist."""
    if engine is None:
        from ..model.fast_linear import pack

        pack(model)
        return model
    if engine != "static":
        raise UsageError(f"there is no engine {engine!r}", hint="leave it out, or use 'static'")
    from ..engine.static_network import StaticNetwork

    return StaticNetwork(model)


def _add_adapters(network: PaliGemma, adapters: Mapping[str, str | Path]) -> dict[str, Calibration | None]:
    """Put them on a model; the calibrations of those that have one."""
    calibrations: dict[str, Calibration | None] = {}
    for name, given in adapters.items():
        path = find(given)
        if not checkpoint.is_adapter(path):
            raise CheckpointError(f"{path} is no adapter", hint="adapters= takes folders in PEFT's format", code="no_adapter")
        folder = checkpoint.load_adapter(network, path, name).path
        calibrations[name] = Calibration.load(folder / CALIBRATION) if (folder / CALIBRATION).is_file() else None
    return calibrations


@dataclass(frozen=True)
class Parts:
    """What a model's folder holds, checked against each other. `dtype`: that of the file, whatever the network has."""

    network: PaliGemma
    tokenizer: Tokenizer
    codec: MaskCodec | None
    calibration: Calibration
    path: Path
    dtype: str


def read(
    model: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tokenizer: str | Path | Tokenizer | None = None,
    codec: str | Path | MaskCodec | None = None,
    mapped: bool = True,
) -> Parts:
    """As `load`, which see for what the arguments mean, but a plain network that can be trained. `mapped`: see `checkpoint.load_model`.

    An adapter's folder gives its base with the adapter on it, and the base's tokenizer and codec.
    """
    where = device_of(device)
    given = find(model)
    adapter = given if checkpoint.is_adapter(given) else None
    path = given if adapter is None else base_of(adapter)
    folder = locate(path).folder
    info = checkpoint.inspect(path)
    numbers = weights_dtype(info, dtype, where)
    words = words_of(path, folder, tokenizer, info.config)
    if codec is None:
        codec = checkpoint.find_codec(folder)
    masks = checkpoint.load_codec(codec) if isinstance(codec, str | Path) else codec
    scores = next((place / CALIBRATION for place in (given, folder) if (place / CALIBRATION).is_file()), None)
    calibration = Calibration() if scores is None else Calibration.load(scores)
    network = checkpoint.load_model(path, device=where, dtype=numbers, mapped=mapped)
    if adapter is not None:
        checkpoint.load_adapter(network, adapter)
    return Parts(network, words, masks, calibration, given, info.dtype)


def weights_dtype(info: checkpoint.CheckpointInfo, dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The number type that a checkpoint's weights get on a device: see `load`. Raises `UsageError` for one that would overflow."""
    import torch

    numbers = dtype_of(dtype)
    if info.version == 2:
        if numbers == torch.float16:
            raise UsageError("PaliGemma 2 does not fit into float16: its activations overflow", hint="use bfloat16 or float32")
        if numbers is None and info.dtype == "float16":
            numbers = torch.bfloat16
    if numbers is None and device.type == "cpu" and info.config.num_parameters < SMALL:
        numbers = torch.float32
    return torch_dtype(info.dtype) if numbers is None else numbers
