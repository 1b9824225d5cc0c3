"""A checkpoint -> a folder of static files that answers in a browser, matrix by matrix: a model far larger than memory passes through.

index.html, app/, shared/, ... the page, the same for every model
web.json                       what it must know about this one (facts.py), and which files there are
model/vision.onnx              graphs, and their matrices in NAME-0.data, NAME-1.data, ...
model/decoder.onnx  masks.onnx
model/vocabulary.json          (pieces.py)
runtime/                       ONNX Runtime Web, unless the page takes that from elsewhere
examples/                      pictures to begin with
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from onnx import ModelProto

from ..checkpoint.codec import find_codec, read_codec
from ..checkpoint.conversion import CALIBRATION
from ..checkpoint.locate import WEB_INDEX
from ..checkpoint.memory import need_disk
from ..checkpoint.opening import Opened, Weights, open_checkpoint
from ..config import PaliGemmaConfig
from ..engine.scores import Calibration
from ..errors import CheckpointError, UsageError, did_you_mean
from ..pages.files import shared_files
from ..sealed import seal
from ..tokenizer import FILE_NAMES, Tokenizer
from . import blocks, decoder, masks, vision
from .data_files import DataFiles, Place
from .decoder import Words
from .facts import model_facts, token_facts
from .graph import Bits, Graph
from .pieces import vocabulary
from .runtime import AFAR, BESIDE, ELSEWHERE, FOLDER, copy_runtime

Quantize = Literal["int8", "int4", "float32"]
BITS: dict[str, tuple[Bits, Bits]] = {"int8": (8, 8), "int4": (4, 8), "float32": (32, 32)}
"""Of the decoder's matrices with the table of words, and of the image tower's."""
MODEL, VOCABULARY, EXAMPLES, CARD = "model", "vocabulary.json", "examples", "README.md"

Progress = Callable[[int, int], None]
"""Called with the bytes of the model, as float32, that are done, and all of them."""


def pack_web(
    model: str | Path,
    out: str | Path,
    quantize: Quantize = "int8",
    *,
    runtime: Path | None = None,
    examples: Path | None = None,
    notes: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the checkpoint `model` (a folder or an .npz, with a tokenizer beside it) to the folder `out` as static files with a page.

    runtime: a folder with the files of ONNX Runtime Web, which are copied; without it the page asks a public server for them.
    examples: a folder of pictures with a `demo.json` (see `paligemma.demo`) that the page offers. notes: what a visitor should know.

    Raises `CheckpointError` for a checkpoint that `paligemma.load` would refuse or that has no tokenizer, `UsageError` for a way to
    quantize that there is not, and for a folder that holds something else, or a page already (unless `overwrite`).
    """
    if quantize not in get_args(Quantize):
        raise UsageError(f"nothing is quantized to {quantize!r} for browsers", hint=did_you_mean(quantize, get_args(Quantize)))
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (overwrite and (out / WEB_INDEX).is_file()))):
        raise UsageError(
            f"{out} exists already",
            hint="choose another place"
            + (
                ", or --overwrite"
                if (out / WEB_INDEX).is_file()
                else "; it is no page, and --overwrite replaces nothing else"
                if overwrite
                else ""
            ),
        )
    opened = open_checkpoint(model)
    weights, folder = opened.weights(), opened.located.folder
    tokenizer, data = _tokenizer(folder, opened.config)
    words = vocabulary(data, tokenizer)
    need_disk(_bytes(opened.config, quantize), out.parent)

    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")  # takes its place when it is whole
    try:
        (unfinished / MODEL).mkdir(parents=True)
        facts = model_facts(opened.config, quantize) | {"tokens": token_facts(tokenizer), "notes": list(notes)}
        facts |= _model(unfinished / MODEL, opened, weights, quantize, progress)
        (unfinished / MODEL / VOCABULARY).write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
        facts["vocabulary"] = _file(unfinished / MODEL / VOCABULARY)
        facts["runtime"], facts["without_runtime"] = (ELSEWHERE, AFAR) if runtime is None else (f"{FOLDER}/", BESIDE)
        facts["examples"] = [] if examples is None else _examples(examples, unfinished)
        if runtime is not None:
            copy_runtime(runtime, unfinished / FOLDER)
        _page(unfinished)
        (unfinished / CARD).write_text(_card(opened.config.name, quantize, folder / CARD), encoding="utf-8")
        (unfinished / WEB_INDEX).write_bytes(seal(facts))
        if out.exists():
            shutil.rmtree(out)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _model(folder: Path, opened: Opened, weights: Weights, quantize: Quantize, progress: Progress | None) -> dict[str, Any]:
    """Writes the graphs; what the page is told of them, of the table of words and of the scores."""
    graphs = _Graphs(folder, weights, 4 * opened.config.num_parameters, progress)
    text, tower = BITS[quantize]
    words = graphs.write("decoder", lambda graph: decoder.build(graph, opened.config, text))
    graphs.write("vision", lambda graph: vision.build(graph, opened.config, tower))
    source = opened.located.folder
    if (codec := find_codec(source)) is not None:
        arrays = read_codec(codec)
        graphs.save("masks", masks.build(arrays), {})
    scores = Calibration.load(source / CALIBRATION) if (source / CALIBRATION).is_file() else Calibration()
    calibration = {kind: list(pair) for kind, pair in scores.parameters.items()}
    return {"graphs": graphs.found, "words": _words(words), "calibration": calibration}


class _Graphs:
    """Writes graphs into a folder. `found`: what the page is told about each."""

    def __init__(self, folder: Path, weights: Weights, total: int, progress: Progress | None):
        self._folder, self._weights, self._progress = folder, weights, progress
        self._done, self._total = 0, total
        self.found: dict[str, Any] = {}

    def write(self, name: str, build: Callable[[Graph], Any]) -> Any:
        """What `build` returns."""
        with DataFiles(self._folder, name) as files:
            graph = Graph(name, self._weights, files, self._add)
            result = build(graph)
        self.save(name, graph.proto(), files.digests)
        return result

    def save(self, name: str, proto: ModelProto, digests: dict[str, str]) -> None:
        path = self._folder / f"{name}.onnx"
        path.write_bytes(proto.SerializeToString())
        data = [{"path": file, "bytes": (self._folder / file).stat().st_size, "sha256": digest} for file, digest in digests.items()]
        self.found[name] = {"graph": _file(path), "data": data}

    def _add(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)


def _file(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"path": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _words(words: Words) -> dict[str, Any]:
    """Where the page finds a word's row."""

    def place(one: Place | None) -> dict[str, Any] | None:
        return None if one is None else asdict(one)

    return {
        "bits": words.bits,
        "block": blocks.block_of(words.parts[0].shape[1]),
        "rows": words.rows,
        "parts": [{"weights": place(part.weights), "scales": place(part.scales)} for part in words.parts],
    }


def _bytes(config: PaliGemmaConfig, quantize: Quantize) -> int:
    """About what the weights take."""
    text, tower = BITS[quantize]
    return (config.text.num_parameters * text + config.vision.num_parameters * tower) // 8


def _tokenizer(folder: Path, config: PaliGemmaConfig) -> tuple[Tokenizer, bytes]:
    path = next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)
    if path is None:
        hint = "put one there; PaliGemma's is gs://big_vision/paligemma_tokenizer.model"
        raise CheckpointError(f"{folder}: no {' or '.join(FILE_NAMES)} beside the model", hint=hint, code="no_tokenizer")
    tokenizer = Tokenizer.load(path)
    if tokenizer.vocab_size != config.text.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.vocab_size:,} tokens, the model {config.text.vocab_size:,}",
            hint="use the tokenizer that came with the checkpoint",
        )
    return tokenizer, path.read_bytes()


def _examples(folder: Path, out: Path) -> list[dict[str, Any]]:
    """Copies the pictures; for each, what to ask of it first."""
    (out / EXAMPLES).mkdir()
    found = []
    for picture in json.loads((folder / "demo.json").read_text(encoding="utf-8")):
        shutil.copyfile(folder / picture["image"], out / EXAMPLES / picture["image"])
        asked: dict[str, Any] = {"image": f"{EXAMPLES}/{picture['image']}"}
        for item in picture["items"]:
            task = item["task"]
            value = item.get("question") if task == "ask" else item.get("classes") if task in ("detect", "segment") else True
            asked.setdefault(task, value)
        found.append(asked)
    return found


def _page(out: Path) -> None:
    """The page's files, and those it shares with the server's."""
    shutil.copytree(Path(__file__).with_name("page"), out, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name, path in shared_files().items():
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(path, out / name)


def _card(name: str, quantize: str, original: Path) -> str:
    """The folder's, with the model's below it."""
    own = f"# {name} in a browser: {quantize}\n\nMade by `paligemma pack --target web`. Serve the folder: python -m http.server\n"
    if not original.is_file():
        return own
    text = original.read_text(encoding="utf-8", errors="replace")
    return f"{own}\nBelow is the card of the model it was made of. Scores in it are that model's, with all its numbers.\n\n---\n\n{text}"
