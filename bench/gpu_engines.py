"""What `bench.gpu` compares: this project's static engine and Hugging Face transformers, on the same weights, pictures and ids.

Neither tokenises, resizes or stops at an end token. Both answer greedily.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

EOS = -1
"""No token: answers are as long as they are asked to be."""
LOC = range(256_000, 257_024)


@dataclass(frozen=True)
class Request:
    """`pixels` (3, S, S) on the host, a prompt's ids, and the tokens of the answer."""

    pixels: torch.Tensor
    ids: tuple[int, ...]
    tokens: int


class Ours:
    def __init__(self, folder: Path, device: torch.device, quantize: Literal["int8", "int4"] | None = None, rows: int = 64):
        from paligemma.checkpoint.load import load_model
        from paligemma.engine.static_network import StaticNetwork
        from paligemma.model import weight_only

        self.model = load_model(folder, device=device, dtype=torch.bfloat16).eval().requires_grad_(False)
        if quantize is not None:
            weight_only.quantize(self.model, quantize)
        self.rows = rows
        self.network = StaticNetwork(self.model, rows=rows)
        self.name = f"paligemma {importlib.metadata.version('paligemma')}, {quantize or 'bfloat16'}"

    def answer(self, requests: Sequence[Request], tokens: int) -> list[tuple[int, ...]]:
        """One batch, every answer of so many tokens."""
        from paligemma.engine.generate import Options, generate

        soft = self.network.encode(torch.stack([request.pixels for request in requests]).numpy())
        prompts = [request.ids for request in requests]
        answers = generate(self.network, soft, prompts, Options(max_tokens=tokens), eos_id=EOS, loc=LOC)
        return [answer.ids for answer in answers]

    def mixed(self, requests: Sequence[Request]) -> int:
        """All of them, each answer of its own length; -> tokens written."""
        from paligemma.engine.continuous import ContinuousBatch, Job
        from paligemma.engine.features import Features
        from paligemma.engine.generate import Generation, Options

        batch = ContinuousBatch(self.network, eos_id=EOS, loc=LOC, rows=self.rows, features=Features(self.network, 0))
        jobs = [Job(request.ids, Options(max_tokens=request.tokens), pixels=request.pixels.numpy()) for request in requests]
        for job in jobs:
            batch.submit(job)
        while batch.busy:
            batch.step()
        for job in jobs:
            if isinstance(job.outcome, BaseException):
                raise job.outcome
        return sum(len(job.outcome.ids) for job in jobs if isinstance(job.outcome, Generation))


class Theirs:
    """`cache`: "static" is their fastest on a GPU, where `generate` compiles the model for it; None is their default."""

    def __init__(self, folder: Path, device: torch.device, cache: Literal["static"] | None = "static"):
        import transformers
        from transformers import PaliGemmaForConditionalGeneration

        self.device, self.cache = device, cache
        kind: Any = PaliGemmaForConditionalGeneration
        self.model = kind.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="sdpa").eval().to(device)
        self.name = f"transformers {transformers.__version__}, bfloat16"

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request], tokens: int) -> list[tuple[int, ...]]:
        config = self.model.config
        longest = max(len(request.ids) for request in requests)
        blanks = [longest - len(request.ids) for request in requests]
        images = [config.image_token_index] * config.text_config.num_image_tokens
        ids = torch.tensor([[0] * blank + images + list(request.ids) for blank, request in zip(blanks, requests, strict=True)])
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.arange(ids.shape[1]) >= torch.tensor(blanks)[:, None],
            "token_type_ids": torch.zeros_like(ids),
        }
        inputs = {name: tensor.long().to(self.device) for name, tensor in inputs.items()}
        pixels = torch.stack([request.pixels for request in requests]).to(self.device, torch.bfloat16)
        how: dict[str, Any] = {} if self.cache is None else {"cache_implementation": self.cache}
        out = self.model.generate(
            **inputs, pixel_values=pixels, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, eos_token_id=None, **how
        )
        return [tuple(row) for row in out[:, ids.shape[1] :].tolist()]

    def mixed(self, requests: Sequence[Request], batch: int) -> int:
        """In batches, in the order they come; a batch ends with its longest answer."""
        for start in range(0, len(requests), batch):
            part = requests[start : start + batch]
            self.answer(part, max(request.tokens for request in part))
        return sum(request.tokens for request in requests)


def synchronised(device: torch.device) -> Callable[[], None]:
    """Waits until the device has done what it was given."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
