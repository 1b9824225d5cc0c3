"""Sentences and the table."""

from __future__ import annotations

import dataclasses

import pytest

from paligemma.benchmark import words
from paligemma.benchmark.figures import Benchmark, Figure
from tests.benchmark.making import MACHINE, WORK, measured, side_by_side

SMALL = dataclasses.replace(WORK, weights=750_000, weight_bytes=3_000_000, token=10**6)


@pytest.mark.parametrize(
    ("read", "peak", "work", "said"),
    [
        (25e9, 8e12, WORK, "80 % of what memory gives (25 GB/s). Memory is what limits it."),
        (250e9, 60e9, WORK, "8 % of what memory gives (250 GB/s). Arithmetic is what limits it."),
        (250e9, 8e12, WORK, "8 % of what memory gives (250 GB/s). Neither memory nor arithmetic is near"),
        (250e9, 8e12, SMALL, "0 % of what memory gives (250 GB/s). Overhead is what limits it"),
        (1e9, 8e12, WORK, "more than what memory gives (1.0 GB/s), so it comes from a cache. Memory is what limits it."),
    ],
)
def test_what_limits_decoding_is_said(read, peak, work, said):
    model = measured(work)
    machine = {"read": Figure(MACHINE["read"][0], (read,)), "peak": Figure(MACHINE["peak"][0], (peak,))}
    assert said in "\n".join(words.said(dataclasses.replace(model, figures={**model.figures, **machine})))


def test_a_report_begins_with_what_a_person_notices():
    one = Benchmark((measured(batches=True),))
    assert words.report(one).startswith(
        "packed: PaliGemma 3B, int8 on cpu, 2 threads\n\nOn this machine: a first answer token after 2.5 s,"
    )
    assert max(map(len, words.report(one).splitlines())) <= words.WIDTH
    first, *rest = words.said(one.models[0])
    assert first == (
        "On this machine: a first answer token after 2.5 s, then 8.0 tokens a second; the picture takes 0.50 s of it; peak memory 3.0 GB."
    )
    report = "\n".join(rest)
    assert "An answer of 32 tokens takes 6.4 s, and 12 s of CPU time. A mask (20 tokens) takes 5.0 s." in report
    assert "2 pictures at a time give 13 tokens a second, 1.7 times as many." in report
    assert "1.00 TFLOP" in report
    assert "62 % and 50 % of the peak (800 GOP/s in 8-bit numbers). Arithmetic is what limits it." in report


def test_a_model_without_a_mask_codec_writes_masks_that_nobody_decodes():
    assert "A mask (20 tokens) takes 5.0 s, without decoding it: there is no mask codec." in words.said(measured(masks=False))[1]


def test_the_table_has_ratios_to_the_first_model():
    rows = {row.partition("  ")[0]: row for row in words.table(side_by_side())}
    assert rows["first token"].endswith("5.0 s ±20 %, x 2.00")
    assert rows["first token, 2 pictures"].startswith("first token, 2 pictures")
    assert len(rows) == 3 + len(side_by_side().models[0].figures) - 2


def test_a_ratio_of_peaks_is_of_the_same_numbers():
    pair = Benchmark((measured(), measured(products="float32")))
    (peak,) = (cells for name, cells in words.cells_of(pair) if name == "peak")
    assert peak == ["800 GOP/s in 8-bit numbers ±0 %", "800 GFLOP/s in float32 ±0 %"]


def test_a_warning_where_the_machine_is_busy():
    (warning,) = words.warnings(side_by_side())
    assert warning.startswith("the machine is busy: ")
    assert "of a checkpoint varied by 40 %, and " in warning
    assert words.warnings(Benchmark((measured(),))) == []


def test_names_cannot_steer_the_terminal():
    report = words.report(Benchmark((measured(label="a\x1b[31m"),)))
    assert "\x1b" not in report


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: words.seconds(0.00123), "1.2 ms"),
        (lambda: words.seconds(0.0994), "99 ms"),
        (lambda: words.seconds(0.0996), "0.10 s"),
        (lambda: words.seconds(0.996), "1.0 s"),
        (lambda: words.seconds(12.34), "12 s"),
        (lambda: words.number(99.6), "100"),
        (lambda: words.number(1.26), "1.3"),
        (lambda: words.size(2.5e9), "2.5 GB"),
        (lambda: words.size(999e6), "1.0 GB"),
        (lambda: words.size(25.3e9), "25 GB"),
        (lambda: words.size(12), "12 bytes"),
        (lambda: words.operations(1.07e12), "1.07 TFLOP"),
        (lambda: words.operations(0.21e12), "0.21 TFLOP"),
        (lambda: words.operations(61.8e6), "61.8 MFLOP"),
        (lambda: words.operations(3e5), "0.30 MFLOP"),
        (lambda: words.rate(850e9, "8-bit"), "850 GOP/s in 8-bit numbers"),
        (lambda: words.rate(120e9, "float32"), "120 GFLOP/s in float32"),
    ],
)
def test_numbers_in_words(call, expected):
    assert call() == expected
