"""`paligemma pack --target web`: what the folder holds, what is said of it, and what is refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import paligemma
from paligemma.checkpoint import save_huggingface
from paligemma.checkpoint.finding import BUNDLED
from paligemma.cli import main
from paligemma.errors import CheckpointError, UsageError
from paligemma.sealed import unseal
from paligemma.web.packer import pack_web
from paligemma.web.runtime import ELSEWHERE, FILES, PACKAGE, VERSION, find_runtime
from tests import tiny


def runtime_in(folder, version=VERSION):
    """Empty files under the names of ONNX Runtime Web's."""
    (folder / "dist").mkdir(parents=True)
    for name in FILES:
        (folder / "dist" / name).write_text(name)
    (folder / "package.json").write_text(json.dumps({"name": PACKAGE, "version": version}))
    return folder


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder to stand in, without node_modules."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_bundled_model_becomes_a_page(outside, capsys):
    assert main(["pack", "nano-112", "--target", "web", "--out", "page"]) == 0
    said = capsys.readouterr().out
    assert "python -m http.server --directory page" in said
    assert ELSEWHERE in said
    assert "npm install" in said
    page = outside / "page"
    facts = json.loads((page / "web.json").read_text())
    assert facts["runtime"] == ELSEWHERE
    assert facts["quantize"] == "int8"
    assert "small drawn world" in " ".join(facts["notes"])
    assert {path.name for path in page.iterdir()} == {
        "app", "examples", "index.html", "isolate.js", "model", "page.css", "README.md", "shared", "style.css", "web.json"
    }  # fmt: skip
    assert all((page / example["image"]).is_file() for example in facts["examples"])
    assert facts["examples"][0]["detect"] == ["owl", "green heart", "fish"]
    assert (page / "README.md").read_text().startswith("# nano-112 in a browser")


def test_info_says_what_it_is_and_finds_damage(outside, capsys):
    page = pack_web(BUNDLED / "nano-112", "page", "int4")
    assert main(["info", "page"]) == 0
    said = capsys.readouterr().out
    assert "page for browsers" in said
    assert "int4" in said
    data = page / "model" / "decoder-0.data"
    whole = bytearray(data.read_bytes())
    whole[-1] ^= 1
    data.write_bytes(whole)
    assert main(["info", "page"]) == CheckpointError.exit_code
    assert "decoder-0.data: not the bytes that were written" in capsys.readouterr().out
    data.write_bytes(b"")
    assert main(["info", "page"]) == CheckpointError.exit_code
    assert "decoder-0.data: expected" in capsys.readouterr().out
    (page / "web.json").write_text('{"web": 99}')
    with pytest.raises(CheckpointError, match="its version is 99"):
        paligemma.web.description.web_facts(page)
    (page / "web.json").write_text("[]")
    assert main(["info", "page"]) == CheckpointError.exit_code


def test_info_finds_a_change_in_what_the_page_is_told(outside, capsys):
    page = pack_web(BUNDLED / "nano-112", "page")
    text = (page / "web.json").read_text()
    (page / "web.json").write_text(text.replace('"rope_base": 10000.0', '"rope_base": 10001.0'))
    assert main(["info", "page"]) == CheckpointError.exit_code
    assert "web.json: it was changed after it was written" in capsys.readouterr().out
    (page / "web.json").write_text(json.dumps(unseal(text.encode())))
    assert main(["info", "page"]) == 0
    assert "web.json has no checksum" in capsys.readouterr().out


def test_a_page_without_its_index_is_still_known(outside, capsys):
    page = pack_web(BUNDLED / "nano-112", "page")
    (page / "web.json").unlink()
    assert main(["info", "page"]) == CheckpointError.exit_code
    said = capsys.readouterr().err
    assert "page is a page for browsers that lacks web.json" in said
    assert "paligemma pack --target web" in said


def test_it_is_no_model_that_answers_here(outside):
    page = pack_web(BUNDLED / "nano-112", "page")
    with pytest.raises(CheckpointError, match="page for browsers"):
        paligemma.load(page)


def test_a_page_without_codec_or_examples(tmp_path):
    folder = save_huggingface(tiny.tiny_model(), tmp_path / "model")
    tiny.tiny_tokenizer().save(folder)
    done = []
    page = pack_web(folder, tmp_path / "page", progress=lambda now, total: done.append((now, total)))
    facts = json.loads((page / "web.json").read_text())
    assert "masks" not in facts["graphs"]
    assert facts["examples"] == facts["notes"] == []
    assert [now for now, _ in done] == sorted(now for now, _ in done)
    assert done[-1][0] > 0.9 * done[-1][1]


def test_what_is_refused(outside):
    folder = save_huggingface(tiny.tiny_model(), outside / "model")
    with pytest.raises(CheckpointError, match=r"no tokenizer\.model or tokenizer\.json"):
        pack_web(folder, "page")
    assert not (outside / "page").exists()
    tiny.tiny_tokenizer().save(folder)
    with pytest.raises(UsageError, match="int5"):
        pack_web(folder, "page", "int5")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="exists already"):
        pack_web(folder, folder, overwrite=True)
    pack_web(folder, "page")
    with pytest.raises(UsageError, match="exists already") as caught:
        pack_web(folder, "page")
    assert "--overwrite" in str(caught.value.hint)
    pack_web(folder, "page", "int4", overwrite=True)


def test_numbers_that_are_none_are_refused_and_the_old_page_stays(tmp_path):
    model = tiny.tiny_model()
    folder = save_huggingface(model, tmp_path / "model")
    tiny.tiny_tokenizer().save(folder)
    page = pack_web(folder, tmp_path / "page")
    model.text.embed.weight.data[3, 2] = float("nan")
    save_huggingface(model, folder)
    with pytest.raises(CheckpointError, match=r"text\.embed\.weight holds values that are no numbers"):
        pack_web(folder, page, overwrite=True)
    assert (page / "web.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "page"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "web", "--quantize", "bf16"], "bfloat16"),
        (["--runtime", "."], "--target web"),
        (["--target", "web", "--runtime", "."], "no ort.wasm"),
    ],
)
def test_what_the_command_refuses(outside, capsys, arguments, words):
    assert main(["pack", "nano-112", "--out", "page", *arguments]) == UsageError.exit_code
    assert words in capsys.readouterr().err
    assert not (outside / "page").exists()


def test_the_runtime_is_found_and_copied(outside, capsys):
    assert find_runtime(None) is None
    package = runtime_in(outside / "node_modules" / PACKAGE)
    assert find_runtime(None).resolve() == package / "dist"
    for given in (package, package / "dist", outside, outside / "node_modules"):
        assert find_runtime(given).resolve() == package / "dist"
    with pytest.raises(UsageError, match=r"is onnxruntime-web 1\.0\.0"):
        find_runtime(runtime_in(outside / "old", "1.0.0"))
    assert main(["pack", "nano-112", "--target", "web", "--out", "page"]) == 0
    assert "npm" not in capsys.readouterr().out
    assert {path.name for path in (outside / "page" / "runtime").iterdir()} == set(FILES)
    assert json.loads((outside / "page" / "web.json").read_text())["runtime"] == "runtime/"


def test_describing_a_page_needs_no_onnx(outside):
    pack_web(BUNDLED / "nano-112", "page")
    code = "import sys; sys.modules['onnx'] = None; from paligemma.cli import main; sys.exit(main(['info', 'page']))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
