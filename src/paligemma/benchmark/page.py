"""Words, charts and the table as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from pathlib import Path

from ..pages.templates import templates
from . import words
from .charts import KINDS, charts
from .figures import Benchmark

TEMPLATE = "report.html"


def page(benchmark: Benchmark) -> str:
    return (
        templates("benchmark")
        .get_template(TEMPLATE)
        .render(
            models=[(model, words.headline(model), words.said(model)) for model in benchmark.models],
            charts=charts(benchmark),
            kinds=KINDS,
            rows=[(words.title(name), cells) for name, cells in words.cells_of(benchmark)],
            warnings=words.warnings(benchmark),
            where=benchmark.where,
            explained=words.explained(benchmark),
        )
    )


def save(benchmark: Benchmark, path: Path) -> None:
    path.write_text(page(benchmark), encoding="utf-8", errors="backslashreplace")
