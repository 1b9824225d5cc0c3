"""Dense targets against a loop over pixels; the loss of whole and of empty batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from paligemma.nano.dense import CELLS, MIN_COVER, DenseHead, dense_targets
from paligemma.nano.names import things
from paligemma.nano.world import CHARACTERS, SIZE, Scene, Split, World

GRID = 8
PATCH = SIZE // GRID
NOTHING = len(things())


def empty_scene() -> Scene:
    return Scene(np.zeros((SIZE, SIZE, 3), np.uint8), (), (), np.full((SIZE, SIZE), -1, np.int8))


@pytest.fixture(scope="module")
def scenes(train_scenes) -> list[Scene]:
    pictured = [scene for scene in train_scenes if scene.objects][:12]
    printed = [scene for scene in train_scenes if scene.lines][:8]
    return [*pictured, *printed, empty_scene()]


@pytest.fixture(scope="module")
def targets(scenes):
    return dense_targets(scenes, GRID)


def pixels_of(scene: Scene, row: int, column: int) -> np.ndarray:
    return scene.owner[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]


def test_things_and_edges(scenes, targets):
    assert targets.thing.shape == (len(scenes), GRID * GRID)
    seen = 0
    for b, scene in enumerate(scenes):
        for place in range(GRID * GRID):
            row, column = divmod(place, GRID)
            cover = [0.0] * len(scene.objects)
            for pixel in pixels_of(scene, row, column).flat:
                if pixel >= 0:
                    cover[pixel] += 1 / PATCH**2
            best = max(range(len(cover)), key=cover.__getitem__, default=None)
            if best is None or cover[best] <= MIN_COVER:
                assert targets.thing[b, place] == NOTHING
                continue
            spot = scene.objects[best]
            assert targets.thing[b, place] == spot.thing
            x, y = (column + 0.5) * PATCH, (row + 0.5) * PATCH
            wanted = [(spot.x0 - x) / SIZE, (spot.y0 - y) / SIZE, (spot.x1 - x) / SIZE, (spot.y1 - y) / SIZE]
            assert targets.edges[b, place].tolist() == pytest.approx(wanted, abs=1e-6)
            seen += 1
    assert seen > 50


def test_cells(scenes, targets):
    side = PATCH // CELLS
    assert targets.cells.shape == (len(scenes), GRID * GRID, CELLS * CELLS)
    for b, scene in enumerate(scenes):
        for place in range(GRID * GRID):
            row, column = divmod(place, GRID)
            patch = pixels_of(scene, row, column) >= 0
            for cell in range(CELLS * CELLS):
                i, j = divmod(cell, CELLS)
                inside = patch[i * side : (i + 1) * side, j * side : (j + 1) * side]
                assert targets.cells[b, place, cell] == float(inside.sum() > inside.size / 2)
    assert targets.cells.sum() > 500


def test_letters(scenes, targets):
    found = 0
    for b, scene in enumerate(scenes):
        for place in range(GRID * GRID):
            row, column = divmod(place, GRID)
            inside = sorted(
                (x, letter)
                for line in scene.lines
                for letter, (x, y) in zip(line.text, line.centres, strict=True)
                if math.floor(x / PATCH) == column and math.floor(y / PATCH) == row
            )
            wanted = [CHARACTERS.index(letter) for _, letter in inside][:2]
            assert targets.letters[b, place].tolist() == wanted + [len(CHARACTERS)] * (2 - len(wanted))
            found += len(wanted)
    assert found > 40


def perfect(head: DenseHead, targets) -> torch.Tensor:
    """What a head that knows everything gives."""
    things_, cells, letters = (
        torch.nn.functional.one_hot(targets.thing, NOTHING + 1) * 40.0,
        (targets.cells * 2 - 1) * 40.0,
        torch.nn.functional.one_hot(targets.letters, len(CHARACTERS) + 1).flatten(2) * 40.0,
    )
    return torch.cat([things_, targets.edges, cells, letters], -1)


def test_the_loss_is_nothing_for_the_truth_and_something_for_chance(scenes, targets):
    head = DenseHead(16)
    loss, record = head.loss(perfect(head, targets), targets)
    assert loss.item() == pytest.approx(0, abs=1e-4)
    assert record["thing_accuracy"] == record["letter_accuracy"] == 1
    chance, record = head.loss(torch.zeros(len(scenes), GRID * GRID, sum(head.sizes)), targets)
    assert record["thing"] == pytest.approx(2 * math.log(NOTHING + 1), rel=1e-4)
    assert record["letters"] == pytest.approx(8 * math.log(len(CHARACTERS) + 1), rel=1e-4)
    assert record["cells"] == pytest.approx(math.log(2), rel=1e-4)
    assert chance.item() == pytest.approx(record["thing"] + record["letters"] + record["cells"] + record["edges"], rel=1e-5)


def test_only_edges_of_things_that_are_seen_count(targets):
    head = DenseHead(16)
    output = perfect(head, targets)
    wrong = output.clone()
    wrong[..., NOTHING + 1 : NOTHING + 5][targets.thing == NOTHING] += 5
    assert head.loss(wrong, targets)[0].item() == pytest.approx(head.loss(output, targets)[0].item(), abs=1e-6)
    wrong[..., NOTHING + 1 : NOTHING + 5][targets.thing != NOTHING] += 0.2
    # smooth L1 with beta 0.05 is |difference| - 0.025
    assert head.loss(wrong, targets)[1]["edges"] == pytest.approx(10 * (0.2 - 0.025), rel=1e-3)


def test_a_batch_without_things_or_print_has_a_loss(scenes):
    head = DenseHead(16)
    features = torch.randn(2, GRID * GRID, 16, requires_grad=True)
    loss, record = head.loss(head(features), dense_targets([empty_scene(), empty_scene()], GRID))
    loss.backward()
    assert torch.isfinite(loss)
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert all(math.isfinite(value) for value in record.values())
    assert "thing_accuracy" not in record, "there was nothing to be right about"


def test_larger_pictures_have_more_patches_and_edges_in_shares_of_their_side():
    world = World(Split.TEST, seed=1, side=2 * SIZE, text_share=0.0)
    scenes = [world.scene(index) for index in range(8)]
    targets = dense_targets(scenes, 2 * GRID)
    assert targets.thing.shape == (8, 4 * GRID * GRID)
    seen = 0
    for b, scene in enumerate(scenes):
        boxes = [(spot.x0, spot.y0, spot.x1, spot.y1) for spot in scene.objects]
        for place in (targets.thing[b] < NOTHING).nonzero()[:, 0].tolist():
            row, column = divmod(place, 2 * GRID)
            x, y = (column + 0.5) * PATCH, (row + 0.5) * PATCH
            found = (targets.edges[b, place] * 2 * SIZE).tolist()
            corners = (found[0] + x, found[1] + y, found[2] + x, found[3] + y)
            assert any(corners == pytest.approx(box, abs=1e-3) for box in boxes)
            seen += 1
    assert seen > 50
