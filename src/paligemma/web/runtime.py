"""ONNX Runtime Web: which files of it a page needs, where they are looked for, and where a page without them finds them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..errors import UsageError

VERSION = "1.30.0"
"""Of the npm package onnxruntime-web that the page is tested with."""
PACKAGE = "onnxruntime-web"
ELSEWHERE = f"https://cdn.jsdelivr.net/npm/{PACKAGE}@{VERSION}/dist/"
"""Where a page finds the files that does not have them beside it."""
FOLDER = "runtime"
"""Of a pack, with a copy of the files."""
FILES = (
    "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
"""The first three compute on the processor, the others also on the GPU."""
INSTALL = f"npm install --ignore-scripts {PACKAGE}@{VERSION}"
BESIDE = f"Put its files there: {INSTALL}, and copy what is in node_modules/{PACKAGE}/dist; or pack the model again with --runtime."
AFAR = "Look at the network and load the page again; packed with --runtime a page has the files beside it and asks nobody for them."
"""What a page says where it cannot get the files: one that has its own, and one that has none."""


def find_runtime(given: Path | None) -> Path | None:
    """The folder that holds the files: the one given, or `node_modules` here. Raises `UsageError` where the one given lacks some."""
    if given is None:
        here = Path("node_modules") / PACKAGE / "dist"
        return here if not missing(here) and _version(here) in (None, VERSION) else None
    for folder in _places(given.expanduser()):
        if not missing(folder):
            if (found := _version(folder)) not in (None, VERSION):
                raise UsageError(f"{given} is {PACKAGE} {found}, the page is made for {VERSION}", hint=INSTALL, code="runtime_version")
            return folder
    raise UsageError(
        f"--runtime {given}: no {missing(given)[0]} there", hint=f"{INSTALL}, then node_modules/{PACKAGE}/dist", code="no_runtime"
    )


def missing(folder: Path) -> list[str]:
    return [name for name in FILES if not (folder / name).is_file()]


def copy_runtime(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copyfile(folder / name, out / name)


def _places(given: Path) -> Iterator[Path]:
    """The folder of files, of the npm package, or what npm installed into."""
    yield from (given, given / "dist", given / PACKAGE / "dist", given / "node_modules" / PACKAGE / "dist")


def _version(folder: Path) -> str | None:
    """Of the npm package that the files are of, where its description is beside them."""
    description = folder.parent / "package.json"
    if not description.is_file():
        return None
    found = json.loads(description.read_text(encoding="utf-8"))
    return found.get("version") if found.get("name") == PACKAGE else None
