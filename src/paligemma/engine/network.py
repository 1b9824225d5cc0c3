"""What an engine offers to `generate`: rows that have read a picture and a prompt, choices for their next token, and the way on. No torch.

    network.encode(pixels)                    -> soft     image tokens
    network.begin(soft, prompts, max_tokens)  -> Rows     pictures and prompts are read, each row is due its first token
    rows.offer(places, allowed, loc)          -> Offer    what may come next, for some of the rows
    offer.choose(...), offer.best(...)        -> Choice   one for each row, or the best few
    offer.given(ids)                          -> Choice   of a token that is not chosen but told
    rows.extend(ids)                                      every row goes on, and is due another token
    rows.select(places), rows.join(others)    -> Rows     rows leave, are repeated, and others come to them

`torch_network.py` is the engine that everything else must agree with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, cast

import numpy as np

from ..config import PaliGemmaConfig
from .options import Allowed, Options

if TYPE_CHECKING:
    from ..model.paligemma import PaliGemma


class Choice(NamedTuple):
    """A token, its log-probability among those that might have been chosen, and what `Generation` says of a token's probabilities."""

    id: int
    logprob: float
    prob: float
    kind_prob: float


class Offer(Protocol):
    """The tokens that may come next, row by row."""

    def choose(self, options: Options, uniform: Sequence[float]) -> list[Choice]:
        """One for each row: the likeliest at temperature 0, else drawn by `uniform`, a number from [0, 1) a row."""
        ...

    def best(self, count: int, eos_id: int) -> tuple[list[list[Choice]], list[float]]:
        """Each row's `count` likeliest, or as many as there are, the likeliest first (impossible ones may be among them, at -inf);
        and each row's log-probability of ending here, -inf where it may not."""
        ...

    def given(self, ids: Sequence[int]) -> list[Choice]:
        """Each row's own token, which is one of those it may choose: as if it had been chosen."""
        ...


class Rows(Protocol):
    """Sequences that are being written.

    What `select` and `join` give takes the place of what it was made of: an engine may take that apart, and it is not used again.
    """

    @property
    def numbers(self) -> str:
        """What it computes in, for messages: "bfloat16"."""
        ...

    def offer(self, places: Sequence[int], allowed: Sequence[Allowed | None], loc: range) -> Offer:
        """For the rows at `places`, of which each allows what stands beside it; None: anything. `loc`: ids of the location tokens."""
        ...

    def extend(self, ids: Sequence[int]) -> None:
        """One more token for every row."""
        ...

    def select(self, places: Sequence[int]) -> Rows:
        """Rows of which number i is this one's number `places[i]`: to repeat a prompt, follow beams, drop what has ended."""
        ...

    def join(self, others: Self) -> Rows:
        """These rows and then the others, of the same network, which go on together."""
        ...


class Network(Protocol):
    """A model as `generate` and the predictor see it. `soft`, image tokens (B, P, D), are of whatever kind its `encode` gives."""

    @property
    def config(self) -> PaliGemmaConfig: ...

    @property
    def place(self) -> str:
        """What it computes in, and where, for people: "bfloat16 on cpu"."""
        ...

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that `use_adapter` takes."""
        ...

    @property
    def adapter(self) -> str | None:
        """The one at work."""
        ...

    @property
    def sight(self) -> str | None:
        """The one at work on the way from pictures to image tokens, which mean nothing without it."""
        ...

    def use_adapter(self, name: str | None) -> None:
        """Let that one work, or none. Raises `UsageError` for a name that is not there."""
        ...

    def encode(self, pixels: np.ndarray) -> Any:
        """pixels (B, 3, S, S), float32 in [-1, 1] -> image tokens (B, P, D), which can be sliced and reshaped."""
        ...

    def join(self, parts: Sequence[Any]) -> Any:
        """Image tokens (B, P, D) of equal P and D -> all of them, one batch."""
        ...

    def begin(self, soft: Any, prompts: Sequence[Sequence[int]], max_tokens: int) -> Rows:
        """Read pictures and prompts. soft: one row a prompt, or (1, P, D) for one picture under all prompts. prompts: at least one id each.
        Room is made for `max_tokens` more."""
        ...

    def entropy(self) -> int:
        """A random number below 2 ** 62, from where this engine's users expect randomness to come."""
        ...


def network_of(model: Network | PaliGemma) -> Network:
    """A network as it is; a model of PyTorch's as one."""
    if hasattr(model, "begin"):
        return cast(Network, model)
    from .torch_network import TorchNetwork

    return TorchNetwork(cast("PaliGemma", model))
