"""A folder is a checkpoint when every byte is as it was written, and the refusal names the file. Old checkpoints stay readable."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from paligemma.errors import CheckpointError
from paligemma.sealed import seal, unseal
from paligemma.training.disk import Content, Disk
from paligemma.training.manifest import FORMAT, MANIFEST, DamagedError, Manifest, folder_name, step_of, verified
from paligemma.training.saved import open_saved

GOLDEN = Path(__file__).parent / "golden" / "step-00000012"
"""Written in format 1 by release 0.1.0."""


@pytest.fixture
def folder(tmp_path) -> Path:
    return shutil.copytree(GOLDEN, tmp_path / GOLDEN.name)


def reseal(folder: Path, **changes: object) -> None:
    """A manifest that is consistent in itself."""
    path = folder / MANIFEST
    path.write_bytes(seal(unseal(path.read_bytes()) | changes))


def test_an_old_checkpoint_is_read_to_the_bit():
    saved = open_saved(GOLDEN)
    assert (saved.step, saved.files, saved.facts) == (12, ("model", "optimizer"), {"base": "none", "recipe.seed": "7"})
    assert saved.state == {"data": {"position": 96}, "losses": [0.1, 1e-300, -0.0], "note": "aä\n"}
    assert math.copysign(1, saved.state["losses"][2]) == -1
    model, optimizer = saved.read("model"), saved.read("optimizer", mapped=False)
    assert torch.equal(model["matrix"], torch.arange(6, dtype=torch.float32).view(2, 3) / 7)
    assert torch.equal(model["bias"], torch.tensor([0.5, -1.25], dtype=torch.bfloat16))
    assert torch.equal(optimizer["matrix.codes"], torch.arange(6, dtype=torch.uint8).view(2, 3))
    assert (optimizer["matrix.count"].item(), optimizer["matrix.count"].dtype) == (12, torch.int64)
    with pytest.raises(KeyError):
        saved.read("adapter")


def test_a_newer_format_is_refused_by_name_and_is_no_damage(folder):
    reseal(folder, format=FORMAT + 1, written_by="9.8.7", files="quite another thing")
    with pytest.raises(CheckpointError, match=f"written in format {FORMAT + 1} by 9.8.7, this release reads up to {FORMAT}") as caught:
        verified(folder, Disk())
    assert not isinstance(caught.value, DamagedError)
    assert caught.value.exit_code == 4


def test_a_manifest_says_all_about_its_checkpoint():
    manifest = Manifest(7, {"a": "b"}, {"state.json": Content(3, "00")}, "0.1.0")
    assert json.loads(manifest.to_bytes()).items() >= {
        "format": FORMAT, "step": 7, "written_by": "0.1.0", "facts": {"a": "b"}, "files": {"state.json": {"size": 3, "sha256": "00"}},
    }.items()  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"step": 13}, "step 13"),
        ({"step": "x"}, "manifest.json"),
        ({"files": {}}, "'model.safetensors' does not belong"),
        ({"files": []}, "manifest.json"),
        ({"files": {"../x.json": {"size": 1, "sha256": ""}}}, "'../x.json'"),
        ({"files": {"/etc/passwd": {"size": 1, "sha256": ""}}}, "'/etc/passwd'"),
        ({"files": {"model.pt": {"size": 1, "sha256": ""}}}, "'model.pt'"),
        ({"files": {"model.safetensors": {"size": 1}}}, "manifest.json"),
        ({"facts": None}, "manifest.json"),
    ],
)
def test_a_forged_manifest(folder, changes, named):
    reseal(folder, **changes)
    with pytest.raises(DamagedError) as caught:
        verified(folder, Disk())
    assert named in caught.value.message


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", MANIFEST])
def test_every_flipped_bit_of_every_file_is_found(folder, name):
    data = (folder / name).read_bytes()
    for place in range(0, len(data), 1 if name == MANIFEST else 7):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        (folder / name).write_bytes(changed)
        with pytest.raises(DamagedError, match=name):
            verified(folder, Disk())
    (folder / name).write_bytes(data)
    assert verified(folder, Disk()).files.keys() == {"model.safetensors", "optimizer.safetensors", "state.json"}


def test_a_checkpoint_without_a_state(folder):
    (folder / "state.json").unlink()
    files = unseal((folder / MANIFEST).read_bytes())["files"]
    reseal(folder, files={name: entry for name, entry in files.items() if name != "state.json"})
    with pytest.raises(DamagedError, match=r"state.json is missing"):
        open_saved(folder)


def test_a_state_that_changes_while_it_is_read(folder):
    class Changing(Disk):
        reads = 0

        def open(self, path: Path):
            if path.name == "state.json":
                self.reads += 1
                if self.reads == 2:
                    path.write_bytes(path.read_bytes().replace(b"96", b"97"))
            return super().open(path)

    with pytest.raises(DamagedError, match="changed while it was read"):
        open_saved(folder, Changing())


class Refusing(Disk):
    """Refuses to open weights, so many times, with one error."""

    def __init__(self, code: int, times: int):
        self.code, self.times = code, times

    def open(self, path: Path):
        if path.suffix == ".safetensors" and self.times:
            self.times -= 1
            raise OSError(self.code, "refused", str(path))
        return super().open(path)


def test_a_read_error_is_tried_again_once(folder):
    assert verified(folder, Refusing(errno.EIO, 1)).step == 12
    with pytest.raises(DamagedError, match=r"model.safetensors: refused"):
        verified(folder, Refusing(errno.EIO, 2))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.EACCES, errno.ENOMEM, errno.ESTALE])
def test_what_the_machine_lacks_says_nothing_about_the_checkpoint(folder, code):
    with pytest.raises(OSError, match="refused"):
        verified(folder, Refusing(code, 1))


def test_names():
    assert [folder_name(step) for step in (0, 200, 123456789)] == ["step-00000000", "step-00000200", "step-123456789"]
    assert [step_of(folder_name(step)) for step in (0, 200, 123456789)] == [0, 200, 123456789]
    strange = ["step-200", "step-000000200", "step-00000200 ", "step-0000020x", "step-00000200\n", "xstep-00000200", "step-٠٠٠٠٠٢٠٠", ""]
    assert [step_of(name) for name in strange] == [None] * len(strange)


def test_hashes_are_of_the_bytes():
    for name, content in verified(GOLDEN, Disk()).files.items():
        data = (GOLDEN / name).read_bytes()
        assert content == Content(len(data), hashlib.sha256(data).hexdigest())
