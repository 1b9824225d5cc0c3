"""What names in prompts stand for: at which token it is said, and the loss of whole and of empty batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from paligemma.nano.pointing import ABSENT, PRESENT, UNNAMED, Mention, PointHead, PointTargets, point_targets
from paligemma.sequence import prompt_ids

BOX = (0.1, 0.2, 0.3, 0.4)


def test_targets_stand_where_the_names_do():
    targets = point_targets([[(2, Mention(5, True, BOX)), (4, Mention(9, False))], []], 6)
    assert targets.named.tolist() == [[UNNAMED, UNNAMED, PRESENT, UNNAMED, ABSENT, UNNAMED], [UNNAMED] * 6]
    assert targets.boxes[0, 2].tolist() == pytest.approx(BOX)
    assert targets.boxes.isnan().all(-1).sum() == 11


def test_a_mention_ends_with_a_token(teacher, train_scenes, nano_tokenizer):
    """The tokens of a prompt up to the end of a name are the first tokens of the prompt: the name's last token is well defined."""
    rng = np.random.default_rng(0)
    seen = 0
    for scene in train_scenes:
        for lesson in (teacher.long(scene, rng), teacher.short(scene, rng), teacher.short(scene, rng)):
            ids = prompt_ids(nano_tokenizer, lesson.prefix)
            for mention in lesson.mentions:
                start = nano_tokenizer.encode(lesson.prefix[: mention.end])
                assert ids[1 : 1 + len(start)] == start
                seen += 1
    assert seen > 100


def test_the_loss_is_small_where_the_head_is_right_and_falls_with_training():
    torch.manual_seed(0)
    head = PointHead(8)
    states = torch.randn(3, 4, 8)
    places = [[(1, Mention(0, True, BOX))], [(2, Mention(0, False))], [(0, Mention(0, True))]]
    targets = point_targets(places, 4)
    first = head.loss(states, targets)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = head.loss(states, targets)
        loss.backward()
        optimizer.step()
    assert loss < 0.02 < first
    other = point_targets(places, 4)
    assert head.loss(states, PointTargets(other.named, other.boxes.flip(-1))) > 10 * loss


def test_a_batch_without_names_costs_nothing():
    head = PointHead(8)
    loss = head.loss(torch.randn(2, 4, 8), point_targets([[], []], 4))
    loss.backward()
    assert loss.item() == 0.0
    assert all(p.grad is None or not p.grad.any() for p in head.parameters()), "nan counts as any"
