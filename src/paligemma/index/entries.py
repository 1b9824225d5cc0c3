"""A row of the index: where a picture is, its vector, and what a model said about it. To and from Arrow.

What was never asked is null; what was asked and found to be nothing is empty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from ..results import Box

if TYPE_CHECKING:
    import pyarrow

FORMAT = "3"
"""Of the table. Another one is refused."""


@dataclass(frozen=True)
class Facts:
    """What is true of a whole index. `encoder`: the name of what made the vectors; `source`: what was asked for to load it ("" for the
    bundled one); `root`: the folder that paths start from."""

    encoder: str
    dimensions: int
    source: str
    root: str


@dataclass(frozen=True, eq=False)
class Entry:
    """`id`: stays with a picture wherever it moves. `path`: below the root, with "/". `digest`: of the file's bytes. `modified`: its time,
    in nanoseconds. `vector`: of unit length. `model`: who captioned, read and detected. `captions`: by language. `classes`: what `objects`
    were looked for; boxes in pixels of the picture."""

    id: str
    path: str
    digest: str
    modified: int
    size: int
    width: int
    height: int
    vector: np.ndarray = field(repr=False)
    model: str | None = None
    captions: Mapping[str, str] | None = None
    text: str | None = None
    classes: tuple[str, ...] | None = None
    objects: tuple[Box, ...] | None = None


def schema(facts: Facts) -> pyarrow.Schema:
    import pyarrow as pa

    caption = pa.struct([("language", pa.string()), ("text", pa.string())])
    edges = [(edge, pa.float64()) for edge in ("x0", "y0", "x1", "y1", "score")]
    columns = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False, metadata=places(facts)),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("modified", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), facts.dimensions), nullable=False),
        pa.field("model", pa.string()),
        pa.field("captions", pa.list_(caption)),
        pa.field("text", pa.string()),
        pa.field("words", pa.string()),  # captions and text together, for the full-text index
        pa.field("classes", pa.list_(pa.string())),
        pa.field("objects", pa.list_(pa.struct([("label", pa.string()), *edges]))),
        pa.field("labels", pa.list_(pa.string())),  # one for each object, for filters in SQL
        pa.field("holds", pa.list_(pa.string())),  # see `at_least`
    ]
    return pa.schema(columns, metadata={"format": FORMAT, "encoder": facts.encoder})


def places(facts: Facts) -> dict[str, str]:
    """Of the facts those that may change while the index stays as it is: a folder moves, and so may an encoder. They stand with the column
    `path`, where the store can change them."""
    return {"root": facts.root, "source": facts.source}


def facts_of(found: pyarrow.Schema) -> Facts | None:
    """None where a table is not an index of this format."""
    about = {name.decode(): value.decode() for name, value in (found.metadata or {}).items()}
    if about.get("format") != FORMAT or "encoder" not in about or not {"path", "vector"} <= set(found.names):
        return None
    there = {name.decode(): value.decode() for name, value in (found.field("path").metadata or {}).items()}
    dimensions = getattr(found.field("vector").type, "list_size", 0)
    facts = Facts(about["encoder"], dimensions, there.get("source", ""), there.get("root", ""))
    expected = schema(facts)
    return facts if facts.dimensions > 0 and found.equals(expected, check_metadata=False) else None


READ = tuple(one.name for one in fields(Entry))
"""Columns that an entry is made of; the others are made of these, for searching."""


def at_least(label: str, count: int) -> str:
    """What stands in `holds` where there are so many objects of that label or more: so an index of lists knows every count. 0, at least
    none, says that they were looked for."""
    return f"{label}\t{count}"


def _holds(entry: Entry) -> list[str]:
    counts = Counter(box.label for box in entry.objects or ())
    labels = dict.fromkeys([*(entry.classes or ()), *counts])
    return [at_least(label, number) for label in labels for number in range(counts[label] + 1)]


def to_table(entries: Sequence[Entry], form: pyarrow.Schema) -> pyarrow.Table:
    """`ValueError` for a vector that is not of the index's dimensions and unit length: a NaN among them would poison every search."""
    import pyarrow as pa

    dimensions = form.field("vector").type.list_size
    vectors = np.array([entry.vector for entry in entries], np.float32).reshape(len(entries), -1 if entries else dimensions)
    if vectors.shape[1] != dimensions or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise ValueError(f"expected vectors of {dimensions} numbers and length 1, found shape {vectors.shape}, or another length")
    columns: dict[str, Any] = {name: [getattr(entry, name) for entry in entries] for name in _PLAIN}
    columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions)
    columns["captions"] = [
        None if e.captions is None else [{"language": lang, "text": text} for lang, text in e.captions.items()] for e in entries
    ]
    columns["words"] = [_words(entry) for entry in entries]
    columns["objects"] = [None if e.objects is None else [box.to_dict() for box in e.objects] for e in entries]
    columns["labels"] = [None if e.objects is None else [box.label for box in e.objects] for e in entries]
    columns["holds"] = [None if e.objects is None else _holds(e) for e in entries]
    return pa.Table.from_arrays([_array(columns[field.name], field.type) for field in form], schema=form)


def from_table(table: pyarrow.Table) -> list[Entry]:
    vectors = table.column("vector").combine_chunks()
    numbers = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(vectors), vectors.type.list_size)
    rows = table.select([name for name in READ if name != "vector"]).to_pylist()
    return [_entry(row, vector) for row, vector in zip(rows, numbers, strict=True)]


_PLAIN = ("id", "path", "digest", "modified", "size", "width", "height", "model", "text", "classes")


def _entry(row: dict[str, Any], vector: np.ndarray) -> Entry:
    captions, classes, objects = row["captions"], row["classes"], row["objects"]
    return Entry(
        **{name: row[name] for name in _PLAIN if name != "classes"},
        vector=vector,
        captions=None if captions is None else {one["language"]: one["text"] for one in captions},
        classes=None if classes is None else tuple(classes),
        objects=None if objects is None else tuple(Box(**box) for box in objects),
    )


def _words(entry: Entry) -> str | None:
    said = [*(entry.captions or {}).values(), entry.text or ""]
    return "\n".join(text for text in said if text) or None


def _array(values: Any, kind: pyarrow.DataType) -> pyarrow.Array:
    import pyarrow as pa

    return values if isinstance(values, pa.Array) else pa.array(values, kind)
