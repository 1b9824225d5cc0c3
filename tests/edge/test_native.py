"""The compiled kernels: whole numbers exactly, the rest as numpy within rounding, whatever the shapes, threads and instruction set."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paligemma.edge import native, plain
from paligemma.edge.native import Kernels
from paligemma.edge.packing import Packed, pack, packed_bytes, quantize
from paligemma.errors import ResourceError, UsageError

from .matrices import KINDS, normal, random_matrix, whole

pytestmark = pytest.mark.skipif(not native.available(), reason=str(native.problem()))
SETS = native.instruction_sets() or ("none",)
few = settings(max_examples=30)
isas, kinds, seeds = st.sampled_from(SETS), st.sampled_from(KINDS), st.integers(0, 99)


def close(a, b, tolerance=2e-6):
    """Within rounding of the largest magnitude."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1e-30, float(np.abs(b).max(initial=0))))


@few
@given(isa=isas, kind=kinds, rows=st.integers(1, 40), outputs=st.integers(1, 70), inputs=st.integers(1, 700), seed=seeds)
@example(isa=SETS[0], kind=(8, None), rows=13, outputs=33, inputs=4304 // 4, seed=0)
def test_sums_of_whole_numbers_are_exact(isa, kind, rows, outputs, inputs, seed):
    """With 127 among a row's numbers in every group, and scales of one, nothing is rounded before the sum, and the sum fits a float."""
    rng = np.random.default_rng(seed)
    values, packed = whole(rng, outputs, inputs, *kind)
    x = rng.integers(-127, 128, (rows, inputs))
    x[:, :: packed.group] = 127
    out = Kernels(1, isa).linear(packed, x.astype(np.float32))
    assert (out == x @ values.astype(np.int64).T).all()


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_do_not_overflow(isa, kind, sign):
    largest = {8: 127, 4: 7}[kind[0]]
    scales = np.ones((20, 512 // kind[1]), np.float16) if kind[0] == 4 else np.ones(20, np.float32)
    packed = pack(np.full((20, 512), sign * largest, np.int8), scales, *kind)
    out = Kernels(1, isa).linear(packed, np.full((5, 512), 127, np.float32))
    assert (out == sign * largest * 127 * 512).all()


@few
@given(
    isa=isas,
    kind=kinds,
    rows=st.integers(0, 30),
    outputs=st.integers(1, 70),
    inputs=st.integers(1, 700),
    seed=seeds,
    power=st.integers(-20, 20),
)
def test_products_equal_numpys(isa, kind, rows, outputs, inputs, seed, power):
    rng = np.random.default_rng(seed)
    kernels, packed = Kernels(2, isa), random_matrix(rng, outputs, inputs, *kind)
    x, bias = normal(rng, rows, inputs) * np.float32(10.0**power), normal(rng, outputs)
    close(kernels.linear(packed, x), plain.linear(packed, x))
    close(kernels.linear(packed, x, bias), plain.linear(packed, x, bias))
    close(kernels.linear(packed, x, bias, gelu=True), plain.linear(packed, x, bias, gelu=True))
    chosen = rng.integers(0, outputs, 9)
    assert (kernels.linear_rows(packed, x, chosen) == kernels.linear(packed, x)[:, chosen]).all()
    close(kernels.linear_rows(packed, x, [range(outputs // 2, outputs)]), plain.linear_rows(packed, x, [range(outputs // 2, outputs)]))


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 8, 150, 600])
def test_every_split_of_the_work_gives_the_same(isa, kind, rows):
    rng = np.random.default_rng(rows)
    inputs = 4304 if rows < 100 else 1000
    matrices = [random_matrix(rng, 150, inputs, *kind) for _ in range(2)]
    x = normal(rng, rows, inputs)
    one, two, many = (Kernels(threads, isa) for threads in (1, 2, 16))
    close(one.linear(matrices[0], x), plain.linear(matrices[0], x))
    close(one.gated(*matrices, x), plain.gated(*matrices, x), 4e-6)
    for kernels in (two, many):
        assert (kernels.linear(matrices[0], x) == one.linear(matrices[0], x)).all()
        assert (kernels.gated(*matrices, x) == one.gated(*matrices, x)).all()
    assert (one.linear(matrices[0], x)[:1] == one.linear(matrices[0], x[:1])).all()


@pytest.mark.parametrize("isa", SETS)
def test_rows_that_are_no_numbers_stay_so_and_harm_no_other(isa):
    packed = random_matrix(np.random.default_rng(0), 30, 600, 8, None)
    x = normal(np.random.default_rng(1), 4, 600)
    clean = Kernels(1, isa).linear(packed, x)
    x[1, 300], x[2, 599], x[3] = np.nan, np.inf, 0
    out = Kernels(1, isa).linear(packed, x)
    assert (out[0] == clean[0]).all()
    assert np.isnan(out[1:3]).all()
    assert (out[3] == 0).all()


def test_activations_move_by_at_most_half_a_step():
    x = normal(np.random.default_rng(0), 5, 1000)
    x[2, :256] = 0
    values, scales = plain.quantize_rows(x, 256)
    error = np.abs(values * np.repeat(scales, 256, axis=1)[:, :1000] - x)
    assert (error <= 0.5001 * np.repeat(scales, 256, axis=1)[:, :1000]).all()
    assert np.abs(values).max() == 127


@pytest.mark.parametrize("isa", SETS)
def test_packed_bytes_serve_from_a_file_at_any_address(isa, tmp_path):
    rng = np.random.default_rng(0)
    values, scales = quantize(normal(rng, 40, 300), 4, 64)
    size = packed_bytes(40, 300, 4, 64)
    mapped = np.memmap(tmp_path / "pack", np.uint8, "w+", shape=(4 + size,))
    pack(values, scales, 4, 64, out=mapped[4:])
    mapped.flush()
    opened = Packed.from_bytes(np.memmap(tmp_path / "pack", np.uint8, "r")[4:])
    x = normal(rng, 3, 300)
    assert (Kernels(1, isa).linear(opened, x) == Kernels(1, isa).linear(pack(values, scales, 4, 64), x)).all()


@few
@given(
    isa=isas,
    batch=st.integers(1, 3),
    queries=st.integers(1, 30),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 8),
    size=st.sampled_from([1, 8, 72, 100, 256]),
    capacity=st.integers(1, 150),
    narrow=st.booleans(),
    softcap=st.sampled_from([None, 5.0]),
    seed=seeds,
)
def test_attention_equals_numpys(isa, batch, queries, kv_heads, group, size, capacity, narrow, softcap, seed):
    rng = np.random.default_rng(seed)
    q = normal(rng, batch, queries, kv_heads * group, size)
    keys, values = normal(rng, batch, capacity, kv_heads, size), normal(rng, batch, capacity, kv_heads, size)
    lengths = rng.integers(1, capacity + 1, batch)
    keys[np.arange(capacity) >= lengths[:, None]] = np.nan  # what is not seen does not matter
    values[np.arange(capacity) >= lengths[:, None]] = np.nan
    if narrow:
        keys, values = plain.to_bfloat16(keys), plain.to_bfloat16(values)
    one, two = (Kernels(n, isa).attention(q, keys, values, lengths, scale=size**-0.5, softcap=softcap) for n in (1, 2))
    assert (one == two).all()
    close(one, plain.attention(q, keys, values, lengths, scale=size**-0.5, softcap=softcap), 4e-6)


@pytest.mark.parametrize("isa", SETS)
def test_attention_stands_scores_far_apart(isa):
    rng = np.random.default_rng(0)
    q, keys, values = (100 * normal(rng, 1, 40, 1, 64) for _ in range(3))
    lengths = np.array([40])
    close(Kernels(1, isa).attention(q, keys, values, lengths, scale=1.0), plain.attention(q, keys, values, lengths, scale=1.0), 1e-5)


@few
@given(isa=isas, rows=st.integers(0, 40), width=st.integers(1, 3000), seed=seeds)
def test_rows_equal_numpys(isa, rows, width, seed):
    rng = np.random.default_rng(seed)
    x, weight, bias = 3 + normal(rng, rows, width), normal(rng, width), normal(rng, width)
    one, two = Kernels(1, isa), Kernels(2, isa)
    for name, arguments in (
        ("rms_norm", (x, weight, 1e-6)),
        ("layer_norm", (x, weight, bias, 1e-2)),
        ("gelu", (x,)),
        ("soft_cap", (x, 2.0)),
        ("log_sum_exp", (x,)),
        ("to_bfloat16", (x,)),
    ):
        found = getattr(one, name)(*arguments)
        close(found, getattr(plain, name)(*arguments), 0 if name == "to_bfloat16" else 4e-6)
        assert (found == getattr(two, name)(*arguments)).all()


@pytest.mark.parametrize("isa", SETS)
def test_the_whole_range_of_numbers(isa):
    x = np.concatenate([np.linspace(-200, 200, 40_001), [0, 1e-30, -1e-30, 1e30, -1e30]]).astype(np.float32)
    kernels = Kernels(1, isa)
    gelu, expected = kernels.gelu(x), plain.gelu(x.astype(np.float64))
    assert np.isclose(gelu, expected, rtol=2e-6, atol=1e-7).all()
    assert (np.abs(kernels.soft_cap(x, 30.0) - 30 * np.tanh(x.astype(np.float64) / 30)) <= 30 * 2e-7).all()
    odd = np.array([np.nan, np.inf, -np.inf, 1.00390625, -0.0, 3.4e38], np.float32)
    assert (kernels.to_bfloat16(odd) == plain.to_bfloat16(odd)).all()
    assert np.isnan(kernels.gelu(odd[:1])).all()
    assert np.isnan(kernels.soft_cap(odd[:1], 30.0)).all()
    logits = np.full((2, 257_152), -20, np.float32)
    logits[1, 200_000] = 80
    np.testing.assert_allclose(kernels.log_sum_exp(logits), [np.log(257_152) - 20, 80], rtol=1e-6)


@few
@given(isa=isas, rows=st.integers(1, 30), heads=st.integers(1, 9), half=st.integers(1, 130), seed=seeds)
def test_rotation_equals_numpys_also_in_a_slice(isa, rows, heads, half, seed):
    rng = np.random.default_rng(seed)
    wide = normal(rng, rows, heads + 2, 2 * half)
    table = plain.rotary_table(rng.integers(0, 5000, rows), 2 * half)
    for x in (wide, wide[:, :heads], wide[:, 2:]):
        close(Kernels(2, isa).rotate(x, *table), plain.rotate(x, *table))


def test_the_rotary_table_turns_by_position():
    cos, sin = plain.rotary_table(np.array([0, 1, 7]), 4)
    np.testing.assert_allclose(cos[:, 0], np.cos([0, 1, 7]), rtol=1e-6)
    np.testing.assert_allclose(sin[:, 1], np.sin([0, 0.01, 0.07]), rtol=1e-6)


def test_python_threads_and_forks_share_the_kernels():
    rng = np.random.default_rng(0)
    kernels, packed = Kernels(3), random_matrix(rng, 300, 256, 8, None)
    inputs = [normal(rng, 4, 256) for _ in range(4)]
    expected = [kernels.linear(packed, x) for x in inputs]
    wrong: list[int] = []

    def work(i: int) -> None:
        wrong.extend(i for _ in range(200) if not (kernels.linear(packed, inputs[i]) == expected[i]).all())

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    if hasattr(os, "fork"):
        child = os.fork()  # while the others are at work
        if child == 0:
            os._exit(0 if (kernels.linear(packed, inputs[0]) == expected[0]).all() else 1)
        assert os.waitpid(child, 0)[1] == 0
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores")
def test_threads_leave_the_core_of_their_caller():
    def cores_left(core: int) -> list[set[int]]:
        os.sched_setaffinity(0, {core})  # a thread begins where its parent may be, so all cores come back before the call
        os.sched_setaffinity(0, all_cores)
        kernels.linear(packed, x)
        return [all_cores - os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]

    rng, all_cores = np.random.default_rng(0), os.sched_getaffinity(0)
    kernels, packed, x = Kernels(2), random_matrix(rng, 4096, 512, 8, None), normal(rng, 1, 512)
    kernels.linear(packed, x)
    for core in sorted(all_cores)[:2]:
        left = cores_left(core)
        assert [cores for cores in left if cores]
        assert all(len(cores) <= 1 for cores in left)
    assert os.sched_getaffinity(0) == all_cores  # the caller itself is bound to nothing


def test_limits_are_measured():
    kernels = Kernels(2)
    assert kernels.peak(10) > 0
    data = np.random.default_rng(0).integers(-(2**62), 2**62, 300_001)
    assert kernels.read(data) == data.sum()


def test_wrong_arrays_and_settings_are_refused():
    rng = np.random.default_rng(0)
    kernels, packed = Kernels(1), random_matrix(rng, 20, 64, 8, None)
    x, q, cache, lengths = normal(rng, 3, 64), normal(rng, 1, 1, 4, 8), normal(rng, 1, 5, 2, 8), np.array([5])
    for call, message in (
        (lambda: kernels.linear(packed, x[:, :60]), r"x must have the shape \(3, 64\)"),
        (lambda: kernels.linear(packed, x[0]), "x must have the shape"),
        (lambda: kernels.linear(packed, x.astype(np.float64)), "float32, got float64"),
        (lambda: kernels.linear(packed, np.asfortranarray(x)), "contiguous"),
        (lambda: kernels.linear(packed, x, x[0]), "bias must have the shape"),
        (lambda: kernels.gated(packed, random_matrix(rng, 20, 64, 4, 32), x), "gate and up must be alike"),
        (lambda: kernels.linear_rows(packed, x, [20]), "row 20 was asked for"),
        (lambda: kernels.attention(q, cache, cache, np.array([6]), scale=1.0), "lengths must be 1 to 5"),
        (lambda: kernels.attention(q, cache, cache, np.array([0]), scale=1.0), "lengths must be 1 to 5"),
        (lambda: kernels.attention(q, cache, plain.to_bfloat16(cache), lengths, scale=1.0), "values must be float32"),
        (lambda: kernels.attention(q[:, :, :3].copy(), cache, cache, lengths, scale=1.0), "2 key/value heads cannot serve 3"),
        (lambda: kernels.attention(q[0], cache, cache, lengths, scale=1.0), "q must have 4 axes"),
        (lambda: kernels.rms_norm(x, x[0, :5].copy(), 1e-6), "weight must have the shape"),
        (lambda: kernels.rotate(x.reshape(3, 8, 8)[:, ::2], x, x), "heads of a row"),
        (lambda: kernels.log_sum_exp(x[:, :0].copy()), "a column at least"),
        (lambda: Kernels(0), "threads must be 1 to 64"),
        (lambda: Kernels(isa="avx513"), "no instruction set here is called 'avx513'"),
    ):
        with pytest.raises(UsageError, match=message):
            call()


@pytest.mark.parametrize(
    ("given", "threads"), [("3", 3), (" 2,5", 2), ("100", native.MOST_THREADS), ("0", None), ("many", None), ("", None)]
)
def test_the_environment_says_how_many_threads(monkeypatch, given, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    own = Kernels().threads
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert Kernels().threads == (threads or own)
    assert Kernels(1).threads == 1


def test_without_the_library_that_is_said(monkeypatch):
    monkeypatch.setattr(native, "problem", lambda: "not compiled")
    assert not native.available()
    with pytest.raises(ResourceError, match="not compiled"):
        Kernels()
