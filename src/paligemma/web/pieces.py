"""A tokenizer's vocabulary as the page's own JSON, from either format: what byte-pair encoding needs and nothing else.

    {"pieces": [...], "ranks": [...], "fixed": [...]}

`pieces`: by id, a blank written as "▁", a byte as "<0x0A>". `ranks`: of two neighbours whose joint spelling is a piece the page joins those
first whose piece has the least rank; -1: nothing is ever joined to it. `fixed`: ids of pieces that are found in a text, the longest first,
before anything is joined. For Gemma this is a quarter of its `tokenizer.json`, and it is read by 80 lines of the page.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import CheckpointError
from ..tokenizer import Tokenizer

_HINT = "use the tokenizer files of a PaliGemma checkpoint"
_NORMAL, _USER_DEFINED = 1, 4
"""Kinds of sentencepiece's pieces."""


def vocabulary(data: bytes, tokenizer: Tokenizer) -> dict[str, Any]:
    """`data`: of a `tokenizer.model` or `tokenizer.json`, that `tokenizer` was read from.

    Raises `CheckpointError` for a tokenizer that does more to a text than Gemma's.
    """
    ranks, fixed = _of_json(json.loads(data)) if data.startswith(b"{") else _of_sentencepiece(data)
    special = {*tokenizer.loc, *tokenizer.seg}
    pieces = [tokenizer.piece(id) if id not in special else "" for id in range(tokenizer.vocab_size)]
    return {
        "pieces": pieces,
        "ranks": [ranks.get(piece, -1) for piece in pieces],
        "fixed": [id for id, piece in enumerate(pieces) if piece in fixed and piece not in tokenizer.reserved],
    }


def _of_sentencepiece(data: bytes) -> tuple[dict[str, int], set[str]]:
    """(rank of every piece that others are joined to, pieces found before)."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    model = proto.ModelProto.FromString(data)  # pyright: ignore[reportAttributeAccessIssue]
    normalizer, trainer = model.normalizer_spec, model.trainer_spec
    changes = normalizer.precompiled_charsmap or normalizer.add_dummy_prefix or normalizer.remove_extra_whitespaces
    if changes or not normalizer.escape_whitespaces:
        raise CheckpointError("the tokenizer changes a text before it splits it, which Gemma's does not", hint=_HINT)
    if trainer.model_type != trainer.BPE or not trainer.byte_fallback:
        raise CheckpointError("the tokenizer is none of byte pairs with single bytes for what is unknown", hint=_HINT)
    normal = [(-piece.score, id) for id, piece in enumerate(model.pieces) if piece.type == _NORMAL]
    ranks = {model.pieces[id].piece: rank for rank, (_, id) in enumerate(sorted(normal))}
    return ranks, {piece.piece for piece in model.pieces if piece.type == _USER_DEFINED}


def _of_json(data: dict[str, Any]) -> tuple[dict[str, int], set[str]]:
    model = data.get("model", {})
    if model.get("type", "BPE") != "BPE" or not model.get("byte_fallback"):
        raise CheckpointError("the tokenizer is none of byte pairs with single bytes for what is unknown", hint=_HINT)
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        ranks.setdefault("".join(merge.split(" ", 1) if isinstance(merge, str) else merge), rank)
    return ranks, {token["content"].replace(" ", "▁") for token in data.get("added_tokens", ())}
