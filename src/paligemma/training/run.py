"""From a model, data and a recipe to a finished run: everything `loop.py` needs is put together here, and its result is written out.

run/  recipe.toml  memory.json  log.jsonl  curves.png  quarantine.jsonl  run_report.json  step-.../
      last/  best/        models (or adapters) that `paligemma.load` opens, each with a card
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import PaliGemmaConfig
from ..data.augment import Augment
from ..data.batch import Batch, Batches, RowReader
from ..data.mixture import Mixture
from ..data.quarantine import write_quarantine
from ..data.records import DataSet, Fault
from ..errors import InputError, UsageError
from ..model.mask_codec import MaskCodec
from ..model.paligemma import PaliGemma
from ..predictor.loading import Parts
from ..tokenizer import Tokenizer
from . import random_state
from .curves import draw_curves
from .disk import Disk, demanded, replace_file
from .distributed import ALONE, Processes
from .export import card, export
from .facts import check_resume, differences, flat_facts, machine_facts
from .fitting import MEMORY, Fit, autocasts, keep
from .loop import LOG, Ending, Loop, Measures, Plan, load_trained, read_log
from .optim import make_optimizer
from .recipes import RECIPES, Recipe, to_text
from .sharding import drop_whole, put_away, share_out
from .shared_store import SharedStore
from .step import Objective, mean_loss
from .store import Saved, Store
from .strategies import Trainable, prepare

RECIPE, CURVES, QUARANTINE = "recipe.toml", "curves.png", "quarantine.jsonl"
HELD_OUT = 512
"""Records of the held-out data that are looked at while training, the first of them."""


@dataclass(frozen=True)
class Setup:
    """How a run is done, where the recipe leaves it open. `micro` rows go through at a time; `recompute`: activation checkpointing."""

    micro: int = 0
    recompute: bool = False
    save_every: int = 200
    evaluate_every: int = 0
    """0: ten times a run."""
    threads: int = 2
    augment: Augment = dataclasses.field(default_factory=Augment)
    memory: Fit | None = None
    """What was planned, to be kept with the run."""
    allow_inexact: bool = False
    allow_data_change: bool = False


@dataclass(frozen=True)
class Finished:
    """`model`: the folder to use: `best` where something was held out, else `last`; None where a signal ended the run early. `measures`: of
    that model."""

    ending: Ending
    model: Path | None
    measures: Measures
    steps: int


class Run:
    """One fine-tuning in folder `out`. Raises `UsageError` where recipe, model and data do not go together.

    Of several `processes` each makes one, of the same things; `parts` stay whole, and where they are, for what is written in the end.
    """

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        data: Sequence[DataSet],
        out: Path,
        *,
        base: str,
        weights: Sequence[float] | None = None,
        held_out: DataSet | None = None,
        setup: Setup | None = None,
        tell: Callable[[dict[str, Any]], None] = lambda entry: None,
        processes: Processes = ALONE,
    ):
        self.processes = processes
        share = processes.share(recipe.batch)
        self.recipe, self.data, self.out, self.base = recipe, tuple(data), Path(out), base
        self.held_out, self.setup, self.tell = held_out, setup or Setup(), tell
        self.parts = dataclasses.replace(parts, network=_fit_model(parts.network, recipe))
        self.fingerprint = fingerprint(parts.network)
        model = self.parts.network
        random_state.seed_all(recipe.seed)
        self.trainable: Trainable = prepare(model, recipe)
        model.text.recompute = model.vision.recompute = self.setup.recompute
        self.mixture = Mixture(self.data, weights, seed=recipe.seed)
        self.steps = recipe.total_steps(len(self.mixture))
        self.device = processes.device or model.device
        self.objective = Objective(model, mean=recipe.loss, smoothing=recipe.label_smoothing)
        if not processes.alone:
            self._share_out()
        self.optimizer = make_optimizer(recipe, self.trainable.parameters, self.steps)
        self.faults: list[Fault] = []
        self.plan = Plan(
            steps=self.steps,
            batch=recipe.batch,
            micro=self.setup.micro or share,
            clip=recipe.clip,
            save_every=self.setup.save_every,
            evaluate_every=(self.setup.evaluate_every or max(self.steps // 10, 1)) if held_out is not None else 0,
            log_every=max(min(10, self.steps // 50), 1),
        )

    def _share_out(self) -> None:
        """Train a twin of the model that is shared out between the processes. Its whole is only needed by the first, for writing it."""
        whole, self.objective = self.objective, share_out(self.objective, self.processes)
        if not self.processes.first:
            drop_whole(whole)
        learns = {name: p for name, p in self.objective.model.named_parameters() if p.requires_grad}
        self.trainable = dataclasses.replace(self.trainable, parameters=learns)

    @property
    def facts(self) -> dict[str, str]:
        """What makes this run this run: see `facts.py`."""
        data = {f"data.{number}": source.fingerprint for number, source in enumerate(self.data)}
        if self.held_out is not None:
            data["data.valid"] = f"{self.held_out.fingerprint}, {len(self.held_out)} records"
        shapes = hashlib.sha256(repr([(n, tuple(p.shape)) for n, p in self.trainable.parameters.items()]).encode()).hexdigest()
        shares = {"recipe.shares": " ".join(f"{share:.17g}" for share in self.mixture.shares)}
        setup = {"recipe.micro": str(self.plan.micro), "recipe.recompute": str(self.setup.recompute)}
        if not self.processes.alone:
            setup["machine.processes"] = str(self.processes.world)
        return (
            {"base.weights": self.fingerprint, "parameters": shapes}
            | data
            | shares
            | setup
            | flat_facts("recipe", self.recipe)
            | flat_facts("recipe.augment", self.setup.augment)
            | machine_facts(str(self.device))
        )

    def go(self) -> Finished:
        """Train what is left, and write the models. Raises what `Store` and `Loop` raise."""
        store = self._store()
        with store.lock():
            saved = store.newest()
            if self.processes.first:
                if saved is not None:
                    self._check(saved, store)
                with demanded(self.out / RECIPE):
                    replace_file(Disk(), self.out / RECIPE, to_text(self.recipe).encode())
                if self.setup.memory is not None:
                    with demanded(self.out / MEMORY):
                        keep(self.out, self.setup.memory, self.recipe)
            loop = self._loop(store)
            ending = loop.run(saved, allow_inexact=self.setup.allow_inexact)
            if self.processes.first:
                with store.report.spared(self.out / CURVES):
                    draw_curves(read_log(self.out / LOG), self.out / CURVES)
            if ending.exit_code:
                return Finished(ending, None, ending.measures, self.steps)
            model, measures = self._write_models(store, loop)
            return Finished(ending, model, measures, self.steps)

    def _store(self) -> Store:
        """Raises `InputError` where the processes are not at work on the same."""
        if self.processes.alone:
            return Store(self.out, facts=self.facts)
        own = self.facts
        alike = own | flat_facts("note.plan", self.plan)  # each would save and measure when the others do not
        first = self.processes.lead(lambda: alike)
        if others := [difference for difference in differences(first, alike) if not difference.name.startswith("machine.")]:
            raise InputError(
                "\n".join([f"process {self.processes.rank} differs from the first one:", *(f"  {other}" for other in others)]),
                hint="all machines of a run need the same command, data, model and version",
                code="processes_differ",
            )
        return SharedStore(self.out, facts=own, processes=self.processes)

    def _check(self, saved: Saved, store: Store) -> None:
        allowed = check_resume(
            saved.facts, self.facts, allow_inexact=self.setup.allow_inexact, allow_data_change=self.setup.allow_data_change
        )
        for difference in allowed:
            store.report.add("data_changed" if difference.meaning == "other data" else "inexact", str(difference), step=saved.step)

    def _loop(self, store: Store) -> Loop:
        read = self._reader(self.setup.augment)

        def on_fault(fault: Fault) -> None:
            self.faults.append(fault)
            store.report.add("record", str(fault))
            with store.report.spared(self.out / QUARANTINE):
                write_quarantine([*(f for d in self.data for f in d.faults), *self.faults], self.out / QUARANTINE)

        if self.processes.first:
            write_quarantine([fault for source in self.data for fault in source.faults], self.out / QUARANTINE)
        found: list[Fault] = []

        def exchange() -> None:
            """What one process found, none opens again; the first says so."""
            if not any(self.processes.total([len(found)])):
                return
            for fault in (fault for part in self.processes.gather(found) for fault in part):
                if fault.id not in {known.id for known in self.faults}:
                    batches.quarantine[fault.id] = None
                    tell = on_fault if self.processes.first else self.faults.append
                    tell(fault)
            found.clear()

        batches = Batches(
            self.mixture, read, pad_id=self.parts.tokenizer.pad_id, seed=self.recipe.seed, threads=self.setup.threads,
            on_fault=on_fault if self.processes.alone else found.append,
        )  # fmt: skip
        return Loop(
            self.objective,
            self.optimizer,
            batches,
            store,
            self.plan,
            device=self.device,
            precision=self.precision,
            evaluate=None if self.held_out is None else self.measure,
            tell=self.tell,
            processes=self.processes,
            between=(lambda: None) if self.processes.alone else exchange,
        )

    def _reader(self, augment: Augment) -> RowReader:
        parts = self.parts
        return reader(self.recipe, parts.tokenizer, parts.network.config, parts.codec, augment)

    def measure(self) -> Measures:
        """Loss and right tokens of the held-out data: first answers, no augmentation, the same records each time."""
        with contextlib.closing(self._held_out_batches()) as coming:
            measures = mean_loss(
                self.objective, coming, micro=HELD_OUT, device=self.device, precision=self.precision, processes=self.processes
            )  # fmt: skip
        put_away(self.objective)
        return measures

    def _held_out_batches(self) -> Generator[Batch, None, None]:
        """Every record that is measured, once. Of several processes each gets as many batches, of its own part (of fewer records than
        processes, each gets all of them)."""
        assert self.held_out is not None
        chosen = dataclasses.replace(self.held_out, records=self.held_out.records[: self.measured])
        batches = Batches(Mixture([chosen]), self._reader(Augment()), pad_id=self.parts.tokenizer.pad_id, threads=self.setup.threads)
        start = 0
        for stride, times in strides(self.measured, self.plan.micro, self.processes.world):
            offset, size = self.processes.part(stride)
            with contextlib.closing(batches.stream(start, size, times, offset=offset, stride=stride)) as coming:
                yield from coming
            start += stride * times

    @property
    def measured(self) -> int:
        """How many of the held-out records are."""
        return 0 if self.held_out is None else min(len(self.held_out), HELD_OUT)

    def precision(self) -> AbstractContextManager:
        """See `fitting.autocasts`."""
        model = self.objective.model
        return torch.autocast(self.device.type, torch.bfloat16, enabled=autocasts(model.config, model.dtype, self.device))

    def _write_models(self, store: Store, loop: Loop) -> tuple[Path, Measures]:
        """`last`, then `best` from its checkpoint; the folder to use, and what was measured of it."""
        newest = None if self.processes.alone else store.newest()
        best = None if loop.position.best_step is None else store.best()

        def write() -> tuple[Path, Measures]:
            if newest is not None:  # what was trained is shared out: its whole is in the last checkpoint
                self._take(newest)
            last = self._export("last", loop.position.step, loop.measures, store)
            if best is None:
                return last, loop.measures
            self._take(best)
            measures = dict(best.state["measures"])
            return self._export("best", best.step, measures, store), measures

        return self.processes.lead(write)

    def _take(self, saved: Saved) -> None:
        """Let the model that is written have a checkpoint's tensors; where it is not what is trained, as views of the file."""
        tensors = saved.read("model")
        if self.processes.alone:
            return load_trained(self.objective, tensors)
        for name, parameter in self.parts.network.named_parameters():
            if parameter.requires_grad:
                parameter.data = tensors[name]

    def _export(self, name: str, step: int, measures: Measures, store: Store) -> Path:
        text = card(
            self.recipe, self.data, self.held_out, measures, store.report.events, base=self.base, step=step, steps=self.steps,
            measured=self.measured,
        )  # fmt: skip
        return export(self.parts, self.recipe, self.out / name, text, base=self.base)


def strides(count: int, micro: int, world: int) -> list[tuple[int, int]]:
    """So many records in parts that are as alike as can be: (records, times), ... Of a part none of `world` processes has much more than
    `micro`, and none has nothing, unless all have all."""
    parts = -(-count // micro) if count < world else min(-(-count // (micro * world)), count // world)
    each, over = divmod(count, parts)
    return [(size, times) for size, times in ((each + 1, over), (each, parts - over)) if times]


def fingerprint(model: PaliGemma) -> str:
    """Of a model's weights: each tensor's name, shape and first numbers. Another base is another run."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        start = tensor.detach().flatten()[:1024].float().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}\0".encode() + start.numpy().tobytes())
    return digest.hexdigest()


def demand_resolution(config: PaliGemmaConfig, recipe: Recipe) -> None:
    """Raise `UsageError` where a recipe is for pictures of another size than a model's."""
    size = config.vision.image_size
    if recipe.resolution not in (0, size):
        there = RECIPES.get(recipe.name, {})
        known = size in there or 0 in there
        hint = f"take the recipe at --resolution {size}" if known else "save it with --print-recipe and edit its resolution"
        raise UsageError(
            f"the recipe {recipe.name} is for pictures of {recipe.resolution} pixels, this model takes {size}",
            hint=f"{hint}, or take a model for {recipe.resolution}",
        )


def fitted(config: PaliGemmaConfig, recipe: Recipe) -> PaliGemmaConfig:
    """A model's dimensions with the recipe's resize, soft-cap and pictures a prompt; the tasks it was taught are no longer all. Raises
    `UsageError` for another resolution."""
    demand_resolution(config, recipe)
    text = config.text
    if config.version == 2:
        text = dataclasses.replace(text, final_softcap=recipe.final_softcap or None)
    return dataclasses.replace(config.taught_more(), text=text, resize=recipe.resize or config.resize, frames=recipe.frames)


def _fit_model(model: PaliGemma, recipe: Recipe) -> PaliGemma:
    model.config = fitted(model.config, recipe)
    model.text.config = model.config.text
    return model


def reader(
    recipe: Recipe, tokenizer: Tokenizer, config: PaliGemmaConfig, codec: MaskCodec | None, augment: Augment | None = None
) -> RowReader:
    """What makes rows of records in a run of the recipe. `config`: as `fitted` gives it."""
    length = recipe.text_len + 1  # the last token is only predicted, never read
    return RowReader(tokenizer, config, length, codec, frames=recipe.frames, augment=augment or Augment())
