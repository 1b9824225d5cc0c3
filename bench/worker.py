"""One engine in a process of its own: reads commands from standard input, answers on standard output, a JSON object a line.

    python -m bench.worker ours|transformers|pack FOLDER

    {"do": "load"}                                           -> {"seconds": ...}
    {"do": "image", "batch": 1}                              -> {"seconds": ...}                    pixels to image tokens
    {"do": "generate", "batch": 2, "tokens": 17}             -> {"times": [...], "cpu": ..., "ids": [[...]]}
                                           seconds from the call to each token, seconds that cores were busy with all of it
    {"do": "logits", "ids": [[...]], "file": "x.npy"}        -> {}     prefill, then one logits row per given token, saved
    {"do": "memory"}                                         -> {"peak": ..., "now": ...}           bytes; the peak since last asked

All get the same pixels and ids. None tokenises, resizes or stops at an end token. "segment" in a command: only what an object is written
with may come next (`Places`), where an engine can make use of that. PyTorch is imported by the engines that compute with it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

THREADS = 2
PROMPT = 8
"""Text tokens: bos, six words, newline."""


LOC = range(256_000, 257_024)
SEG = range(257_024, 257_152)


class Engine(Protocol):
    """pixels (B, 3, S, S) and ids (B, T) come as arrays. `logits` yields (B, V)."""

    name: str

    def load(self, folder: Path) -> int:
        """The size S of its pictures."""
        ...

    def image(self, pixels: np.ndarray) -> None: ...
    def generate(
        self, pixels: np.ndarray, ids: np.ndarray, tokens: int, segment: bool, on_token: Callable[[], None]
    ) -> list[list[int]]: ...
    def logits(self, pixels: np.ndarray, ids: np.ndarray, forced: np.ndarray) -> Iterator[np.ndarray]: ...


class Places:
    """Four locations, then mask codes: what the grammar of `segment` allows inside an object."""

    def allowed(self, ids: Sequence[int]) -> Any:
        from paligemma.tasks.grammar import AllowedTokens

        return AllowedTokens((LOC if len(ids) < 4 else SEG,))


def _ours(network: Any, soft: Any, ids: np.ndarray, tokens: int, segment: bool, on_token: Callable[[], None]) -> list[list[int]]:
    from paligemma.engine.generate import generate
    from paligemma.engine.options import Options

    seen = 0

    def count(_token: object) -> None:
        nonlocal seen
        seen += 1
        if seen % len(ids) == 0:
            on_token()

    constraints = [Places() if segment else None] * len(ids)
    options = Options(max_tokens=tokens)
    answers = generate(network, soft, ids.tolist(), options, eos_id=-1, loc=LOC, constraints=constraints, on_token=count)
    return [list(answer.ids) for answer in answers]


class Ours:
    """In PyTorch."""

    def __init__(self) -> None:
        import torch

        import paligemma.checkpoint.load
        import paligemma.engine.torch_network
        import paligemma.model.fast_linear  # noqa: F401  (imports are not part of loading, on either side)

        torch.set_num_threads(THREADS)
        self.name = f"paligemma {importlib.metadata.version('paligemma')}"

    def load(self, folder: Path) -> int:
        from paligemma.checkpoint.load import load_model
        from paligemma.engine.torch_network import TorchNetwork
        from paligemma.model.fast_linear import pack

        self.model = load_model(folder)
        pack(self.model)
        self.network = TorchNetwork(self.model)
        return self.model.config.vision.image_size

    def image(self, pixels):
        self.network.encode(pixels)

    def generate(self, pixels, ids, tokens, segment, on_token):
        return _ours(self.network, self.network.encode(pixels), ids, tokens, segment, on_token)

    def logits(self, pixels, ids, forced):
        import torch

        with torch.inference_mode():
            soft, prompt = self.network.encode(pixels), torch.from_numpy(ids)
            cache = self.model.new_cache(len(ids), soft.shape[1] + ids.shape[1] + forced.shape[1])
            hidden = self.model.prefill(soft, prompt, None, cache)
            yield self.model.logits(hidden).float().numpy()
            for column in torch.from_numpy(forced).T:
                hidden = self.model.extend(column, cache)
                yield self.model.logits(hidden).float().numpy()


class Pack:
    """A pack, without PyTorch."""

    def __init__(self) -> None:
        import paligemma.edge.network
        import paligemma.engine.generate  # noqa: F401
        from paligemma.edge.native import Kernels

        self.kernels = Kernels(THREADS)
        self.name = f"paligemma {importlib.metadata.version('paligemma')}, packed, {self.kernels.isa}"

    def load(self, folder: Path) -> int:
        from paligemma.edge.network import EdgeNetwork

        self.network = EdgeNetwork(folder, self.kernels)
        return self.network.config.vision.image_size

    def image(self, pixels):
        self.network.encode(pixels)

    def generate(self, pixels, ids, tokens, segment, on_token):
        return _ours(self.network, self.network.encode(pixels), ids, tokens, segment, on_token)

    def logits(self, pixels, ids, forced):
        decoder = self.network.decoder
        rows = self.network.begin(self.network.encode(pixels), ids.tolist(), forced.shape[1])
        yield decoder.logits(rows.hidden)
        for column in forced.T:
            rows.extend(column.tolist())
            yield decoder.logits(rows.hidden)


class Transformers:
    def __init__(self) -> None:
        import torch
        import transformers
        from transformers import PaliGemmaForConditionalGeneration

        torch.set_num_threads(THREADS)
        self.name = f"transformers {transformers.__version__}"
        self.kind = PaliGemmaForConditionalGeneration

    def load(self, folder: Path) -> int:
        import torch

        self.model = self.kind.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
        return self.model.config.vision_config.image_size

    def _inputs(self, pixels: np.ndarray, ids: np.ndarray) -> dict[str, Any]:
        import torch

        c = self.model.config
        image = torch.full((len(ids), c.text_config.num_image_tokens), c.image_token_index)
        both = torch.cat([image, torch.from_numpy(ids)], 1)
        return {
            "input_ids": both,
            "pixel_values": torch.from_numpy(pixels),
            "attention_mask": torch.ones_like(both),
            "token_type_ids": torch.zeros_like(both),
        }

    def image(self, pixels):
        import torch

        with torch.inference_mode():
            self.model.get_image_features(torch.from_numpy(pixels))

    def generate(self, pixels, ids, tokens, segment, on_token):
        import torch

        class Clock:
            started = False

            def put(self, _value: object) -> None:
                if self.started:  # the first call hands over the prompt
                    on_token()
                self.started = True

            def end(self) -> None:
                pass

        inputs = self._inputs(pixels, ids)
        with torch.inference_mode():
            out = self.model.generate(
                **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=None, streamer=Clock()
            )
        return out[:, inputs["input_ids"].shape[1] :].tolist()

    def logits(self, pixels, ids, forced):
        import torch

        with torch.inference_mode():
            out = self.model(**self._inputs(pixels, ids), use_cache=True, logits_to_keep=1)
            yield out.logits[:, -1].float().numpy()
            for column in torch.from_numpy(forced).T:
                length = out.past_key_values.get_seq_length()
                place = torch.full((len(ids), 1), length + 1)  # their positions count from one
                out = self.model(input_ids=column[:, None], past_key_values=out.past_key_values, position_ids=place, use_cache=True)
                yield out.logits[:, -1].float().numpy()


ENGINES: dict[str, type[Engine]] = {"ours": Ours, "transformers": Transformers, "pack": Pack}


def inputs(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """pixels (B, 3, size, size) in [-1, 1] and ids (B, PROMPT), the same for all engines."""
    rng = np.random.default_rng(batch)
    pixels = rng.random((batch, 3, size, size), np.float32) * 2 - 1
    ids = rng.integers(1000, 200_000, (batch, PROMPT))
    ids[:, 0], ids[:, -1] = 2, 108
    return pixels, ids


def _memory() -> dict[str, int]:
    """Resident bytes, mapped files included; asking resets the peak."""
    status = Path("/proc/self/status").read_text()
    facts = {key: int(value.split()[0]) * 1024 for key, _, value in (line.partition(":") for line in status.splitlines()) if "Vm" in key}
    Path("/proc/self/clear_refs").write_text("5")
    return {"peak": facts["VmHWM"], "now": facts["VmRSS"]}


def _answer(engine: Engine, folder: Path, command: dict[str, Any], size: int) -> dict[str, Any]:
    """`size`: of the loaded model's pictures."""
    start, busy = time.perf_counter(), time.process_time()
    if command["do"] == "load":
        size = engine.load(folder)
        return {"seconds": time.perf_counter() - start, "size": size}
    if command["do"] == "memory":
        return _memory()
    pixels, ids = inputs(command.get("batch", 1), size)
    start, busy = time.perf_counter(), time.process_time()
    if command["do"] == "image":
        engine.image(pixels)
        return {"seconds": time.perf_counter() - start}
    if command["do"] == "generate":
        times: list[float] = []
        segment = command.get("segment", False)
        out = engine.generate(pixels, ids, command["tokens"], segment, lambda: times.append(time.perf_counter() - start))
        return {"times": times, "cpu": time.process_time() - busy, "ids": out}
    if command["do"] == "logits":
        np.save(command["file"], np.stack(list(engine.logits(pixels, ids, np.asarray(command["ids"]))), 1))
        return {}
    raise ValueError(f"unknown command {command['do']!r}")


def main() -> None:
    kind, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    engine, size = ENGINES[kind](), 0
    print(json.dumps({"name": engine.name}), file=answers, flush=True)
    for line in sys.stdin:
        answer = _answer(engine, Path(folder), json.loads(line), size)
        size = answer.get("size", size)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
