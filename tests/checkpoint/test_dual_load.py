"""SigLIP checkpoints in all layouts give the numbers that transformers gives, and what does not fit is said in one message."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import SiglipModel

from paligemma.checkpoint import inspect, load_model
from paligemma.checkpoint.dual_load import load_dual_encoder, save_dual_encoder
from paligemma.checkpoint.dual_opening import is_encoder, open_encoder
from paligemma.errors import CheckpointError, UsageError
from tests.checkpoint.making import hf_folder
from tests.encoders import TINY_ENCODER, big_vision_arrays, our_encoder, random_inputs, their_encoder, their_folder

LAYOUTS = ("folder", "shards", "npz, stacked", "npz, layers apart", "npz without params/", "npz, packed")


@pytest.fixture(scope="module")
def expected():
    """What transformers' model makes of the inputs."""
    pixels, ids = random_inputs(TINY_ENCODER)
    with torch.inference_mode():
        return their_encoder()(input_ids=ids, pixel_values=pixels)


@pytest.fixture(scope="module", params=LAYOUTS)
def checkpoint(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("siglip")
    if request.param == "folder":
        return their_folder(place)
    if request.param == "shards":
        folder = their_folder(place, shard="20KB")
        assert len(list(folder.glob("*.safetensors"))) > 2
        return folder
    prefix = "" if "without" in request.param else "params/"
    arrays = big_vision_arrays(their_encoder(), scanned="apart" not in request.param, prefix=prefix)
    path = place / "siglip.npz"
    (np.savez_compressed if "packed" in request.param else np.savez)(path, **arrays)
    return path


def test_equal_to_transformers(checkpoint, expected):
    ours = load_dual_encoder(checkpoint)
    pixels, ids = random_inputs(TINY_ENCODER)
    side = ours.config.vision.image_size
    with torch.inference_mode():
        pixels = pixels[..., :side, :side]
        pictures, texts = ours.encode_pictures(pixels), ours.encode_texts(ids)
        torch.testing.assert_close(pictures, expected.image_embeds, rtol=0, atol=1e-5)
        torch.testing.assert_close(texts, expected.text_embeds, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.logits(pictures, texts), expected.logits_per_image, rtol=0, atol=1e-4)
    assert pictures.std() > 0.1, "the vectors say nothing"


def test_the_configuration_is_found(checkpoint):
    found = open_encoder(checkpoint).config
    image_size = TINY_ENCODER.vision.image_size if checkpoint.is_dir() else 28  # no shape shows two pixels that no patch sees
    assert (found.text, found.vision.image_size) == (TINY_ENCODER.text, image_size)
    assert found.resize == ("bicubic" if checkpoint.is_dir() else "bilinear")


def test_it_is_no_paligemma(checkpoint):
    assert is_encoder(checkpoint)
    for read in (inspect, load_model):
        with pytest.raises(CheckpointError, match="is a SigLIP: it compares pictures with texts") as error:
            read(checkpoint)
        assert error.value.code == "is_encoder"
        assert "\n" not in error.value.message


def test_a_paligemma_is_no_encoder(tmp_path):
    folder = hf_folder(tmp_path / "one")
    assert not is_encoder(folder)
    with pytest.raises(CheckpointError, match="model_type is 'paligemma', expected 'siglip'"):
        open_encoder(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model_type": 3}', b"\xff"])
def test_what_cannot_be_read_is_no_encoder(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert not is_encoder(tmp_path)
    assert not is_encoder(tmp_path / "nowhere")


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_what_is_saved_is_loaded_by_both(tmp_path, dtype):
    ours = our_encoder()
    folder = save_dual_encoder(ours, tmp_path / "out", dtype=dtype)
    again = load_dual_encoder(folder)
    kept = {name: tensor.to(torch.bfloat16) if dtype else tensor for name, tensor in ours.state_dict().items()}
    assert again.config == ours.config
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in kept.items())
    theirs, inputs = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval(), random_inputs(TINY_ENCODER)
    with torch.inference_mode():
        again.float()
        found = theirs(input_ids=inputs[1], pixel_values=inputs[0])
        logits = again.logits(again.encode_pictures(inputs[0]), again.encode_texts(inputs[1]))
    torch.testing.assert_close(found.logits_per_image, logits, rtol=0, atol=1e-4)


def test_saving_takes_the_place_of_shards(tmp_path):
    folder = their_folder(tmp_path, shard="20KB")
    save_dual_encoder(our_encoder(), folder)
    assert [path.name for path in folder.glob("*.safetensors*")] == ["model.safetensors"]
    load_dual_encoder(folder)


def test_saving_into_a_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="expected a folder"):
        save_dual_encoder(our_encoder(), tmp_path / "siglip.npz")


def test_all_problems_are_in_one_message(tmp_path):
    folder = their_folder(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    del tensors["text_model.head.bias"]
    tensors["vision_model.head.probe"] = tensors["vision_model.head.probe"][0]
    tensors["extra"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as error:
        load_dual_encoder(folder)
    for told in ("text_model.head.bias is missing", "vision_model.head.probe has shape (1, 24), expected (1, 1, 24)", "extra is not part"):
        assert told in error.value.message


@pytest.mark.parametrize("layout", ["folder", "npz"])
def test_what_is_no_number_is_refused(tmp_path, layout):
    if layout == "folder":
        path = their_folder(tmp_path)
        tensors = load_file(path / "model.safetensors")
        tensors["text_model.embeddings.token_embedding.weight"][5, 3] = float("nan")
        save_file(tensors, path / "model.safetensors")
    else:
        arrays = big_vision_arrays(their_encoder(), scanned=True)
        arrays["params/txt/Embed_0/embedding"] = arrays["params/txt/Embed_0/embedding"].copy()
        arrays["params/txt/Embed_0/embedding"][5, 3] = np.nan
        path = tmp_path / "siglip.npz"
        np.savez(path, **arrays)
    with pytest.raises(CheckpointError, match=r"text\.embed\.weight: 1 NaN"):
        load_dual_encoder(path)


def test_an_archive_that_lacks_a_tower(tmp_path):
    arrays = {name: array for name, array in big_vision_arrays(their_encoder(), scanned=True).items() if "MAPHead" not in name}
    np.savez(tmp_path / "siglip.npz", **arrays)
    with pytest.raises(CheckpointError, match="img/MAPHead_0/probe is missing"):
        load_dual_encoder(tmp_path / "siglip.npz")


def test_a_configuration_of_another_size(tmp_path):
    folder = their_folder(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = 98
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=re.escape("has shape (97, 32), expected (98, 32)")):
        load_dual_encoder(folder)
