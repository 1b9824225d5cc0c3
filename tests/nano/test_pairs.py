"""Batches of pictures and texts: reproducible, of the training stream, and said to belong together where they do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paligemma.nano.names import LANGUAGES
from paligemma.nano.pairs import TEXTS_PER_PICTURE, PairMaker, content, said
from paligemma.nano.world import Split


@pytest.fixture(scope="module")
def maker(tokenizer_path):
    return PairMaker({
        "tokenizer_path": str(tokenizer_path), "size": 24, "length": 32, "bank_size": 2, "bank_seed": 0, "backgrounds": 8, "seed": 5,
        "text_share": 0.3, "side": 112,
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


def test_contents_are_equal_where_the_texts_are(maker):
    scenes = [maker.world.scene(3 * 24 + i) for i in range(24)]
    contents = maker(3).contents
    for i, one in enumerate(scenes):
        for k, other in enumerate(scenes):
            assert (contents[i] == contents[k]) == (content(one) == content(other)) == (said(one, "en") == said(other, "en"))


def test_texts_stand_picture_by_picture(maker):
    scenes = [maker.world.scene(3 * 24 + i) for i in range(24)]
    rows = maker(3).ids.view(24, TEXTS_PER_PICTURE, -1).tolist()
    for scene, texts in zip(scenes, rows, strict=True):
        possible = [maker.words.ids(said(scene, lang), 32) for lang in LANGUAGES]
        assert all(ids in possible for ids in texts)


def test_every_caption_fits(maker):
    """Four of what takes the most tokens, in each language."""
    from paligemma.nano.names import enumerate_names, things

    for lang in LANGUAGES:
        longest = max(
            (thing.names[lang] for thing in things()), key=lambda name: maker.words.ids(name, 99).index(maker.words.ids("", 1)[0])
        )
        ids = maker.words.ids(enumerate_names([longest] * 4, lang), 99)
        assert ids.index(maker.words.ids("", 1)[0]) < 32


def test_words_of_a_text_scene(maker):
    scene = next(s for s in map(maker.world.scene, range(100)) if s.lines)
    assert said(scene, "de") == " ".join(line.text for line in scene.lines)
    assert np.all(scene.owner == -1)
