"""B7, L3, L10, L15: what a path may be, and what is said about everything else."""

from __future__ import annotations

import pytest

from paligemma.checkpoint.locate import locate
from paligemma.errors import CheckpointError


def made(folder, *names: str):
    for name in names:
        (folder / name).write_bytes(b"x" * 600)
    return folder


GOOD = {
    "folder of safetensors": (["config.json", "model.safetensors", "tokenizer.model"], "", "huggingface", ["model.safetensors"]),
    "one file of it": (["config.json", "model.safetensors"], "model.safetensors", "huggingface", ["model.safetensors"]),
    "its config": (["config.json", "model.safetensors"], "config.json", "huggingface", ["model.safetensors"]),
    "safetensors beside pickles": (["model.safetensors", "pytorch_model.bin"], "", "huggingface", ["model.safetensors"]),
    "archive": (["pt_224.npz"], "pt_224.npz", "big_vision", ["pt_224.npz"]),
    "folder of one archive": (["pt_224.npz", "vae-oid.npz", "mask_codec.safetensors"], "", "big_vision", ["pt_224.npz"]),
    "one archive of two": (["a.npz", "b.npz", "model.safetensors"], "b.npz", "big_vision", ["b.npz"]),
}


@pytest.mark.parametrize("case", GOOD)
def test_found(tmp_path, case):
    names, path, format, files = GOOD[case]
    found = locate(made(tmp_path, *names) / path)
    assert (found.format, [file.name for file in found.files], found.folder) == (format, files, tmp_path)


# files in the folder, path below it, code, words of the message
BAD = {
    "two formats": (["model.safetensors", "pt_224.npz"], "", "ambiguous", ["model.safetensors", "pt_224.npz"]),
    "two archives": (["a.npz", "b.npz"], "", "ambiguous", ["a.npz", "b.npz"]),
    "two safetensors": (["model.safetensors", "other.safetensors"], "", "ambiguous", ["other.safetensors"]),
    "shards without index": (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], "", "index_mismatch", ["no model"]),
    "nothing": ([], "", "no_weights", ["found nothing"]),
    "other files": (["config.json", "notes.txt"], "", "no_weights", ["config.json, notes.txt"]),
    "only a codec": (["mask_codec.safetensors", "vae-oid.npz"], "", "no_weights", ["mask_codec.safetensors"]),
    "an adapter": (["adapter_config.json", "adapter_model.safetensors"], "", "adapter", ["LoRA adapter"]),
    "a pickled adapter": (["adapter_model.bin"], "adapter_model.bin", "pickle_refused", ["adapter_model.bin"]),
    "no such path": ([], "nowhere", "not_found", ["nowhere"]),
    "a picture": (["cat.jpg"], "cat.jpg", "unknown_format", ["cat.jpg"]),
    "folder of pickles": (["config.json", "pytorch_model.bin"], "", "pickle_refused", ["pytorch_model.bin"]),
    "an unfinished download": (["config.json", "model.safetensors.incomplete"], "", "incomplete_download", ["not finished"]),
    "parts of an archive": (["pt_896.npz.partaa", "pt_896.npz.partab"], "", "incomplete_download", ["part of a file"]),
    "one part": (["pt_896.npz.partaa"], "pt_896.npz.partaa", "incomplete_download", ["part of a file"]),
    **{name: ([name], name, "pickle_refused", [name, "pickle"]) for name in ("m.pt", "m.bin", "m.ckpt", "m.pkl", "m.pth", "M.PT")},
}


@pytest.mark.parametrize("case", BAD)
def test_refused(tmp_path, case):
    names, path, code, words = BAD[case]
    with pytest.raises(CheckpointError) as caught:
        locate(made(tmp_path, *names) / path)
    assert caught.value.code == code
    for word in words:
        assert word in caught.value.message
    assert caught.value.exit_code == 4


def test_what_looks_like_a_hub_id_is_taken_for_one():
    with pytest.raises(CheckpointError) as caught:
        locate("google/paligemma2-3b-mix-224")
    assert "paligemma pull google/paligemma2-3b-mix-224" in (caught.value.hint or "")
