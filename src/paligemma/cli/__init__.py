"""The command line: which command lives where. It parses, calls the predictor, prints; a command is imported only when it runs.

Exit codes: 0 done; 1 a bug of ours; 2 wrong call; 3 unusable input; 4 checkpoint refused; 5 the machine lacks something;
6 some of several inputs failed; 7 a training run
that diverged; 130 and 143 stopped by a signal; 141 nobody reads the output any more.
"""

from __future__ import annotations

import signal
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Ask a picture": {
        "caption": ("tasks:caption", "Say in one sentence what is there, in a language of your choice.", "photo.jpg --lang de"),
        "ask": ("tasks:ask", "Answer a question.", 'photo.jpg "how many dogs are there?"'),
        "detect": ("tasks:detect", "Find things and box them.", 'photo.jpg "cat ; dog" --out boxes.png'),
        "segment": ("tasks:segment", "Find things and outline them.", 'photo.jpg "the cat on the left" --out mask.png'),
        "refer": ("tasks:refer", "Outline what a sentence means, with a RefCOCO checkpoint.", 'photo.jpg "the man in red"'),
        "ocr": ("tasks:ocr", "Read the text.", "receipt.jpg"),
        "question": ("tasks:question", "Ask a question that has the given answer.", 'photo.jpg "two"'),
        "describe-box": ("tasks:describe_box", "Say what a box holds.", "photo.jpg 10,20,110,220"),
        "batch": (
            "jobs:batch",
            "Ask all pictures of a folder, a table or a shard; results as JSON lines or Parquet.\n\n"
            "A job that was stopped, however that was, goes on with the same command. Exit code 6 if some of it failed.",
            'photos/ --task detect:"cat;dog" --task caption --out results',
        ),
        "alt-text": (
            "alt_text:alt_text",
            "Write alt texts beside the pictures of a folder or web site, or into a table.\n\n"
            "What is there is kept. A job that was stopped goes on with the same command. Exit code 6 if some of it failed.",
            "site/ --lang en,de",
        ),
        "run": ("tasks:run", "Any prompt, exactly as the model was trained on it.", 'chart.png "answer en what is the highest bar?"'),
    },
    "Search": {
        "index": (
            "search:index",
            "Make a folder of pictures searchable. Run again, it looks only at what changed.\n\nExit code 6 if some could not be read.",
            "photos --what vectors,captions",
        ),
        "search": (
            "search:search",
            "Find pictures in words, by a picture, by what is read or seen in them.",
            '"two cats and a red car" --has cat --count 2 --out gallery.html',
        ),
    },
    "Teach": {
        "label": (
            "labelling:label",
            "Let a model label pictures for people to correct, in the files of COCO, YOLO, VOC, Label Studio, CVAT or FiftyOne.\n\n"
            "The most doubtful pictures come first. What was stopped goes on with the same command. Exit code 6 if some of it failed.",
            'photos/ --classes "cat;dog" --to labelstudio --out labels',
        ),
        "data": ("paligemma.cli.data:app", "Look at annotated pictures before training on them: `data check SOURCE`.", ""),
        "train": (
            "training:train",
            "Fine-tune a model on annotated pictures.\n\nA run that was stopped goes on with the same command. Exit code 7 if it diverged.",
            "--data annotations.jsonl --recipe lora --out run",
        ),
        "eval": (
            "evaluation:evaluate",
            "Measure a model on annotated pictures.\n\nExit code 6 if some of them could not be asked about.",
            "--data annotations.jsonl --model run/best --out measured",
        ),
    },
    "Models": {
        "models": ("checkpoints:models", "List the published models, and those on this machine.", ""),
        "info": ("checkpoints:info", "Say what a checkpoint, a pack or an adapter is.\n\nExit code 4 if it would not load.", "pt_224.npz"),
        "pull": (
            "checkpoints:pull",
            "Fetch a checkpoint from Hugging Face.\n\nGated models need an account that has accepted Google's licence.",
            "google/paligemma2-3b-mix-224",
        ),
        "convert": (
            "checkpoints:convert",
            "Write a checkpoint in another format, or adapter and base as one model.\n\nWithout --dtype no weight changes its value. "
            "Needs little memory.",
            "pt_224.npz my-model --format huggingface",
        ),
        "pack": (
            "packing:pack",
            "Make a model small and quick on a CPU.\n\nA pack needs no PyTorch: --model takes its folder.",
            "pt_224.npz --quantize int8 --out packed",
        ),
        "bench": (
            "benchmark:bench",
            "Say how quick a model is on this machine, and what limits it.\n\nTimes, memory and CPU-seconds against what the machine can "
            "do at best, measured in the same run. A CPU computes in a thread for each core, or in OMP_NUM_THREADS of them.",
            "--model packed --against my-model --out report.html",
        ),
        "doctor": (
            "doctor:doctor",
            "Check that a model computes what it should on this machine.\n\nExit code 1 if a check fails.",
            "--model my-model",
        ),
    },
    "Serve": {
        "serve": (
            "serving:serve",
            "A service with a web page: tasks over HTTP, and what OpenAI's clients speak.\n\nSIGTERM ends it once answers are written.",
            "--model packed --port 8000",
        ),
    },
    "Look around": {
        "demo": ("demo:demo", "Every task on bundled pictures: answers, drawings and one page to look at.", ""),
        "nano": ("paligemma.nano.cli:app", "The small bundled model: draw its world, train it, measure it.", ""),
    },
}
"""Group -> command -> (where its function is, its help: a line and perhaps a paragraph, an example of its arguments)."""


def build_app() -> App:
    """The parser with every command registered by name only: nothing of a command is imported until it is called."""

    from cyclopts import App, Group

    app = App(
        name="paligemma",
        help="PaliGemma on your pictures: captions, answers, boxes, masks and text.",
        help_epilogue="`paligemma COMMAND --help` explains a command. Anywhere: `--debug` shows the traceback of an error.",
        help_format="plaintext",
        version=_version,
        suppress_keyboard_interrupt=False,
    )
    app["--help"].group = app["--version"].group = Group("Options", sort_key=9)
    for order, (title, commands) in enumerate(COMMANDS.items()):
        group = Group(title, sort_key=order)
        for position, (name, (where, help_line, example)) in enumerate(commands.items()):
            path = where if where.startswith("paligemma.") else f"paligemma.cli.{where}"
            more = {"help_epilogue": f"Example: paligemma {name} {example}"} if example else {}
            app.command(path, name=name, help=help_line, group=group, sort_key=position, **more)
    return app


def _version() -> str:
    from importlib.metadata import version

    return version("paligemma")


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code. Every error ends here, as one line and a hint on stderr."""
    from . import failures

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    debug = "--debug" in options
    if debug:
        arguments.remove("--debug")
    for stream in (sys.stdout, sys.stderr):  # a file name may hold bytes that are no text
        stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    previous = signal.signal(signal.SIGTERM, failures.stop)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = failures.show_warning
            code = build_app()(
                [failures.STDIN if word == "-" else word for word in arguments],
                result_action="return_value",
                exit_on_error=False,
                print_error=False,
            )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BaseException as error:
        return failures.report(error, debug=debug)
    finally:
        signal.signal(signal.SIGTERM, previous)
