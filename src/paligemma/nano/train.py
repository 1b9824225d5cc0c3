"""Train a bundled model from nothing: mask codec, tokenizer, then the phases of its recipe.

One seed and one recipe give one model. A run folder holds the tokenizer, the codec, the log (`log.jsonl`), the latest state and, at
the end, the exported model; a run that was stopped continues from its latest state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..checkpoint import load_codec, save_codec, save_huggingface
from ..config import PaliGemmaConfig
from ..errors import CheckpointError, UsageError
from ..model import cpu
from ..model.mask_codec import MaskCodec
from ..model.paligemma import PaliGemma
from ..tokenizer import Tokenizer
from ..tokenizer_training import train_tokenizer
from .batches import SHORTS_PER_PICTURE, Batch, Making, TextBatch, bank_codes, stream
from .beginning import START, Beginning, begin, beginning, parts
from .dense import DenseHead
from .lessons import Teacher
from .muon import Muon
from .objective import CoordinateCode, selected_loss, suffix_weights
from .phases import PhasedRun, write_whole
from .pointing import PointHead, PointTargets
from .recipes import Phase, Recipe, differences
from .sprites import sprite_bank
from .train_codec import codec_iou, sprite_masks, train_codec
from .world import CHARACTERS, Split, World

CORPUS_SCENES = 6000
"""Scenes whose lessons the tokenizer learns from."""


def train(
    recipe: Recipe, run: Path, *, start: Path | None = None, phase: int | None = None, compiled: bool = True,
    log: Callable[[str], None] = print,
) -> Path:  # fmt: skip
    """Run `recipe` in folder `run`, continuing what is there, and return the folder of the finished model.

    With `start`, the folder of an exported model, a new run begins at phase `phase` (0 where left out) from that model's weights; where
    that model is for smaller pictures its positions are stretched. A run that is there goes on as it was begun. Raises `UsageError` if
    the folder holds a run of another recipe or another beginning, `PaliGemmaError` if the loss is no longer a finite number.
    """
    began = beginning(recipe, run, start, phase)
    _claim(recipe, run, began)
    if began.name:
        for name, path in parts(Path(began.folder)).items():
            if not (run / name).exists():
                write_whole(run / name, path.read_bytes())
    codec = _codec(recipe, run, log)
    tokenizer = _tokenizer(recipe, run, log)
    trainer = Trainer(recipe, run, tokenizer, codec, compiled=compiled, log=log)
    if began.name and not (run / "state.pt").exists():
        begin(trainer, Path(began.folder), began.phase)
    trainer.resume()
    trainer.phases()
    return trainer.export()


def _claim(recipe: Recipe, run: Path, began: Beginning = Beginning()) -> None:  # noqa: B008 - frozen
    """Write the recipe and the beginning into the folder, unless another recipe is there: two in one run would make a model of neither."""
    path = run / "recipe.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(recipe)))
    if path.exists():
        try:
            found = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path} is no recipe", hint="delete it if the run's recipe is still the same", code="bad_state"
            ) from error
        if different := list(differences(found, recipe)):
            raise UsageError(f"{run} holds a run of another recipe: {'; '.join(different)}", hint="choose another run folder")
    run.mkdir(parents=True, exist_ok=True)
    if not (run / START).exists() and not (run / "state.pt").exists():
        # First: a recipe alone would stand for random weights.
        write_whole(run / START, json.dumps(dataclasses.asdict(began), indent=2).encode())
    write_whole(path, json.dumps(wanted, indent=2).encode())


def _codec(recipe: Recipe, run: Path, log: Callable[[str], None]) -> MaskCodec:
    path = run / "mask_codec.safetensors"
    if not path.exists():
        codec = train_codec(sprite_masks(sprite_bank(recipe.seed, recipe.bank_size)), steps=recipe.codec_steps, seed=recipe.seed, log=log)
        log(f"codec IoU on unseen sprites {codec_iou(codec, sprite_masks(sprite_bank(recipe.seed + 1, 8))):.4f}")
        save_codec(codec, path)
    return load_codec(path)


def _tokenizer(recipe: Recipe, run: Path, log: Callable[[str], None]) -> Tokenizer:
    path = run / "tokenizer.model"
    if not path.exists():
        write_whole(path, train_tokenizer(corpus(recipe), recipe.vocab_size))
        log(f"tokenizer with {recipe.vocab_size} pieces")
    return Tokenizer.load(path)


def corpus(recipe: Recipe) -> list[str]:
    """Sentences the tokenizer learns its pieces from: prompts, and answers except printed words, which it should spell.

    The lessons are those of a plain `Mix`, without places and sides: the words of these prompts are spelled with the other prompts' pieces.
    """
    world = World(Split.TRAIN, bank_size=1, seed=recipe.seed, backgrounds=recipe.backgrounds)
    teacher = Teacher()
    rng = np.random.default_rng([recipe.seed, 0xC0])
    sentences = []
    for index in range(CORPUS_SCENES):
        scene = world.scene(index)
        for lesson in [teacher.short(scene, rng) for _ in range(4)] + [teacher.long(scene, rng)]:
            sentences.append(_without_locations(lesson.prefix))
            if lesson.kind == "caption zh":
                sentences += re.split("([、和])", lesson.suffix)  # without blanks between words, pieces would straddle them
            elif lesson.kind not in ("ocr", "word"):
                sentences.append(_without_locations(lesson.suffix))
    return sentences + list(CHARACTERS)


def _without_locations(text: str) -> str:
    return text if "<" not in text else "".join(part.split(">")[-1] for part in text.split("<"))


class Trainer(PhasedRun[Phase, Batch]):
    """Of a PaliGemma, with its training aids."""

    def __init__(self, recipe: Recipe, run: Path, tokenizer: Tokenizer, codec: MaskCodec, *, compiled: bool, log: Callable[[str], None]):
        self.recipe, self.tokenizer, self.codec = recipe, tokenizer, codec
        self.model = new_model(recipe.config(), recipe.seed)
        self.head = DenseHead(recipe.vision.width)
        self.pointer = PointHead(recipe.text_width)
        self.code = CoordinateCode(recipe.text_width, tokenizer.loc.start, codec.codebook)
        parametrize.register_parametrization(self.model.text.embed, "weight", self.code)
        super().__init__(recipe, run, self._optimizers(), log)
        self.bfloat16 = cpu.has_bfloat16()
        self.codes = bank_codes(codec, recipe.bank_size, recipe.seed, recipe.vision.image_size)
        self.before_last: list[Tensor] = [torch.empty(0)]
        self.model.text.blocks[-1].register_forward_pre_hook(self._keep)
        self.see = torch.compile(self._see, dynamic=False) if compiled else self._see
        self.read = torch.compile(self._read, dynamic=False) if compiled else self._read

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of all blocks, AdamW for everything else; both decay every weight they hold."""
        matrices, rest = [], []
        for name, p in self.modules().named_parameters():
            (matrices if ".blocks." in name and p.dim() == 2 else rest).append(p)
        muon = Muon(matrices, lr=self.recipe.muon_lr, weight_decay=0.02)
        return [muon, torch.optim.AdamW(rest, lr=self.recipe.adam_lr, betas=(0.9, 0.98), weight_decay=1e-4)]

    def precision(self) -> torch.autocast:
        """bfloat16 products where the CPU has them."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16)

    def _see(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 pixels -> output of the dense head, soft tokens."""
        with self.precision():
            features = self.model.vision(pixels.float() / 127.5 - 1.0)
            return self.head(features), self.model.projector(features)

    def _read(self, soft: Tensor, ids: Tensor, mask_ar: Tensor) -> tuple[Tensor, Tensor]:
        """Soft tokens and text -> hidden states that predict ids[:, 1:], and those of the same places before the last block."""
        with self.precision():
            hidden = self.model.hidden_states(soft, ids[:, :-1], mask_ar[:, :-1])
        return hidden, self.before_last[0][:, -hidden.shape[1] :]

    def _keep(self, block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A hook, because the model has no business giving out its inner states for the sake of a training aid."""
        self.before_last[0] = inputs[0]

    def loss(self, batch: Batch, phase: Phase, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Loss of a batch: dense targets alone, or texts, and the dense targets with their current weight."""
        dense, soft = self.see(batch.pixels)
        dense_loss, record = self.head.loss(dense, batch.dense)
        if phase.vision_only:
            return dense_loss, record
        sigma = phase.sigma[0] * (phase.sigma[1] / phase.sigma[0]) ** min(1.0, progress / 0.8)
        with parametrize.cached():
            long, long_points, long_right = self._text_loss(soft, batch.long, sigma)
            short, short_points, short_right = self._text_loss(soft.repeat_interleave(SHORTS_PER_PICTURE, 0), batch.short, sigma)
        weight = phase.dense_weight[0] + (phase.dense_weight[1] - phase.dense_weight[0]) * progress
        points = long_points + short_points * SHORTS_PER_PICTURE
        record |= {
            "long": long.item(),
            "short": short.item(),
            "points": points.item(),
            "long_right": long_right,
            "short_right": short_right,
        }
        return long + short * SHORTS_PER_PICTURE + weight * dense_loss + phase.point_weight * points, record

    def _text_loss(self, soft: Tensor, text: TextBatch, sigma: float) -> tuple[Tensor, Tensor, float]:
        """The loss of the answers, that of the names in the prompts, and the share of right tokens in the answers."""
        hidden, before_last = self.read(soft, text.ids, text.mask_ar)
        weights = suffix_weights(text.mask_loss)[:, 1:]
        chosen = weights > 0
        with self.precision():
            loss, right = selected_loss(
                self.model.text.embed.weight, hidden[chosen], text.ids[:, 1:][chosen], weights[chosen], self.tokenizer.loc, sigma
            )
            points = self.pointer.loss(before_last, PointTargets(text.points.named[:, :-1], text.points.boxes[:, :-1]))
        return loss, points, right.float().mean().item()

    @contextlib.contextmanager
    def batches(self, index: int, phase: Phase, start: int) -> Iterator[Iterator[Batch]]:
        """What is left, from batch `start`, of the phase's own stream. The process that draws it ends with the block."""
        if start >= phase.steps:
            yield iter(())
            return
        r = self.recipe
        making = Making(
            tokenizer_path=str(self.run / "tokenizer.model"), codes=self.codes, size=phase.batch, bank_size=r.bank_size,
            bank_seed=r.seed, backgrounds=r.backgrounds, seed=r.seed + 1 + index, text_share=phase.text_share, mix=phase.mix,
            grid=r.vision.grid, side=r.vision.image_size,
        )  # fmt: skip
        with contextlib.closing(stream(making, start)) as batches:
            yield itertools.islice(batches, phase.steps - start)

    def modules(self) -> nn.ModuleDict:
        return nn.ModuleDict({"model": self.model, "head": self.head, "pointer": self.pointer})

    def export(self) -> Path:
        """Write the plain PaliGemma: training aids folded in or dropped."""
        return export(self.model, self.tokenizer, self.codec, self.run / "model")


def export(model: PaliGemma, tokenizer: Tokenizer, codec: MaskCodec, folder: Path) -> Path:
    """A model in training (with its coordinate code) -> a folder any PaliGemma loader reads, in bfloat16."""
    plain = PaliGemma(model.config)
    state = {k: v for k, v in model.state_dict().items() if "parametrizations" not in k}
    state["text.embed.weight"] = model.text.embed.weight.detach()
    plain.load_state_dict(state)
    folder.mkdir(parents=True, exist_ok=True)
    save_huggingface(plain.to(torch.bfloat16), folder)
    tokenizer.save(folder)
    save_codec(codec, folder / "mask_codec.safetensors")
    return folder


def new_model(config: PaliGemmaConfig, seed: int) -> PaliGemma:
    """What a run from nothing begins with. Torch's generator goes on from there."""
    torch.manual_seed(seed)
    model = PaliGemma(config)
    initialise(model)
    return model


def initialise(model: PaliGemma) -> None:
    """Of a model just made, small random weights: fan-in scaled matrices, image positions as sines, embeddings of norm 0.4."""
    for name, p in model.named_parameters():
        if name.endswith("embed.weight") and name.startswith("text"):
            nn.init.normal_(p, std=0.4 / p.shape[1] ** 0.5)
        elif name.endswith("pos_embed"):
            with torch.no_grad():
                p.copy_(sine_positions(model.config.vision.grid, p.shape[1]))
        elif p.dim() >= 2:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
        elif name.endswith(".bias") or name.startswith("text"):
            nn.init.zeros_(p)


def sine_positions(grid: int, width: int) -> Tensor:
    """(grid * grid, width): sines and cosines of row and column."""
    quarter = width // 4
    frequency = 1.0 / 100 ** (torch.arange(quarter) / quarter)
    row, column = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    parts = [f(axis.flatten()[:, None] * frequency) for axis in (row, column) for f in (torch.sin, torch.cos)]
    return 0.5 * torch.cat(parts, dim=1)
