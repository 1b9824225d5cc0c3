"""Equal to peft: one layer with its gradients and number types, and whole models whose adapters went through peft's files, both ways."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from paligemma.checkpoint.adapter_config import value_for
from paligemma.checkpoint.adapters import load_adapter, save_adapter
from paligemma.model.lora import LoraAdapter, LoraConfig, LoraLinear, adapter_layers, merge
from tests.model.adapted import adapted
from tests.tiny import TINY, TINY_2, random_pixels

from .huggingface import IMAGE_TOKEN, same_weights, their_model

# One layer.


def pair(config: LoraConfig, *, base: torch.dtype = torch.float32, bias: bool = False, autocast_adapter_dtype: bool = True):
    """(ours, peft's) with the same weights."""
    import peft

    torch.manual_seed(0)
    linear = nn.Linear(48, 80, bias=bias).to(base)
    a, b = torch.randn(config.rank, 48), torch.randn(80, config.rank)
    theirs = peft.get_peft_model(
        nn.Sequential(copy.deepcopy(linear)),
        peft.LoraConfig(
            r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, use_rslora=config.rslora, target_modules=["0"]
        ),
        autocast_adapter_dtype=autocast_adapter_dtype,
    ).base_model.model[0]
    kind = theirs.lora_A["default"].weight.dtype
    theirs.lora_A["default"].weight.data = a.to(kind)
    theirs.lora_B["default"].weight.data = b.to(kind)
    ours = LoraLinear(linear.requires_grad_(False))
    ours.adapters["default"] = LoraAdapter(config, a.to(kind), b.to(kind))
    ours.active = "default"
    return ours.train(), theirs.train()


CONFIGS = {
    "plain": LoraConfig(rank=4, alpha=16),
    "rslora": LoraConfig(rank=4, alpha=6, rslora=True),
    "dropout": LoraConfig(rank=3, alpha=7, dropout=0.4),
}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_equal_to_peft_with_its_gradients(config, bias):
    ours, theirs = pair(config, bias=bias)
    x, y = (torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(3)).requires_grad_() for _ in range(2))
    torch.manual_seed(7)
    found = ours(x)
    torch.manual_seed(7)
    expected = theirs(y)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(4))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    adapter = ours.adapters["default"]
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(adapter.a.grad, theirs.lora_A["default"].weight.grad, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(adapter.b.grad, theirs.lora_B["default"].weight.grad, rtol=1e-5, atol=1e-4)
    assert ours.base.weight.grad is None
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(y), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("adapters", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
def test_number_types_are_those_of_peft(base, adapters, autocast):
    ours, theirs = pair(CONFIGS["plain"], base=base, autocast_adapter_dtype=adapters == torch.float32)
    if base == torch.float32 and adapters == torch.bfloat16:
        ours.adapters.bfloat16()
        theirs.lora_A.bfloat16()
        theirs.lora_B.bfloat16()
    x = torch.randn(2, 5, 48, dtype=base, generator=torch.Generator().manual_seed(3))
    x, y = x.clone().requires_grad_(), x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, expected = ours(x), theirs(y)
    found.float().square().sum().backward()
    expected.float().square().sum().backward()
    adapter = ours.adapters["default"]
    their_a = theirs.lora_A["default"].weight
    assert found.dtype == expected.dtype
    assert (adapter.a.dtype, adapter.a.grad.dtype, x.grad.dtype) == (their_a.dtype, their_a.grad.dtype, y.grad.dtype)
    bound = 1e-5 if torch.bfloat16 not in (base, adapters) and not autocast else 3e-2
    for mine, their in ((found, expected), (x.grad, y.grad), (adapter.a.grad, their_a.grad)):
        assert (mine.float() - their.float()).square().mean().sqrt() <= bound * their.float().square().mean().sqrt()


def test_a_float32_adapter_on_a_bfloat16_base_is_rounded_once():
    """The adapter's products and the sum are float32: what is lost is the base's rounding and the last one."""
    ours, _ = pair(CONFIGS["plain"], base=torch.bfloat16)
    x = torch.randn(9, 48, generator=torch.Generator().manual_seed(3)).bfloat16()
    adapter = ours.adapters["default"]
    product = adapter.config.scale * (x.double() @ adapter.a.double().T @ adapter.b.double().T)
    exact = (ours.base(x).double() + product).to(torch.bfloat16)
    assert (ours(x) != exact).float().mean() < 0.01


# Whole models.

BASE = "google/paligemma-3b-pt-224"
TARGETS = {
    "language": ("language",),
    "all": ("language", "vision", "projector"),
    "some": ("text.blocks.1.attn.q", "text.blocks.*.mlp.down", "vision.blocks.0.attn.out"),
}


def ids(config) -> torch.Tensor:
    return torch.randint(6, config.text.vocab_size, (2, 7), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def our_logits(model) -> torch.Tensor:
    tokens = ids(model.config)
    return model(model.encode_image(random_pixels(model.config, 2)), tokens, torch.zeros_like(tokens))


@torch.no_grad()
def their_logits(theirs, config) -> torch.Tensor:
    soft = config.vision.num_tokens
    both = torch.cat([torch.full((2, soft), IMAGE_TOKEN), ids(config)], 1)
    found = theirs(
        input_ids=both,
        pixel_values=random_pixels(config, 2),
        attention_mask=torch.ones_like(both),
        token_type_ids=torch.zeros_like(both),
    )
    return found.logits[:, soft:]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("name", TINY)
def test_peft_loads_what_we_write(tmp_path, name, targets):
    import peft

    theirs = their_model(TINY[name])
    ours = same_weights(theirs)
    plain = our_logits(ours)
    adapted(model=ours, lora=LoraConfig(rank=3, alpha=7, dropout=0.1, rslora=True, targets=targets))
    save_adapter(ours, tmp_path, base=BASE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as the one about tensors that are missing
        loaded = peft.PeftModel.from_pretrained(theirs, tmp_path)
    config = loaded.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (3, 7, 0.1, True)
    assert config.base_model_name_or_path == BASE
    assert sum(p.numel() for n, p in loaded.named_parameters() if "lora_" in n) == sum(
        p.numel() for a in adapter_layers(ours).values() for p in a.parameters()
    ), "peft adapts the same layers and no others"
    close(their_logits(loaded, ours.config), our_logits(ours))
    assert (our_logits(ours) - plain).abs().max() > 0.05
    close(their_logits(loaded.merge_and_unload(), ours.config), our_logits(ours))


THEIRS = {
    "the usual list": {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
    "all linear layers": {"target_modules": "all-linear", "use_rslora": True},
    "an expression": {"target_modules": r".*language_model.*\.(q_proj|v_proj)", "lora_dropout": 0.2},
    "some layers": {"target_modules": ["q_proj", "fc1", "multi_modal_projector.linear"], "layers_to_transform": [1]},
    "patterns": {
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {"language_model.layers.1.self_attn.q_proj": 2, "down_proj": 5},
        "alpha_pattern": {
            r"layers\.0\.mlp\.down_proj": 3, "^model.language_model.layers.2.mlp.down_proj": 11, "layers.1.self_attn.q_proj": 9,
        },
    },
    "another start": {"target_modules": ["o_proj"], "init_lora_weights": "gaussian"},
    "another kind of start": {"target_modules": ["o_proj"], "init_lora_weights": "orthogonal"},
}  # fmt: skip


@pytest.mark.parametrize("choice", THEIRS.values(), ids=THEIRS)
@pytest.mark.parametrize("name", ["tiny-1", "tiny-2"])
def test_we_load_what_peft_writes(tmp_path, name, choice):
    import peft

    theirs = their_model(TINY[name])
    ours = same_weights(theirs)
    wrapped = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", **choice))
    randomise(wrapped)
    wrapped.save_pretrained(tmp_path / "theirs")
    with pytest.warns(UserWarning, match="only shapes were"):
        load_adapter(ours, tmp_path / "theirs")
    close(our_logits(ours), their_logits(wrapped.eval(), ours.config))
    assert not any(parameter.requires_grad for parameter in ours.parameters())

    save_adapter(ours, tmp_path / "again", base=BASE)
    back = peft.PeftModel.from_pretrained(their_model(TINY[name]), tmp_path / "again")
    close(their_logits(back, ours.config), our_logits(ours))
    expected = our_logits(ours)
    merge(ours)
    close(our_logits(ours), expected)


KEYS = (
    ["q_proj"],
    ["layers.1.q_proj"],
    ["^layers.1.q_proj"],
    [r"^model\.layers\.1\.q_proj"],
    ["1.q_proj", "q_proj"],
    ["q_proj", "1.q_proj"],
)


@pytest.mark.parametrize("layer", ["model.layers.1.q_proj", "layers.1.q_proj", "model.layers.11.q_proj", "model.layers.1.xq_proj"])
@pytest.mark.parametrize("keys", KEYS, ids=str)
def test_patterns_match_as_in_peft(keys, layer):
    from peft.utils.other import get_pattern_key

    table = {key: number for number, key in enumerate(keys)}
    assert value_for(layer, table, None) == table.get(get_pattern_key(keys, layer))


@pytest.mark.parametrize("name", TINY)
def test_gradients_are_those_of_peft(tmp_path, name):
    """Of A and B in every layer, through the whole model, with a suffix that is predicted token by token."""
    import peft

    theirs = their_model(TINY[name])
    ours = same_weights(theirs)
    wrapped = peft.get_peft_model(theirs, peft.LoraConfig(r=4, lora_alpha=6, target_modules="all-linear"))
    randomise(wrapped)
    wrapped.save_pretrained(tmp_path)
    load_adapter(ours, tmp_path, trainable=True, check_base=False)
    tokens, soft = ids(ours.config), ours.config.vision.num_tokens
    mask_ar = (torch.arange(7) >= 3).long().expand(2, -1)
    weight = torch.randn(2, 7, ours.config.text.vocab_size, generator=torch.Generator().manual_seed(2)) / 40
    (ours(ours.encode_image(random_pixels(ours.config, 2)), tokens, mask_ar) * weight).sum().backward()
    both = torch.cat([torch.full((2, soft), IMAGE_TOKEN), tokens], 1)
    found = wrapped(
        input_ids=both,
        pixel_values=random_pixels(ours.config, 2),
        attention_mask=torch.ones_like(both),
        token_type_ids=torch.cat([torch.zeros(2, soft, dtype=torch.long), mask_ar], 1),
    )
    (found.logits[:, soft:] * weight).sum().backward()
    expected = {n: p.grad for n, p in wrapped.named_parameters() if p.requires_grad}
    assert len(expected) == 2 * len(adapter_layers(ours)) == 2 * (7 * ours.config.text.depth + 6 * ours.config.vision.depth + 1)
    for where, adapter in adapter_layers(ours).items():
        their_name = "base_model.model." + name_in_transformers(where)
        torch.testing.assert_close(adapter.a.grad, expected[f"{their_name}.lora_A.default.weight"], rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(adapter.b.grad, expected[f"{their_name}.lora_B.default.weight"], rtol=1e-3, atol=1e-5)
        assert adapter.a.grad.abs().max() > 1e-4
    assert {n.partition(".adapters.")[1] for n, p in ours.named_parameters() if p.grad is not None} == {".adapters."}


def name_in_transformers(where: str) -> str:
    """Word by word, without the package's table."""
    words = {"text.blocks": "model.language_model.layers", "vision.blocks": "model.vision_tower.encoder.layers", "attn.": "self_attn."}
    words |= {"projector": "model.multi_modal_projector.linear"}
    for ours, theirs in words.items():
        where = where.replace(ours, theirs)
    if where.startswith("model.vision_tower"):
        where = where.replace("mlp.up", "mlp.fc1").replace("mlp.down", "mlp.fc2")
    tower, _, last = where.rpartition(".")
    return where if last in ("linear", "fc1", "fc2") else f"{tower}.{last}_proj"


def randomise(wrapped, seed: int = 5) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


def test_an_adapter_of_transformers_own(tmp_path):
    """transformers has peft built in: `model.add_adapter`, `model.save_pretrained`."""
    import peft

    theirs = their_model(TINY_2)
    ours = same_weights(theirs)
    theirs.add_adapter(peft.LoraConfig(r=2, target_modules=["v_proj"]))
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    load_adapter(ours, tmp_path, check_base=False)
    close(our_logits(ours), their_logits(theirs, ours.config))
    save_adapter(ours, tmp_path / "again", base=BASE)
    fresh = their_model(TINY_2)
    fresh.load_adapter(str(tmp_path / "again"))
    close(their_logits(fresh, ours.config), our_logits(ours))
