"""The options that commands share, as frozen values. Nothing here knows what they do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

MODEL = Group("Model", sort_key=1)
ANSWERS = Group("Answers", sort_key=2)
INPUT = Group("Input", sort_key=3)
OUTPUT = Group("Output", sort_key=4)

DType = Literal["float32", "bfloat16", "float16"]



def named(name: str, text: str) -> Parameter:
    """How a positional argument is called in the help, and what it is."""
    return Parameter(name=name, help=text)


Images = Annotated[
    list[str],
    named("IMAGE...", "Files, folders, globs, short videos, `-` for standard input; URLs with --allow-urls."),
]


@Parameter(name="*")
@dataclass(frozen=True)
class ModelOptions:
    """Which model, and where it runs."""

    model: Annotated[str | None, Parameter(alias="-m", group=MODEL)] = None
    """A folder, an .npz file or a Hugging Face id that was pulled. The bundled small model by default."""
    tokenizer: Annotated[Path | None, Parameter(group=MODEL)] = None
    """tokenizer.model or tokenizer.json, where the checkpoint has none beside it."""
    codec: Annotated[Path | None, Parameter(group=MODEL)] = None
    """The mask codec (vae-oid.npz or .safetensors) that `segment` needs, where the checkpoint has none beside it."""
    device: Annotated[str | None, Parameter(group=MODEL)] = None
    """cpu, cuda, cuda:1, mps. The best there is by default."""
    dtype: Annotated[DType | None, Parameter(group=MODEL)] = None
    """Numbers to compute in. The checkpoint's own by default."""


@Parameter(name="*")
@dataclass(frozen=True)
class TaskOptions(ModelOptions):
    """Everything a command that asks a picture takes."""

    max_tokens: Annotated[int, Parameter(group=ANSWERS)] = 256
    """Longest answer."""
    temperature: Annotated[float, Parameter(group=ANSWERS)] = 0.0
    """0 takes the most probable token each time; above it, answers vary."""
    top_p: Annotated[float, Parameter(group=ANSWERS)] = 1.0
    """With a temperature: choose among the most probable tokens that make up this share."""
    beams: Annotated[int, Parameter(group=ANSWERS)] = 1
    """Search for the most probable whole answer, this many candidates wide."""
    best_of: Annotated[int, Parameter(group=ANSWERS)] = 1
    """With a temperature: the most probable of this many answers."""
    seed: Annotated[int | None, Parameter(group=ANSWERS)] = None
    """Makes random answers repeatable."""

    batch: Annotated[int, Parameter(group=INPUT)] = 1
    """How many pictures go through the model at a time."""
    frames: Annotated[int, Parameter(group=INPUT)] = 16
    """How many frames of a video, spread evenly over its length."""
    together: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False
    """All pictures belong to one prompt, in this order."""
    allow_urls: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False
    """Fetch http(s) addresses."""

    out: Annotated[Path | None, Parameter(alias="-o", group=OUTPUT)] = None
    """Draw the result: a file for one input, a folder for several."""
    json: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """One JSON object a line."""
    stream: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """Show the answer as it is written."""
