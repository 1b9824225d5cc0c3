"""Packs as files: what is in them, that they come from every format, and that broken ones are refused in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

import paligemma
from paligemma.checkpoint import save_codec, save_huggingface, save_npz
from paligemma.config import PRESETS
from paligemma.edge.mask_decoder import MaskDecoder
from paligemma.edge.network import EdgeNetwork
from paligemma.edge.pack_file import INDEX, WEIGHTS, Arrays, is_pack, read_index
from paligemma.edge.packer import pack_model, sources
from paligemma.errors import CheckpointError, UsageError
from paligemma.sealed import seal, unseal
from tests import tiny
from tests.checkpoint.making import hf_folder, hf_tensors


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A whole model's folder: weights, tokenizer, codec."""
    folder = save_huggingface(tiny.tiny_model(), tmp_path_factory.mktemp("source") / "model")
    tiny.tiny_tokenizer().save(folder)
    save_codec(tiny.random_codec(), folder / "mask_codec.safetensors")
    return folder


@pytest.mark.filterwarnings("ignore::paligemma.CutShort")
def test_a_pack_answers_as_the_model(source, tmp_path):
    pack = pack_model(source, tmp_path / "pack", "float32")
    assert is_pack(pack)
    one, other = paligemma.load(source, device="cpu"), paligemma.load(pack)
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    assert one.caption(picture).text == other.caption(picture).text
    boxes, again = (model.detect(picture, ["cat", "dog"], max_objects=2) for model in (one, other))
    assert boxes.text == again.text
    masks, again = (model.segment(picture, "cat", max_objects=1) for model in (one, other))
    assert masks.text == again.text
    assert all((a.mask != b.mask).mean() < 0.01 for a, b in zip(masks, again, strict=True))
    assert list(one.caption(picture, stream=True, max_tokens=5)) == list(other.caption(picture, stream=True, max_tokens=5))
    with pytest.raises(CheckpointError, match="without a model in PyTorch"):
        _ = other.model


def test_the_mask_decoder_is_the_codecs(source, tmp_path):
    pack = pack_model(source, tmp_path / "pack")
    codes = np.random.default_rng(1).integers(0, 128, (3, 16)).tolist()
    found = MaskDecoder(Arrays(pack, read_index(pack))).shapes(codes)
    np.testing.assert_allclose(found, tiny.random_codec().shapes(codes), atol=1e-4)


def test_every_format_gives_the_same_pack(source, tmp_path):
    model = tiny.tiny_model()
    other = save_npz(model, tmp_path / "model.npz")
    one, two = pack_model(source, tmp_path / "one"), pack_model(other, tmp_path / "two")
    entries, again = (read_index(pack).entries for pack in (one, two))
    assert entries.keys() - again.keys() == {name for name in entries if name.startswith("codec.")}
    first, second = (Arrays(pack, read_index(pack)) for pack in (one, two))
    assert all((first.raw(name) == second.raw(name)).all() for name in again)


def test_kinds_and_sizes(source, tmp_path):
    sizes = {kind: read_index(pack_model(source, tmp_path / kind, kind)).bytes for kind in ("float32", "bf16", "int8", "int4")}
    assert sizes["float32"] > sizes["bf16"] > sizes["int8"] > sizes["int4"]


@pytest.mark.parametrize(("quantize", "most"), [("int8", 3.0e9), ("int4", 1.8e9)])
def test_a_published_model_becomes_this_large(quantize, most):
    """The table of 257,152 words is there once, and quantized like the rest of the decoder."""
    wanted = sources(PRESETS["paligemma-3b-224"], quantize)
    assert 0.9 * most < sum(one.bytes for one in wanted.values()) < most
    assert wanted["text.embed.weight"].bits == {"int8": 8, "int4": 4}[quantize]
    numbers = sum(int(np.prod(one.shape)) for one in wanted.values())
    assert numbers == PRESETS["paligemma-3b-224"].num_parameters


def test_a_tokenizer_that_is_named_stands_for_the_one_beside_the_checkpoint(source, tmp_path, capsys):
    from paligemma.cli import main
    from tests.test_tokenizer import gemma_pieces, model_file

    words = tmp_path / "tokenizer.json"
    words.write_bytes(tiny.tiny_tokenizer_json())
    assert main(["pack", str(source), "--tokenizer", str(words), "--out", str(tmp_path / "pack")]) == 0
    assert (tmp_path / "pack" / "tokenizer.json").read_bytes() == words.read_bytes()
    assert not (tmp_path / "pack" / "tokenizer.model").exists()
    (tmp_path / "other.model").write_bytes(model_file(gemma_pieces()))
    command = ["pack", str(source), "--tokenizer", str(tmp_path / "other.model"), "--out", str(tmp_path / "new")]
    assert main(command) == CheckpointError.exit_code
    assert "257,152 tokens" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_output_matrix_of_its_own_is_refused(source, tmp_path):
    tensors = hf_tensors(tiny.tiny_config())
    hf_folder(tmp_path / "model", tensors | {"lm_head.weight": tensors["language_model.model.embed_tokens.weight"] + 1}, tiny.tiny_config())
    with pytest.raises(CheckpointError, match="differs from the embedding table"):
        pack_model(tmp_path / "model", tmp_path / "pack")
    assert not (tmp_path / "pack").exists()


def test_progress_ends_at_the_end(source, tmp_path):
    seen: list[tuple[int, int]] = []
    pack_model(source, tmp_path / "pack", progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1][0] == seen[-1][1]


def test_what_is_there_is_kept_unless_it_is_a_pack_to_be_replaced(source, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        pack_model(source, tmp_path / "mine", overwrite=True)
    pack_model(source, tmp_path / "pack")
    with pytest.raises(UsageError, match="exists already"):
        pack_model(source, tmp_path / "pack", "int4")
    assert read_index(pack_model(source, tmp_path / "pack", "int4", overwrite=True)).quantize == "int4"
    with pytest.raises(UsageError, match="quantized to 'int5'"):
        pack_model(source, tmp_path / "other", "int5")  # pyright: ignore[reportArgumentType]


def damaged(pack, change):
    """As if the pack had been written so: its checksum is right."""
    text = unseal((pack / INDEX).read_bytes())
    change(text)
    (pack / INDEX).write_bytes(seal(text))


BROKEN = {
    "version": (lambda t: t.update(pack=9), "version is 9"),
    "arrays": (lambda t: t.update(arrays=[]), "no arrays"),
    "gone": (lambda t: t["arrays"].pop("text.embed.weight"), "no 'text.embed.weight'"),
    "place": (lambda t: t["arrays"]["text.norm.weight"].update(at=2**40), "ends at"),
    "crooked": (lambda t: t["arrays"]["text.norm.weight"].update(at=3), "text.norm.weight"),
    "negative": (lambda t: t["arrays"]["text.norm.weight"].update(at=-64), "text.norm.weight"),
    "shape": (lambda t: t["arrays"]["text.norm.weight"].update(shape=[31]), "claims"),
    "kind": (lambda t: t["arrays"]["text.norm.weight"].update(kind="pickle"), "pickle"),
    "words": (lambda t: t["arrays"]["text.norm.weight"].update(shape="32"), "text.norm.weight"),
    "matrix": (lambda t: t["arrays"]["text.blocks.0.attn.q.weight"].update(shape=[9, 32]), "expected"),
    "long": (lambda t: t["arrays"]["text.norm.weight"].update(shape=[1] * 99), "text.norm.weight"),
    "huge": (lambda t: t["arrays"]["text.norm.weight"].update(shape=[10**400]), "text.norm.weight"),
    "numbers": (lambda t: t.update(quantize="int5"), "int5"),
    "fewer": (lambda t: t["config"]["text_config"].update(num_hidden_layers=2), "no part of this model"),
    "config": (lambda t: t["config"].pop("text_config"), "expected"),
    "nonsense": (lambda t: t["config"].update(text_config=3), "text_config"),
}


@pytest.mark.parametrize(("change", "word"), BROKEN.values(), ids=BROKEN)
def test_a_broken_index_is_refused(source, tmp_path, change, word):
    pack = pack_model(source, tmp_path / "pack")
    damaged(pack, change)
    with pytest.raises(CheckpointError, match=word):
        EdgeNetwork(pack)


def test_broken_files_are_refused(source, tmp_path):
    pack = pack_model(source, tmp_path / "pack")
    data = (pack / WEIGHTS).read_bytes()
    (pack / WEIGHTS).write_bytes(data[:1000])
    with pytest.raises(CheckpointError, match="1,000 bytes"):
        EdgeNetwork(pack)
    at = read_index(pack_model(source, tmp_path / "pack", overwrite=True)).entries["text.blocks.0.attn.q.weight"].at
    (pack / WEIGHTS).write_bytes(data[:at] + b"x" * 8 + data[at + 8 :])
    with pytest.raises(CheckpointError, match="no packed matrix"):
        EdgeNetwork(pack)
    (pack / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match="no JSON"):
        EdgeNetwork(pack)
    pack = pack_model(source, tmp_path / "pack", overwrite=True)
    (pack / WEIGHTS).write_bytes(b"")
    with pytest.raises(CheckpointError, match="empty"):
        EdgeNetwork(pack)
    (pack / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="no file"):
        EdgeNetwork(pack)


def test_a_pack_that_was_not_finished_is_none(source, tmp_path):
    """The index is written last."""

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_model(source, tmp_path / "pack", progress=stop)
    assert not is_pack(tmp_path / "pack")


def test_doors_that_a_pack_has_not(source, tmp_path):
    pack = pack_model(source, tmp_path / "pack")
    wrongs = {"device": ("cuda", "on the CPU"), "dtype": ("bfloat16", "settled"), "adapters": ({"a": "b"}, "takes no adapters")}
    for name, (wrong, word) in wrongs.items():
        with pytest.raises(UsageError, match=word):
            paligemma.load(pack, **{name: wrong})
    with pytest.raises(CheckpointError, match="is a pack"):
        paligemma.checkpoint.inspect(pack)
    shutil.rmtree(tmp_path / "bare", ignore_errors=True)
    shutil.copytree(pack, tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        paligemma.load(tmp_path / "bare")
    assert paligemma.load(tmp_path / "bare", tokenizer=pack / "tokenizer.model").config.text.vocab_size == tiny.TOKENIZER_VOCAB


def test_a_pack_answers_without_pytorch(source, tmp_path):
    pack = pack_model(source, tmp_path / "pack")
    code = f"""
import sys, numpy, paligemma
model = paligemma.load({str(pack)!r})
picture = numpy.zeros((30, 40, 3), numpy.uint8)
model.caption(picture, max_tokens=4).to_json()
model.detect(picture, "cat", max_objects=1).to_json()
model.segment(picture, "cat", max_objects=1).to_json()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


@pytest.mark.filterwarnings("ignore::paligemma.CutShort")
def test_a_pack_that_is_replaced_goes_on_answering_whom_has_it_open(source, tmp_path):
    pack = pack_model(source, tmp_path / "pack")
    picture = np.full((30, 40, 3), 90, np.uint8)
    model = paligemma.load(pack)
    before = model.run(picture, "cat", max_tokens=5)
    other = save_huggingface(tiny.tiny_model(seed=9), tmp_path / "other")
    pack_model(other, pack, "int4", overwrite=True)
    assert model.run(picture, "cat", max_tokens=5).to_dict() == before.to_dict()
    assert not (pack / "tokenizer.model").exists(), "the other model has none, and this was the old one's"


def test_a_pack_that_failed_is_made_again(source, tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            pack_model(source, tmp_path / "pack", progress=stop)
    assert is_pack(pack_model(source, tmp_path / "pack"))


def test_a_mask_decoder_that_is_not_whole_is_refused(source, tmp_path):
    changes = {
        "codec.decoder.12.bias": lambda t: t["arrays"].pop("codec.decoder.12.bias"),
        "codec.decoder.4.weight": lambda t: t["arrays"]["codec.decoder.4.weight"].update(shape=[4, 4], bytes=64),
    }
    for name, change in changes.items():
        pack = pack_model(source, tmp_path / "pack", overwrite=True)
        damaged(pack, change)
        with pytest.raises(CheckpointError, match=name):
            paligemma.load(pack)


def test_damaged_bytes_are_found(source, tmp_path, capsys):
    from paligemma.cli import main

    pack = pack_model(source, tmp_path / "pack")
    index = read_index(pack)
    assert Arrays(pack, index).verify() == []
    data = bytearray((pack / WEIGHTS).read_bytes())
    entry = index.entries["text.blocks.1.mlp.down.weight"]
    data[entry.at + entry.bytes - 3] ^= 1
    (pack / WEIGHTS).write_bytes(data)
    assert Arrays(pack, index).verify() == ["text.blocks.1.mlp.down.weight"]
    assert main(["info", str(pack)]) == CheckpointError.exit_code
    assert "text.blocks.1.mlp.down.weight: not the bytes" in capsys.readouterr().out


def test_a_number_that_was_changed_in_the_index_is_found(source, tmp_path, capsys):
    from paligemma.cli import main

    pack = pack_model(source, tmp_path / "pack")
    text = (pack / INDEX).read_text()
    (pack / INDEX).write_text(text.replace('"rope_theta": 10000.0', '"rope_theta": 10001.0'))
    for command in (["info", str(pack)], ["doctor", "--model", str(pack)]):
        assert main(command) == CheckpointError.exit_code
        assert "pack.json: it was changed after it was written" in capsys.readouterr().err


def test_an_older_pack_opens_and_is_said_to_be_unsure(source, tmp_path, capsys):
    from paligemma.cli import main

    pack = pack_model(source, tmp_path / "pack")
    older = unseal((pack / INDEX).read_bytes())
    del older["calibrated"]
    (pack / INDEX).write_text(json.dumps(older))
    assert not read_index(pack).sealed
    main(["doctor", "--model", str(pack)])
    assert "as they were written; pack.json has no checksum" in capsys.readouterr().out
    assert main(["info", str(pack)]) == 0
    assert "pack.json has no checksum" in capsys.readouterr().out
    main(["doctor", "--model", str(pack_model(source, pack, overwrite=True))])
    assert "no checksum" not in capsys.readouterr().out


def test_a_pack_without_its_index_is_still_known(source, tmp_path, capsys):
    from paligemma.cli import main

    pack = pack_model(source, tmp_path / "pack")
    (pack / INDEX).unlink()
    for command in (["info", str(pack)], ["doctor", "--model", str(pack)], ["pack", str(pack), "--out", str(tmp_path / "new")]):
        assert main(command) == CheckpointError.exit_code
        said = capsys.readouterr().err
        assert "is a pack that lacks pack.json" in said
        assert "copy pack.json from where" in said


def test_a_checkpoint_is_not_written_into_a_pack(source, tmp_path):
    pack = pack_model(source, tmp_path / "pack")
    with pytest.raises(UsageError, match="is a pack"):
        paligemma.checkpoint.convert(source, pack, overwrite=True)
