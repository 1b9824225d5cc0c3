"""How likely captions are that the model did not write."""

from __future__ import annotations

import pytest

from paligemma.errors import UsageError
from paligemma.image import Clip
from paligemma.predictor.likelihood import caption_likelihoods
from paligemma.sequence import prompt_ids
from tests.engine import reference


def test_it_is_the_sum_over_the_words_tokens(model, picture):
    prompt, answer = prompt_ids(model.tokenizer, "caption de"), model.tokenizer.encode("a cat", locations=False)
    soft = model.encode(picture).soft
    expected = 0.0
    for told, id in enumerate(answer):
        expected += reference.next_logprobs(model.model, soft, prompt, answer[:told])[id].item()
    assert caption_likelihoods(model, [picture], " a cat ", lang="de") == [pytest.approx(expected, abs=1e-4)]


def test_pictures_of_all_sizes_in_batches_of_any_size(model, pictures):
    clip = Clip((pictures[0], pictures[1]))
    given = [pictures[2], clip, pictures[3], pictures[4]]
    alone = [caption_likelihoods(model, [one], "a cat")[0] for one in given]
    for size in (1, 2, 4, None):
        assert caption_likelihoods(model, given, "a cat", batch_size=size) == pytest.approx(alone, abs=1e-4)
    assert len(set(alone)) == len(given)


def test_longer_words_are_less_likely(model, picture):
    short, long = (caption_likelihoods(model, [picture], text)[0] for text in ("a cat", "a cat and a dog"))
    assert long < short < 0


def test_what_cannot_be_said(model, picture):
    for text in ("", "  ", "word " * 600):
        with pytest.raises(UsageError):
            caption_likelihoods(model, [picture], text)
