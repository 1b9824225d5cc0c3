"""Batches of pictures and texts: reproducible, of the training stream, and said to belong together where they do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paligemma.checkpoint.finding import find
from paligemma.embedding.words import GemmaWords
from paligemma.nano.names import LANGUAGES, enumerate_names, things
from paligemma.nano.pairs import FEW, TEXTS_PER_PICTURE, PairMaker, content, counted, said
from paligemma.nano.search_recipes import NANO_SIGLIP
from paligemma.nano.world import Split
from paligemma.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def maker(tokenizer_path):
    return PairMaker({
        "tokenizer_path": str(tokenizer_path), "size": 24, "length": 32, "bank_size": 2, "bank_seed": 0, "backgrounds": 8, "seed": 5,
        "text_share": 0.3, "few_share": 0.5, "side": 112,
    })  # fmt: skip


def test_a_batch_is_a_function_of_its_number(maker):
    one, same, other = maker(3), maker(3), maker(4)
    assert torch.equal(one.pixels, same.pixels)
    assert torch.equal(one.ids, same.ids)
    assert not torch.equal(one.pixels, other.pixels)
    assert one.pixels.shape == (24, 3, 112, 112)
    assert one.ids.shape == (24 * TEXTS_PER_PICTURE, 32)


def test_it_draws_from_the_training_stream(maker):
    assert maker.world.split is Split.TRAIN


def drawn(maker, index: int):
    """A batch and its scenes."""
    batch = maker(index)
    return batch, [maker.world.scene(index * 24 + i) for i in range(24)]


@pytest.mark.parametrize("index", range(4))
def test_contents_are_equal_where_the_texts_are(maker, index):
    batch, scenes = drawn(maker, index)
    for i, one in enumerate(scenes):
        for k, other in enumerate(scenes):
            same = batch.contents[i] == batch.contents[k]
            assert same == (content(one) == content(other)) == (said(one, "en") == said(other, "en"))


@pytest.mark.parametrize("index", range(4))
def test_texts_stand_picture_by_picture(maker, index):
    batch, scenes = drawn(maker, index)
    for scene, texts in zip(scenes, batch.ids.view(24, TEXTS_PER_PICTURE, -1).tolist(), strict=True):
        possible = [maker.words.ids(text, 32) for text in (counted(scene), *(said(scene, lang) for lang in LANGUAGES))]
        assert all(ids in possible for ids in texts)


def test_some_batches_are_of_few_kinds(maker):
    kinds = [len({spot.thing for scene in drawn(maker, index)[1] for spot in scene.objects}) for index in range(8)]
    assert min(kinds) <= FEW < max(kinds)


def test_counted(maker):
    scenes = [scene for index in range(4) for scene in drawn(maker, index)[1] if scene.objects]
    several = [scene for scene in scenes if len({spot.thing for spot in scene.objects}) < len(scene.objects)]
    assert several
    for scene in scenes:
        assert (counted(scene) != said(scene, "en")) == any(scene is one for one in several)
    assert any(counted(scene).startswith(("two ", "three ", "four ")) for scene in several)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_caption_fits(lang):
    """Four of what takes the most tokens, with the bundled tokenizer and the end mark."""
    words = GemmaWords(Tokenizer.load(find(NANO_SIGLIP.start)))
    end = words.ids("", 1)[0]

    def tokens(text: str) -> int:
        return words.ids(text, 99).index(end) + 1

    longest = max((thing.names[lang] for thing in things()), key=tokens)
    assert tokens(enumerate_names([longest] * 4, lang)) <= NANO_SIGLIP.text_length


def test_words_of_a_text_scene(maker):
    scene = next(s for s in map(maker.world.scene, range(200)) if s.lines)
    assert said(scene, "de") == " ".join(line.text for line in scene.lines)
    assert np.all(scene.owner == -1)
