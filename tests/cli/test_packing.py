"""`paligemma pack` as a user types it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from paligemma.checkpoint import save_huggingface
from paligemma.cli import main
from paligemma.edge.pack_file import Arrays, read_index
from paligemma.edge.packing import Packed, unpack
from tests import tiny


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = save_huggingface(tiny.tiny_model(), tmp_path_factory.mktemp("source") / "model")
    tiny.tiny_tokenizer().save(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng, rows = np.random.default_rng(0), []
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).save(folder / f"{i}.png")
        rows.append({"image": f"{i}.png", "prefix": "caption en", "suffix": "a cat"})
    (folder / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def decoders(pack):
    """The 4-bit values of the decoder's matrices."""
    index = read_index(pack)
    arrays = Arrays(pack, index)
    names = [name for name, entry in index.entries.items() if entry.kind == "packed" and name.startswith("text.blocks")]
    return {name: unpack(Packed.from_bytes(arrays.raw(name)))[0] for name in names}


@pytest.mark.filterwarnings("ignore::paligemma.CutShort")
def test_calibrating_rounds_otherwise_and_the_pack_answers(source, pictures, tmp_path, capsys):
    for name, more in (("one", []), ("two", ["--calibrate", str(pictures), "--examples", "3"])):
        assert main(["pack", str(source), "--quantize", "int4", "--out", str(tmp_path / name), *more]) == 0
    one, two = decoders(tmp_path / "one"), decoders(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all((one[name] != two[name]).any() for name in one)
    assert all((np.abs(one[name].astype(int) - two[name]) <= 3).mean() > 0.95 for name in one), "the same weights, rounded otherwise"
    capsys.readouterr()
    assert main(["caption", str(pictures / "0.png"), "--model", str(tmp_path / "two"), "--max-tokens", "3"]) == 0


def test_a_calibrated_pack_says_so(source, pictures, tmp_path, capsys):
    for name, more in (("one", []), ("two", ["--calibrate", str(pictures), "--examples", "1"])):
        pack = tmp_path / name
        assert main(["pack", str(source), "--out", str(pack), *more]) == 0
        assert read_index(pack).calibrated == bool(more)
        assert ("calibrated" in (pack / "README.md").read_text()) == bool(more)
        capsys.readouterr()
        assert main(["info", str(pack), "--json"]) == 0
        assert ("--calibrate" in json.loads(capsys.readouterr().out)["rounding"]) == bool(more)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--quantize", "bf16", "--calibrate", "{data}"], "--calibrate is for rounding, and bf16 keeps numbers as they are"),
        (["--calibrate", "{data}", "--examples", "0"], "--examples is at least 1, got 0"),
        (["--calibrate", "nowhere"], "nowhere"),
        (["--calibrate", "{none}"], "no known format of annotations: a folder with notes.txt"),
    ],
)
def test_what_cannot_be_calibrated_is_said_in_one_line(source, pictures, tmp_path, capsys, words, message):
    none = tmp_path / "none"
    none.mkdir()
    (none / "notes.txt").write_text("no data set")
    given = [word.format(data=pictures, none=none) for word in words]
    assert main(["pack", str(source), "--out", str(tmp_path / "pack"), *given]) in (2, 3)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) <= 2
    assert not (tmp_path / "pack").exists()
