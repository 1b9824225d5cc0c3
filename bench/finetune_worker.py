"""A few fine-tuning steps of one contender, in a process of its own: a `Job` as JSON in, a `Report` as JSON on standard output.

    python -m bench.finetune_worker JOB

ours                        `training.step.train_step`, as `paligemma train` calls it
transformers                Hugging Face's Trainer, with PEFT for adapters
transformers, few logits    the same, told to compute no logits but the answer's (`logits_to_keep`; the Trainer by itself wants all)

All read the same weights, adapter, pixels and ids, and see the same batch in every step. Their numbers are alike: where all of the model
learns its weights are float32, under adapters bfloat16 and the adapters float32; products are bfloat16 where the machine is quick at it
(ours: as `training.fitting.autocasts` has it), else everything is float32.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch

from paligemma.checkpoint.memory import peak_memory
from paligemma.config import VOCAB_SIZE
from paligemma.model import cpu
from paligemma.training.recipes import Recipe, recipe

CONTENDERS = ("ours", "transformers", "transformers, few logits")
RATE, CLIP = 1e-5, 1.0
FIRST_WORD, NEWLINE, BOS, EOS = 1000, 108, 2, 1
IGNORED = -100
"""Hugging Face's label of a position that does not count."""


@dataclass(frozen=True)
class Job:
    """`folder`: the weights; `adapter`: the folder of the first adapter, for the strategy lora. `prompt` and `answer`: tokens of each
    example, beginning and end included. `steps`: those that count, after one that does not."""

    contender: str
    folder: str
    strategy: Literal["full", "lora"]
    adapter: str = ""
    batch: int = 4
    prompt: int = 8
    answer: int = 36
    steps: int = 3
    recompute: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"
    """Theirs."""
    words: int = VOCAB_SIZE
    """Ids are below it: theirs has a table of more rows, from which other random ids would come."""
    device: str = "cpu"
    threads: int = 2

    @property
    def half(self) -> bool:
        """Whether products are bfloat16."""
        return self.device != "cpu" or cpu.has_bfloat16()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return torch.bfloat16 if self.strategy == "lora" and self.half else torch.float32


@dataclass(frozen=True)
class Report:
    """`seconds`, `losses`, `norms` of the gradient before clipping: step by step, the uncounted one first. `memory`: bytes, the most there
    were: of the process, libraries included, on a CPU; of tensors on an accelerator. `imported`: as many of them there were before the
    weights were read."""

    name: str
    seconds: list[float]
    losses: list[float]
    norms: list[float]
    memory: int
    imported: int


def tuned(strategy: Literal["full", "lora"]) -> Recipe:
    """What ours is told; theirs is told the same in its own words. The mean over tokens is the one that both know."""
    return dataclasses.replace(
        recipe("simple"), name="bench", strategy=strategy, loss="token", learning_rate=RATE, schedule="constant", warmup=0.0, clip=CLIP
    )


def inputs(job: Job, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """pixels (B, 3, side, side) in [-1, 1] and ids (B, prompt + answer): examples of equal length, so that none is padded."""
    generator = torch.Generator().manual_seed(job.batch)
    pixels = torch.rand(job.batch, 3, side, side, generator=generator) * 2 - 1
    ids = torch.randint(FIRST_WORD, job.words, (job.batch, job.prompt + job.answer), generator=generator)
    ids[:, 0], ids[:, job.prompt - 1], ids[:, -1] = BOS, NEWLINE, EOS
    return pixels, ids


def ours(job: Job) -> Report:
    from paligemma.checkpoint import load_adapter, load_model
    from paligemma.data.batch import Batch
    from paligemma.training.fitting import autocasts
    from paligemma.training.optim import make_optimizer
    from paligemma.training.step import Objective, train_step
    from paligemma.training.strategies import choose, prepare

    imported = _memory(job)
    mine = tuned(job.strategy)
    model = load_model(job.folder, device=job.device, dtype=job.dtype, mapped=job.strategy == "lora")
    if job.strategy == "lora":
        load_adapter(model, job.adapter, trainable=True)
        trainable = choose(model, "lora")
    else:
        trainable = prepare(model, mine)
    model.vision.recompute = model.text.recompute = job.recompute
    objective = Objective(model, mean=mine.loss)
    optimizer = make_optimizer(mine, trainable.parameters, job.steps + 1)
    pixels, ids = inputs(job, model.config.vision.image_size)
    answers = (torch.arange(ids.shape[1]) >= job.prompt).long().expand_as(ids)
    batch = Batch(pixels, ids, answers, answers, torch.ones_like(ids).bool(), ("",) * job.batch, 0)
    device = torch.device(job.device)
    narrow = autocasts(model.config, model.dtype, device)
    seconds, outcomes = [], []
    for step in range(job.steps + 1):
        start = time.perf_counter()
        outcomes.append(
            train_step(
                objective, optimizer, batch, step=step, micro=job.batch, clip=CLIP, device=device,
                precision=lambda: torch.autocast(device.type, torch.bfloat16, enabled=narrow),
            )
        )  # fmt: skip
        _wait(job)
        seconds.append(time.perf_counter() - start)
    if not all(each.applied for each in outcomes):
        raise RuntimeError(f"a step was not applied: {outcomes}")
    name = f"paligemma {importlib.metadata.version('paligemma')}"
    return Report(name, seconds, [each.loss for each in outcomes], [each.norm for each in outcomes], _memory(job), imported)


def theirs(job: Job) -> Report:
    import transformers
    from transformers import PaliGemmaForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments

    if job.strategy == "lora":
        import peft
    imported = _memory(job)
    model: Any = PaliGemmaForConditionalGeneration.from_pretrained(job.folder, dtype=job.dtype, attn_implementation=job.attention)
    name = f"transformers {transformers.__version__}"
    image_token, tokens = model.config.image_token_id, model.config.text_config.num_image_tokens
    if job.strategy == "lora":
        model = peft.PeftModel.from_pretrained(model, job.adapter, is_trainable=True)
        name += f", peft {peft.__version__}"
    seconds: list[float] = []
    entries: list[dict[str, float]] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            seconds.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            _wait(job)
            seconds[-1] += time.perf_counter()

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs is not None and "grad_norm" in logs:
                entries.append(logs)

    pixels, ids = inputs(job, model.config.vision_config.image_size)
    image = torch.full((job.batch, tokens), image_token)
    both = torch.cat([image, ids], 1)
    is_answer = torch.arange(both.shape[1]).expand_as(both) >= tokens + job.prompt
    columns = {
        "input_ids": both,
        "pixel_values": pixels,
        "attention_mask": torch.ones_like(both),
        "token_type_ids": is_answer.long(),
        "labels": both.masked_fill(~is_answer, IGNORED),
    }
    kept = {}
    if job.contender == "transformers, few logits":
        kept["logits_to_keep"] = job.answer + 1  # the last token of the prompt predicts the first of the answer
        columns["labels"] = columns["labels"][:, -job.answer - 1 :]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=job.batch,
            max_steps=job.steps + 1,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=CLIP,
            bf16=job.half,
            use_cpu=job.device == "cpu",
            activation_checkpointing=job.recompute,
            activation_checkpointing_kwargs={"use_reentrant": False},
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,
            seed=0,
        )
        rows = [{name: column[row] for name, column in columns.items()} for row in range(job.batch)]
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,  # pyright: ignore[reportArgumentType] - a list will do
            data_collator=lambda rows: {name: torch.stack([row[name] for row in rows]) for name in rows[0]} | kept,
            callbacks=[Watch()],
        )
        trainer.train()
    return Report(name, seconds, [each["loss"] for each in entries], [each["grad_norm"] for each in entries], _memory(job), imported)


def _wait(job: Job) -> None:
    if job.device != "cpu":
        torch.cuda.synchronize()


def _memory(job: Job) -> int:
    return peak_memory() if job.device == "cpu" else torch.cuda.max_memory_allocated()


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    torch.set_num_threads(job.threads)
    with contextlib.redirect_stdout(sys.stderr):
        report = ours(job) if job.contender == "ours" else theirs(job)
    print(json.dumps(dataclasses.asdict(report)), file=answers, flush=True)


if __name__ == "__main__":
    main()
