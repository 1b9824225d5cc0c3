"""What the page must know about a model, as JSON: everything that Python knows already is written down here from its one home.

    {"web": 1, "name", "about", "quantize", "image", "text", "tasks", "tokens", "objects", "graphs", "words", ...}, sealed

`graphs` and `words` say where the weights lie; see `packer.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..checkpoint.detect import describe
from ..config import MASK_CODES, MASK_SIZE, PaliGemmaConfig
from ..engine.options import LOC_WINDOW
from ..tasks import answer, caption, detect, ocr, run, segment
from ..tasks.detect import MAX_OBJECTS, SEMICOLON, SEPARATOR
from ..tasks.grammar import DEFAULT_OBJECTS
from ..tasks.languages import LANGUAGES
from ..tasks.taught import Offer, offers
from ..tokenizer import Tokenizer
from .description import VERSION


def model_facts(config: PaliGemmaConfig, quantize: str) -> dict[str, Any]:
    c, v = config.text, config.vision
    return {
        "web": VERSION,
        "name": config.name,
        "about": describe(config),
        "parameters": config.num_parameters,
        "quantize": quantize,
        "image": {"size": v.image_size, "tokens": v.num_tokens, "resize": config.resize},
        "text": {
            "width": c.width, "depth": c.depth, "kv_heads": c.kv_heads, "head_dim": c.head_dim, "vocab": c.vocab_size,
            "rope_base": c.rope_base,
        },
        "tasks": task_facts(config.taught),
        "objects": {
            "separator": SEPARATOR, "semicolon": SEMICOLON, "most": DEFAULT_OBJECTS, "most_read": MAX_OBJECTS, "codes": MASK_CODES,
            "mask_side": MASK_SIZE, "loc_window": LOC_WINDOW,
        },
    }  # fmt: skip


def task_facts(taught: Sequence[str] = ()) -> dict[str, Any]:
    """Each task's prompts, with {names} where the page puts something in, and the length of its answers. `taught`: see the configuration;
    of what is not among it nothing is offered, but by `run`."""
    question, names = "\ue000", "\ue001"  # stand for what is asked: no text holds them
    lang = LANGUAGES[-1]
    offered = offers(taught)
    captions, answers = (offered.get(task.name, Offer()) for task in (caption, answer))
    tasks = {
        "caption": {
            "prompts": {length: _template(caption.prompt(lang, length), lang=lang) for length in captions.lengths},
            "languages": list(captions.languages),
            "max_tokens": caption.max_tokens,
        },
        "answer": {
            "prompt": _template(answer.prompt(question, lang), lang=f" {lang} ", question=question),
            "languages": list(answers.languages),
            "max_tokens": answer.max_tokens,
        },
        "detect": {"prompt": _template(detect.prompt([names]), names=names), "max_tokens": detect.max_tokens},
        "segment": {"prompt": _template(segment.prompt([names]), names=names), "max_tokens": segment.max_tokens},
        "ocr": {"prompt": ocr.prompt(), "max_tokens": ocr.max_tokens},
        "run": {"max_tokens": run.max_tokens},
    }
    return {task: own for task, own in tasks.items() if task in offered}


def _template(prompt: str, **places: str) -> str:
    """A prompt with {name} in place of what was put in. Blanks around that stay."""
    for name, value in places.items():
        inner = value.strip()
        assert prompt.count(value) == 1, f"{value!r} is not once in {prompt!r}"
        prompt = prompt.replace(value, value.replace(inner, f"{{{name}}}"))
    return prompt


CHECKS = (
    "Two  cats, 3 Äpfel 猫\n", "answer en how many dogs are there?", "caption zh", "detect owl ; green heart",
    " \t\n\n  <loc0012> <seg007> x", "OPEN the door, 1984! e\u0301 🦉 <bos> <unused7>", "segment the cat on the left",
)  # fmt: skip
"""Texts whose ids the page compares with Python's before it answers anything."""


def token_facts(tokenizer: Tokenizer) -> Mapping[str, Any]:
    return {
        "bos": tokenizer.bos_id,
        "eos": tokenizer.eos_id,
        "newline": tokenizer.newline_id,
        "loc": [tokenizer.loc.start, tokenizer.loc.stop],
        "seg": [tokenizer.seg.start, tokenizer.seg.stop],
        "reserved": list(tokenizer.reserved),
        "checks": [[text, tokenizer.encode(text)] for text in CHECKS],
    }
