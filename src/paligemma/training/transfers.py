"""The published transfers: one row a task, with what its best setting was at each resolution. Numbers only; `recipes.py` makes recipes.

Source: big_vision `configs/proj/paligemma/transfers/*.py` (`sweep_best`, and `get_config` for what is not swept), which agree with the
PaliGemma report, arXiv 2407.07726, appendix J. docs/recipes.md shows the same table and says where sources disagree; a test compares them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LOW = (224, 448)
ALL = (224, 448, 896)
VIDEO = (224,)


@dataclass(frozen=True)
class Transfer:
    """`settings`: of a recipe; a tuple has one value for each of the resolutions."""

    resolutions: tuple[int, ...]
    settings: dict[str, Any]

    def at(self, resolution: int) -> dict[str, Any]:
        """The settings at one of the resolutions."""
        place = self.resolutions.index(resolution)
        return {name: value[place] if isinstance(value, tuple) else value for name, value in self.settings.items()}


def _row(resolutions: tuple[int, ...], about: str, task: str, prompt: str, metric: str, text_len: int, **settings: Any) -> Transfer:
    """Answers may be as long as texts in training, as in the reference."""
    common = {"about": about, "task": task, "prompt": prompt, "metric": metric, "text_len": text_len, "max_tokens": text_len}
    return Transfer(resolutions, common | settings)


def _caption(resolutions: tuple[int, ...], about: str, text_len: int, *, prompt: str = "caption en", **settings: Any) -> Transfer:
    return _row(resolutions, about, "caption", prompt, "cider", text_len, **({"resize": "bilinear"} | settings))


def _answer(
    resolutions: tuple[int, ...], about: str, text_len: int, metric: str, *, prompt: str = "answer en {question}", **settings: Any
) -> Transfer:
    task = "answer" if prompt.startswith("answer") else "run"
    return _row(resolutions, about, task, prompt, metric, text_len, **({"resize": "bilinear-antialias"} | settings))


def _video(frames: int, **settings: Any) -> dict[str, Any]:
    return {"frames": frames, "batch": 128, "resize": "bilinear"} | settings


FROZEN = "freeze-vision"

TRANSFERS: dict[str, Transfer] = {
    # captions
    "cococap": _caption(LOW, "captions of everyday pictures (COCO)", 32, epochs=5, learning_rate=1e-5, weight_decay=1e-6, beams=2),
    "coco35l": _caption(
        LOW, "captions in 35 languages (COCO-35L, tested on XM3600)", 32, prompt="caption {language}",
        examples=5 * 566_435, epochs=0, learning_rate=1e-5, weight_decay=1e-6,
    ),
    "textcaps": _caption(
        LOW, "captions that read the text in the picture (TextCaps)", 32, epochs=5, learning_rate=1e-5, weight_decay=1e-6, beams=3
    ),
    "scicap": _caption(
        LOW, "captions of figures in papers (SciCap)", 96, epochs=80, learning_rate=3e-5, dropout=0.1, label_smoothing=0.1
    ),
    "screen2words": _caption(
        LOW, "what a phone's screen is for (Screen2Words)", 24, epochs=10, learning_rate=1e-5, dropout=0.3, label_smoothing=0.2
    ),
    "widgetcap": _caption(
        LOW, "what the widget in the red box is for (WidgetCap)", 32, resize="bilinear-antialias",
        epochs=4, batch=64, learning_rate=3e-6, weight_decay=3e-7, dropout=0.1, label_smoothing=0.1,
    ),
    # questions
    "vqav2": _answer(
        LOW, "questions about everyday pictures (VQAv2)", 32, "vqa", epochs=10, learning_rate=1e-5, weight_decay=(1e-6, 0.0)
    ),
    "okvqa": _answer(LOW, "questions that need outside knowledge (OK-VQA)", 32, "agreement", epochs=10, batch=128, learning_rate=5e-6),
    "aokvqa-mc": _answer(
        LOW, "questions that need outside knowledge, with choices (A-OKVQA)", 128, "exact", epochs=15, batch=128, learning_rate=5e-6,
        prompt="answer en {question} choose from: {choices}",
    ),
    "aokvqa-da": _answer(
        LOW, "questions that need outside knowledge, answered freely (A-OKVQA)", 32, "agreement",
        epochs=10, batch=128, learning_rate=5e-6,
    ),
    "gqa": _answer(
        LOW, "questions of several steps (GQA, xGQA)", 32, "exact", resize="bilinear", epochs=1, learning_rate=1e-5,
        strategy=("full", FROZEN),
    ),
    "nlvr2": _answer(
        LOW, "is a sentence true of two pictures? (NLVR2, MaRVL)", 64, "exact", prompt="answer en {sentence}", resize="bilinear", frames=2,
        epochs=(3, 10), learning_rate=(1e-5, 3e-6), weight_decay=(1e-6, 3e-7),
    ),
    "ai2d": _answer(
        LOW, "questions about diagrams, with choices (AI2D)", 128, "exact", prompt="answer en {question} choose from: {choices}",
        epochs=10, learning_rate=1e-5, weight_decay=1e-6,
    ),
    "science-qa": _answer(
        LOW, "school questions, with choices (ScienceQA)", 512, "scienceqa", resize="bilinear",
        prompt="Question: {question}\nContext: {hint}\nOptions: {choices}\nAnswer:",
        epochs=20, batch=128, learning_rate=1e-5, strategy=FROZEN,
    ),
    "rsvqa-lr": _answer(
        LOW, "questions about satellite pictures (RSVQA, low resolution)", 32, "rsvqa", epochs=3, learning_rate=3e-6, label_smoothing=0.2
    ),
    "rsvqa-hr": _answer(LOW, "questions about aerial pictures (RSVQA, high resolution)", 32, "rsvqa", epochs=1, learning_rate=1e-5),
    "chartqa": _answer(
        LOW, "questions about charts (ChartQA)", 48, "chartqa", prompt="{question}",
        epochs=30, learning_rate=1e-5, weight_decay=1e-6, dropout=0.1, label_smoothing=0.2,
    ),
    "vizwiz": _answer(LOW, "questions by blind people (VizWiz)", 48, "agreement", epochs=10, learning_rate=1e-5),
    "tallyqa": _answer(
        ALL, "how many? (TallyQA, CountBenchQA)", 32, "tallyqa", epochs=2, learning_rate=(1e-5, 1e-5, 7e-6), weight_decay=(0.0, 1e-6, 7e-7)
    ),
    "ocrvqa": _answer(
        ALL, "questions about book covers (OCR-VQA)", 32, "exact-lower", epochs=3, batch=128, learning_rate=(3e-6, 3e-6, 1e-5)
    ),
    "textvqa": _answer(
        ALL, "questions about text in pictures (TextVQA)", 32, "vqa",
        epochs=(5, 10, 10), learning_rate=3e-6, weight_decay=(0.0, 3e-7, 0.0),
    ),
    "docvqa": _answer(
        ALL, "questions about documents (DocVQA)", 32, "anls", prompt="{question}", epochs=10, learning_rate=1e-5, weight_decay=1e-6
    ),
    "infovqa": _answer(
        ALL, "questions about infographics (InfographicVQA)", 48, "anls", label_smoothing=0.4,
        epochs=3, batch=(256, 128, 32), learning_rate=(1e-5, 1e-5, 3e-6), weight_decay=(1e-6, 1e-6, 3e-7),
    ),
    "stvqa": _answer(
        ALL, "questions about text in scenes (ST-VQA)", 48, "anls", label_smoothing=0.1,
        epochs=3, batch=(256, 128, 32), learning_rate=(1e-5, 1e-5, 3e-6), weight_decay=(1e-6, 1e-6, 3e-7),
    ),
    # places
    "refcoco": _row(
        ALL, "outline what a sentence refers to (RefCOCO, RefCOCO+, RefCOCOg)", "refer", "{sentence}", "refer", 48,
        resize="bilinear", epochs=100, batch=(256, 256, 64), learning_rate=(3e-5, 1e-5, 1e-5), dropout=(0.1, 0.0, 0.0), label_smoothing=0.3,
    ),
    # videos
    "activitynet-qa": _answer(
        VIDEO, "questions about videos (ActivityNet-QA)", 64, "exact", epochs=1, learning_rate=1e-5, weight_decay=1e-6, **_video(16)
    ),
    "activitynet-cap": _caption(
        VIDEO, "captions of videos (ActivityNet Captions)", 64,
        epochs=1, learning_rate=1e-5, weight_decay=1e-6, strategy=FROZEN, **_video(16),
    ),
    "msrvtt-qa": _answer(
        VIDEO, "questions about videos (MSRVTT-QA)", 64, "exact", epochs=1, learning_rate=1e-5, strategy=FROZEN, **_video(16)
    ),
    "msrvtt-cap": _caption(VIDEO, "captions of videos (MSRVTT)", 32, epochs=20, learning_rate=1e-5, strategy=FROZEN, **_video(16)),
    "msvd-qa": _answer(
        VIDEO, "questions about videos (MSVD-QA)", 64, "exact", epochs=1, learning_rate=3e-6, weight_decay=3e-7, **_video(8)
    ),
    "vatex": _caption(VIDEO, "captions of videos (VATEX)", 64, epochs=10, learning_rate=3e-6, weight_decay=3e-7, **_video(16)),
}  # fmt: skip

BEYOND: dict[str, Transfer] = {
    "ocr-detection": _row(
        (896,), "find and read every word", "run", "", "ocr", 2048,
        steps=15_000, epochs=0, batch=256, learning_rate=1e-5, label_smoothing=0.1,
    ),
    "tables": _row(ALL, "a table's structure as text", "run", "", "auto", 4096, learning_rate=1e-4),
    "molecules": _row(
        ALL, "a molecule's formula from its drawing", "run", "", "exact", 256,
        steps=30_000, epochs=0, batch=256, learning_rate=1e-4, label_smoothing=0.1,
    ),
    "music": _row(ALL, "a score's notes as text", "run", "", "auto", 1024),
    "docci": _row((448,), "long, detailed descriptions (DOCCI)", "run", "", "auto", 256, max_tokens=192),
    "vsr": _row(ALL, "is a statement about places true? (VSR)", "run", "", "exact", 18, batch=1024),
    "mimic-cxr": _row(ALL, "reports on chest X-rays (MIMIC-CXR)", "run", "", "auto", 512, epochs=8, learning_rate=5e-6),
}  # fmt: skip
"""What PaliGemma 2 was transferred to besides (arXiv 2412.03555, appendix). Little is told of some of them; the rest is `simple`."""
