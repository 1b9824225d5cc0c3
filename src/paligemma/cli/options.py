"""The options that commands share, as frozen values. Nothing here knows what they do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from ..errors import UsageError
from ..video import DEFAULT_FRAMES

MODEL = Group("Model", sort_key=1)
ANSWERS = Group("Answers", sort_key=2)
INPUT = Group("Input", sort_key=3)
OUTPUT = Group("Output", sort_key=4)

MODEL_VARIABLE = "PALIGEMMA_MODEL"
"""Environment variable that names the model of the commands that ask a picture."""

Json = Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False, help="JSON instead of text.")]
DType = Literal["float32", "bfloat16", "float16"]


def named(name: str, text: str, **more: Any) -> Parameter:
    """How a positional argument is called in the help, and what it is."""
    return Parameter(name=name, help=text, **more)


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
    engine: Annotated[Literal["static"] | None, Parameter(group=MODEL)] = None
    """static: few shapes, compiled, for a GPU. By default the plain engine."""
    quantize: Annotated[Literal["int8", "int4"] | None, Parameter(group=MODEL)] = None
    """Round the decoder's weights, for a GPU with --engine static. For a CPU: `paligemma pack`."""


@Parameter(name="*")
@dataclass(frozen=True)
class TaskOptions(ModelOptions):
    """Everything a command that asks a picture takes."""

    model: Annotated[str | None, Parameter(alias="-m", group=MODEL, env_var=MODEL_VARIABLE)] = None
    """A folder, an .npz file or a Hugging Face id that was pulled. The bundled small model by default."""
    max_tokens: Annotated[int | None, Parameter(group=ANSWERS)] = None
    """Longest answer. By default what suits the task."""
    temperature: Annotated[float, Parameter(group=ANSWERS)] = 0.0
    """0 takes the most probable token each time; above it, answers vary."""
    top_p: Annotated[float, Parameter(group=ANSWERS)] = 1.0
    """With a temperature: choose among the most probable tokens that make up this share."""
    beams: Annotated[int, Parameter(group=ANSWERS)] = 1
    """Search for the most probable whole answer, this many candidates wide. For short texts: long answers lose to none."""
    best_of: Annotated[int, Parameter(group=ANSWERS)] = 1
    """With a temperature: the most probable of this many answers."""
    seed: Annotated[int | None, Parameter(group=ANSWERS)] = None
    """Makes random answers repeatable."""

    batch: Annotated[int, Parameter(group=INPUT)] = 1
    """How many pictures go through the model at a time."""
    frames: Annotated[int, Parameter(group=INPUT)] = DEFAULT_FRAMES
    """How many frames of a video, spread evenly over its length."""
    together: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False
    """All pictures belong to one prompt, in this order."""
    allow_urls: Annotated[bool, Parameter(group=INPUT, negative="", show_default=False)] = False
    """Fetch https addresses."""

    explain: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """Say what answers were made of: tokens' probabilities, what else might have come, where the model looked (docs/explain.md)."""
    out: Annotated[str | None, Parameter(alias="-o", group=OUTPUT)] = None
    """Draw the result: a file for one input, a folder for several."""
    json: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """One JSON object a line."""
    stream: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False
    """Show the answer as it is written."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"--batch must be at least 1, got {self.batch}")
        if self.frames < 1:
            raise UsageError(f"--frames must be at least 1, got {self.frames}")
        if self.out == "":
            raise UsageError("--out names no file or folder", hint="for example --out drawn.png, or --out . for this folder")
        if self.stream and self.json:
            raise UsageError("--stream shows an answer while it is written, --json only whole results", hint="leave one of them out")
        if self.stream and self.explain:
            raise UsageError("--explain needs the whole answer, --stream shows it before", hint="leave one of them out")

    @property
    def how(self) -> dict[str, Any]:
        """The options of every method of the predictor."""
        names = ("max_tokens", "temperature", "top_p", "beams", "best_of", "seed")
        return {name: getattr(self, name) for name in names} | {"batch_size": self.batch}


@Parameter(name="*")
@dataclass(frozen=True)
class PlaceOptions:
    """What commands that answer in boxes or masks take besides."""

    min_score: Annotated[float, Parameter(group=ANSWERS)] = 0.0
    """Leave out what the model is less sure of."""
    max_objects: Annotated[int | None, Parameter(group=ANSWERS)] = None
    """Stop after this many; by default 64."""
    free_labels: Annotated[bool, Parameter(group=ANSWERS, negative="", show_default=False)] = False
    """The model may use other names than those asked for."""
    unconstrained: Annotated[bool, Parameter(group=ANSWERS, negative="", show_default=False)] = False
    """The model may write anything, also what is no box."""

    @property
    def how(self) -> dict[str, Any]:
        limit = {} if self.max_objects is None else {"max_objects": self.max_objects}
        return {"min_score": self.min_score, "constrained": not self.unconstrained, "free_labels": self.free_labels} | limit
