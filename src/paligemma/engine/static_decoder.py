"""Gemma's blocks over a pool of keys and values, in shapes that stay: prompts are read into rows, then each row goes on token by token.

The weights are those of the model. Products that read the same input become one, whose matrix the model's own layers then look into.
Axes: B rows, T tokens, D width, N query heads, K key/value heads, H head size. Source: `model/gemma.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.gemma import Block, rotary_table, rotate
from ..model.lengths import Seen, attend, seen
from ..model.paligemma import PaliGemma
from ..model.weight_only import Matrix
from .candidates import Candidates
from .static_pool import Pool

NOBODY = -1
"""The slot of a row that takes no token in this step."""
SHAPES = 64
"""Shapes that a block may be compiled for."""


class StaticDecoder:
    """`compiled`: blocks go through `torch.compile`, one for all layers, and attention is fused; needs a C++ compiler, on a GPU Triton.

    Blocks are compiled rather than the whole model: that takes seconds a shape instead of minutes, and costs a kernel or two a layer.
    """

    def __init__(self, model: PaliGemma, *, compiled: bool):
        self.model, self.compiled = model, compiled
        self.layers = [Layer(block) for block in model.text.blocks]  # pyright: ignore[reportArgumentType]
        self._layer: Callable[..., Tensor] = _layer
        self._likeliest: Callable[..., Tensor] = _likeliest
        if compiled:
            options: dict[str, Any] = {}
            if model.device.type == "cuda":
                # For one row a product becomes a sum over the matrix as it is read; for several, only tuned ones unpack as they go.
                unpacked = any(isinstance(module, Matrix) for module in model.text.modules())
                options = {"coordinate_descent_tuning": True, "max_autotune": unpacked}
            self._layer = torch.compile(_layer, fullgraph=True, dynamic=False, options=options)
            self._likeliest = torch.compile(_likeliest, fullgraph=True, dynamic=False, options=options)

    def read(self, pool: Pool, soft: Tensor, ids: Tensor, lengths: Tensor, rows: Tensor) -> Tensor:
        """soft (B, P, D) and ids (B, T) into the rows (B,) of the pool. Of each row the first `lengths` (B,) tokens count, P + T at most.
        -> the states that predict the first tokens (B, D), which are in the pool too."""
        words = self.model.text.embed_tokens(ids)
        x = torch.cat([soft.to(words.dtype), words], 1)
        count = x.shape[1]
        places = torch.arange(count, device=x.device).expand(len(x), -1)
        everyone, ends = (seen(lengths, queries, count, fused=self.compiled) for queries in (count, 1))
        turns = self._turns(places)
        with self.room():
            for number, layer in enumerate(self.layers):
                final = number == len(self.layers) - 1  # the others' results would feed nothing
                who, last = (ends, lengths - 1) if final else (everyone, None)
                x = self._layer(layer, x, turns, pool.layer(number), rows, places, who, False, last)
        hidden = self.model.text.norm(x)[:, 0]
        pool.hidden[rows] = hidden
        return hidden

    def extend(self, pool: Pool, ids: Tensor, slots: Tensor) -> Tensor:
        """ids (B,) of the pool's first B rows, each into its slot (B,), `NOBODY` for a row that takes none.
        -> the states that predict the next tokens, (B, D), which are in the pool too."""
        batch, active, slots = len(ids), slots != NOBODY, slots.clamp(min=0)
        rows = torch.where(active, torch.arange(batch, device=ids.device), pool.nowhere)
        past = seen(slots + 1, 1, pool.slots, fused=self.compiled)
        turns = self._turns(slots[:, None])
        x = self.model.text.embed_tokens(ids[:, None])
        with self.room():
            for number, layer in enumerate(self.layers):
                x = self._layer(layer, x, turns, pool.layer(number), rows, slots[:, None], past, True, None)
        hidden = torch.where(active[:, None], self.model.text.norm(x)[:, 0], pool.hidden[:batch])
        pool.hidden[:batch] = hidden
        return hidden

    def likeliest(self, hidden: Tensor, loc: range) -> Tensor:
        """hidden (B, D) -> the likeliest token of each row, a `Choice` as numbers (B, 4). See `Candidates.facts`."""
        with self.room():
            return self._likeliest(self.model, hidden, loc.start, loc.stop)

    def _turns(self, places: Tensor) -> tuple[Tensor, Tensor]:
        config = self.model.config.text
        return rotary_table(places, config.head_dim, config.rope_base)

    def room(self) -> AbstractContextManager[Any]:
        """For more shapes than torch expects, where it compiles."""
        if not self.compiled:
            return nullcontext()
        from torch._dynamo import config

        return config.patch(recompile_limit=SHAPES)


def _likeliest(model: PaliGemma, hidden: Tensor, start: int, stop: int) -> Tensor:
    found = Candidates(model.logits(hidden).float(), None, slice(start, stop))
    return found.facts(found.logits.argmax(-1, keepdim=True))[:, 0]


class Joined(nn.Module):
    """Linear layers that read the same input: x (..., in) -> all their outputs, side by side.

    Plain ones become one product: their matrices are laid down one below the other, and the layers look into that. Others (quantized, with
    an adapter) take their turns.
    """

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.register_buffer("matrix", None, persistent=False)
        self.matrix: Tensor | None
        plain = [layer for layer in layers if type(layer) is nn.Linear and layer.bias is None]
        if len(plain) == len(layers):
            self.matrix = torch.cat([layer.weight.detach() for layer in plain])
            for layer, own in zip(plain, self.matrix.split([len(layer.weight) for layer in plain]), strict=True):
                layer.weight = nn.Parameter(own, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self.layers], -1) if self.matrix is None else F.linear(x, self.matrix)


class Layer(nn.Module):
    def __init__(self, block: Block):
        super().__init__()
        self.block = block
        self.qkv = Joined(block.attn.q, block.attn.k, block.attn.v)
        self.gate_up = Joined(block.mlp.gate, block.mlp.up)


def _layer(
    layer: Layer,
    x: Tensor,
    turns: tuple[Tensor, Tensor],
    pool: tuple[Tensor, Tensor],
    rows: Tensor,
    slots: Tensor,
    seen: Seen,
    past: bool,
    last: Tensor | None,
) -> Tensor:
    """x (B, T, D) through a block -> (B, T, D). Its keys and values go to the slots (B, T) of the rows (B,) of one layer's pool.

    past: what is seen lies in the pool's first B rows; else in x alone. last: only each row's token of that number asks: -> (B, 1, D).
    """
    block, config = layer.block, layer.block.attn.config
    sizes = [config.heads, config.kv_heads, config.kv_heads]
    q, k, v = layer.qkv(block.pre_attn_norm(x)).unflatten(-1, (-1, config.head_dim)).transpose(1, 2).split(sizes, 1)
    # Values get a memory of their own, as queries and keys have it: Inductor's attention for the CPU forgets that a view begins elsewhere.
    q, k, v = rotate(q, *turns), rotate(k, *turns), v.clone(memory_format=torch.contiguous_format)
    for stored, new in zip(pool, (k, v), strict=True):
        stored[rows[:, None], :, slots] = new.transpose(1, 2)
    if past:
        k, v = (stored[: len(x)] for stored in pool)
    if last is not None:
        q, x = (whole.gather(-2, _spread(last, whole)) for whole in (q, x))
    found = attend(q, k, v, seen, scale=config.scale, softcap=config.attn_softcap)
    x = x + block.post_attn_norm(block.attn.o(found.transpose(1, 2).flatten(2)))
    gate, up = layer.gate_up(block.pre_mlp_norm(x)).chunk(2, -1)
    return x + block.post_mlp_norm(block.mlp.down(F.gelu(gate, approximate="tanh") * up))


def _spread(places: Tensor, whole: Tensor) -> Tensor:
    """places (B,) on the last axis but one of (B, ..., T, D) -> what `gather` takes there, (B, ..., 1, D)."""
    return places.view(-1, *[1] * (whole.dim() - 1)).expand(*whole.shape[:-2], 1, whole.shape[-1])
