"""One model of each kind, its prompts of unequal length, and an end token that ends their greedy answers at different places."""

from dataclasses import dataclass

import pytest
import torch

from paligemma.engine.network import Network
from paligemma.engine.static_network import StaticNetwork
from paligemma.engine.torch_network import TorchNetwork
from paligemma.model.paligemma import PaliGemma
from tests import tiny
from tests.engine import reference

PROMPTS = [[2, 31, 7], [2, 40, 41, 42, 43, 7], [2, 7], [2, 90, 12, 5, 7]]


@dataclass(frozen=True)
class Case:
    model: PaliGemma
    soft: torch.Tensor
    prompts: list[list[int]]
    eos_id: int

    @property
    def network(self) -> TorchNetwork:
        return TorchNetwork(self.model)

    @property
    def ids(self) -> dict:
        return {"eos_id": self.eos_id, "loc": reference.LOC}

    def row(self, row: int) -> tuple[torch.Tensor, list[int]]:
        return self.soft[row : row + 1], self.prompts[row]


@pytest.fixture(scope="session", params=list(tiny.TINY))
def case(request) -> Case:
    model = tiny.random_model(tiny.TINY[request.param])
    with torch.inference_mode():
        soft = model.encode_image(tiny.random_pixels(model.config, len(PROMPTS)))
    endless = [reference.greedy(model, soft[row : row + 1], prompt, 9, eos_id=-1)[0] for row, prompt in enumerate(PROMPTS)]
    words = {id for answer in endless for id in answer if id not in reference.LOC}
    lengths = {id: {answer.index(id) if id in answer else 9 for answer in endless} for id in sorted(words)}
    eos_id = max(lengths, key=lambda id: len(lengths[id]))
    assert len(lengths[eos_id]) > 1
    return Case(model, soft, PROMPTS, eos_id)


NETWORKS = {"torch": TorchNetwork, "static": StaticNetwork}


@pytest.fixture(params=NETWORKS)
def network(case, request) -> Network:
    """The case's model in each engine of PyTorch."""
    return NETWORKS[request.param](case.model)
