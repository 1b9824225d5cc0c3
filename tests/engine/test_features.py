"""Image tokens that are kept: encoded together and once, for each owner and adapter apart."""

from __future__ import annotations

import torch

from paligemma.engine.continuous import ContinuousBatch, Job
from paligemma.engine.features import Features
from paligemma.engine.generate import Options
from tests import tiny
from tests.engine.reference import LOC


def test_pictures_are_encoded_together_and_once(case, network, monkeypatch):
    sizes = []
    encode = type(network).encode
    monkeypatch.setattr(type(network), "encode", lambda self, pixels: sizes.append(len(pixels)) or encode(self, pixels))
    pixels = tiny.random_pixels(case.model.config, 3).numpy()
    features = Features(network, keep=2)
    first = features.of([pixels[0], pixels[1], pixels[0].copy()])
    assert sizes == [2]
    assert first[0] is first[2]
    assert _held(first[0]) == first[0].nbytes, "and not the whole batch with it"
    assert features.of([pixels[1]])[0] is first[1]
    assert sizes == [2], "it was kept"
    clip, _ = features.of([pixels, pixels[2]])
    assert clip.shape[1] == 3 * first[0].shape[1]
    assert sizes == [2, 4]
    features.of([pixels[0]])
    assert sizes == [2, 4, 1], "two are kept, the oldest went"
    torch.testing.assert_close(torch.as_tensor(clip[:, : first[0].shape[1]]), torch.as_tensor(first[0]), atol=1e-5, rtol=1e-5)


def _held(array):
    """Bytes that stay in memory as long as this array does."""
    if isinstance(array, torch.Tensor):
        return array.untyped_storage().nbytes()
    return (array if array.base is None else array.base).nbytes


def test_what_was_seen_is_kept_for_each_owner(case, network, monkeypatch):
    sizes = []
    encode = type(network).encode
    monkeypatch.setattr(type(network), "encode", lambda self, pixels: sizes.append(len(pixels)) or encode(self, pixels))
    going = ContinuousBatch(network, eos_id=case.eos_id, loc=LOC)
    (pixels,) = tiny.random_pixels(case.model.config, 1).numpy()
    jobs = [Job([2, 7], Options(max_tokens=2), pixels=pixels, owner=owner) for owner in ("a", "a", "b", "a", "b")]
    for job in jobs:
        going.submit(job)
        while going.busy:
            going.step()
    assert sizes == [1, 1], "as long for b as if a had not been there"
    assert len({job.outcome.ids for job in jobs}) == 1


def test_what_was_seen_through_another_adapter_is_another_thing(case, network, monkeypatch):
    sight = [None]
    monkeypatch.setattr(type(network), "sight", property(lambda _: sight[0]))
    features, (pixels,) = Features(network), tiny.random_pixels(case.model.config, 1).numpy()
    (plain,) = features.of([pixels])
    sight[0] = "birds"
    (other,) = features.of([pixels])
    assert other is not plain
    assert features.of([pixels])[0] is other
    sight[0] = None
    assert features.of([pixels])[0] is plain
