"""One engine in a process of its own: reads commands from standard input, answers on standard output, a JSON object a line.

    python -m bench.worker ours|transformers FOLDER

    {"do": "load"}                                           -> {"seconds": ...}
    {"do": "generate", "batch": 2, "tokens": 17}             -> {"times": [...], "ids": [[...]]}    seconds from the call to each token
    {"do": "logits", "ids": [[...]], "file": "x.pt"}         -> {}     prefill, then one logits row per given token, saved
    {"do": "memory"}                                         -> {"peak": ..., "now": ...}           bytes; the peak since last asked

Both get the same pixels and ids. Neither tokenises, resizes or stops at an end token.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

THREADS = 2
PROMPT = 8
"""Text tokens: bos, six words, newline."""


class Engine(Protocol):
    name: str

    def load(self, folder: Path) -> None: ...
    def generate(self, pixels: torch.Tensor, ids: torch.Tensor, tokens: int, on_token: Callable[[], None]) -> list[list[int]]: ...
    def logits(self, pixels: torch.Tensor, ids: torch.Tensor, forced: torch.Tensor) -> Iterator[torch.Tensor]: ...


class Ours:
    def __init__(self) -> None:
        import paligemma.checkpoint.load
        import paligemma.engine.torch_network
        import paligemma.model.fast_linear  # noqa: F401  (imports are not part of loading, on either side)

        self.name = f"paligemma {importlib.metadata.version('paligemma')}"

    def load(self, folder: Path) -> None:
        from paligemma.checkpoint.load import load_model
        from paligemma.model.fast_linear import pack

        self.model = load_model(folder)
        pack(self.model)

    @torch.inference_mode()
    def generate(self, pixels, ids, tokens, on_token):
        from paligemma.engine.generate import generate
        from paligemma.engine.options import Options
        from paligemma.engine.torch_network import TorchNetwork

        rows = len(ids)
        seen = 0

        def count(_token: object) -> None:
            nonlocal seen
            seen += 1
            if seen % rows == 0:
                on_token()

        soft = self.model.encode_image(pixels)
        loc = range(256_000, 257_024)
        answers = generate(TorchNetwork(self.model), soft, ids.tolist(), Options(max_tokens=tokens), eos_id=-1, loc=loc, on_token=count)
        return [list(answer.ids) for answer in answers]

    @torch.inference_mode()
    def logits(self, pixels, ids, forced):
        soft = self.model.encode_image(pixels)
        cache = self.model.new_cache(len(ids), soft.shape[1] + ids.shape[1] + forced.shape[1])
        hidden = self.model.prefill(soft, ids, None, cache)
        yield self.model.logits(hidden)
        for column in forced.T:
            hidden = self.model.extend(column, cache)
            yield self.model.logits(hidden)


class Transformers:
    def __init__(self) -> None:
        import transformers
        from transformers import PaliGemmaForConditionalGeneration

        self.name = f"transformers {transformers.__version__}"
        self.kind = PaliGemmaForConditionalGeneration

    def load(self, folder: Path) -> None:
        self.model = self.kind.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval()

    def _inputs(self, pixels: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        c = self.model.config
        image = torch.full((len(ids), c.text_config.num_image_tokens), c.image_token_index)
        both = torch.cat([image, ids], 1)
        return {
            "input_ids": both,
            "pixel_values": pixels,
            "attention_mask": torch.ones_like(both),
            "token_type_ids": torch.zeros_like(both),
        }

    @torch.inference_mode()
    def generate(self, pixels, ids, tokens, on_token):
        class Clock:
            started = False

            def put(self, _value: torch.Tensor) -> None:
                if self.started:  # the first call hands over the prompt
                    on_token()
                self.started = True

            def end(self) -> None:
                pass

        inputs = self._inputs(pixels, ids)
        out = self.model.generate(
            **inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=None, streamer=Clock()
        )
        return out[:, inputs["input_ids"].shape[1] :].tolist()

    @torch.inference_mode()
    def logits(self, pixels, ids, forced):
        inputs = self._inputs(pixels, ids)
        out = self.model(**inputs, use_cache=True, logits_to_keep=1)
        yield out.logits[:, -1]
        for column in forced.T:
            length = out.past_key_values.get_seq_length()
            place = torch.full((len(ids), 1), length + 1)  # their positions count from one
            out = self.model(input_ids=column[:, None], past_key_values=out.past_key_values, position_ids=place, use_cache=True)
            yield out.logits[:, -1]


ENGINES: dict[str, type[Ours] | type[Transformers]] = {"ours": Ours, "transformers": Transformers}


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """pixels (B, 3, 224, 224) in [-1, 1] and ids (B, PROMPT), the same for both engines."""
    generator = torch.Generator().manual_seed(batch)
    pixels = torch.rand(batch, 3, 224, 224, generator=generator) * 2 - 1
    ids = torch.randint(1000, 200_000, (batch, PROMPT), generator=generator)
    ids[:, 0], ids[:, -1] = 2, 108
    return pixels, ids


def _memory() -> dict[str, int]:
    """Resident bytes, mapped files included; asking resets the peak."""
    status = Path("/proc/self/status").read_text()
    facts = {key: int(value.split()[0]) * 1024 for key, _, value in (line.partition(":") for line in status.splitlines()) if "Vm" in key}
    Path("/proc/self/clear_refs").write_text("5")
    return {"peak": facts["VmHWM"], "now": facts["VmRSS"]}


def _answer(engine: Engine, folder: Path, command: dict[str, Any]) -> dict[str, Any]:
    if command["do"] == "load":
        start = time.perf_counter()
        engine.load(folder)
        return {"seconds": time.perf_counter() - start}
    if command["do"] == "memory":
        return _memory()
    pixels, ids = inputs(command.get("batch", 1))
    if command["do"] == "generate":
        times: list[float] = []
        start = time.perf_counter()
        out = engine.generate(pixels, ids, command["tokens"], lambda: times.append(time.perf_counter() - start))
        return {"times": times, "ids": out}
    if command["do"] == "logits":
        rows = [row.float() for row in engine.logits(pixels, ids, torch.tensor(command["ids"]))]
        torch.save(torch.stack(rows, 1), command["file"])
        return {}
    raise ValueError(f"unknown command {command['do']!r}")


def main() -> None:
    kind, folder = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    torch.set_num_threads(THREADS)
    engine = ENGINES[kind]()
    print(json.dumps({"name": engine.name}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer(engine, Path(folder), json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
