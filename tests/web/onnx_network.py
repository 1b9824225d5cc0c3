"""A folder for browsers as an engine, on ONNX Runtime's CPU: what the page's `network.js` does, in numpy. One prompt at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from paligemma.edge import plain
from paligemma.edge.choosing import ArrayOffer
from paligemma.web.blocks import count, dequantize


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class OnnxNetwork:
    """An `engine.Network` for one picture and one prompt."""

    def __init__(self, folder: Path):
        self.facts = json.loads((folder / "web.json").read_text())
        self.model = folder / "model"
        self.vision, self.decoder = (session(self.model / f"{name}.onnx") for name in ("vision", "decoder"))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return np.stack([self.vision.run(None, {"pixels": one[None]})[0] for one in pixels])

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts)

    def begin(self, soft: np.ndarray, prompts: Sequence[Sequence[int]], max_tokens: int) -> OnnxRows:
        assert len(prompts) == 1
        return OnnxRows(self, np.concatenate([soft[0], self.embed(prompts[0])]))

    def entropy(self) -> int:
        return 0

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        words, width = self.facts["words"], self.facts["text"]["width"]
        return np.stack([self._row(words, width, id) for id in ids]) * np.float32(width**0.5)

    def _row(self, words: dict, width: int, id: int) -> np.ndarray:
        part, place = words["parts"][id // words["rows"]], id % words["rows"]
        if part["scales"] is None:
            return self._read(part["weights"], place, 4 * width).view(np.float32)
        blocks = count(width, words["block"])
        numbers = self._read(part["weights"], place, blocks * words["block"] * words["bits"] // 8).reshape(1, blocks, -1)
        scales = self._read(part["scales"], place, 4 * blocks).view(np.float32)[None]
        return dequantize(numbers, scales, words["bits"], width)[0]

    def _read(self, place: dict, row: int, size: int) -> np.ndarray:
        return np.fromfile(self.model / place["file"], np.uint8, size, offset=place["at"] + row * size)


class OnnxRows:
    def __init__(self, network: OnnxNetwork, x: np.ndarray):
        self.network, self.length = network, 0
        text = network.facts["text"]
        empty = np.zeros((text["kv_heads"], 0, text["head_dim"]), np.float32)
        self.past = {f"past_{kind}_{i}": empty for i in range(text["depth"]) for kind in ("key", "value")}
        self._step(x)

    numbers = "onnx"

    def offer(self, places, allowed, loc) -> ArrayOffer:
        assert list(places) == [0]
        logits = self.logits.copy()
        if allowed[0] is not None:
            keep = np.zeros(logits.shape[1], bool)
            for r in allowed[0].ranges:
                keep[r.start : r.stop] = True
            logits[0, ~keep] = -np.inf
        return ArrayOffer(plain, logits, np.arange(logits.shape[1]), loc)

    def extend(self, ids: Sequence[int]) -> None:
        self._step(self.network.embed(ids))

    def select(self, places) -> OnnxRows:
        return self

    def _step(self, x: np.ndarray) -> None:
        text = self.network.facts["text"]
        cos, sin = plain.rotary_table(np.arange(self.length, self.length + len(x)), text["head_dim"], text["rope_base"])
        names = [value.name for value in self.network.decoder.get_outputs()]
        out = dict(zip(names, self.network.decoder.run(None, {"x": x, "cos": cos, "sin": sin, **self.past}), strict=True))
        self.logits = out.pop("logits")
        self.past = {f"past_{name}": value for name, value in out.items()}
        self.length += len(x)
