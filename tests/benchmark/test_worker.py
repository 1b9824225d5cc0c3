"""What a worker does with a model, in this process."""

from __future__ import annotations

import numpy as np
import pytest

from paligemma.benchmark import worker
from paligemma.benchmark.worker import TEXT_TOKENS, Subject, reply
from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.edge.packer import pack_model
from tests import tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = save_huggingface(tiny.tiny_model(), tmp_path_factory.mktemp("worker") / "model")
    tiny.tiny_tokenizer().save(folder)
    save_codec(tiny.random_codec(), folder / "mask_codec.safetensors")
    return folder


@pytest.fixture(scope="module", params=["float32", "bfloat16", "pack"])
def subject(request, checkpoint, tmp_path_factory):
    if request.param == "pack":
        return Subject(model=pack_model(checkpoint, tmp_path_factory.mktemp("packed") / "pack", "int4"))
    return Subject(model=checkpoint, dtype=request.param, device="cpu")


def test_times_of_an_answer_are_in_order(subject):
    for batch in (1, 3):
        found = subject.answer(batch, 4)
        assert 0 < found["image"] < found["first"] < found["last"]
        assert found["cpu"] > 0


def test_an_answer_has_as_many_tokens_as_asked_for_whatever_they_are(subject, monkeypatch):
    seen = []

    def generate(*arguments, on_token, **how):
        answers = real(*arguments, on_token=on_token, **how)
        seen.extend((len(answer.ids), answer.stop) for answer in answers)
        return answers

    real = worker.generate
    monkeypatch.setattr(worker, "generate", generate)
    subject.answer(2, 9)
    assert seen == [(9, "length")] * 2


def test_the_same_is_asked_each_time(subject):
    (pixels, prompts), (again, others) = subject._inputs(2), subject._inputs(2)
    assert np.array_equal(pixels, again)
    assert prompts == others
    assert pixels.dtype == np.float32
    assert np.abs(pixels).max() <= 1
    assert not np.array_equal(pixels[0], pixels[1])
    words = subject.predictor.tokenizer
    for prompt in prompts:
        assert len(prompt) == TEXT_TOKENS
        assert (prompt[0], prompt[-1]) == (words.bos_id, words.newline_id)
        assert all(words.newline_id < id < words.loc.start for id in prompt[1:-1])


def test_answers_go_on_until_the_model_is_as_it_stays(subject):
    subject.settle()
    assert subject._settled()


def test_a_mask_is_one_whatever_the_model_would_rather_say(subject, monkeypatch):
    results = []
    real = subject.predictor.refer
    monkeypatch.setattr(subject.predictor, "refer", lambda *given, **how: results.append(real(*given, **how)))
    assert subject.mask()["seconds"] > 0
    (found,) = results
    assert len(found.masks) == 1
    assert (found.masks[0].mask.shape, found.stop) == ((480, 640), "grammar")


def test_without_a_mask_codec_as_many_tokens_are_written(subject, monkeypatch):
    seen = []
    real = worker.generate
    monkeypatch.setattr(worker, "generate", lambda *given, **how: seen.extend(real(*given, **how)))
    monkeypatch.setattr(subject.predictor, "codec", None)
    assert subject.mask()["seconds"] > 0
    (answer,) = seen
    assert (len(answer.ids), answer.stop) == (20, "grammar")


def test_commands(checkpoint):
    subject, answer = reply(None, {"do": "load", "model": str(checkpoint), "dtype": "float32"})
    assert answer["seconds"] > 0
    assert (answer["engine"], answer["numbers"], answer["masks"]) == ("PyTorch", "float32", True)
    assert reply(subject, {"do": "memory"})[1]["peak"] > 10e6
    assert reply(subject, {"do": "answer", "batch": 1, "tokens": 2})[0] is subject
