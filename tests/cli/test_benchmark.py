"""`paligemma bench`: on the bundled model, on a pack without torch, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from paligemma.edge.packer import pack_model
from paligemma.predictor.loading import find


def test_the_bundled_model_in_words_and_a_picture(call, tmp_path):
    done = call("bench", "--quick", "--out", tmp_path / "report.png")
    assert done.code == 0
    assert "On this machine: a first answer token after " in done.out
    assert done.lines[-1] == f"written: {tmp_path / 'report.png'}"
    with Image.open(tmp_path / "report.png") as drawn:
        assert drawn.width > drawn.height / 2


def test_help_says_how_many_threads(call):
    assert "OMP_NUM_THREADS" in call("bench", "--help").out


def test_a_pack_is_measured_without_torch(tmp_path):
    """In the command's process and in the model's: an import of torch would end either."""
    pack = pack_model(find("bundled"), tmp_path / "pack", "int8")
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "torch.py").write_text("raise ImportError('torch is not to be imported')")
    path = os.pathsep.join([str(tmp_path / "blocked"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    command = [sys.executable, "-m", "paligemma", "bench", "--model", str(pack), "--quick", "--json", "--out", str(tmp_path / "a.html")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"where", "models", "words", "warnings"}
    (model,) = found["models"]
    assert (model["label"], model["engine"], model["numbers"]) == (str(pack), "pack", "int8")
    assert set(model["figures"]) == {
        "ready", "load", "cold", "image", "first", "decode", "rate", "answer", "mask", "cpu", "memory", "read", "peak"
    }  # fmt: skip
    assert set(model["shares"]) == {"picture", "prompt", "decode"}
    assert (tmp_path / "a.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--tokens", "0"], "error[usage]: tokens must be from 2 to 8,192, got 0", 2),
        (["--tokens", "many"], 'error[usage]: Invalid value for --tokens: unable to convert "many" into int', 2),
        (["--batches", "1,two"], "error[usage]: --batches must be whole numbers above 0, got '1,two'", 2),
        (["--batches", "0"], "error[usage]: --batches must be whole numbers above 0, got '0'", 2),
        (["--batches", ""], "error[usage]: --batches must be whole numbers above 0, got ''", 2),
        (["--repeats", "0"], "error[usage]: repeats must be from 1 to 100, got 0", 2),
        (["--model", "nowhere"], "error[not_found]: nowhere: no such file or folder", 4),
        (["--against", "nowhere"], "error[not_found]: nowhere: no such file or folder", 4),
        (["--out", "missing/report.html"], "error[usage]: --out missing/report.html: there is no folder missing", 2),
        (["--out", "report.txt"], "error[usage]: --out report.txt: expected a file that ends in .html or .png", 2),
        (["--device", "cpu:nine"], "error[usage]: 'cpu:nine' is not the name of a device", 2),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, code, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = call("bench", "--quick", *arguments)
    assert (done.code, done.out) == (code, "")
    first, *rest = done.err.splitlines()
    assert first == message
    assert len(rest) <= 1
    assert list(tmp_path.iterdir()) == []
