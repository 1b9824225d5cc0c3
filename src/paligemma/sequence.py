"""The order of tokens, in one place: bos, prefix, newline, suffix, eos; the two masks of a training example; truncation and padding.

    [image tokens]  <bos> p r e f i x \\n   s u f f i x <eos>   <pad> <pad>
    mask_ar            0  0 0 0 0 0 0  0    1 1 1 1 1 1   1       1     1      1: starts a new block, sees what came before
    mask_loss          0  0 0 0 0 0 0  0    1 1 1 1 1 1   1       0     0      1: is to be predicted

The three parts are tokenised one by one and their ids joined, so no piece spans two parts and the separator is always the one newline
token, also after a prefix that ends in a newline. Image tokens are no ids here: the model puts them in front.
Source: big_vision `configs/proj/paligemma/transfers/common.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .errors import InputError


class _Tokenizer(Protocol):
    bos_id: int
    eos_id: int
    newline_id: int

    def encode(self, text: str, *, locations: bool = True) -> list[int]: ...


def prompt_ids(tokenizer: _Tokenizer, prefix: str, *, max_len: int | None = None, locations: bool = True) -> list[int]:
    """What the model reads before it answers. `locations`: whether `<loc0000>` in the text is a location.

    Raises `InputError` when that is more than `max_len` tokens.
    """
    ids = [tokenizer.bos_id, *tokenizer.encode(prefix, locations=locations), tokenizer.newline_id]
    if max_len is not None and len(ids) > max_len:
        raise InputError(
            f"the prompt has {len(ids)} tokens, at most {max_len} are allowed",
            hint="shorten the prompt",
            code="context_length_exceeded",
        )
    return ids


@dataclass(frozen=True)
class Example:
    """Three lists of one length; see the picture above. `truncated`: the end of the suffix, not its eos, was cut off."""

    ids: list[int]
    mask_ar: list[int]
    mask_loss: list[int]
    truncated: bool = False


def training_example(tokenizer: _Tokenizer, prefix: str, suffix: str, max_len: int) -> Example:
    """Ids and masks of one example, at most `max_len` tokens long, unpadded.

    A suffix that does not fit loses its end but keeps its eos. The reference cuts after joining and so loses the eos, which teaches a
    model not to stop. A prefix that leaves no room for the first suffix token and the eos raises `InputError`.
    """
    prompt = prompt_ids(tokenizer, prefix)
    answer = tokenizer.encode(suffix)
    room = max_len - len(prompt) - 1
    if room < min(len(answer), 1):
        raise InputError(
            f"the prompt has {len(prompt)} tokens, which leaves no room for an answer within {max_len}",
            hint="shorten the prompt or allow longer texts",
            code="context_length_exceeded",
        )
    kept = [*answer[:room], tokenizer.eos_id]
    mask = [0] * len(prompt) + [1] * len(kept)
    return Example(prompt + kept, mask, list(mask), truncated=len(answer) > room)


Part = Literal["start", "prefix", "separator", "suffix", "end"]


def parts(example: Example) -> list[Part]:
    """What each of an example's tokens is."""
    prompt, end = example.mask_loss.index(1), len(example.ids) - 1

    def part(place: int) -> Part:
        if place < prompt:
            return "start" if place == 0 else "separator" if place == prompt - 1 else "prefix"
        return "end" if place == end else "suffix"

    return [part(place) for place in range(end + 1)]


def pad(rows: Sequence[Sequence[int]], pad_value: int, length: int = 0) -> list[list[int]]:
    """Rows made equally long, and at least `length` long, on the right. (Ids take the pad id, mask_ar takes 1, mask_loss takes 0.)"""
    longest = max(length, *map(len, rows), 0)
    return [[*row, *[pad_value] * (longest - len(row))] for row in rows]
