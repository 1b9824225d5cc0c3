"""What of a model is needed to look at data: its dimensions, its tokenizer, its mask codec. No weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .. import checkpoint
from ..checkpoint.locate import locate
from ..config import PaliGemmaConfig
from ..data.batch import RowReader
from ..model.mask_codec import MaskCodec
from ..predictor.loading import find
from ..predictor.packs import words_of
from ..tokenizer import Tokenizer
from ..training.recipes import Recipe
from ..training.run import fitted, reader


@dataclass(frozen=True)
class Ready:
    """`config`: as the run of a recipe has it. `path`: what was named."""

    config: PaliGemmaConfig
    tokenizer: Tokenizer
    codec: MaskCodec | None
    path: Path

    def reader(self, recipe: Recipe) -> RowReader:
        """What makes rows of records in a run of the recipe, without augmentation."""
        return reader(recipe, self.tokenizer, self.config, self.codec)


def ready(model: str | Path | None, recipe: Recipe, *, tokenizer: Path | None = None, codec: Path | None = None) -> Ready:
    """As `predictor.loading.read`, without the network. Raises `CheckpointError` for what is not there or does not go together, and for an
    adapter, which no run begins with; `UsageError` for a recipe of another resolution."""
    path = find(model)
    config = fitted(checkpoint.inspect(path).config, recipe)
    folder = locate(path).folder
    words = words_of(path, folder, tokenizer, config)
    masks = codec or checkpoint.find_codec(folder)
    return Ready(config, words, None if masks is None else checkpoint.load_codec(masks), path)
