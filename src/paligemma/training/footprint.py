"""What one forward and backward pass holds in memory: the real code runs on tensors that have shapes and no numbers, and they are counted.

No formula repeats the model, so none can fall behind it. Blocks of a tower are alike, so models of a few blocks, and of one more, tell what
any number of them holds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..config import PaliGemmaConfig
from ..model import attention
from ..model.empty import empty_model
from ..model.paligemma import PaliGemma
from .objective import losses_at
from .recipes import Recipe
from .strategies import prepare

VISION, TEXT = 2, 3
"""Blocks of the models that are run: so many, and one more. With fewer, what is special of the first and the last one counts twice."""
MIDDLE = "a block in the middle"


@dataclass(frozen=True)
class Pass:
    """How a batch goes through a model, a part of `batch` examples at a time.

    `dtype` of the weights; `autocast`: to bfloat16, for weights in float32. `recompute`: blocks keep their input only. `fused_attention`:
    torch's fused kernel where no soft-cap forbids it, which keeps no scores (accelerators; on a CPU it is not used for training).
    """

    batch: int
    dtype: torch.dtype = torch.bfloat16
    autocast: bool = False
    recompute: bool = False
    fused_attention: bool = True


@dataclass(frozen=True)
class Footprint:
    """Bytes beside weights, their gradients and the optimizer. `kept`: from the forward pass for the backward pass; `peak`: at worst."""

    kept: int
    peak: int


def footprint(config: PaliGemmaConfig, recipe: Recipe, how: Pass) -> Footprint:
    """Of a recipe on a model, where every text has its full length and is all answer. Takes a second or two, the first time."""
    matters = (
        "frames",
        "text_len",
        "label_smoothing",
        "dropout",
        "final_softcap",
        "lora_rank",
        "lora_alpha",
        "lora_dropout",
        "lora_targets",
    )
    strategy = "lora" if recipe.strategy == "qlora" else recipe.strategy  # see `small_model`
    return _footprint(config, Recipe(name="-", steps=1, strategy=strategy, **{name: getattr(recipe, name) for name in matters}), how)


@functools.lru_cache(maxsize=256)
def _footprint(config: PaliGemmaConfig, recipe: Recipe, how: Pass) -> Footprint:
    few, vision, text = (_counted(config, recipe, how, *depth) for depth in ((VISION, TEXT), (VISION + 1, TEXT), (VISION, TEXT + 1)))

    def all_blocks(size: Callable[[Count], int]) -> int:
        """A straight line through what so few blocks take."""
        one, more_vision, more_text = map(size, (few, vision, text))
        return one + (config.vision.depth - VISION) * (more_vision - one) + (config.text.depth - TEXT) * (more_text - one)

    moments = few.peaks.keys() - {MIDDLE}
    return Footprint(all_blocks(lambda found: found.kept), max(all_blocks(lambda found, at=at: found.peaks[at]) for at in moments))


@dataclass(frozen=True)
class Count:
    """`peaks`: at worst until a moment of the pass, by its name. Those of the backward pass are when a parameter's gradient is whole; each
    kind of them grows in a straight line with the depth, but which is the worst may change. What is in the middle is never the worst.
    """

    kept: int
    peaks: dict[str, int]


def _counted(config: PaliGemmaConfig, recipe: Recipe, how: Pass, vision: int, text: int) -> Count:
    model = small_model(config, recipe, how, vision, text)
    with FakeTensorMode(), _attention(how.fused_attention):
        _fill(model)
        return count(model, recipe, how)


def small_model(config: PaliGemmaConfig, recipe: Recipe, how: Pass, vision: int, text: int) -> PaliGemma:
    """The model with so many blocks, made ready for the recipe, on the meta device.

    For qlora it is lora's: a layer of 4 bits keeps as little as a frozen one, and what unpacking it takes is known (`memory_plan.py`).
    """
    shallow = dataclasses.replace(
        config, vision=dataclasses.replace(config.vision, depth=vision), text=dataclasses.replace(config.text, depth=text)
    )
    model = empty_model(shallow).to(how.dtype).train()
    prepare(model, recipe)
    model.vision.recompute = model.text.recompute = how.recompute
    return model


def count(model: PaliGemma, recipe: Recipe, how: Pass) -> Count:
    """One pass of a model, counted; on tensors with numbers it counts the same. Gradients are dropped as soon as they are whole."""
    with _Counter(model) as counter:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(functools.partial(_whole, counter, _moment(model, name)))
        loss = _forward(model, recipe, how, counter)
        kept = counter.live
        counter.mark("reading")
        loss.backward()
        counter.mark("end")
    return Count(kept, counter.peaks)


def _moment(model: PaliGemma, name: str) -> str:
    """What the gradient of a parameter stands for in time."""
    tower, _, rest = name.partition(".blocks.")
    if not rest:
        return name
    place = int(rest.partition(".")[0])
    below = len(model.get_submodule(tower).blocks) - 1 - place  # pyright: ignore[reportArgumentType]
    return f"{tower} block {place}" if place == 0 else f"{tower} block -{below + 1}" if below < 2 else MIDDLE


def _whole(counter: _Counter, moment: str, parameter: Tensor) -> None:
    counter.mark(moment)
    parameter.grad = None


def _forward(model: PaliGemma, recipe: Recipe, how: Pass, counter: _Counter) -> Tensor:
    """As `step.Objective` does it, but that every position counts."""
    side, length = model.config.vision.image_size, recipe.text_len
    pictures = (how.batch, recipe.frames) if recipe.frames > 1 else (how.batch,)
    pixels = torch.zeros(*pictures, 3, side, side)
    ids = torch.zeros(how.batch, length + 1, dtype=torch.long)
    mask_ar, valid = torch.ones_like(ids), torch.ones_like(ids, dtype=torch.bool)
    chosen = torch.arange(how.batch * length)
    looked_at = any(p.requires_grad for part in (model.vision, model.projector) for p in part.parameters())
    with torch.autocast("cpu", torch.bfloat16, enabled=how.autocast):
        with contextlib.nullcontext() if looked_at else torch.no_grad():
            soft = model.encode_image(pixels)
        counter.mark("looking")
        hidden = model.hidden_states(soft, ids, mask_ar, valid)
        hidden.register_hook(lambda gradient: counter.mark("judging"))
        losses, _ = losses_at(
            chosen,
            hidden[:, :-1],
            model.text.embed.weight,
            ids[:, 1:],
            smoothing=recipe.label_smoothing,
            softcap=recipe.final_softcap or None,
        )
        return losses.sum()


class _Counter(TorchDispatchMode):
    """Bytes of the tensors that live and were made while it was on; a storage counts once, however many tensors look at it."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.live = self._peak = 0
        self.peaks: dict[str, int] = {}
        self._known = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            weakref.finalize(storage, self._remove, key, size)
            self.live += size
            self._peak = max(self._peak, self.live)

    def mark(self, moment: str) -> None:
        """Here the time since the last mark ends."""
        self.peaks[moment] = max(self._peak, self.peaks.get(moment, 0))
        self._peak = self.live

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _fill(model: nn.Module) -> None:
    """A model on the meta device -> one whose tensors say they are on a CPU, in the fake mode that is on."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                fake = torch.empty(parameter.shape, dtype=parameter.dtype)
                module._parameters[name] = nn.Parameter(fake, parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


@contextlib.contextmanager
def _attention(fused: bool) -> Iterator[None]:
    """Let attention without a soft-cap take torch's fused kernel, as it does on an accelerator; the CPU's keeps the same tensors."""
    plain = attention.plain_attention

    def either(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None) -> Tensor:
        if softcap is not None:
            return plain(q, k, v, mask, scale, softcap)
        bias = None if mask is None else attention.additive_mask(mask, q.dtype)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)

    attention.plain_attention = either if fused else plain
    try:
        yield
    finally:
        attention.plain_attention = plain
