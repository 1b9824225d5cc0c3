"""What is looked at: the outputs of one model for one picture and short prompts. Each is computed once, when it is first asked for.

The decoder sees few of the image tokens, so that even a large model at 896 pixels takes seconds: what is checked does not depend on
their number.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..engine.generate import Generation, Options, generate
from ..engine.torch_network import TorchNetwork
from ..image import to_pixels
from ..predictor import Predictor
from ..sequence import prompt_ids
from .pictures import golden_picture

PROMPTS = ("caption en", "answer en how many are there?")
"""Of unequal length."""
IMAGE_TOKENS = 16
STORED_TOKENS = 4
STORED_PIXELS = 256
TOLERANCE = {torch.float32: 2e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""How far two ways to compute the same may be apart, as a share of the size of the numbers."""


class Patient:
    """`pixels` (1, 3, S, S), `tower` (1, P, Dv), `soft` (1, n, D), `prompts`: ids."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.model = predictor.model
        self.tokenizer = predictor.tokenizer
        self.prompts = [prompt_ids(self.tokenizer, prompt) for prompt in PROMPTS]

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.model.dtype]

    @cached_property
    def pixels(self) -> Tensor:
        return self._pixels(golden_picture(48, 36))

    @cached_property
    @torch.inference_mode()
    def tower(self) -> Tensor:
        return self.model.vision(self.pixels)

    @torch.inference_mode()
    def other_soft(self) -> Tensor:
        """`soft` for another picture: the same upside down."""
        picture = golden_picture(48, 36).transpose(Image.Transpose.ROTATE_180)
        return self.model.projector(self.model.vision(self._pixels(picture)))[:, :IMAGE_TOKENS]

    @cached_property
    @torch.inference_mode()
    def soft(self) -> Tensor:
        return self.model.projector(self.tower)[:, :IMAGE_TOKENS]

    @cached_property
    @torch.inference_mode()
    def stages(self) -> dict[str, Tensor]:
        """From prompt and pixels to the logits of the first answer token, in the order of computation; excerpts of what is large."""
        model, soft = self.model, self.soft
        ids = torch.tensor([self.prompts[0]], device=model.device)
        pixels = self.pixels.flatten()
        values: dict[str, Tensor] = {
            "prompt ids": ids[0],
            "pixels": pixels[:: max(1, len(pixels) // STORED_PIXELS)],
            "image tower": self.tower[0, :STORED_TOKENS],
            "projector": soft[0, :STORED_TOKENS],
        }
        blocks = model.text.blocks
        hooks = [blocks[0].register_forward_pre_hook(lambda _, inputs: values.update({"decoder input": inputs[0][0]}))]
        hooks += [block.register_forward_hook(_keep_last(values, f"decoder layer {layer}")) for layer, block in enumerate(blocks)]
        try:
            hidden = model.prefill(soft, ids, None, model.new_cache(1, soft.shape[1] + ids.shape[1]))
        finally:
            for hook in hooks:
                hook.remove()
        values["final norm"] = hidden[0]
        values["logits"] = model.logits(hidden)[0]
        return values

    @torch.inference_mode()
    def states(self, prompt: list[int], suffix: list[int]) -> Tensor:
        """Final hidden states of all tokens of a prompt and the answer after it, in one pass: (T, D)."""
        return self.model.hidden_states(self.soft, *self._joined(prompt, suffix))[0]

    @torch.inference_mode()
    def score(self, prompt: list[int], answer: list[int]) -> float:
        """Mean log-probability of the tokens of an answer, in one pass."""
        logprobs = self.model(self.soft, *self._joined(prompt, answer))[0, len(prompt) - 1 : -1].float().log_softmax(-1)
        return float(logprobs.gather(1, torch.tensor(answer, device=logprobs.device)[:, None]).mean())

    def answers(self, prompts: list[list[int]], max_tokens: int) -> list[Generation]:
        """Greedy, token by token."""
        return generate(
            TorchNetwork(self.model),
            self.soft,
            prompts,
            Options(max_tokens=max_tokens),
            eos_id=self.tokenizer.eos_id,
            loc=self.tokenizer.loc,
        )

    def written(self, answer: Generation) -> list[int]:
        """Its tokens, the end token included where there is one."""
        return [*answer.ids, *([self.tokenizer.eos_id] if answer.stop == "eos" else [])]

    def _joined(self, prompt: list[int], suffix: list[int]) -> tuple[Tensor, Tensor]:
        device = self.model.device
        return torch.tensor([prompt + suffix], device=device), torch.tensor([[0] * len(prompt) + [1] * len(suffix)], device=device)

    def _pixels(self, picture: Image.Image) -> Tensor:
        config = self.model.config
        pixels = torch.from_numpy(to_pixels(picture, config.vision.image_size, config.resize))
        return pixels[None].to(self.model.device, self.model.dtype)


def apart(a: Tensor, b: Tensor) -> float:
    """Distance as a share of the size."""
    a, b = a.float(), b.float()
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def _keep_last(values: dict[str, Tensor], name: str) -> Callable[[torch.nn.Module, Any, Tensor], None]:
    """A hook that keeps what a module makes of the last token."""

    def hook(_: torch.nn.Module, __: Any, output: Tensor) -> None:
        values[name] = output[0, -1]

    return hook
