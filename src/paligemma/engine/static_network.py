"""PaliGemma in PyTorch in shapes that stay, for GPUs: one pool of keys and values, compiled blocks, a CUDA graph for every shape.

    prompts   in pieces of 1, 4 or 16, filled up to some length, each read into free rows of the pool
    a step    the pool's first 1, 4, 16, 64 or 256 rows at once, whoever they belong to; rows that take no token are computed for nothing
    rows      numbers of the pool's rows: what joins, leaves or is dropped is written down, not moved

It agrees with `torch_network.py`, token by token in float32. Shapes are few because each is compiled and recorded once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.paligemma import PaliGemma
from ..sequence import pad
from .candidates import Candidates, candidates
from .cuda_graphs import Graphs
from .network import Choice
from .options import Allowed, Options
from .static_decoder import NOBODY, StaticDecoder
from .static_pool import Pool
from .torch_network import TorchNetwork, check_prompts, numbers_of

STEPS = (1, 4, 16, 64, 256)
"""Rows of a step. A step's time goes into reading the weights, so that rows computed for nothing cost little."""
PIECES = (1, 4, 16)
"""Prompts read together, and pictures encoded together."""
PIECE_TOKENS = 8192
"""The most tokens read together, unless one prompt alone has more."""
WORDS = (16, 64, 256, 1024, 4096, 8192)
"""Lengths that prompts are filled up to."""
RECORDED = 8192
"""Work on more tokens than this is not recorded: starting it takes no time beside doing it, and recordings keep memory."""


class StaticNetwork(TorchNetwork):
    """`rows`, `slots`: how much the pool holds at first; it grows as needed, at the price of new recordings.

    compiled: by default on CUDA. Adapters must be on the model before; so must quantized weights. Several may use one network in turn, from
    any thread: they share the pool.
    """

    def __init__(self, model: PaliGemma, *, rows: int = 1, slots: int = 512, compiled: bool | None = None):
        super().__init__(model)
        self.decoder = StaticDecoder(model, compiled=model.device.type == "cuda" if compiled is None else compiled)
        if self.decoder.compiled:
            for block in model.vision.blocks:
                block.compile(dynamic=False)
        self.graphs = Graphs(model.device)
        self.lock = threading.RLock()
        self._dropped: deque[list[int]] = deque()
        with torch.inference_mode():
            self.pool = Pool(model.config.text, _up(rows, STEPS), slots, dtype=model.dtype, device=model.device)

    @property
    def place(self) -> str:
        return f"{super().place}, in static shapes"

    def use_adapter(self, name: str | None) -> None:
        super().use_adapter(name)
        self.graphs.clear()

    @torch.inference_mode()
    def encode(self, pixels: np.ndarray) -> Tensor:
        """In pieces of fixed size. What comes back is the caller's."""
        whole, tokens = torch.from_numpy(pixels), self.config.vision.num_tokens
        found, start = [], 0
        with self.lock:
            for size in _pieces(len(whole), tokens):
                part = whole[start : start + size]
                name = ("encode", size) if size * tokens <= RECORDED else None
                found.append(self._run(name, self._encode_piece, part.to(self.model.dtype)).clone())
                start += size
        return found[0] if len(found) == 1 else torch.cat(found)

    def _encode_piece(self, pixels: Tensor) -> Tensor:
        with self.decoder.room():
            return self.model.encode_image(pixels)

    @torch.inference_mode()
    def begin(self, soft: Tensor, prompts: Sequence[Sequence[int]], max_tokens: int) -> StaticRows:
        check_prompts(soft, prompts)
        longest = max(map(len, prompts))
        with self.lock:
            self.reserve(len(prompts), soft.shape[1] + max(longest + max_tokens, _up(longest, WORDS)))
            rows = self.pool.take(len(prompts))
            try:
                self._read(soft.expand(len(prompts), -1, -1), prompts, rows)
            except BaseException:
                self.pool.give_back(rows)
                raise
            return StaticRows(self, rows)

    def drop(self, rows: list[int]) -> None:
        """Nobody needs these any more. At any moment, from any thread: they are swept up later."""
        self._dropped.append(rows)

    @torch.inference_mode()
    def reserve(self, rows: int, slots: int) -> None:
        """Have room for so many more rows, of so many tokens. What is in the pool stays."""
        with self.lock:
            while self._dropped:
                self.pool.give_back(self._dropped.popleft())
            used = self.pool.rows - self.pool.free
            if rows > self.pool.free or slots > self.pool.slots:
                self.graphs.clear()
                self.pool = self.pool.grown(self.config.text, _up(used + rows, STEPS), slots)

    def _read(self, soft: Tensor, prompts: Sequence[Sequence[int]], rows: Sequence[int]) -> None:
        pool, images, start = self.pool, soft.shape[1], 0
        for size in _pieces(len(prompts), images + max(map(len, prompts))):
            own = range(start, start + size)
            words = _up(max(len(prompts[row]) for row in own), WORDS)
            ids = torch.tensor(pad([prompts[row] for row in own], 0, words))
            lengths = [images + len(prompts[row]) for row in own]
            inputs = (soft[own.start : own.stop], ids, torch.tensor(lengths), torch.tensor([rows[row] for row in own]))
            name = ("read", size, images, words) if size * (images + words) <= RECORDED else None
            self._run(name, self._read_piece, *inputs)
            for row, length in zip(own, lengths, strict=True):
                pool.lengths[rows[row]] = length
            start += size

    def _read_piece(self, *inputs: Tensor) -> Tensor:
        return self.decoder.read(self.pool, *inputs)

    def extend(self, rows: Sequence[int], ids: Sequence[int]) -> None:
        """A token more for those rows of the pool."""
        slots = self.pool.grow_by_one(rows)
        size = _up(max(rows) + 1, STEPS)
        words, places = [0] * size, [NOBODY] * size
        for row, id, slot in zip(rows, ids, slots, strict=True):
            words[row], places[row] = id, slot
        self._run(("extend", size), self._extend_piece, torch.tensor(words), torch.tensor(places))

    def _extend_piece(self, *inputs: Tensor) -> Tensor:
        return self.decoder.extend(self.pool, *inputs)

    def likeliest(self, rows: Sequence[int], loc: range) -> list[Choice]:
        """The likeliest token of each of those rows, of all there are."""
        size = _up(max(rows) + 1, STEPS)

        facts = self._run(("likeliest", size, loc), lambda: self.decoder.likeliest(self.pool.hidden[:size], loc)).tolist()
        return [Choice(int(facts[row][0]), *facts[row][1:]) for row in rows]

    def _run(self, name: Any, work: Any, *inputs: Tensor) -> Tensor:
        """Recorded under that name; without one, just done."""
        return work(*(tensor.to(self.model.device) for tensor in inputs)) if name is None else self.graphs(name, work, *inputs)


class StaticRows:
    """`rows`: which rows of the network's pool. They are given back when this is dropped, unless another took them over."""

    def __init__(self, network: StaticNetwork, rows: list[int]):
        self.network, self.rows = network, rows

    def __del__(self) -> None:
        if self.rows:
            self.network.drop(self.rows)

    @property
    def numbers(self) -> str:
        return numbers_of(self.network.model)

    @torch.inference_mode()
    def offer(self, places: Sequence[int], allowed: Sequence[Allowed | None], loc: range) -> StaticOffer:
        return StaticOffer(self.network, [self.rows[place] for place in places], allowed, loc)

    @torch.inference_mode()
    def extend(self, ids: Sequence[int]) -> None:
        with self.network.lock:
            self._move_down()
            self.network.extend(self.rows, ids)

    @torch.inference_mode()
    def select(self, places: Sequence[int]) -> StaticRows:
        with self.network.lock:
            first = dict(zip(reversed(places), reversed(range(len(places))), strict=True))  # where each place is named first
            again = [number for number, place in enumerate(places) if first[place] != number]
            self.network.reserve(len(again), 0)
            pool, rows = self.network.pool, [self.rows[place] for place in places]
            copies = pool.take(len(again))
            pool.copy([rows[number] for number in again], copies)
            for number, copy in zip(again, copies, strict=True):
                rows[number] = copy
            pool.give_back([row for place, row in enumerate(self.rows) if place not in first])
            self.rows = []
            return StaticRows(self.network, rows)

    def join(self, others: StaticRows) -> StaticRows:
        rows, self.rows, others.rows = self.rows + others.rows, [], []
        return StaticRows(self.network, rows)

    def _move_down(self) -> None:
        """Into lower rows that are free, where that makes a step smaller."""
        self.network.reserve(0, 0)
        pool, highest = self.network.pool, sorted(range(len(self.rows)), key=lambda place: -self.rows[place])
        moves = [(place, row) for place, row in zip(highest, pool.lowest_free(len(highest)), strict=False) if row < self.rows[place]]
        after = dict(enumerate(self.rows)) | dict(moves)
        if moves and _up(max(after.values()) + 1, STEPS) < _up(max(self.rows) + 1, STEPS):
            before = [self.rows[place] for place, _ in moves]
            pool.copy(before, pool.take(len(moves)))
            pool.give_back(before)
            self.rows = list(after.values())


class StaticOffer:
    """Where everything is allowed and the likeliest is wanted, what to choose is part of a recording; else as `Candidates`."""

    def __init__(self, network: StaticNetwork, rows: Sequence[int], allowed: Sequence[Allowed | None], loc: range):
        self.network, self.rows, self.allowed, self.loc = network, rows, allowed, loc

    @torch.inference_mode()
    def choose(self, options: Options, uniform: Sequence[float]) -> list[Choice]:
        with self.network.lock:
            if options.temperature == 0 and all(limits is None for limits in self.allowed):
                return self.network.likeliest(self.rows, self.loc)
            return self._candidates().choose(options, uniform)

    @torch.inference_mode()
    def best(self, count: int, eos_id: int) -> tuple[list[list[Choice]], list[float]]:
        with self.network.lock:
            return self._candidates().best(count, eos_id)

    @torch.inference_mode()
    def given(self, ids: Sequence[int]) -> list[Choice]:
        with self.network.lock:
            return self._candidates().given(ids)

    def _candidates(self) -> Candidates:
        rows = torch.tensor(self.rows, device=self.network.model.device)
        return candidates(self.network.model, self.network.pool.hidden[rows], self.allowed, self.loc)


def _up(number: int, sizes: Sequence[int]) -> int:
    """The least of the sizes that is not below; past the last, its multiples."""
    return next((size for size in sizes if number <= size), -(-number // sizes[-1]) * sizes[-1])


def _pieces(count: int, tokens: int) -> list[int]:
    """The pieces that `count` prompts or pictures of so many tokens go through in, the largest first. They hold `count` exactly."""
    sizes = [size for size in PIECES if size == 1 or size * tokens <= PIECE_TOKENS]
    found: list[int] = []
    for size in reversed(sizes):
        found += [size] * ((count - sum(found)) // size)
    return found
