"""docs/published.md and the table in the code say the same; names of data sets find their benchmark."""

from pathlib import Path

import pytest

from paligemma.config import PRESETS
from paligemma.evaluation.metrics import METRICS
from paligemma.evaluation.published import BENCHMARKS, PUBLISHED, RESOLUTIONS, Published, benchmark_named, published_scores

DOCS = Path(__file__).resolve().parents[2] / "docs" / "published.md"


def documented() -> tuple[list[Published], dict[str, tuple[str, str]]]:
    """Scores, and how each benchmark is counted, as the page says."""
    scores, counted, model = [], {}, ""
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            model = line.removeprefix("## ")
        elif line.startswith("| ") and not line.startswith("| benchmark"):
            benchmark, split, counted_as, metric, *values = (cell.strip() for cell in line.strip("|").split("|"))
            counted[benchmark] = (counted_as, metric)
            scores += [Published(benchmark, split, model, res, float(v)) for res, v in zip(RESOLUTIONS, values, strict=True) if v]
    return scores, counted


def test_the_page_and_the_code_agree():
    scores, counted = documented()
    assert set(scores) == set(PUBLISHED)
    assert len(scores) == len(PUBLISHED) == len(set(PUBLISHED)) > 200
    assert counted == {name: (one.score, one.metric or "-") for name, one in BENCHMARKS.items()}


def test_every_benchmark_has_scores_and_a_metric_that_exists():
    assert {row.benchmark for row in PUBLISHED} == BENCHMARKS.keys()
    assert {one.metric for one in BENCHMARKS.values()} - {""} <= METRICS.keys()
    assert {f"{row.model.removesuffix('-mix')}-{row.resolution}" for row in PUBLISHED} <= PRESETS.keys()


@pytest.mark.parametrize(
    ("name", "benchmark"),
    [
        ("docvqa", "DocVQA"),
        ("data/DocVQA/val.jsonl", "DocVQA"),
        ("/home/docvqa/photos/val.jsonl", None),
        ("ocr_vqa", "OCR-VQA"),
        ("science-qa", "ScienceQA"),
        ("aokvqa_da", "AOKVQA-DA"),
        ("xGQA", "xGQA"),
        ("gqa_testdev", "GQA"),
        ("refcoco", "RefCOCO"),
        ("refcoco+", "RefCOCO+"),
        ("refcoco_plus-testA", "RefCOCO+"),
        ("refcocog_umd", "RefCOCOg"),
        ("coco_caption", "COCOcap"),
        ("coco", None),
        ("mydocvqathing", None),
        ("cats", None),
        ("", None),
    ],
)
def test_names(name, benchmark):
    found = benchmark_named(name)
    assert (found.name if found else None) == benchmark


def test_scores_of_a_model():
    refcoco = BENCHMARKS["RefCOCO"]
    assert [str(row) for row in published_scores(refcoco, "paligemma-3b", 448, "refcoco_testA.json")] == [
        "RefCOCO testA, mIoU: 77.9 (paligemma-3b-448)"
    ]
    assert [row.value for row in published_scores(refcoco, "paligemma-3b", 896, "refcoco")] == [76.9, 78.7, 73.9]
    assert [row.value for row in published_scores(BENCHMARKS["TextVQA"], "paligemma2-28b", 448)] == [76.2]
    assert published_scores(refcoco, "paligemma-3b", 112) == []
    assert published_scores(refcoco, "", 448) == []
