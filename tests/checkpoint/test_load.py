"""Loading: every layout and era gives the same tensors; what does not fit or is no number is refused, all of it in one message."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from paligemma.checkpoint import inspect, load_model, memory, save_huggingface, save_npz
from paligemma.checkpoint.opening import open_checkpoint
from paligemma.config import VOCAB_SIZE, PaliGemmaConfig, TextConfig, VisionConfig
from paligemma.errors import CheckpointError, ResourceError
from paligemma.model.paligemma import PaliGemma
from tests.parity.big_vision import random_arrays
from tests.tiny import TINY, TINY_1, TINY_2, random_model

from .making import hf_folder, hf_tensors, shard

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "bv_tiny1.npz"


def same(model: torch.nn.Module, expected: dict[str, torch.Tensor]) -> bool:
    state = model.state_dict()
    return state.keys() == expected.keys() and all(torch.equal(state[name], expected[name]) for name in expected)


ERAS = {
    "hub": lambda name: name,
    "written by transformers 5": lambda name: name.replace("vision_tower.vision_model.", "vision_tower."),
    "in memory since 4.52": lambda name: "model." + name.replace("vision_model.", "").replace("language_model.model.", "language_model."),
    "model. before the old names": lambda name: "model." + name,
}


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("name", TINY)
def test_every_era_of_names(tmp_path, name, era):
    config = TINY[name]
    tensors = hf_tensors(config)
    hf_folder(tmp_path, {ERAS[era](key): tensor for key, tensor in tensors.items()}, config)
    model = load_model(tmp_path)
    assert model.config == config
    assert not model.training
    assert same(model, random_model(config).state_dict())


@pytest.mark.parametrize("mapped", [True, False])
def test_shards(tmp_path, mapped):
    shard(hf_folder(tmp_path), hf_tensors())
    assert same(load_model(tmp_path, mapped=mapped), random_model(TINY_1).state_dict())


def test_the_golden_file_explains_itself():
    info = inspect(GOLDEN)
    assert info.config == PaliGemmaConfig(
        VisionConfig(width=48, depth=3, mlp_dim=112, heads=4, image_size=56),
        TextConfig(width=64, depth=3, mlp_dim=160, heads=4, kv_heads=1, head_dim=32, vocab_size=1200),
        version=1,
        resize="bilinear",
    )
    assert (info.format, info.version, info.resolution, info.dtype, info.tensors) == ("big_vision", 1, 56, "float32", 32)
    assert (info.problems, info.warnings, info.config_from) == ((), (), "the shapes")
    assert info.parameters == sum(array.size for array in np.load(GOLDEN).values())


@pytest.mark.parametrize("unscanned", [False, True])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("prefix", ["", "params/"])
def test_big_vision_layouts(tmp_path, prefix, save, unscanned):
    """Arrays written down independently of the table of names; spot checks against big_vision's einsums."""
    arrays = random_arrays(TINY_1)
    q, kv = arrays["llm/layers/attn/q_einsum/w"], arrays["llm/layers/attn/kv_einsum/w"]
    gate, key = arrays["llm/layers/mlp/gating_einsum"], "img/Transformer/encoderblock/MultiHeadDotProductAttention_0/key/kernel"
    vision_key = arrays[key]
    if unscanned:
        for name in [name for name in arrays if "/encoderblock/" in name]:
            stack = arrays.pop(name)
            arrays |= {name.replace("encoderblock", f"encoderblock_{layer}"): part for layer, part in enumerate(stack)}
    save(tmp_path / "x.npz", **{prefix + name: array for name, array in arrays.items()})
    state = load_model(tmp_path / "x.npz").state_dict()
    x, v = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)[:, :32], vision_key.shape[1]
    for layer in (0, 2):

        def ours(name: str, layer: int = layer) -> np.ndarray:
            return state[f"text.blocks.{layer}.{name}.weight"].numpy()

        np.testing.assert_allclose(x @ ours("attn.q").T, np.einsum("td,ndh->tnh", x, q[layer]).reshape(2, -1), atol=1e-4)
        np.testing.assert_allclose(x @ ours("attn.k").T, np.einsum("td,kdh->tkh", x, kv[layer, 0]).reshape(2, -1), atol=1e-4)
        np.testing.assert_allclose(x @ ours("attn.v").T, np.einsum("td,kdh->tkh", x, kv[layer, 1]).reshape(2, -1), atol=1e-4)
        np.testing.assert_allclose(x @ ours("mlp.gate").T, x @ gate[layer, 0], atol=1e-4)
        np.testing.assert_allclose(x @ ours("mlp.up").T, x @ gate[layer, 1], atol=1e-4)
    theirs = np.einsum("td,dnh->tnh", x[:, :v], vision_key[1]).reshape(2, -1)
    np.testing.assert_allclose(x[:, :v] @ state["vision.blocks.1.attn.k.weight"].numpy().T, theirs, atol=1e-4)


def test_surplus_rows_are_dropped(tmp_path):
    """L7: a table of 257216 rows is one of 257152; nothing else is cut to fit."""
    config = dataclasses.replace(TINY_1, text=dataclasses.replace(TINY_1.text, width=2, heads=1, head_dim=2, vocab_size=VOCAB_SIZE))
    tensors = hf_tensors(config, torch.bfloat16)
    table = tensors["language_model.model.embed_tokens.weight"]
    tensors["language_model.model.embed_tokens.weight"] = torch.cat([table, torch.full((64, 2), 9.0).bfloat16()])
    hf_folder(tmp_path, tensors, config)
    assert torch.equal(load_model(tmp_path).text.embed.weight, table)
    tensors["language_model.model.embed_tokens.weight"] = torch.cat([table, torch.ones(63, 2).bfloat16()])
    hf_folder(tmp_path, tensors, config)
    with pytest.raises(CheckpointError, match=r"\(257215, 2\), expected \(257152, 2\)"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["lm_head.weight", "language_model.lm_head.weight"])
def test_an_output_matrix_that_is_the_embedding_table(tmp_path, name):
    tensors = hf_tensors()
    tensors[name] = tensors["language_model.model.embed_tokens.weight"].clone()
    hf_folder(tmp_path, tensors)
    assert same(load_model(tmp_path), random_model(TINY_1).state_dict())
    tensors[name][7, 3] += 1
    hf_folder(tmp_path, tensors)
    with pytest.raises(CheckpointError, match="in PaliGemma they are one"):
        load_model(tmp_path)


def test_l8_everything_wrong_is_in_one_message(tmp_path):
    tensors = hf_tensors()
    tensors.pop("multi_modal_projector.linear.bias")
    tensors["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    down = "language_model.model.layers.1.mlp.down_proj.weight"
    tensors[down] = tensors[down].T
    hf_folder(tmp_path, tensors)
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path)
    message = caught.value.message
    assert "multi_modal_projector.linear.bias is missing" in message
    assert "inv_freq is not part of the model" in message
    assert f"{down} has shape (56, 32), expected (32, 56) (transposed)" in message
    assert inspect(tmp_path).problems == tuple(line.strip() for line in message.splitlines()[1:])


def test_only_the_first_twenty_are_listed(tmp_path):
    tensors = {name: tensor for name, tensor in hf_tensors().items() if "language_model" not in name}
    hf_folder(tmp_path, tensors)
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path)
    assert len(caught.value.message.splitlines()) == 22
    assert "more" in caught.value.message.splitlines()[-1]


def test_l7_another_resolution_is_one_clear_sentence(tmp_path):
    hf_folder(tmp_path, hf_tensors(TINY_1), TINY_1.with_resolution(56))
    with pytest.raises(CheckpointError, match=r"config\.json describes 56 px, the weights are for 28 px"):
        load_model(tmp_path)


def test_another_version_is_one_clear_sentence(tmp_path):
    hf_folder(tmp_path, hf_tensors(TINY_2), dataclasses.replace(TINY_1, text=dataclasses.replace(TINY_1.text, width=40)))
    with pytest.raises(CheckpointError, match="describes a PaliGemma 1, the weights are those of a PaliGemma 2"):
        load_model(tmp_path)


def test_one_tensor_under_two_names(tmp_path):
    tensors = hf_tensors()
    tensors["model.language_model.norm.weight"] = torch.ones(32)
    hf_folder(tmp_path, tensors)
    with pytest.raises(CheckpointError, match="same tensor under two names"):
        load_model(tmp_path)


def test_no_config(tmp_path):
    hf_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path)
    assert caught.value.code == "no_config"


@pytest.mark.parametrize("layout", ["huggingface", "big_vision"])
def test_l6_nan_and_infinity_are_refused_together(tmp_path, layout):
    if layout == "huggingface":
        tensors = hf_tensors()
        tensors["multi_modal_projector.linear.bias"][3:5] = float("nan")
        tensors["language_model.model.norm.weight"][0] = float("-inf")
        path = hf_folder(tmp_path, tensors)
    else:
        arrays = random_arrays(TINY_1)
        arrays["img/head/bias"][3:5] = float("nan")
        arrays["llm/final_norm/scale"][0] = float("-inf")
        path = tmp_path / "x.npz"
        np.savez(path, **arrays)
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert caught.value.code == "bad_values"
    assert "projector.bias: 2 NaN of 32 values" in caught.value.message
    assert "text.norm.weight: 1 infinite of 32 values" in caught.value.message
    with pytest.raises(CheckpointError):
        load_model(path)  # a file that was refused is not remembered as good
    assert load_model(path, check_values=False).projector.bias.isnan().sum() == 2


def test_l6_a_matrix_of_zeros_only_warns(tmp_path):
    tensors = hf_tensors()
    tensors["multi_modal_projector.linear.weight"].zero_()
    tensors["multi_modal_projector.linear.bias"].zero_()
    hf_folder(tmp_path, tensors)
    with pytest.warns(UserWarning, match="holds only zeros") as caught:
        load_model(tmp_path)
    assert ["projector.weight" in str(warning.message) for warning in caught] == [True], "a bias of zeros is common"


def test_a_good_file_is_checked_once(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr("paligemma.checkpoint.values.value_problem", lambda tensor: looked.append(1) or (None, False))
    hf_folder(tmp_path)
    load_model(tmp_path)
    count = len(looked)
    load_model(tmp_path)
    assert len(looked) == count > 0
    time.sleep(0.01)
    hf_folder(tmp_path)  # written anew: another time stamp
    load_model(tmp_path)
    assert len(looked) == 2 * count


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16, "float32"])
def test_number_types(tmp_path, dtype):
    model = load_model(hf_folder(tmp_path), dtype=dtype)
    wanted = model.dtype
    assert str(wanted).endswith(str(dtype).removeprefix("torch."))
    assert same(model, {name: tensor.to(wanted) for name, tensor in random_model(TINY_1).state_dict().items()})


def test_mixed_number_types_become_the_main_one(tmp_path):
    tensors = hf_tensors(dtype=torch.bfloat16)
    tensors["language_model.model.norm.weight"] = tensors["language_model.model.norm.weight"].float()
    hf_folder(tmp_path, tensors)
    with pytest.warns(UserWarning, match="several number types"):
        model = load_model(tmp_path)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.bfloat16}


def test_quantized_and_integer_weights_are_refused(tmp_path):
    """L16: no quantized format is read, so none can be read wrongly."""
    tensors = hf_tensors()
    tensors["multi_modal_projector.linear.weight"] = torch.ones(32, 24, dtype=torch.int8)
    hf_folder(tmp_path, tensors)
    with pytest.raises(CheckpointError, match="number type 'I8'"):
        load_model(tmp_path)


def test_l12_chat_templates_are_not_even_opened(tmp_path):
    hf_folder(tmp_path)
    for name in ("tokenizer_config.json", "chat_template.jinja", "chat_template.json"):
        (tmp_path / name).mkdir()  # opening it would fail
    load_model(tmp_path)


def test_l19_a_model_that_does_not_fit_is_refused_before_loading(tmp_path, monkeypatch):
    hf_folder(tmp_path)
    monkeypatch.setattr(memory, "free_memory", lambda **_: 1000)
    monkeypatch.setattr(PaliGemma, "__init__", lambda *_: pytest.fail("the model was built"))
    with pytest.raises(ResourceError, match="GB of memory") as caught:
        load_model(tmp_path)
    assert caught.value.exit_code == 5


def test_free_memory_is_measured():
    free = memory.free_memory()
    assert free is None or free > 1 << 20


def test_swap_counts_only_where_it_may(tmp_path, monkeypatch):
    text = "MemAvailable:  3 kB\nSwapFree:  5 kB\n"
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *how, **more: text if str(path) == "/proc/meminfo" else read(path, *how, **more))
    assert (memory.free_memory(), memory.free_memory(swap=True)) == (3 * 1024, 8 * 1024)
    assert memory.free_on("cpu") == 3 * 1024
    with pytest.raises(ResourceError):
        memory.need_memory(8 * 1024 + 1, "it")
    memory.need_memory(8 * 1024, "it")


def test_what_a_mac_has_free():
    text = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               100.
Pages active:                          400000.
Pages inactive:                            20.
Pages speculative:                          3.
"Translation faults":              1234567890.
"""
    assert memory.available_pages(text) == 123 * 16384
    for other in (text.replace("inactive", "sleeping"), "vm_stat: no such thing"):
        with pytest.raises((KeyError, ValueError)):
            memory.available_pages(other)


def test_headers_are_compared_before_anything_is_read(tmp_path, monkeypatch):
    tensors = hf_tensors()
    tensors.pop("multi_modal_projector.linear.bias")
    hf_folder(tmp_path, tensors)
    monkeypatch.setattr("paligemma.checkpoint.safetensors_files.SafetensorsFiles.read", lambda *_: pytest.fail("read a tensor"))
    with pytest.raises(CheckpointError, match="missing"):
        load_model(tmp_path)


def test_inspecting_imports_no_torch(tmp_path):
    hf_folder(tmp_path)
    code = f"""
import sys
from paligemma.checkpoint import inspect
assert not inspect({str(tmp_path)!r}).problems and not inspect({str(GOLDEN)!r}).problems
assert not {{"torch", "safetensors", "huggingface_hub"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_training_on_mapped_weights_leaves_the_file_alone(tmp_path):
    hf_folder(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = load_model(tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.requires_grad
            parameter.add_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert same(load_model(tmp_path), random_model(TINY_1).state_dict())


def test_saving_over_the_mapped_file_itself(tmp_path):
    hf_folder(tmp_path)
    model = load_model(tmp_path)
    with torch.no_grad():
        model.projector.bias.add_(1)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_huggingface(model, tmp_path)
    assert same(model, expected)
    assert same(load_model(tmp_path), expected)


def test_l17_copied_weights_survive_a_file_cut_short(tmp_path):
    model = load_model(hf_folder(tmp_path), mapped=False)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert same(model, random_model(TINY_1).state_dict())


WIDE = PaliGemmaConfig(
    VisionConfig(width=64, depth=1, mlp_dim=64, heads=2, image_size=28),
    TextConfig(width=1024, depth=4, mlp_dim=8192, heads=4, kv_heads=1, head_dim=256, vocab_size=500),
)
"""220 MB in bfloat16."""

RESIDENT = """
import gc, sys, torch
from paligemma.checkpoint import load_model
def status():
    facts = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return {key: int(facts[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile", "VmHWM")}
load_model(sys.argv[1], **eval(sys.argv[3]))  # tiny: everything imported
gc.collect()
before = status()
model = load_model(sys.argv[2], **eval(sys.argv[3]))
sum(float(p.sum()) for p in model.parameters())
gc.collect()
after = status()
print(*(after[key] - before[key] for key in ("RssAnon", "RssFile", "VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_weights_are_resident_once(tmp_path):
    hf_folder(tmp_path / "tiny")
    with torch.device("meta"):
        model = PaliGemma(WIDE)
    filled = {name: torch.full(tensor.shape, 0.01, dtype=torch.bfloat16) for name, tensor in model.state_dict().items()}
    model.load_state_dict(filled, assign=True)
    save_huggingface(model, tmp_path / "wide")
    size = WIDE.num_parameters * 2 / 2**20

    def measure(**options: object) -> list[float]:
        command = [sys.executable, "-c", RESIDENT, str(tmp_path / "tiny"), str(tmp_path / "wide"), repr(options)]
        return [float(part) for part in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]

    own, file, peak = measure()
    assert own < 0.1 * size, f"mapped tensors were copied: {own:.0f} of {size:.0f} MB"
    assert file > 0.5 * size, "a part of it may have been taken back where memory is short"
    own, file, peak = measure(mapped=False)
    assert 0.9 * size < own < 1.1 * size
    assert file < 0.1 * size
    assert peak < 1.4 * size, "resident twice"


def test_no_warning_without_a_reason(tmp_path):
    hf_folder(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(tmp_path)


def test_weights_by_stretches(tmp_path):
    hf_folder(tmp_path)
    weights = open_checkpoint(tmp_path).weights()
    for name in ("projector.weight", "text.embed.weight"):
        assert torch.equal(weights.read(name, 5, 7), weights.read(name).reshape(-1)[5:12])
    arrays = random_arrays(TINY_1)
    np.savez(tmp_path / "x.npz", **arrays)
    weights = open_checkpoint(tmp_path / "x.npz").weights()
    for name in ("projector.weight", "text.blocks.1.attn.v.weight", "text.embed.weight"):
        assert torch.equal(weights.read(name, 5, 7), weights.read(name).reshape(-1)[5:12])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("save", [save_huggingface, save_npz])
def test_weights_as_arrays_are_those_as_tensors(tmp_path, save, dtype):
    weights = open_checkpoint(save(random_model(TINY_2), tmp_path / "x.npz" if save is save_npz else tmp_path, dtype=dtype)).weights()
    for name, spec in weights.specs.items():
        assert weights.array(name).shape == weights.floats(name).shape == spec.shape
        np.testing.assert_array_equal(weights.floats(name), weights.read(name).float().numpy())
        np.testing.assert_array_equal(weights.array(name, 5, 7), weights.array(name).reshape(-1)[5:12])
