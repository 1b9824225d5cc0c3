"""The bundled encoder: captions of the demo find their pictures in every language, and what it scored is what its card says."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest

from paligemma.checkpoint.finding import BUNDLED
from paligemma.embedding import load_encoder
from paligemma.image import open_image
from paligemma.nano.names import LANGUAGES
from paligemma.nano.search_measure import MAIN, measure
from paligemma.nano.search_publish import TARGETS
from paligemma.nano.search_recipes import NANO_SIGLIP

FOLDER = BUNDLED / NANO_SIGLIP.name
SCORES = json.loads((FOLDER / "scores.json").read_text())


@pytest.fixture(scope="module")
def encoder():
    return load_encoder()


@pytest.fixture(scope="module")
def pictured() -> list[tuple[np.ndarray, dict[str, str]]]:
    """The demo's pictures of things, each with its captions by language."""
    found = []
    for entry in json.loads((BUNDLED / "demo" / "demo.json").read_text()):
        captions = {item["lang"]: item["expect"] for item in entry["items"] if item["task"] == "caption"}
        if captions:
            found.append((open_image(BUNDLED / "demo" / entry["image"]), captions))
    assert len(found) >= 5
    return found


@pytest.mark.parametrize("lang", LANGUAGES)
def test_captions_find_their_pictures(encoder, pictured, lang):
    seen = encoder.pictures([picture for picture, _ in pictured])
    read = encoder.texts([captions[lang] for _, captions in pictured])
    assert (read @ seen.T).argmax(1).tolist() == list(range(len(pictured)))


def test_it_is_no_worse_than_its_card_says(encoder):
    """Among a hundred scenes, which is easier than among the thousand that were measured."""
    with warnings.catch_warnings(action="ignore"):
        found = measure(encoder, 100, seed=5, log=lambda line: None)
    for name in (MAIN, "image -> image, drawn once more"):
        assert found[name]["recall@1"] >= SCORES[name]["recall@1"] - 0.03, name


def test_the_targets_are_reached_and_the_card_says_so():
    card = (FOLDER / "README.md").read_text()
    assert "(target missed)" not in card
    for name, target in TARGETS.items():
        reached = SCORES[MAIN][name] <= target if name == "median rank" else SCORES[MAIN][name] >= target
        assert reached, name
    for name, scores in SCORES.items():
        assert f"| {name} | {scores['recall@1']:.3f} |" in card
