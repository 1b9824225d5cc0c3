"""What a request may say: one model of pydantic's for each task, which is also its place in the OpenAPI description.

A field has one meaning and one home; what is checked here is its type and its range. Whether a name or a language can be used, the tasks
themselves say.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from ..engine.options import MOST_ALTERNATIVES
from ..predictor.explaining import LIKELY
from ..tasks.detect import MAX_OBJECTS
from ..tasks.grammar import DEFAULT_OBJECTS

Words = Annotated[str, StringConstraints(max_length=65_536)]
Name = Annotated[str, StringConstraints(max_length=256)]
Picture = Annotated[str, Field(description="A data: URL, bare base64, or, where the server allows it, an https URL.")]
Language = Annotated[str, Field(description="Two letters: en, de, fr, es, zh, ...", max_length=16)]
MaskKind = Literal["rle", "polygon", "png"]


class Body(BaseModel):
    """What all tasks take. Unknown fields are refused: a misspelt one would be ignored in silence."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    verb: ClassVar[str]
    asks: ClassVar[tuple[str, ...]] = ()
    """Fields that the verb takes by place, in order."""
    finds: ClassVar[tuple[str, ...]] = ()
    """Fields that it takes by name, besides those that say how to choose tokens."""

    image: Picture | None = None
    images: Annotated[
        list[Picture] | None, Field(description="Several pictures for one prompt, such as frames of a video.", max_length=64)
    ] = None
    model: Annotated[str | None, Field(description="By default the model that is served, without an adapter.")] = None
    stream: bool = False
    max_tokens: Annotated[int | None, Field(ge=1, le=8192)] = None
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    beams: Annotated[int, Field(ge=1, le=16)] = 1
    best_of: Annotated[int, Field(ge=1, le=16)] = 1
    seed: Annotated[int | None, Field(ge=0, lt=2**62)] = None
    alternatives: Annotated[
        int, Field(description="So many of the likeliest tokens of every step come with the answer.", ge=0, le=MOST_ALTERNATIVES)
    ] = 0
    explain: Annotated[bool, Field(description="Whether the answer comes with where in the picture the model looked for each word.")] = (
        False
    )

    @property
    def asked(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.asks)

    @property
    def how(self) -> dict[str, Any]:
        names = ("max_tokens", "temperature", "top_p", "beams", "best_of", "seed", *self.finds)
        alternatives = self.alternatives or (LIKELY if self.explain else 0)
        return {name: getattr(self, name) for name in names} | {"alternatives": alternatives}


class Caption(Body):
    verb, asks = "caption", ("lang", "length")
    lang: Language = "en"
    length: Literal["short", "normal", "long"] = "normal"


class Ask(Body):
    verb, asks = "ask", ("question", "lang", "choices")
    question: Words
    lang: Annotated[Language | None, Field(description="Of the answer; null for models trained on bare questions.")] = "en"
    choices: Annotated[list[Words], Field(description="Answers to choose from.", max_length=64)] = []


class Question(Body):
    verb, asks = "question", ("answer", "lang")
    answer: Words
    lang: Language = "en"


class Read(Body):
    verb = "ocr"


class DescribeBox(Body):
    verb, asks = "describe_box", ("box",)
    box: Annotated[list[float], Field(description="Left, top, right, bottom, in pixels of the picture.", min_length=4, max_length=4)]


class Run(Body):
    verb, asks = "run", ("prompt",)
    prompt: Words


class Places(Body):
    """What is asked for where things are."""

    finds = ("min_score", "max_objects", "constrained", "free_labels")
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_objects: Annotated[int, Field(ge=1, le=MAX_OBJECTS)] = DEFAULT_OBJECTS
    constrained: Annotated[bool, Field(description="Only well-formed objects with the names that were asked for.")] = True
    free_labels: Annotated[bool, Field(description="Other names than those are allowed.")] = False


Names = Annotated[str | list[Name], Field(description='Names, or one string with ";" between them.', min_length=1, max_length=4096)]


class Detect(Places):
    verb, asks = "detect", ("classes",)
    classes: Names


class Segment(Places):
    verb, asks = "segment", ("classes",)
    classes: Names
    masks: MaskKind = "rle"


class Refer(Body):
    verb, asks, finds = "refer", ("sentence",), ("min_score", "constrained")
    sentence: Words
    min_score: Annotated[float, Field(ge=0, le=1)] = 0.0
    constrained: bool = True
    masks: MaskKind = "rle"


TASKS: dict[str, type[Body]] = {
    "caption": Caption,
    "ask": Ask,
    "ocr": Read,
    "detect": Detect,
    "segment": Segment,
    "refer": Refer,
    "describe-box": DescribeBox,
    "question": Question,
    "run": Run,
}
"""By the last part of their paths: /v1/caption."""


class BatchBody(BaseModel):
    """`requests`: bodies of tasks, each with its "task"."""

    model_config = ConfigDict(extra="forbid")
    requests: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=256)]


# Answers


class TextResult(BaseModel):
    type: Literal["caption", "answer", "question", "reading", "text"]
    text: str
    score: float | None
    prompt: str
    stop: Literal["eos", "length", "grammar"]


class BoxResult(BaseModel):
    """Pixels of the picture that was sent, upright; x to the right, y down."""

    label: str
    x0: float
    y0: float
    x1: float
    y1: float
    score: float | None


class Objects(BaseModel):
    width: int
    height: int
    text: str
    prompt: str
    stop: Literal["eos", "length", "grammar"]
    leftover: str
    invalid: int


class DetectionsResult(Objects):
    type: Literal["detections"]
    boxes: list[BoxResult]


class RunLengths(BaseModel):
    """COCO's, compressed. `size`: height, width."""

    size: Annotated[list[int], Field(min_length=2, max_length=2)]
    counts: str


class MaskResult(BaseModel):
    """One of `rle`, `polygon` (rings of [x, y]) and `png` (a data: URL, white where the object is)."""

    label: str
    box: BoxResult
    score: float | None
    codes: list[int] | None
    rle: RunLengths | None = None
    polygon: list[list[list[float]]] | None = None
    png: str | None = None


class MasksResult(Objects):
    type: Literal["masks"]
    masks: list[MaskResult]


class Likely(BaseModel):
    """`prob`: among the tokens that were allowed there."""

    text: str
    prob: float


class Step(Likely):
    """A token of the answer; `likely`: what might have stood there, the likeliest first."""

    likely: list[Likely]


Heat = Annotated[list[list[float]], Field(description="Shares of attention, patch by patch, row by row from the top.")]


class Seen(Step):
    heat: Heat


class Part(BaseModel):
    """A word of a text, or an object: `start` to `stop` are places in `tokens`; `heat` is the mean of theirs."""

    label: str
    start: int
    stop: int
    score: float | None
    box: list[float] | None
    heat: Heat


class Explanation(BaseModel):
    """`width`, `height`: of the picture. `grid`: rows and columns of each `heat`."""

    width: int
    height: int
    grid: list[int]
    tokens: list[Seen]
    parts: list[Part]


class Usage(BaseModel):
    """`prompt_tokens` counts those of the picture too."""

    image_tokens: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Timing(BaseModel):
    """Seconds since the request came."""

    queued: float
    first_token: float | None
    total: float


class Response(BaseModel):
    id: str
    model: str
    result: TextResult | DetectionsResult | MasksResult
    tokens: Annotated[list[Step] | None, Field(description="Where `alternatives` were asked for.")] = None
    explanation: Annotated[Explanation | None, Field(description="Where `explain` was asked for; not of very long answers.")] = None
    usage: Usage
    timing: Timing


class Problem(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class Error(BaseModel):
    error: Problem
