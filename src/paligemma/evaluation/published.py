"""The scores that PaliGemma's authors published, to show beside one's own; and which metric each benchmark is scored by.

Sources: PaliGemma, arXiv 2407.07726, table 1 (and for the mix checkpoints the model card); PaliGemma 2, arXiv 2412.03555, appendix.
docs/published.md shows the same numbers; a test compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

RESOLUTIONS = (224, 448, 896)


@dataclass(frozen=True)
class Benchmark:
    """`metric`: a name of `metrics.METRICS`, or "" where none of them is what the benchmark's authors count; `score`: for people."""

    name: str
    metric: str
    score: str


@dataclass(frozen=True)
class Published:
    """A score as it was printed, hundredths of the whole; `model` as in `config.PRESETS` without the resolution, or of a mix checkpoint."""

    benchmark: str
    split: str
    model: str
    resolution: int
    value: float

    @property
    def name(self) -> str:
        """What was counted where: `RefCOCO testA, mIoU`."""
        return f"{' '.join(filter(None, (self.benchmark, self.split)))}, {BENCHMARKS[self.benchmark].score}"

    def __str__(self) -> str:
        return f"{self.name}: {self.value:g} ({self.model}-{self.resolution})"


_SCORED_BY = {
    ("cider", "CIDEr"): "COCOcap NoCaps COCO-35L XM3600 Screen2Words TextCaps SciCap WidgetCap ActivityNet-CAP MSRVTT-CAP VATEX",
    ("vqa", "VQA accuracy"): "VQAv2 TextVQA",
    ("agreement", "accuracy by agreement"): "OKVQA AOKVQA-DA VizWiz",
    ("exact", "accuracy"): "AOKVQA-MC GQA xGQA NLVR2 MaRVL AI2D ActivityNet-QA MSRVTT-QA MSVD-QA",
    ("exact-lower", "accuracy"): "OCR-VQA",
    ("anls", "ANLS"): "DocVQA InfoVQA ST-VQA",
    ("chartqa", "relaxed accuracy"): "ChartQA",
    ("tallyqa", "accuracy"): "TallyQA CountBenchQA",
    ("pope", "accuracy"): "POPE",
    ("rsvqa", "average accuracy"): "RSVQA-lr RSVQA-hr",
    ("scienceqa", "accuracy"): "ScienceQA",
    ("refer", "mIoU"): "RefCOCO RefCOCO+ RefCOCOg",
    ("ap", "mAP"): "COCO-detection",
    ("", "accuracy of pairs"): "MMVP",
    ("", "accuracy"): "Objaverse",
}
BENCHMARKS: dict[str, Benchmark] = {
    name: Benchmark(name, metric, score) for (metric, score), names in _SCORED_BY.items() for name in names.split()
}
_ALIASES = {
    "COCOcap": "coco-caption coco-captions coco-cap",
    "VizWiz": "vizwiz-vqa",
    "InfoVQA": "infographicvqa infographics-vqa",
    "RefCOCO": "refcoco-seg",
    "RefCOCO+": "refcocop refcocoplus refcoco-plus",
    "RSVQA-lr": "rsvqa",
    "COCO-detection": "coco-det coco-detect",
}

# benchmark, split, and what was reached at 224, 448 and 896 pixels
_PALIGEMMA_3B = (
    ("COCOcap", "", 141.9, 144.6), ("NoCaps", "", 121.7, 123.6), ("COCO-35L", "en", 139.2, 141.2), ("COCO-35L", "avg34", 113.7, 115.8),
    ("XM3600", "en", 78.0, 80.0), ("XM3600", "avg35", 41.9, 42.4), ("Screen2Words", "", 117.6, 119.6), ("TextCaps", "", 127.5, 153.9),
    ("SciCap", "", 162.3, 181.5), ("WidgetCap", "", 136.1, 148.4), ("VQAv2", "", 83.2, 85.6), ("MMVP", "", 47.3, 45.3),
    ("POPE", "", 86.0, 87.0), ("Objaverse", "", 62.7, 62.8), ("OKVQA", "", 63.5, 63.2), ("AOKVQA-MC", "", 76.4, 76.9),
    ("AOKVQA-DA", "", 61.9, 63.2), ("GQA", "", 65.6, 67.0), ("xGQA", "avg7", 57.3, 57.9), ("NLVR2", "", 90.0, 88.9),
    ("MaRVL", "avg5", 80.6, 76.8), ("AI2D", "", 72.1, 73.3), ("ScienceQA", "", 95.4, 95.9), ("RSVQA-lr", "", 92.6, 93.1),
    ("RSVQA-hr", "test", 92.6, 92.8), ("RSVQA-hr", "test2", 90.6, 90.5), ("ChartQA", "human", 40.0, 54.2), ("ChartQA", "aug", 74.2, 88.5),
    ("VizWiz", "", 73.7, 75.5), ("TallyQA", "simple", 81.7, 84.9), ("TallyQA", "complex", 69.6, 72.3), ("CountBenchQA", "", 81.9, 83.1),
    ("OCR-VQA", "", 72.3, 74.6, 74.9), ("TextVQA", "", 55.5, 73.2, 76.5), ("DocVQA", "", 43.7, 78.0, 84.8),
    ("InfoVQA", "", 28.5, 40.5, 47.8), ("ST-VQA", "", 63.3, 81.8, 84.4), ("RefCOCO", "val", 73.4, 75.6, 76.9),
    ("RefCOCO", "testA", 75.7, 77.9, 78.7), ("RefCOCO", "testB", 70.7, 72.4, 73.9), ("RefCOCO+", "val", 68.3, 69.8, 72.2),
    ("RefCOCO+", "testA", 71.9, 74.2, 76.1), ("RefCOCO+", "testB", 64.5, 64.5, 66.9), ("RefCOCOg", "val", 67.7, 70.2, 72.2),
    ("RefCOCOg", "test", 68.2, 71.0, 72.7), ("ActivityNet-QA", "", 50.8), ("ActivityNet-CAP", "", 34.6), ("MSRVTT-QA", "", 50.1),
    ("MSRVTT-CAP", "", 70.5), ("MSVD-QA", "", 60.2), ("VATEX", "", 79.7), ("COCO-detection", "", 28.7, 37.0, 41.1),
)  # fmt: skip
_PALIGEMMA_3B_MIX = (
    ("MMVP", "", 46.0, 45.33), ("POPE", "random", 88.0, 89.37), ("POPE", "popular", 86.63, 88.4), ("POPE", "adversarial", 85.67, 87.47),
)  # fmt: skip
# benchmark, split, and what 3B, 10B and 28B reached at 224 pixels, then at 448
_PALIGEMMA_2 = (
    ("AI2D", "", 74.7, 83.1, 83.2, 76.0, 84.4, 84.6), ("COCOcap", "", 141.3, 143.7, 144.0, 143.4, 145.0, 145.2),
    ("ChartQA", "human", 42.0, 48.4, 46.8, 54.0, 66.4, 61.3), ("ChartQA", "aug", 74.4, 74.2, 68.9, 89.2, 90.1, 85.1),
    ("CountBenchQA", "", 81.0, 84.0, 86.4, 82.0, 85.3, 87.4), ("DocVQA", "val", 39.9, 43.9, 44.9, 73.6, 76.6, 76.1),
    ("GQA", "", 66.2, 67.2, 67.3, 68.1, 68.3, 68.3), ("InfoVQA", "val", 25.2, 33.6, 36.4, 37.5, 47.8, 46.7),
    ("NLVR2", "", 91.4, 93.9, 94.2, 91.6, 93.7, 94.1), ("OKVQA", "", 64.2, 68.0, 71.2, 64.1, 68.6, 70.6),
    ("RefCOCO", "val", 73.4, 75.9, 75.0, 76.3, 78.2, 77.3), ("ScienceQA", "", 96.1, 98.2, 98.2, 96.2, 98.5, 98.6),
    ("TextCaps", "", 127.5, 137.9, 139.9, 152.1, 157.7, 153.6), ("TextVQA", "val", 59.6, 64.0, 64.7, 75.2, 76.6, 76.2),
    ("VQAv2", "minival", 83.0, 84.3, 84.5, 84.8, 85.8, 85.8), ("WidgetCap", "", 138.1, 139.8, 138.8, 151.4, 151.9, 148.9),
    ("XM3600", "avg35", 42.8, 44.5, 45.2, 43.2, 44.6, 45.2),
)  # fmt: skip
_PALIGEMMA_2_DETECTION = {"paligemma2-3b": (30.4, 38.5, 42.3), "paligemma2-10b": (30.3, 39.2, 43.6)}


def _all() -> tuple[Published, ...]:
    found = []
    for model, rows in (("paligemma-3b", _PALIGEMMA_3B), ("paligemma-3b-mix", _PALIGEMMA_3B_MIX)):
        for name, split, *values in rows:
            found += [Published(name, split, model, res, value) for res, value in zip(RESOLUTIONS, values, strict=False)]
    models = [(f"paligemma2-{size}", res) for res in RESOLUTIONS[:2] for size in ("3b", "10b", "28b")]
    for name, split, *values in _PALIGEMMA_2:
        found += [Published(name, split, model, res, value) for (model, res), value in zip(models, values, strict=True)]
    for model, values in _PALIGEMMA_2_DETECTION.items():
        found += [Published("COCO-detection", "", model, res, value) for res, value in zip(RESOLUTIONS, values, strict=True)]
    return tuple(found)


PUBLISHED = _all()
"""Every score."""


def benchmark_named(*names: str | Path) -> Benchmark | None:
    """The benchmark that a name, or one of the last two parts of a path, speaks of: `docvqa`, `data/DocVQA/val.jsonl`, `refcoco_plus`.

    Only whole words count. Of several the longest; None where there is none.
    """
    known = {_plain(alias): name for name in BENCHMARKS for alias in (name, *_ALIASES.get(name, "").split())}
    spoken = [spelt for name in names for part in Path(name).parts[-2:] for spelt in _runs(part)]
    best = max((spelt for spelt in spoken if spelt in known), key=len, default=None)
    return None if best is None else BENCHMARKS[known[best]]


def published_scores(benchmark: Benchmark, model: str, resolution: int, *names: str | Path) -> list[Published]:
    """What was published for this benchmark, model (`paligemma2-3b`) and resolution; of the split that one of `names` speaks of, if any."""
    rows = [row for row in PUBLISHED if (row.benchmark, row.model, row.resolution) == (benchmark.name, model, resolution)]
    spoken = {spelt for name in names for part in Path(name).parts[-2:] for spelt in _runs(part)}
    return [row for row in rows if row.split and _plain(row.split) in spoken] or rows


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


def _runs(name: str) -> list[str]:
    """Every run of neighbouring words of a name, written as one."""
    words = [word for word in re.split(r"[^a-z0-9+]+", name.lower()) if word]
    return ["".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1)]
