"""What an opened checkpoint says about itself, before a weight is read."""

from __future__ import annotations

import json
import zipfile

import pytest

from paligemma.checkpoint import save_npz
from paligemma.checkpoint.opening import open_checkpoint
from paligemma.errors import CheckpointError
from tests.tiny import TINY_1, random_model

from .making import hf_folder


def damaged_folder(folder, damage):
    hf_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    damage(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def damaged_archive(folder, damage):
    path = save_npz(random_model(TINY_1), folder / "x.npz")
    with zipfile.ZipFile(path, "a") as archive:
        config = json.loads(archive.comment)
        damage(config)
        archive.comment = json.dumps(config).encode()
    return path


DAMAGE = {
    "a value": lambda config: config["text_config"].update(head_dim="16"),
    "a table": lambda config: config.update(vision_config=[]),
    "a table in a table": lambda config: config["text_config"].update(rope_parameters=[1]),
    "a scheme": lambda config: config["text_config"].update(rope_parameters={"rope_type": "linear"}),
    "a sum": lambda config: config["text_config"].update(num_key_value_heads=3),
    "a size": lambda config: config["vision_config"].update(image_size=1),
    "code": lambda config: config.update(auto_map={}),
    "quantization": lambda config: config.update(quantization_config={}),
}


@pytest.mark.parametrize(("make", "where"), [(damaged_folder, "config.json: "), (damaged_archive, "x.npz: the archive's comment: ")])
@pytest.mark.parametrize("case", DAMAGE)
def test_a_refused_configuration_says_where_it_stands(tmp_path, case, make, where):
    path = make(tmp_path, DAMAGE[case])
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert caught.value.code == "bad_config"
    assert caught.value.message.startswith(where)
