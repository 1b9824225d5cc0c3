"""A folder of Hugging Face's `datasets`: from `save_to_disk`, or the hub's Parquet files (`data/train-00000-of-00002.parquet`).

Columns are those of `rows`. Pictures inside the tables are unpacked once, named by their content. Nothing is fetched, no code is run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, UsageError
from ..printable import printable
from .collector import Collector
from .layout import Found, Part, canonical, files_of, in_order, split_named
from .rows import add_row
from .table import add_parquet, named_classes

if TYPE_CHECKING:
    from datasets import Dataset

name = "huggingface"
description = "a folder of Hugging Face's datasets: save_to_disk, or Parquet files of the hub"
recognised = "a folder with dataset_dict.json or state.json and .arrow files, or with .parquet files in it or in data/"
tasks: tuple[str, ...] = ()


def find(path: Path) -> Found | None:
    if path.is_file():
        return None
    if (path / "dataset_dict.json").is_file():
        folders = [folder for folder in sorted(path.iterdir()) if (folder / "state.json").is_file()]
        parts = in_order(Part((folder,), folder, canonical(folder.name)) for folder in folders)
        return Found(parts, "it holds dataset_dict.json") if parts else None
    if (path / "state.json").is_file() and files_of(path, ".arrow"):
        return Found((Part((path,), path),), "it holds state.json and .arrow files")
    for folder in (path / "data", path):
        if files := files_of(folder, ".parquet"):
            by_split: dict[str, list[Path]] = {}
            for file in files:
                by_split.setdefault(split_named(file.stem), []).append(file)
            parts = in_order(Part(tuple(several), path, split) for split, several in by_split.items())
            return Found(parts, f"it holds {files[0].relative_to(path)}")
    return None


def read(part: Part, to: Collector) -> None:
    """Raises `UsageError` where a library is missing, `InputError` for a folder that it cannot open."""
    if part.files[0].is_file():
        add_parquet(to, part)
        return
    for file in files_of(part.files[0], ".arrow"):
        to.hashed(file)
    table = _opened(part.files[0])
    names, place = named_classes(table.features.to_dict()), to.place(part.files[0])
    for number, cells in enumerate(table):
        row = {key: value for key, value in dict(cells).items() if value is not None}
        add_row(to, part, row, where=f"{place}: row {number}", number=number, names=names)


def _opened(folder: Path) -> Dataset:
    """The table, with its pictures as they are: encoded."""
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise UsageError("a data set of save_to_disk needs the package datasets", hint="pip install 'paligemma[data]'") from error
    try:
        table = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{printable(str(folder))}: no saved data set: {str(error)[:120]}", code="bad_annotations") from error
    assert isinstance(table, datasets.Dataset)
    for column, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            table = table.cast_column(column, datasets.List(datasets.Image(decode=False)))
    return table
