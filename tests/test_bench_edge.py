"""The comparison of packs with transformers: its counts are the known ones, and it runs on a model that is small everywhere."""

from __future__ import annotations

import pytest

from bench.edge import PEER, Contender, Figure, Limit, decoder_bytes, packed, run, shares, table
from bench.edge_layers import compare
from bench.edge_layers import table as layers_table
from bench.random_checkpoint import write_random_checkpoint
from paligemma.benchmark.counts import work
from tests.test_bench import SMALL


def test_ratios_are_medians_of_turns_and_targets_are_said():
    figure = Figure("decode, batch 1", "ms/token", {"int8": [1.0, 9.0, 1.0], PEER: [10.0, 10.0, 5.0]})
    assert figure.ratio("int8") == 0.2
    assert figure.ratio(PEER) is None
    assert "0.20 (0.28 reached)" in table([figure], ["int8", PEER])
    memory = Figure("peak memory", "GB", {"int8": [3.5], PEER: [7.0]})
    assert "0.50 (3.4 GB missed)" in table([memory], ["int8", PEER])


@pytest.mark.slow
def test_it_runs(tmp_path):
    source = write_random_checkpoint(SMALL, tmp_path / "model")
    packs = [packed(source, kind, tmp_path / kind) for kind in ("int8", "int4", "bf16")]
    contenders = [*packs[:2], Contender(PEER, source)]
    figures, names = run(contenders, repeats=1, tokens=4, batches=[1, 2])
    assert {"load", "peak memory", "image, batch 1", "first token, batch 1", "decode, batch 2", "object of 20 tokens"} <= {
        f.name for f in figures
    }
    assert float(names["logits, int8"].split()[0]) < 0.2
    text = shares(figures, contenders, work(SMALL, 8, numbers="bfloat16", cached="bfloat16"), [Limit(1e9, 1e9)])
    assert len(text.splitlines()) == 4
    assert 0 < decoder_bytes(packs[1].folder) < decoder_bytes(packs[0].folder)
    errors = compare(packs[2].folder, packs[0].folder, decoded=1)
    assert {"image qkv", "text attn.q", "text mlp.down", "text output"} <= set(errors)
    assert "%" in layers_table({"int8": errors})
