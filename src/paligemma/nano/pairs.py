"""Scenes and what is said about them -> batches for SigLIP's loss: pictures, several texts each, and which belong together.

Batch i is a function of the seed and i, as in `batches.py`. A picture's texts are in languages drawn at random; of printed words it is
the words themselves. Some batches are of few kinds of things: there a text has to be read to its end to tell its picture from the others.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from ..embedding.words import GemmaWords
from ..tokenizer import Tokenizer
from .batches import pixels_of
from .lessons import label
from .names import LANGUAGES, enumerate_names, plural, things, with_article
from .world import Scene, Split, World

TEXTS_PER_PICTURE = 2
FEW = 12
"""Kinds of things in a batch of few."""
NUMBERS = ("no", "one", "two", "three", "four")


@dataclass(frozen=True)
class Pairs:
    """`pixels` (B, 3, S, S) uint8; `ids` (TEXTS_PER_PICTURE * B, T), picture by picture; `contents` (B,): equal where the same is shown."""

    pixels: Tensor
    ids: Tensor
    contents: Tensor


class Pairing(TypedDict):
    """What a `PairMaker` is made of; plain values, so that a child process can make one."""

    tokenizer_path: str
    size: int
    """Pictures in a batch."""
    length: int
    """Tokens of a text."""
    bank_size: int
    bank_seed: int
    backgrounds: int
    seed: int
    text_share: float
    """Of the scenes, how many show printed words."""
    few_share: float
    """Of the batches, how many are of few kinds of things."""
    side: int
    """Of the picture, in pixels."""


class PairMaker:
    """Draws batches of the training stream; everything heavy is made once."""

    def __init__(self, pairing: Pairing):
        self.pairing = pairing
        self.words = GemmaWords(Tokenizer.load(pairing["tokenizer_path"]))
        self.world = World(
            Split.TRAIN,
            bank_size=pairing["bank_size"],
            bank_seed=pairing["bank_seed"],
            backgrounds=pairing["backgrounds"],
            seed=pairing["seed"],
            text_share=pairing["text_share"],
            side=pairing["side"],
        )

    def __call__(self, index: int) -> Pairs:
        size = self.pairing["size"]
        rng = np.random.default_rng([self.pairing["seed"], 0x51C, index])
        few = rng.random() < self.pairing["few_share"]
        self.world.among = rng.choice(len(things()), FEW, replace=False).tolist() if few else None
        scenes = [self.world.scene(index * size + i) for i in range(size)]
        languages = [rng.choice(LANGUAGES, TEXTS_PER_PICTURE, replace=False) for _ in scenes]
        texts = [
            counted(scene) if lang == "en" and rng.random() < 0.5 else said(scene, lang)
            for scene, chosen in zip(scenes, languages, strict=True)
            for lang in chosen
        ]
        ids = [self.words.ids(text, self.pairing["length"]) for text in texts]
        return Pairs(pixels_of(scenes), torch.tensor(ids), torch.tensor([zlib.crc32(content(scene).encode()) for scene in scenes]))


def said(scene: Scene, lang: str) -> str:
    """Its things from left to right in a language, or its printed words from top to bottom."""
    if scene.lines:
        return " ".join(line.text for line in scene.lines)
    return enumerate_names([things()[spot.thing].names[lang] for spot in scene.objects], lang)


def counted(scene: Scene) -> str:
    """In English, with things of a kind together: "two cats and an owl"."""
    if not scene.objects:
        return said(scene, "en")
    labels = [label(spot) for spot in scene.objects]
    names = [
        with_article(name) if labels.count(name) == 1 else f"{NUMBERS[labels.count(name)]} {plural(name)}" for name in dict.fromkeys(labels)
    ]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def content(scene: Scene) -> str:
    """What is the same in all languages: two scenes of one content have the same texts."""
    return said(scene, "en") if scene.lines else ",".join(map(label, scene.objects))
