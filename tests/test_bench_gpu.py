"""The GPU's benchmark works, on the CPU with a toy model; without a GPU it says so in one line."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
import torch

from bench import gpu
from paligemma.config import preset


def test_it_runs_from_one_end_to_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--tiny", "--json", str(tmp_path / "found.json")])
    gpu.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split(",")[0] for line in lines[1:]] == ["| decode", "| decode", "| first token", "| 4 mixed requests", "| prefill"]
    assert all("reached" in line or "missed" in line for line in lines[1:])
    found = json.loads((tmp_path / "found.json").read_text())
    assert all(value > 0 for value in found["limits"].values())
    assert len(found["rows"]) == 5


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, which would be measured")
def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match="no GPU here: nothing was measured"):
        gpu.main()


def test_targets_are_reached_from_the_right_side():
    row = gpu.Row("first token", "ms", 1.0, 3.0, 0.4, "of theirs", 0.5, at_least=False)
    assert row.reached
    assert not gpu.Row("decode", "ms", 1.0, 3.0, 0.4, "of the roof", 0.5, at_least=True).reached


def test_operations_are_counted():
    """About two a weight and token; of the decoder's last layer the MLP is for one token."""
    config = preset("paligemma-3b-224")
    text = config.text.num_parameters - config.text.vocab_size * config.text.width
    once = 2 * 264 * text + 2 * 256 * config.vision.num_parameters
    assert gpu.operations(config, 8) == pytest.approx(once, rel=0.08)


def test_requests_are_of_all_kinds():
    made = gpu.requests(64, dataclasses.replace(gpu.TOY, lengths=gpu.LENGTHS), seed=0)
    assert {request.tokens for request in made} == set(gpu.LENGTHS)
    assert len({len(request.ids) for request in made}) > 4
    assert len({request.pixels.sum().item() for request in made}) == 64
