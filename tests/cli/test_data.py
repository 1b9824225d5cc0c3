"""`paligemma data check`: a verdict, a page, an exit code; the same as JSON; and what is said of data that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from paligemma.checkpoint import save_codec, save_huggingface

from ..annotations.world import CLASSES, SIZE, TRUTH, ellipse, picture, pictures
from ..tiny import random_codec, tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = save_huggingface(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")
    tiny_tokenizer().save(folder)
    save_codec(random_codec(), folder / "mask_codec.safetensors")
    return folder


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Four pictures, the same file four times over, with boxes and masks; one image more is missing."""
    from paligemma.mask_formats import run_lengths

    folder = pictures(tmp_path / "coco")
    images, annotations = [], []
    for number, (name, things) in enumerate(TRUTH.items()):
        images.append({"id": number, "file_name": name, "width": SIZE[0], "height": SIZE[1]})
        for label, (x0, y0, x1, y1) in things:
            counts = [int(count) for count in run_lengths(ellipse((x0, y0, x1, y1)))]
            annotations.append(
                {
                    "id": len(annotations), "image_id": number, "category_id": CLASSES.index(label), "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": {"size": [SIZE[1], SIZE[0]], "counts": counts},
                }
            )  # fmt: skip
    images.append({"id": 99, "file_name": "gone.png", "width": 8, "height": 8})
    categories = [{"id": number, "name": name} for number, name in enumerate([*CLASSES, "bird"])]
    (folder / "things.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return folder


def test_masks_to_a_page_and_to_json(tiny, coco, call, tmp_path):
    words = ["data", "check", coco, "--task", "segment", "--model", tiny, "--batch", 2, "--out", tmp_path / "page.html"]
    done = call(*words, "--max-bad-fraction", 0.5, "--json", "--measure")
    assert (done.code, done.err) == (0, "")
    (found,) = done.records
    assert found["fit"] is True
    assert found["sources"][0]["quarantine"] == {"missing": 1}
    assert found["counts"]["tasks"] == {"segment": 4}
    assert {one["name"]: one["things"] for one in found["counts"]["classes"]} == {"cat": 2, "dog": 3, "bird": 0}
    assert found["sampled"]["rounding"]["masks"] == 5
    assert 0 <= found["sampled"]["rounding"]["iou_mean"] <= 1
    assert found["repeats"]["files"]["groups"] == [[str(coco / name) for name in TRUTH]]
    assert found["costs"]["timing"]["updates"] == 2
    assert {remark["code"] for remark in found["remarks"] if remark["level"] == "warning"} >= {"unusable_records", "same_pictures"}
    assert len(found["samples"]) == 4
    html = (tmp_path / "page.html").read_text()
    assert html.count("data:image/webp;base64,") == 4
    assert "gone.png" in html


def test_too_many_broken_records_are_an_error_and_the_page_is_there_all_the_same(tiny, coco, call, tmp_path):
    done = call("data", "check", coco, "--model", tiny, "--out", tmp_path / "page.html")
    assert done.code == 3
    assert "things.json: image 99: no such file: gone.png" in done.out
    assert "error:   " in done.out
    assert done.lines[-2].startswith("not fit to train on: 1 error")
    assert "Not fit to train on" in (tmp_path / "page.html").read_text()


def test_a_data_set_with_splits_and_a_copy_in_both(tiny, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    for split in ("train", "valid"):
        picture(folder / f"{split}.png")
        (folder / f"{split}.jsonl").write_text(json.dumps({"image": f"{split}.png", "prefix": "caption en", "suffix": "a cat"}) + "\n")
    done = call("data", "check", folder, "--model", tiny, "--recipe", "debug", "--limit", 1, "--samples", 0)
    assert done.code == 0
    assert f"held out  1 records of {folder} (valid)" in done.out
    assert Path("data-check.html").is_file()
    shutil.copy(folder / "train.png", folder / "valid.png")
    leaking = call("data", "check", folder, "--model", tiny, "--recipe", "debug")
    assert "held out and learnt from: 1 picture" in leaking.out
    other = call("data", "check", folder, "--model", tiny, "--recipe", "debug", "--split", "valid", "--json")
    assert other.records[0]["held_out"] is None


def test_texts_that_do_not_fit_are_named(tiny, call, tmp_path):
    picture(tmp_path / "a.png")
    rows = [{"image": "a.png", "prefix": "answer en who?", "suffix": "cat " * length} for length in (1, 40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["data", "check", tmp_path / "rows.jsonl", "--model", tiny, "--recipe", "debug", "--out", tmp_path / "page.html"]
    done = call(*words, "--text-len", 32, "--json")
    assert done.code == 0
    lengths = done.records[0]["lengths"]
    assert (lengths["limit"], lengths["cut"], lengths["over"][0]["where"]) == (33, 1, "rows.jsonl:2")
    fits = call(*words, "--text-len", lengths["longest"] - 1)
    assert f"no text is cut: the longest has {lengths['longest']} of {lengths['longest']} tokens" in fits.out


def test_what_is_held_out_may_be_bad_too_and_the_page_is_there_all_the_same(tiny, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "prefix": "caption en", "suffix": "a cat"}\n')
    (tmp_path / "held.jsonl").write_text('{"image": "gone.png", "prefix": "caption en", "suffix": "a cat"}\n')
    done = call("data", "check", "rows.jsonl", "--valid", "held.jsonl", "--model", tiny, "--recipe", "debug")
    assert done.code == 3
    assert "error:   held.jsonl: none of 1 records can be used" in done.out
    assert "gone.png" in Path("data-check.html").read_text()


def test_an_adapter_is_refused_as_train_refuses_it(tiny, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "prefix": "caption en", "suffix": "a cat"}\n')
    assert call("train", "--data", "rows.jsonl", "--model", tiny, "--recipe", "lora", "--steps", 1, "--out", "run").code == 0
    words = ["--model", "run/last", "--recipe", "debug"]
    checked, trained = call("data", "check", "rows.jsonl", *words), call("train", "--data", "rows.jsonl", *words, "--out", "again")
    assert (checked.code, trained.code) == (4, 4)
    assert checked.err == trained.err[-len(checked.err) :]
    assert not Path("data-check.html").exists()


def test_a_recipe_in_a_file_gets_the_resolution_that_is_asked_for(tiny, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "prefix": "caption en", "suffix": "a cat"}\n')
    (tmp_path / "mine.toml").write_text('name = "mine"\nsteps = 2\nbatch = 1\nresolution = 28\n')
    words = ["data", "check", "rows.jsonl", "--model", tiny, "--recipe", "mine.toml"]
    assert call(*words).code == 0
    other = call(*words, "--resolution", 56)
    assert other.code == 2
    assert "56 pixels, this model takes 28" in other.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nowhere"], 3, "nowhere: no such file or folder"),
        (["empty"], 3, "an empty folder"),
        (["text.txt"], 3, "no known format"),
        (["pictures"], 3, "a folder with a.png, b.png"),
        (["none.jsonl"], 3, "none of 1 records can be used"),
        ([], 2, "SOURCE"),
        (["rows.jsonl", "--recipe", "docvqua"], 2, "did you mean 'docvqa'"),
        (["rows.jsonl", "--recipe", "docvqa"], 2, "224 pixels, this model takes 28"),
        (["rows.jsonl", "--task", "segmnt"], 2, "did you mean 'segment'"),
        (["rows.jsonl", "--format", "coc"], 2, "did you mean 'coco'"),
        (["rows.jsonl", "--out", "empty"], 2, "a folder, expected the name of a page"),
        (["rows.jsonl", "--limit", "0"], 2, "--limit must be at least 1"),
        (["rows.jsonl", "--samples", "-1"], 2, "--samples must be at least 0"),
        (["rows.jsonl", "--valid", "nowhere"], 3, "nowhere: no such file or folder"),
        (["rows.jsonl", "--max-bad-fraction", "2"], 2, "0 to 1"),
        (["rows.jsonl=0"], 2, "rows.jsonl=0: the weight of a source must be above 0"),
        (["rows.jsonl=nan"], 2, "must be above 0"),
        (["rows.jsonl", "--recipe", "docvqa"], 2, "save it with --print-recipe and edit its resolution"),
    ],
)
def test_wrong_input_gets_a_line(words, code, says, tiny, call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "none.jsonl").write_text("hello\n")
    pictures(tmp_path / "pictures")
    picture(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "prefix": "caption en", "suffix": "a cat"}\n')
    model = [] if not words else ["--model", tiny]
    done = call("data", "check", *words, *model, *(["--recipe", "debug"] if words and "--recipe" not in words else []))
    assert done.code == code
    assert says in done.out + done.err
    assert "Traceback" not in done.err
