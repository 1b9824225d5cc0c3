"""An empty model has every name and shape, no memory, and is quick to make."""

from __future__ import annotations

import subprocess
import sys

import torch

from paligemma.model.empty import empty_model
from paligemma.model.paligemma import PaliGemma
from tests.tiny import TINY_2


def test_names_shapes_and_no_memory():
    full, empty = PaliGemma(TINY_2).state_dict(), empty_model(TINY_2).state_dict()
    assert {name: tensor.shape for name, tensor in empty.items()} == {name: tensor.shape for name, tensor in full.items()}
    assert all(tensor.is_meta for tensor in empty.values())


def test_ordinary_models_still_get_first_values():
    empty_model(TINY_2)
    model = PaliGemma(TINY_2)
    assert model.text.blocks[0].attn.q.weight.std() > 0
    assert torch.equal(model.vision.norm.weight, torch.ones_like(model.vision.norm.weight))


def test_no_decompositions_are_imported():
    code = """
import sys
from paligemma.model.empty import empty_model
from tests.tiny import TINY_1
before = "torch._decomp.decompositions" in sys.modules
empty_model(TINY_1)
print(before, "torch._decomp.decompositions" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = found.stdout.split()
    assert after == before
