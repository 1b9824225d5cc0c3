"""The graphs against the network in PyTorch: the same image tokens and answers in float32; and that a table of words is there once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from paligemma.checkpoint import save_codec, save_huggingface
from paligemma.checkpoint.finding import BUNDLED
from paligemma.engine.generate import Options, generate
from paligemma.engine.torch_network import TorchNetwork
from paligemma.image import open_image, to_pixels
from paligemma.sequence import prompt_ids
from paligemma.tasks import caption, ocr
from paligemma.tokenizer import Tokenizer
from paligemma.web import data_files, decoder
from paligemma.web.packer import pack_web
from tests import tiny
from tests.web.onnx_network import OnnxNetwork, session

PROMPTS = [[2, 31, 7], [2, 40, 41, 42, 43, 7], [2, 7], [2, 90, 12, 5, 7]]


def model_of(version: int):
    config = tiny.tiny_config(version)
    return tiny.random_model(config)


def folder_of(model, folder):
    """A whole model's folder: weights, tokenizer, codec."""
    save_huggingface(model, folder)
    tiny.tiny_tokenizer().save(folder)
    save_codec(tiny.random_codec(), folder / "mask_codec.safetensors")
    return folder


@pytest.fixture(scope="module", params=[1, 2])
def pair(request, tmp_path_factory):
    """(model, its graphs in float32)."""
    model = model_of(request.param)
    where = tmp_path_factory.mktemp("web")
    return model, OnnxNetwork(pack_web(folder_of(model, where / "model"), where / "page", "float32"))


def test_image_tokens_are_those_of_the_model(pair):
    model, network = pair
    pixels = tiny.random_pixels(model.config, 2)
    with torch.inference_mode():
        expected = model.encode_image(pixels).numpy()
    np.testing.assert_allclose(network.encode(pixels.numpy()), expected, atol=2e-4)


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_answers_are_those_of_the_model(pair, prompt):
    model, network = pair
    tokenizer = tiny.tiny_tokenizer()
    pixels = tiny.random_pixels(model.config, 1, seed=len(prompt)).numpy()
    how = {"options": Options(max_tokens=12), "eos_id": tokenizer.eos_id, "loc": tokenizer.loc}
    one, other = (generate(each, each.encode(pixels), [prompt], **how)[0] for each in (TorchNetwork(model), network))
    assert one.ids == other.ids
    assert one.stop == other.stop
    assert other.logprob == pytest.approx(one.logprob, abs=1e-3)
    assert other.probs == pytest.approx(one.probs, abs=1e-4)


@pytest.mark.parametrize(("quantize", "most"), [("int8", 0.06), ("int4", 0.5)])
def test_quantized_logits_are_near(tmp_path, quantize, most):
    model = model_of(2)
    folder = folder_of(model, tmp_path / "model")
    whole, small = (OnnxNetwork(pack_web(folder, tmp_path / name, name)) for name in ("float32", quantize))
    pixels = tiny.random_pixels(model.config, 1).numpy()
    one, other = (each.begin(each.encode(pixels), [PROMPTS[1]], 1).logits for each in (whole, small))
    assert np.abs(one - other).mean() < most * one.std()


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_the_bundled_model_keeps_its_words(tmp_path, quantize):
    """Captions and read texts of the demo, from quantized graphs."""
    folder, demo = BUNDLED / "nano-112", BUNDLED / "demo"
    network, tokenizer = OnnxNetwork(pack_web(folder, tmp_path / "page", quantize)), Tokenizer.load(folder)
    how = {"options": Options(max_tokens=64), "eos_id": tokenizer.eos_id, "loc": tokenizer.loc}
    for picture in json.loads((demo / "demo.json").read_text()):
        soft = network.encode(to_pixels(open_image(demo / picture["image"]), network.facts["image"]["size"])[None])
        for item in picture["items"]:
            if item["task"] in ("ocr", "caption") and item.get("lang", "de") == "de":
                prompt = ocr.prompt() if item["task"] == "ocr" else caption.prompt("de")
                answer = generate(network, soft, [prompt_ids(tokenizer, prompt)], **how)[0]
                assert tokenizer.decode(answer.ids) == item["expect"]


def test_a_row_of_the_table_is_what_the_product_uses(tmp_path):
    """Embedding lookup and output matrix share their bytes, cut into parts or not, in one file or several."""
    model = model_of(1)
    folder = folder_of(model, tmp_path / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "PART", 500 * model.config.text.width)
        patch.setattr(data_files, "MOST", 40_000)
        for quantize in ("float32", "int8", "int4"):
            network = OnnxNetwork(pack_web(folder, tmp_path / quantize, quantize))
            words = network.facts["words"]
            assert len(words["parts"]) == 4
            assert len({part["weights"]["file"] for part in words["parts"]}) > 1 or quantize == "int4"
            rows = network.embed([0, 499, 500, 1551]) / np.float32(model.config.text.width**0.5)
            table = model.text.embed.weight[[0, 499, 500, 1551]].detach().numpy()
            np.testing.assert_allclose(rows, table, atol={"float32": 0, "int8": 0.01, "int4": 0.12}[quantize])
            files = network.facts["graphs"]["decoder"]["data"]
            assert len(files) > 1
            assert all((network.model / file["path"]).stat().st_size == file["bytes"] for file in files)


def test_parts_and_files_change_no_answer(tmp_path):
    model = model_of(1)
    folder = folder_of(model, tmp_path / "model")
    whole = OnnxNetwork(pack_web(folder, tmp_path / "whole", "int8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "PART", 500 * model.config.text.width)
        patch.setattr(data_files, "MOST", 40_000)
        cut = OnnxNetwork(pack_web(folder, tmp_path / "cut", "int8"))
    pixels = tiny.random_pixels(model.config, 1).numpy()
    one, other = (each.begin(each.encode(pixels), [PROMPTS[1]], 1).logits for each in (whole, cut))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_masks_are_the_codecs(pair):
    _, network = pair
    codes = np.random.default_rng(1).integers(0, 128, (3, 16))
    found = session(network.model / "masks.onnx").run(None, {"codes": codes})[0]
    np.testing.assert_allclose(found, tiny.random_codec().shapes(codes.tolist()), atol=1e-4)


def test_the_page_is_told_where_everything_lies(pair):
    _, network = pair
    facts = network.facts
    assert json.loads((network.model / facts["vocabulary"]["path"]).read_text())["pieces"][4] == "\n"
    listed = {file["path"] for graph in facts["graphs"].values() for file in (graph["graph"], *graph["data"])}
    assert listed | {facts["vocabulary"]["path"]} == {path.name for path in network.model.iterdir()}
