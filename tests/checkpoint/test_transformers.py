"""transformers loads what we write, tensor for tensor, and we load what transformers writes."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import PaliGemmaForConditionalGeneration

from paligemma.checkpoint import inspect, load_model, save_huggingface
from tests.parity.huggingface import their_model
from tests.tiny import TINY, random_model

RENAMED = """
model.vision_tower.embeddings.patch_embedding   vision.patch_embed
model.vision_tower.embeddings.position_embedding.weight   vision.pos_embed
model.vision_tower.encoder.layers   vision.blocks
model.vision_tower.post_layernorm   vision.norm
model.multi_modal_projector.linear   projector
model.language_model.embed_tokens   text.embed
model.language_model.norm   text.norm
model.language_model.layers   text.blocks
layer_norm   norm
mlp.fc1   mlp.up
mlp.fc2   mlp.down
self_attn   attn
q_proj   q
k_proj   k
v_proj   v
out_proj   out
o_proj   o
gate_proj   gate
up_proj   up
down_proj   down
input_layernorm   pre_attn_norm
pre_feedforward_layernorm   pre_mlp_norm
post_feedforward_layernorm   post_mlp_norm
"""


def in_our_names(theirs, post_norms: bool) -> dict[str, torch.Tensor]:
    """Their tensors as they are in memory, renamed word by word: written down without the package's table."""
    words = [
        *map(str.split, RENAMED.strip().splitlines()),
        ["post_attention_layernorm", "post_attn_norm" if post_norms else "pre_mlp_norm"],
    ]
    found = {}
    for name, tensor in theirs.state_dict().items():
        if name != "lm_head.weight":
            for word, ours in words:
                name = name.replace(word, ours)
            found[name] = tensor
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("shard_bytes", [None, 40_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", TINY)
def test_they_load_what_we_write(tmp_path, name, dtype, shard_bytes):
    model = random_model(TINY[name]).to(dtype)
    save_huggingface(model, tmp_path, max_shard_bytes=shard_bytes)
    theirs, report = PaliGemmaForConditionalGeneration.from_pretrained(tmp_path, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.dtype == dtype
    assert same(in_our_names(theirs, TINY[name].text.post_norms), model.state_dict())
    text = theirs.config.text_config
    config = TINY[name].text
    assert (text.head_dim, text.num_key_value_heads, text.rms_norm_eps) == (config.head_dim, config.kv_heads, config.norm_eps)
    assert text.rope_parameters["rope_theta"] == config.rope_base
    if config.post_norms:
        assert text.query_pre_attn_scalar**-0.5 == config.scale
        assert (text.attn_logit_softcapping, text.final_logit_softcapping) == (config.attn_softcap, None)
        assert set(text.layer_types) == {"full_attention"}


@pytest.mark.parametrize("shard_size", ["50GB", "40KB"])
@pytest.mark.parametrize("name", TINY)
def test_we_load_what_they_write(tmp_path, name, shard_size):
    config = TINY[name]
    theirs = their_model(config, final_softcap=30.0 if config.version == 2 else None)
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "40KB")
    model = load_model(tmp_path)
    assert same(model.state_dict(), in_our_names(theirs, config.text.post_norms))
    assert (model.config.vision, model.config.text) == (config.vision, config.text)
    info = inspect(tmp_path)
    assert (info.problems, info.recorded_softcap) == ((), 30.0 if config.version == 2 else None)


def test_our_keys_survive_their_saving(tmp_path):
    config = TINY["tiny-2"]
    save_huggingface(random_model(config), tmp_path / "ours")
    theirs = PaliGemmaForConditionalGeneration.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["paligemma"] == {"name": "tiny-2", "resize": "bicubic"}
    assert load_model(tmp_path / "theirs").config == config
