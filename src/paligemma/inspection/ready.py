"""What of a model is needed to look at data: its dimensions, its tokenizer, its mask codec. No weights are read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from .. import checkpoint
from ..checkpoint.locate import locate
from ..config import PaliGemmaConfig
from ..data.batch import RowReader
from ..errors import CheckpointError
from ..model.mask_codec import MaskCodec
from ..predictor.loading import base_of, find, tokenizer_path
from ..tokenizer import Tokenizer
from ..training.recipes import Recipe
from ..training.run import demand_resolution


@dataclass(frozen=True)
class Ready:
    """`path`: what was named; of an adapter `base` is the model under it, else the same."""

    config: PaliGemmaConfig
    tokenizer: Tokenizer
    codec: MaskCodec | None
    path: Path
    base: Path

    def reader(self, recipe: Recipe) -> RowReader:
        """What makes rows of records in a run of the recipe, without augmentation."""
        config = dataclasses.replace(self.config, resize=recipe.resize or self.config.resize)
        return RowReader(self.tokenizer, config, token_limit(recipe), self.codec, frames=recipe.frames)


def token_limit(recipe: Recipe) -> int:
    """Tokens an example may have: one more than are read, since the last is only predicted."""
    return recipe.text_len + 1


def ready(model: str | Path | None, recipe: Recipe, *, tokenizer: Path | None = None, codec: Path | None = None) -> Ready:
    """As `predictor.loading.read`, without the network. Raises `CheckpointError` for what is not there or does not go together, and
    `UsageError` for a recipe of another resolution."""
    given = find(model)
    base = base_of(given) if checkpoint.is_adapter(given) else given
    folder = locate(base).folder
    config = checkpoint.inspect(base).config
    demand_resolution(config, recipe)
    words = Tokenizer.load(tokenizer_path(tokenizer, folder, base))
    if words.vocab_size != config.text.vocab_size:
        raise CheckpointError(
            f"{base}: the tokenizer has {words.vocab_size:,} tokens, the model {config.text.vocab_size:,}",
            hint="use the tokenizer that came with the checkpoint",
        )
    masks = codec or checkpoint.find_codec(folder)
    return Ready(config, words, None if masks is None else checkpoint.load_codec(masks), given, base)
