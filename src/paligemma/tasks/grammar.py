"""The grammar of detect, segment and refer answers, over token ids: which may come next. No text is generated here, and no tensors.

    answer  = nothing | object (separator object)*
    object  = y0 x0 y1 x1 [16 codes] [label]          y1 > y0, x1 > x0

    y0 --> x0 --> y1 --> x1 --> codes --> label --> end
     ^                                      |
     +----------------- separator ----------+

Labels and separators are not spelled by rule: whole example answers are encoded and cut at the location tokens, so the grammar accepts
exactly the ids that training texts have. No object may come twice. A state is a frozen value, so beams share states freely.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..config import MASK_CODES
from ..errors import UsageError
from .detect import MAX_OBJECTS, SEMICOLON, SEPARATOR, class_names, loc_tokens
from .segment import code_tokens

DEFAULT_OBJECTS = 64
"""Unless asked otherwise."""
_REMEMBERED = 256
"""States kept for `ObjectGrammar.allowed`: one for each answer or beam of a batch will do."""
MAX_FREE_LABEL = 32
"""Tokens in a label that may be anything."""

Run = tuple[int, ...]


class Vocabulary(Protocol):
    """What of the tokenizer is needed."""

    eos_id: int
    vocab_size: int
    loc: range
    seg: range

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def piece(self, id: int) -> str: ...


@dataclass(frozen=True)
class AllowedTokens:
    """The ids that may come next: sorted, disjoint ranges that do not touch. None at all: the answer has ended."""

    ranges: tuple[range, ...] = ()

    @classmethod
    def of(cls, *parts: Iterable[int]) -> AllowedTokens:
        """From ids in any order; a `range` among the parts costs one step, whatever its length."""
        pieces: list[range] = []
        for part in parts:
            pieces += [part] if isinstance(part, range) else [range(id, id + 1) for id in part]
        ranges: list[range] = []
        for piece in sorted(filter(len, pieces), key=lambda piece: piece.start):
            if ranges and ranges[-1].stop >= piece.start:
                ranges[-1] = range(ranges[-1].start, max(ranges[-1].stop, piece.stop))
            else:
                ranges.append(piece)
        return cls(tuple(ranges))

    def __contains__(self, id: int) -> bool:
        return any(id in r for r in self.ranges)

    def __iter__(self) -> Iterator[int]:
        return (id for r in self.ranges for id in r)

    def __len__(self) -> int:
        return sum(map(len, self.ranges))


@dataclass(frozen=True)
class _Leaf:
    """An end of the label tree. `label`: the label's ids as they are at the end of an answer; `more`: the separator follows it."""

    label: Run
    more: bool


class _Node:
    """A place in the tree of label spellings. `leaves`: every end at or below it; `here`: those at it."""

    def __init__(self) -> None:
        self.children: dict[int, _Node] = {}
        self.leaves: set[_Leaf] = set()
        self.here: set[_Leaf] = set()

    def add(self, run: Run, leaf: _Leaf) -> None:
        node = self
        node.leaves.add(leaf)
        for id in run:
            node = node.children.setdefault(id, _Node())
            node.leaves.add(leaf)
        node.here.add(leaf)


@dataclass(frozen=True, eq=False)
class State:
    """Where an answer stands; from `ObjectGrammar.start` and `advance`. Immutable, so beams may share it. The fields are the grammar's own.

    `bins`, `codes`, `label`: of the object that is being written; `node`: where in the label tree it is.
    `count` objects are finished; `found` holds their (bins, label).
    """

    grammar: ObjectGrammar
    bins: Run = ()
    codes: int = 0
    label: Run = ()
    node: _Node | None = None
    found: frozenset[tuple[Run, Run]] = frozenset()
    count: int = 0
    ended: bool = False

    def allowed(self) -> AllowedTokens:
        return self._allowed

    @functools.cached_property
    def _allowed(self) -> AllowedTokens:
        return self.grammar.after(self)

    def advance(self, id: int) -> State:
        """The state after one more token. Raises `ValueError` if it is not allowed."""
        return self.grammar.advance(self, id)


class ObjectGrammar:
    """`classes`: the labels that may occur; None: any label; an empty tuple: objects without a label (RefCOCO).

    `masks`: 16 codes follow each box. `max_objects`: the answer ends after so many, 1 to 256. `allow_none`: an empty answer is one.
    An object, that is a box with a label, comes at most once; where labels are free a box comes at most once.
    Raises `UsageError` for classes that cannot be written and for `max_objects` out of range.
    """

    def __init__(
        self,
        tokenizer: Vocabulary,
        classes: str | Sequence[str] | None,
        *,
        masks: bool = False,
        max_objects: int = DEFAULT_OBJECTS,
        allow_none: bool = True,
    ):
        if not 1 <= max_objects <= MAX_OBJECTS:
            raise UsageError(f"max_objects must be 1 to {MAX_OBJECTS}, found {max_objects}")
        self.tokenizer, self.masks, self.max_objects, self.allow_none = tokenizer, masks, max_objects, allow_none
        self._tree: _Node | None = None
        if classes is not None:
            self._tree = _Node()
            for label in class_names(classes) if classes else ("",):
                more, last = _spellings(tokenizer, label, masks)
                self._tree.add(last, _Leaf(last, more=False))
                self._tree.add(more, _Leaf(last, more=True))
        self._recent: dict[Run, State] = {}

    def start(self) -> State:
        return State(self)

    def allowed(self, ids: Sequence[int]) -> AllowedTokens:
        """What may follow `ids`, the answer so far. Raises `ValueError` if they are no beginning of an answer.

        The last states are remembered, so asking again with one more id costs one step.
        """
        ids = tuple(ids)
        before = self._recent.get(ids[:-1]) if ids else None
        state = before.advance(ids[-1]) if before else functools.reduce(State.advance, ids, self.start())
        self._recent[ids] = state
        if len(self._recent) > _REMEMBERED:
            self._recent.pop(next(iter(self._recent)), None)
        return state.allowed()

    def advance(self, state: State, id: int) -> State:
        """See `State.advance`."""
        if id not in state.allowed():
            raise ValueError(f"token {id} ({self.tokenizer.piece(id)!r}) is not allowed here")
        if id == self.tokenizer.eos_id:
            return dataclasses.replace(state, ended=True)
        if id in self.tokenizer.loc:
            bin = id - self.tokenizer.loc.start
            if len(state.bins) < 4:
                return dataclasses.replace(state, bins=(*state.bins, bin), node=self._tree)
            return State(self, (bin,), found=state.found | {(state.bins, self._label(state))}, count=state.count + 1)
        if id in self.tokenizer.seg:
            return dataclasses.replace(state, codes=state.codes + 1)
        return dataclasses.replace(state, label=(*state.label, id), node=state.node and state.node.children[id])

    def after(self, state: State) -> AllowedTokens:
        """See `State.allowed`."""
        if state.ended:
            return AllowedTokens()
        if len(state.bins) < 4:
            ids = [self._locations(state.bins, state.found)]
            if state.count == 0 and not state.bins and self.allow_none:
                ids.append(self._eos)
        elif self.masks and state.codes < MASK_CODES:
            ids = [self.tokenizer.seg]
        elif state.node is not None:
            ids = self._after_spelling(state, state.node)
        else:
            ids = self._after_free_label(state)
        return AllowedTokens.of(*ids)

    @property
    def _eos(self) -> range:
        return range(self.tokenizer.eos_id, self.tokenizer.eos_id + 1)

    def _locations(self, bins: Run, found: Collection[tuple[Run, Run]]) -> Iterable[int]:
        """The coordinate after `bins` that leave a box open: further than its first corner, and not the beginning of used boxes only."""
        depth, last = len(bins), len(self.tokenizer.loc) - 1
        values = range(last) if depth < 2 else range(bins[depth - 2] + 1, last + 1)
        labels = Counter(box for box, _ in found if box[:depth] == bins)
        enough = 1 if self._tree is None else len({leaf.label for leaf in self._tree.leaves})
        used = Counter(box[depth] for box, count in labels.items() if count >= enough)
        full = {value for value, boxes in used.items() if boxes == _completions((*bins, value), last)}
        offset = self.tokenizer.loc.start
        if not full:
            return range(values.start + offset, values.stop + offset)
        return [value + offset for value in values if value not in full]

    def _after_spelling(self, state: State, node: _Node) -> list[Iterable[int]]:
        def open(leaf: _Leaf) -> bool:
            return (state.bins, leaf.label) not in state.found and not (leaf.more and self._is_last(state))

        ids: list[Iterable[int]] = [[id for id, child in node.children.items() if any(map(open, child.leaves))]]
        for leaf in filter(open, node.here):
            ids.append(self._next_object(state) if leaf.more else self._eos)
        return ids

    def _after_free_label(self, state: State) -> list[Iterable[int]]:
        """Anything but control tokens up to the token that holds the separator's ";"; then the rest of the separator."""
        semicolon, tail = _separator(self.tokenizer, self.masks)
        at = next((i for i, id in enumerate(state.label) if SEMICOLON in self.tokenizer.decode([id])), None)
        if at is None:
            words = _words(self.tokenizer).ranges if len(state.label) < MAX_FREE_LABEL else (range(semicolon, semicolon + 1),)
            return [*words, self._eos] if state.label else [*words]
        if self._is_last(state):
            return [self._eos]
        done = len(state.label) - at - 1
        return [tail[done : done + 1]] if done < len(tail) else [self._next_object(state)]

    def _is_last(self, state: State) -> bool:
        return state.count + 1 >= self.max_objects

    def _next_object(self, state: State) -> Iterable[int]:
        return self._locations((), state.found | {(state.bins, self._label(state))})

    def _label(self, state: State) -> Run:
        """What tells the finished object's label from others; () where labels are free."""
        if state.node is None:
            return ()
        return min(leaf.label for leaf in state.node.here if leaf.more and (state.bins, leaf.label) not in state.found)


def _completions(bins: Sequence[int], last: int) -> int:
    """How many boxes begin with these bins, if the largest bin is `last`."""
    rows = last - bins[0] if len(bins) < 3 else 1
    columns = last * (last + 1) // 2 if len(bins) < 2 else last - bins[1] if len(bins) < 4 else 1
    return rows * columns


def _spellings(tokenizer: Vocabulary, label: str, masks: bool) -> tuple[Run, Run]:
    """The ids between two objects and after the last one, where both have this label: (label and separator, label)."""
    head = loc_tokens((0, 0, 1, 1)) + (code_tokens((0,) * MASK_CODES) if masks else "")
    one = f"{head} {label}".rstrip()
    ids = tokenizer.encode(one + SEPARATOR + one)
    size = 4 + MASK_CODES * masks
    second = next(i for i in range(size, len(ids)) if ids[i] in tokenizer.loc)
    return tuple(ids[size:second]), tuple(ids[second + size :])


@functools.lru_cache(maxsize=8)
def _separator(tokenizer: Vocabulary, masks: bool) -> tuple[int, Run]:
    """The separator's token with the ";", and the ids from there to the next object. What stands before it counts as label."""
    more, _ = _spellings(tokenizer, "x", masks)
    at = next(i for i, id in enumerate(more) if SEMICOLON in tokenizer.decode([id]))
    return more[at], more[at + 1 :]


@functools.lru_cache(maxsize=8)
def _words(tokenizer: Vocabulary) -> AllowedTokens:
    """Everything that a label may be made of: no control tokens, no line breaks, no locations and codes."""
    special = {*tokenizer.loc, *tokenizer.seg}
    return AllowedTokens.of(
        id for id in range(tokenizer.vocab_size) if id not in special and (text := tokenizer.decode([id])) and text.isprintable()
    )
