"""`Predictor`: caption, ask, detect, segment and the rest. Each verb says which prompt, which grammar and which result.

Every verb takes one picture (see `Picture`) and returns one result, or a list (or tuple) of pictures and returns a list, computed in real
batches. `stream=True`, for one picture, returns a `Stream` of text pieces instead, whose `result` is the typed answer. The other keyword
arguments are those of `How`, and for verbs that find objects of `Finding`. Results carry the original picture, so that they can draw
themselves, unless a list is longer than `KEEP_PICTURES`.
"""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, overload

from ..checkpoint.detect import describe
from ..engine.generate import Generation
from ..engine.network import Network, network_of
from ..engine.scores import Calibration
from ..errors import CheckpointError, UsageError
from ..results import Answer, Box, Caption, Detections, Masks, Question, Reading, Text
from ..tasks import Task, caption, describe_box, detect, ocr, refer, run, segment, task_named
from ..tasks import answer as answering
from ..tasks import question as questioning
from ..tasks.detect import Parsed
from ..tokenizer import Tokenizer
from . import asking
from .asking import CutShort, How, Query, Stream, read_how
from .pictures import EncodedImage, Picture, Seen, encode
from .reading import MASK_CODEC_HINT, Finding, MaskDecoder, Reader, Search, shares
from .several import Classes, Pictures, Questions, at, check_pairs, each, each_list, is_many

if TYPE_CHECKING:
    from ..config import PaliGemmaConfig
    from ..engine.torch_network import TorchNetwork
    from ..model.paligemma import PaliGemma

R = TypeVar("R")
Edges = Sequence[float]
"""Left, top, right, bottom, in pixels of the original picture."""
Streams = Literal[True]

KEEP_PICTURES = 64
"""Results of longer lists do not hold on to their pictures, which would fill the memory; `draw(image)` still works."""


class Predictor:
    """A model, its tokenizer, and where there is one its mask codec, ready to be asked. `paligemma.load` makes one.

    No call changes what a later one answers, but for one thing: a large bfloat16 model on a CPU rearranges its weights while it gives its
    first answers (see `model.fast_linear`), after which they differ by rounding; a float32 one never does. So one thread at a time.
    """

    def __init__(
        self,
        model: PaliGemma | Network,
        tokenizer: Tokenizer,
        codec: MaskDecoder | None = None,
        *,
        calibration: Calibration | None = None,
        path: Path | None = None,
        calibrations: Mapping[str, Calibration | None] | None = None,
    ):
        """`calibration`: of the model; `calibrations`: of its adapters, of those that have one of their own."""
        self.network = network_of(model)
        self.tokenizer = tokenizer
        self.codec = codec
        self.path = path
        self._own, self._calibrations = calibration or Calibration(), dict(calibrations or {})
        self._reader = Reader(tokenizer, codec, self._own)

    @property
    def model(self) -> PaliGemma:
        """The model in PyTorch. Raises `CheckpointError` where another engine answers, which has none."""
        if not hasattr(self.network, "model"):
            what = f"{self.path or 'this model'} was loaded without a model in PyTorch"
            hint = "name a checkpoint (of a pack: the one it was made of), where PyTorch is installed"
            raise CheckpointError(what, hint=hint, code="is_pack")
        return cast("TorchNetwork", self.network).model

    @property
    def config(self) -> PaliGemmaConfig:
        return self.network.config

    @property
    def calibration(self) -> Calibration:
        """What is applied to every score."""
        return self._reader.calibration

    def with_calibration(self, calibration: Calibration) -> Predictor:
        """The same model with another calibration: of the adapter that is at work, else of the model alone."""
        name = self.adapter
        own, others = (calibration, self._calibrations) if name is None else (self._own, self._calibrations | {name: calibration})
        return Predictor(self.network, self.tokenizer, self.codec, calibration=own, path=self.path, calibrations=others).use_adapter(name)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that `use_adapter` takes: of the adapters that were loaded beside the model's weights."""
        return self.network.adapters

    @property
    def adapter(self) -> str | None:
        """The one at work, None where the model answers alone."""
        return self.network.adapter

    def use_adapter(self, name: str | None) -> Predictor:
        """From now on that adapter works, or with None the model alone; its calibration, where it has one, is applied to scores.

        Pictures that were encoded stay usable, unless an adapter is for the image tower too: then they are refused. Predictors that share
        the model switch with it. Returns itself. Raises `UsageError` for a name that is not among `adapters`.

        >>> model = paligemma.load("google/paligemma2-3b-pt-224", adapters={"birds": "runs/birds/best", "signs": "runs/signs/best"})
        >>> model.use_adapter("signs").caption("photo.jpg").text
        'no parking'
        """
        self.network.use_adapter(name)
        self._reader = Reader(self.tokenizer, self.codec, (name and self._calibrations.get(name)) or self._own)
        return self

    @property
    def description(self) -> str:
        """What was loaded, in a few lines."""
        config = self.config
        calibrated = " and ".join(sorted(self.calibration.parameters))
        lines = [
            f"{describe(config)}: {config.num_parameters:,} parameters, {self.network.place}",
            f"{config.vision.num_tokens} tokens a picture, resize {config.resize}",
            "mask codec found" if self.codec else "no mask codec, which segment needs",
            f"scores of {calibrated} calibrated" if calibrated else "scores as computed, not calibrated",
        ]
        lines += ["; ".join(f"adapter {n}{', at work' if n == self.adapter else ''}" for n in self.adapters)] if self.adapters else []
        return "\n".join([*lines, f"from {self.path}"] if self.path else lines)

    def __repr__(self) -> str:
        return f"<Predictor: {self.description.splitlines()[0]}>"

    def encode(self, image: Picture) -> EncodedImage:
        """Run the image tower once, to ask many things: the result is accepted wherever a picture is."""
        return encode(self.network, [image])[0]

    # Verbs that answer in words

    @overload
    def caption(self, image: Pictures, lang: str = ..., length: str = ..., **how: Unpack[How]) -> list[Caption]: ...
    @overload
    def caption(self, image: Picture, lang: str = ..., length: str = ..., *, stream: Streams, **how: Unpack[How]) -> Stream[Caption]: ...
    @overload
    def caption(
        self, image: Picture, lang: str = ..., length: str = ..., *, stream: Literal[False] = ..., **how: Unpack[How]
    ) -> Caption: ...
    def caption(self, image: Any, lang: str = "en", length: str = "normal", *, stream: bool = False, **how: Unpack[How]) -> Any:
        """What the picture shows. `lang`: a language code. `length`: "short", "normal" or "long".

        >>> model.caption("photo.jpg", lang="de").text
        'eine Katze und zwei Hunde'
        """
        return self._words(caption, caption.prompt(lang, length), image, stream, how)

    @overload
    def ask(
        self, image: Pictures, question: str | Questions, lang: str | None = ..., choices: Classes = ..., **how: Unpack[How]
    ) -> list[Answer]: ...
    @overload
    def ask(
        self, image: Picture, question: Questions, lang: str | None = ..., choices: Classes = ..., **how: Unpack[How]
    ) -> list[Answer]: ...
    @overload
    def ask(
        self, image: Picture, question: str, lang: str | None = ..., choices: Classes = ..., *, stream: Streams, **how: Unpack[How]
    ) -> Stream[Answer]: ...
    @overload
    def ask(
        self, image: Picture, question: str, lang: str | None = ..., choices: Classes = ..., *, stream: Literal[False] = ...,
        **how: Unpack[How],
    ) -> Answer: ...  # fmt: skip
    def ask(
        self, image: Any, question: Any, lang: str | None = "en", choices: Classes = (), *, stream: bool = False, **how: Unpack[How]
    ) -> Any:
        """The answer to a question. `lang`: of the answer; None for checkpoints trained on bare questions (DocVQA, ChartQA). `choices`:
        answers to choose from, for checkpoints trained on them (AI2D, A-OKVQA): a list, or one string with ";" between them.

        >>> model.ask("photo.jpg", "how many dogs are there?").text
        '2'
        """
        prompts = each(question, lambda question: answering.prompt(question, lang, choices))
        return self._words(answering, prompts, image, stream, how)

    @overload
    def question(self, image: Pictures, answer: str, lang: str = ..., **how: Unpack[How]) -> list[Question]: ...
    @overload
    def question(self, image: Picture, answer: str, lang: str = ..., *, stream: Streams, **how: Unpack[How]) -> Stream[Question]: ...
    @overload
    def question(self, image: Picture, answer: str, lang: str = ..., *, stream: Literal[False] = ..., **how: Unpack[How]) -> Question: ...
    def question(self, image: Any, answer: str, lang: str = "en", *, stream: bool = False, **how: Unpack[How]) -> Any:
        """A question, in `lang`, that the picture answers with `answer`, which is English."""
        return self._words(questioning, questioning.prompt(answer, lang), image, stream, how)

    @overload
    def ocr(self, image: Pictures, **how: Unpack[How]) -> list[Reading]: ...
    @overload
    def ocr(self, image: Picture, *, stream: Streams, **how: Unpack[How]) -> Stream[Reading]: ...
    @overload
    def ocr(self, image: Picture, *, stream: Literal[False] = ..., **how: Unpack[How]) -> Reading: ...
    def ocr(self, image: Any, *, stream: bool = False, **how: Unpack[How]) -> Any:
        """The text in the picture, from top to bottom and left to right."""
        return self._words(ocr, ocr.prompt(), image, stream, how)

    @overload
    def describe_box(self, image: Pictures, box: Box | Edges, **how: Unpack[How]) -> list[Caption]: ...
    @overload
    def describe_box(self, image: Picture, box: Box | Edges, *, stream: Streams, **how: Unpack[How]) -> Stream[Caption]: ...
    @overload
    def describe_box(self, image: Picture, box: Box | Edges, *, stream: Literal[False] = ..., **how: Unpack[How]) -> Caption: ...
    def describe_box(self, image: Any, box: Box | Edges, *, stream: bool = False, **how: Unpack[How]) -> Any:
        """What a box holds. A part of it may lie outside of the picture, but not all: `InputError`."""

        def prompt(seen: Seen) -> str:
            return describe_box.prompt(shares(box.xyxy if isinstance(box, Box) else box, seen))

        return self._words(describe_box, prompt, image, stream, how)

    @overload
    def run(self, image: Pictures, prompt: str | Questions, **how: Unpack[How]) -> list[Text]: ...
    @overload
    def run(self, image: Picture, prompt: Questions, **how: Unpack[How]) -> list[Text]: ...
    @overload
    def run(self, image: Picture, prompt: str, *, stream: Streams, **how: Unpack[How]) -> Stream[Text]: ...
    @overload
    def run(self, image: Picture, prompt: str, *, stream: Literal[False] = ..., **how: Unpack[How]) -> Text: ...
    def run(self, image: Any, prompt: Any, *, stream: bool = False, **how: Unpack[How]) -> Any:
        """Any prompt, exactly as the model was trained on it. The newline that ends every prompt is added here."""
        return self._words(run, each(prompt, run.prompt), image, stream, how)

    def task(self, name: str, image: Any, *asked: Any, stream: bool = False, **how: Unpack[Finding]) -> Any:
        """Any task of `paligemma.tasks.TASKS` by its name; `asked` goes to the task's `prompt`. Raises `UsageError` for an unknown name.

        >>> model.task("question", "photo.jpg", "two").text
        'how many dogs are there?'
        """
        found = task_named(name)
        if found is describe_box:
            raise UsageError("what a box holds depends on the size of the picture too", hint="use describe_box (paligemma describe-box)")
        try:
            inspect.signature(found.prompt).bind(*asked)
        except TypeError:
            expected = ", ".join(inspect.signature(found.prompt).parameters) or "the picture alone"
            raise UsageError(f"the task {found.name!r} is asked with {expected}, found {asked or 'nothing'}") from None
        if not issubclass(found.result, Text):
            return getattr(self, found.name)(image, *asked, stream=stream, **how)
        return self._words(found, found.prompt(*asked), image, stream, how)  # pyright: ignore[reportArgumentType]

    def explain(self, verb: str, image: Any, *asked: Any, **how: Any) -> Any:
        """A verb's answer as an `Explanation`: with the probability of each token, what else might have come, and where the model looked.

        `verb`: "caption", "ask", "detect", ...; `asked`, `how`: as it takes them. One picture, or a list. Raises `UsageError` for what is
        no verb and for `stream` and `beams`, `ResourceError` for a model that is not in PyTorch.

        >>> model.explain("detect", "photo.jpg", ["cat", "dog"]).draw().save("looked.png")
        """
        from .explaining import Explainer
        from .planning import verb_named

        return verb_named(Explainer(self), verb)(image, *asked, **how)

    # Verbs that answer in places

    @overload
    def detect(self, image: Pictures, classes: Classes | Sequence[Classes], **how: Unpack[Finding]) -> list[Detections]: ...
    @overload
    def detect(self, image: Picture, classes: Classes, *, stream: Streams, **how: Unpack[Finding]) -> Stream[Detections]: ...
    @overload
    def detect(self, image: Picture, classes: Classes, *, stream: Literal[False] = ..., **how: Unpack[Finding]) -> Detections: ...
    def detect(self, image: Any, classes: Any, *, stream: bool = False, **how: Unpack[Finding]) -> Any:
        """Boxes of everything that is one of `classes`: a list of names, or one string with ";" between them.

        With a list of pictures, `classes` may also be a list of such lists, one each.

        >>> [box.label for box in model.detect("photo.jpg", ["cat", "dog"])]
        ['cat', 'dog', 'dog']
        """

        def wanted(classes: Classes) -> _Wanted:
            names = detect.class_names(classes)
            return _Wanted(detect.prompt(names), names, detect.parse_ids)

        return self._places(detect, each_list(classes, wanted), image, stream, how)

    @overload
    def segment(self, image: Pictures, classes: Classes | Sequence[Classes], **how: Unpack[Finding]) -> list[Masks]: ...
    @overload
    def segment(self, image: Picture, classes: Classes, *, stream: Streams, **how: Unpack[Finding]) -> Stream[Masks]: ...
    @overload
    def segment(self, image: Picture, classes: Classes, *, stream: Literal[False] = ..., **how: Unpack[Finding]) -> Masks: ...
    def segment(self, image: Any, classes: Any, *, stream: bool = False, **how: Unpack[Finding]) -> Any:
        """Masks of everything that is one of `classes`: names or phrases ("the cat on the left"), as in `detect`.

        `UsageError` if there is no mask codec: PaliGemma writes masks in its code.
        """

        def wanted(classes: Classes) -> _Wanted:
            names = detect.class_names(classes)
            return _Wanted(segment.prompt(names), names, segment.parse_ids)

        return self._places(segment, each_list(classes, wanted), image, stream, how)

    @overload
    def refer(self, image: Pictures, sentence: str | Questions, **how: Unpack[Finding]) -> list[Masks]: ...
    @overload
    def refer(self, image: Picture, sentence: str, *, stream: Streams, **how: Unpack[Finding]) -> Stream[Masks]: ...
    @overload
    def refer(self, image: Picture, sentence: str, *, stream: Literal[False] = ..., **how: Unpack[Finding]) -> Masks: ...
    def refer(self, image: Any, sentence: Any, *, stream: bool = False, **how: Unpack[Finding]) -> Any:
        """The mask of the one thing that `sentence` means, from a checkpoint trained on RefCOCO. Other checkpoints: `segment`."""
        if "max_objects" in how:
            raise UsageError("refer finds one thing: max_objects does not go with it", hint="use segment for several")
        how["max_objects"] = 1

        def wanted(sentence: str) -> _Wanted:
            return _Wanted(refer.prompt(sentence), (), lambda ids, tokenizer, _: refer.parse_ids(ids, tokenizer, sentence))

        return self._places(refer, each(sentence, wanted), image, stream, how)

    # How they do it

    def _words(self, task: Task, prompt: str | list[str] | Callable[[Seen], str], image: Any, stream: bool, how: How) -> Any:
        """Ask one prompt about all pictures, or one each."""
        if isinstance(prompt, list) and not is_many(image):
            image = [self.encode(image)] * len(prompt)
        check_pairs(prompt, image, "prompts")

        def query(place: int, seen: Seen) -> Query[Text]:
            words = prompt(seen) if callable(prompt) else at(prompt, place)
            return Query(words, lambda generation: self._reader.text(task, generation, words, seen))

        return self._ask(query, image, stream, how, task.max_tokens)

    def _places(self, task: Task, wanted: _Wanted | list[_Wanted], image: Any, stream: bool, how: Finding) -> Any:
        """Ask where things are, once for all pictures, or one each."""
        masks = task.result is Masks
        result = self._reader.masks if masks else self._reader.boxes
        if masks and self.codec is None:
            hint = MASK_CODEC_HINT if hasattr(self.network, "model") else "pack the model again, with its mask codec beside it"
            raise UsageError("this model has no mask codec, and masks are written in its code", hint=hint, code="no_codec")
        search, rest = Search.split(how)
        check_pairs(wanted, image, "sentences" if task is refer else "lists of names")

        def query(place: int, seen: Seen) -> Query[Detections | Masks]:
            this = at(wanted, place)

            def read(generation: Generation) -> Detections | Masks:
                parsed = this.parse(generation.ids, self.tokenizer, search.labels(this.names))
                return result(parsed, generation, search, this.prompt, seen)

            return Query(this.prompt, read, search.grammar(self.tokenizer, this.names, masks=masks))

        return self._ask(query, image, stream, rest, task.max_tokens)

    def _ask(self, query: Callable[[int, Seen], Query[R]], image: Any, stream: bool, how: How, max_tokens: int) -> Any:
        """-> a result, a list of results, or a stream, depending on `image` and `stream`."""
        options, batch_size = read_how(how, max_tokens)
        many = is_many(image)
        if stream:
            if many:
                raise UsageError("one answer can be streamed at a time, but there are several pictures or prompts")
            seen = self.encode(image)
            return Stream(self.network, self.tokenizer, seen, query(0, seen), options)
        pictures = list(image) if many else [image]
        forget = len(pictures) > KEEP_PICTURES

        def one(place: int, seen: EncodedImage) -> Query[R]:
            return query(place, dataclasses.replace(seen, picture=None) if forget else seen)

        results = asking.ask(self.network, self.tokenizer, pictures, one, options, batch_size)
        cut = sum(getattr(result, "stop", "eos") == "length" for result in results)
        if cut:
            what = f"{cut} of {len(results)} answers were" if many else "the answer was"
            warnings.warn(f"{what} cut off after {options.max_tokens} tokens", CutShort, stacklevel=_depth())
        return results if many else results[0]


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What is to be found: the prompt, the names it asks for, and how to read the answer."""

    prompt: str
    names: tuple[str, ...]
    parse: Callable[[Sequence[int], Tokenizer, Any], Parsed]


def _depth() -> int:
    """How many frames below whoever called this folder its caller is: warnings point at the user's line, whichever verb it calls."""
    frame, depth = inspect.currentframe(), 0
    while frame is not None and Path(frame.f_code.co_filename).parent == Path(__file__).parent:
        frame, depth = frame.f_back, depth + 1
    return depth
