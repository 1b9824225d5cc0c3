"""Train the bundled encoder: SigLIP's two towers on scenes and captions, stage 0 of the recipe whose later stages are in `train.py`.

The image tower begins as that of a bundled PaliGemma, the text tower and the pooling head with random weights. One seed and one recipe
give one encoder. A run folder holds the tokenizer, the log (`log.jsonl`), the latest state and, at the end, the exported model; a run that
was stopped continues from its latest state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoint import load_model
from ..checkpoint.dual_load import save_dual_encoder
from ..checkpoint.finding import find
from ..errors import CheckpointError, UsageError
from ..model import cpu
from ..model.dual_encoder import DualEncoder
from ..model.paligemma import PaliGemma
from ..tokenizer import Tokenizer
from ..training.run import fingerprint
from .batches import stream_of
from .muon import Muon
from .pairs import TEXTS_PER_PICTURE, Pairing, PairMaker, Pairs
from .phases import PhasedRun, write_whole
from .search_recipes import SearchPhase, SearchRecipe
from .sigmoid_loss import found_first, sigmoid_loss

CLAIM = "recipe.json"
TOKENIZER = "tokenizer.model"


def train(recipe: SearchRecipe, run: Path, *, compiled: bool = True, log: Callable[[str], None] = print) -> Path:
    """Run `recipe` in folder `run`, continuing what is there, and return the folder of the finished encoder.

    Raises `UsageError` if the folder holds another run, `PaliGemmaError` if the loss is no longer a finite number.
    """
    start = find(recipe.start)
    base = load_model(start, dtype=torch.float32)
    claim(recipe, base, run)
    if not (run / TOKENIZER).exists():
        write_whole(run / TOKENIZER, (start / TOKENIZER).read_bytes())
    trainer = SearchTrainer(recipe, base, run, compiled=compiled, log=log)
    trainer.resume()
    trainer.phases()
    return trainer.export()


def claim(recipe: SearchRecipe, base: PaliGemma, run: Path) -> None:
    """Write down what the folder is for, unless it is for something else. Raises `UsageError`."""
    facts = json.loads(json.dumps({**dataclasses.asdict(recipe), "base": fingerprint(base)}))
    path = run / CLAIM
    if path.exists():
        try:
            found = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path} is no recipe", hint="delete it if the run's recipe is still the same", code="bad_state"
            ) from error
        if different := [name for name in facts.keys() | found.keys() if facts.get(name) != found.get(name)]:
            raise UsageError(f"{run} was begun with another {', '.join(sorted(different))}", hint="choose another run folder")
    elif run.exists() and (not run.is_dir() or any(run.iterdir())):
        raise UsageError(f"{run} holds something else", hint="choose another run folder")
    run.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(facts, indent=2).encode())


def new_encoder(recipe: SearchRecipe, base: PaliGemma) -> DualEncoder:
    """What a run begins with: the base's image tower, everything else small and random, a bias that fits the batch."""
    torch.manual_seed(recipe.seed)
    model = DualEncoder(recipe.config(base.config))
    for name, p in model.named_parameters():
        if name.startswith("vision.") or ".norm" in name:
            continue
        if name in ("text.embed.weight", "text.pos_embed"):
            nn.init.normal_(p, std=0.4 / p.shape[1] ** 0.5)
        elif p.dim() > 1:
            nn.init.normal_(p, std=p[0].numel() ** -0.5)
        elif name == "pool.probe":
            nn.init.normal_(p)
        elif name.endswith(".bias"):
            nn.init.zeros_(p)
    nn.init.constant_(model.logit_bias, recipe.first_bias)
    model.vision.load_state_dict(base.vision.state_dict())
    return model


class SearchTrainer(PhasedRun[SearchPhase, Pairs]):
    """Of an encoder. Seconds are those of all cores together, whatever else the machine does meanwhile."""

    clock = staticmethod(time.process_time)

    def __init__(self, recipe: SearchRecipe, base: PaliGemma, run: Path, *, compiled: bool, log: Callable[[str], None]):
        self.recipe = recipe
        self.model = new_encoder(recipe, base)
        super().__init__(recipe, run, self._optimizers(), log)
        self.bfloat16 = cpu.has_bfloat16()
        self.see = torch.compile(self._see, dynamic=False) if compiled else self._see
        self.read = torch.compile(self._read, dynamic=False) if compiled else self._read

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of all blocks and the pooling head, AdamW for everything else."""
        matrices, rest = [], []
        for name, p in self.model.named_parameters():
            (matrices if (".blocks." in name or name.startswith("pool.")) and p.dim() == 2 else rest).append(p)
        muon = Muon(matrices, lr=self.recipe.muon_lr, weight_decay=0.02)
        return [muon, torch.optim.AdamW(rest, lr=self.recipe.adam_lr, betas=(0.9, 0.98), weight_decay=1e-4)]

    def _see(self, pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            return self.model.encode_pictures(pixels.float() / 127.5 - 1.0)

    def _read(self, ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            return self.model.encode_texts(ids)

    def modules(self) -> DualEncoder:
        return self.model

    def enter(self, phase: SearchPhase) -> None:
        self.model.vision.requires_grad_(not phase.locked)

    def loss(self, batch: Pairs, phase: SearchPhase, progress: float) -> tuple[Tensor, dict[str, float]]:
        logits = self.model.logits(self.see(batch.pixels), self.read(batch.ids))
        together = batch.contents[:, None] == batch.contents.repeat_interleave(TEXTS_PER_PICTURE)
        loss = sigmoid_loss(logits, together)
        found = found_first(logits.detach(), together)
        scale, bias = float(self.model.logit_scale.detach().exp()), float(self.model.logit_bias.detach())
        return loss, {"loss": loss.item(), "found": found, "scale": scale, "bias": bias}

    @contextlib.contextmanager
    def batches(self, index: int, phase: SearchPhase, start: int) -> Iterator[Iterator[Pairs]]:
        """What is left, from batch `start`, of the phase's own stream. The process that draws it ends with the block."""
        if start >= phase.steps:
            yield iter(())
            return
        r = self.recipe
        pairing: Pairing = {
            "tokenizer_path": str(self.run / TOKENIZER), "size": phase.batch, "length": r.text_length, "bank_size": r.bank_size,
            "bank_seed": r.seed, "backgrounds": r.backgrounds, "seed": r.seed + 1 + index, "text_share": r.text_share,
            "few_share": r.few_share, "side": self.model.config.vision.image_size,
        }  # fmt: skip
        with contextlib.closing(stream_of(PairMaker, pairing, start)) as batches:
            yield itertools.islice(batches, phase.steps - start)

    def export(self) -> Path:
        """Write the encoder as a folder that any SigLIP loader reads, in bfloat16, with its tokenizer."""
        folder = self.run / "model"
        folder.mkdir(parents=True, exist_ok=True)
        save_dual_encoder(self.model, folder, dtype="bfloat16")
        Tokenizer.load(self.run / TOKENIZER).save(folder)
        return folder
