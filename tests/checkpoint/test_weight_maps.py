"""The table of names against the model it describes, against big_vision's published shapes, and against every era of Hugging Face names."""

from __future__ import annotations

import math

import pytest
import torch

from paligemma.checkpoint.weight_maps import bv_layout, hf_layout, hub_name, our_shapes
from paligemma.config import PRESETS, preset
from paligemma.model.paligemma import PaliGemma
from tests.tiny import TINY, TINY_1


@pytest.mark.parametrize("config", [*TINY.values(), preset("paligemma-3b-224"), preset("paligemma2-28b-448")], ids=lambda c: c.name)
def test_the_table_names_exactly_the_models_tensors(config):
    with torch.device("meta"):
        state = PaliGemma(config).state_dict()
    assert our_shapes(config) == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("scanned", [True, False])
@pytest.mark.parametrize("config", [*TINY.values(), *PRESETS.values()], ids=lambda c: c.name)
def test_every_value_of_a_file_belongs_to_exactly_one_piece(config, scanned):
    for layout in (hf_layout(config), bv_layout(config, scanned=scanned)):
        shapes = our_shapes(config)
        for name, pieces in layout.members().items():
            ends = 0
            for piece in pieces:
                assert piece.start == ends
                ends += math.prod(shapes[piece.ours])
            assert ends == math.prod(layout.shapes[name])
        assert layout.pieces.keys() == shapes.keys()
        assert sum(map(math.prod, layout.shapes.values())) == config.num_parameters


def test_published_big_vision_shapes():
    one = bv_layout(preset("paligemma-3b-224"), prefix="params/").shapes
    assert len(one) == 32
    assert one["params/img/embedding/kernel"] == (14, 14, 3, 1152)
    assert one["params/img/pos_embedding"] == (1, 256, 1152)
    assert one["params/img/Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel"] == (27, 1152, 16, 72)
    assert one["params/img/Transformer/encoderblock/MultiHeadDotProductAttention_0/out/kernel"] == (27, 16, 72, 1152)
    assert one["params/llm/embedder/input_embedding"] == (257152, 2048)
    assert one["params/llm/layers/attn/q_einsum/w"] == (18, 8, 2048, 256)
    assert one["params/llm/layers/attn/kv_einsum/w"] == (18, 2, 1, 2048, 256)
    assert one["params/llm/layers/mlp/gating_einsum"] == (18, 2, 2048, 16384)
    two = bv_layout(preset("paligemma2-3b-448")).shapes
    assert len(two) == 34
    assert two["llm/layers/attn/kv_einsum/w"] == (26, 2, 4, 2304, 256)
    assert two["llm/layers/attn/attn_vec_einsum/w"] == (26, 8, 256, 2304)
    assert two["llm/layers/post_ffw_norm/scale"] == (26, 2304)


def test_one_name_means_two_tensors_in_gemma_1_and_2():
    name = "language_model.model.layers.0.post_attention_layernorm.weight"
    ours = {key: next(p.ours for p in hf_layout(TINY[key]).pieces.values() if p.theirs == name) for key in ("tiny-1", "tiny-2")}
    assert ours == {"tiny-1": "text.blocks.0.pre_mlp_norm.weight", "tiny-2": "text.blocks.0.post_attn_norm.weight"}


NAMES = """
vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias         vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias
vision_tower.encoder.layers.0.mlp.fc1.bias                      vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias
model.vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias   vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias
model.vision_tower.encoder.layers.0.mlp.fc1.bias                vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias
multi_modal_projector.linear.weight                             multi_modal_projector.linear.weight
model.multi_modal_projector.linear.weight                       multi_modal_projector.linear.weight
language_model.model.embed_tokens.weight                        language_model.model.embed_tokens.weight
model.language_model.embed_tokens.weight                        language_model.model.embed_tokens.weight
language_model.norm.weight                                      language_model.model.norm.weight
model.language_model.model.norm.weight                          language_model.model.norm.weight
language_model.lm_head.weight                                   language_model.lm_head.weight
model.language_model.lm_head.weight                             language_model.lm_head.weight
lm_head.weight                                                  language_model.lm_head.weight
something.else                                                  something.else
model.something                                                 model.something
"""


@pytest.mark.parametrize("line", NAMES.strip().splitlines())
def test_names_of_every_era(line: str):
    name, hub = line.split()
    assert hub_name(name) == hub


def test_hub_names_stay_as_they_are():
    assert all(hub_name(name) == name for name in hf_layout(TINY_1).shapes)
