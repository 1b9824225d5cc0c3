"""Equal to Hugging Face transformers: the same random weights and inputs through both, for each kind of decoder."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import PaliGemmaForConditionalGeneration

from paligemma.checkpoint import load_model, save_huggingface
from paligemma.config import VOCAB_SIZE, PaliGemmaConfig
from paligemma.model.paligemma import PaliGemma
from paligemma.nano.objective import suffix_loss
from tests.tiny import TINY, TINY_1, TINY_2, random_model, random_pixels

from .differences import close
from .huggingface import IMAGE_TOKEN, same_weights, their_model

BOUND = 2e-5
SUFFIX = 4


@pytest.fixture(scope="module", params=list(TINY))
def pair(request):
    """(theirs, ours) with the same weights."""
    config = TINY[request.param]
    theirs = their_model(config)
    return theirs, same_weights(theirs)


def tokens(*shape: int, config: PaliGemmaConfig = TINY_1, seed: int = 0) -> torch.Tensor:
    return torch.randint(6, config.text.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def with_image(ids: torch.Tensor, soft: int) -> torch.Tensor:
    """Their way of saying "a picture comes first": one placeholder id per soft token."""
    return torch.cat([torch.full((ids.shape[0], soft), IMAGE_TOKEN), ids], 1)


@torch.no_grad()
def test_image_features(pair):
    theirs, ours = pair
    pixels = random_pixels(ours.config, 2)
    close(ours.encode_image(pixels), theirs.get_image_features(pixels).pooler_output, BOUND)


@torch.no_grad()
def test_logits_under_the_training_mask(pair):
    theirs, ours = pair
    pixels, ids = random_pixels(ours.config, 2), tokens(2, 9)
    mask_ar = torch.zeros_like(ids)
    mask_ar[0, 5:] = 1
    mask_ar[1, 3:] = 1
    soft = ours.encode_image(pixels)
    both = with_image(ids, soft.shape[1])
    types = torch.cat([torch.zeros(2, soft.shape[1], dtype=torch.long), mask_ar], 1)
    expected = theirs(input_ids=both, pixel_values=pixels, attention_mask=torch.ones_like(both), token_type_ids=types).logits
    close(ours(soft, ids, mask_ar), expected[:, soft.shape[1] :], BOUND)


@torch.no_grad()
def test_logits_of_a_prompt(pair):
    """No suffix: everything sees everything."""
    theirs, ours = pair
    pixels, ids = random_pixels(ours.config, 1), tokens(1, 6)
    soft = ours.encode_image(pixels)
    both = with_image(ids, soft.shape[1])
    expected = theirs(
        input_ids=both, pixel_values=pixels, attention_mask=torch.ones_like(both), token_type_ids=torch.zeros_like(both)
    ).logits
    close(ours(soft, ids, torch.zeros_like(ids)), expected[:, soft.shape[1] :], BOUND)
    close(ours.logits(ours.prefill(soft, ids, None, ours.new_cache(1, both.shape[1]))), expected[:, -1], BOUND)


@torch.no_grad()
def test_padded_training_batch_and_loss(pair):
    """Prompts and suffixes of unequal length, padded on the right. Their loss is a mean over the tokens of the batch."""
    theirs, ours = pair
    pixels, ids = random_pixels(ours.config, 3), tokens(3, 9)
    lengths, prefixes = torch.tensor([9, 6, 8]), torch.tensor([4, 3, 7])
    places = torch.arange(9)
    valid = places < lengths[:, None]
    mask_ar = (places >= prefixes[:, None]).long()
    in_suffix = valid & (mask_ar == 1)
    ids = ids.masked_fill(~valid, 0)
    soft = ours.encode_image(pixels)
    count = soft.shape[1]
    both = with_image(ids, count)
    ahead = torch.zeros(3, count, dtype=torch.long)
    theirs_out = theirs(
        input_ids=both,
        pixel_values=pixels,
        attention_mask=torch.cat([ahead + 1, valid.long()], 1),
        token_type_ids=torch.cat([ahead, mask_ar], 1),
        labels=torch.cat([ahead - 100, ids.masked_fill(~in_suffix, -100)], 1),
    )
    logits = ours(soft, ids, mask_ar, valid)
    close(logits[valid], theirs_out.logits[:, count:][valid], BOUND)
    targets = ids[:, 1:].masked_fill(~in_suffix[:, 1:], -100)
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert loss.item() == pytest.approx(theirs_out.loss.item(), abs=1e-5)


@torch.no_grad()
def greedy(ours, soft, ids, valid, steps: int) -> torch.Tensor:
    cache = ours.new_cache(len(ids), soft.shape[1] + ids.shape[1] + steps)
    hidden = ours.prefill(soft, ids, valid, cache)
    chosen = []
    for _ in range(steps):
        chosen.append(ours.logits(hidden).argmax(-1))
        hidden = ours.extend(chosen[-1], cache)
    return torch.stack(chosen, 1)


@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_greedy_tokens(pair, padding):
    """A batch of unequal prompts. They pad on the left; we may pad on either side."""
    theirs, ours = pair
    pixels, ids, steps = random_pixels(ours.config, 3), tokens(3, 7), 12
    lengths = torch.tensor([7, 7, 7] if padding == "none" else [7, 4, 6])
    soft = ours.encode_image(pixels).detach()
    count = soft.shape[1]
    left = torch.arange(7) >= 7 - lengths[:, None]
    prompt = ids.masked_fill(~left, 0)
    # Their image comes right before the prompt, after the padding.
    both = torch.stack(
        [
            torch.cat([row[:pads], torch.full((count,), IMAGE_TOKEN), row[pads:]])
            for row, pads in zip(prompt, (7 - lengths).tolist(), strict=True)
        ]
    )
    attention = torch.arange(count + 7) >= (7 - lengths)[:, None]
    expected = theirs.generate(
        input_ids=both,
        pixel_values=pixels,
        attention_mask=attention.long(),
        token_type_ids=torch.zeros_like(both),
        max_new_tokens=steps,
        min_new_tokens=steps,
        do_sample=False,
        eos_token_id=None,
    )[:, count + 7 :]
    if padding == "right":
        right = torch.arange(7) < lengths[:, None]
        prompt = torch.zeros_like(ids).masked_scatter(right, ids[left])
        found = greedy(ours, soft, prompt, right, steps)
    else:
        found = greedy(ours, soft, prompt, None if padding == "none" else left, steps)
    assert torch.equal(found, expected)
    assert len(found.unique()) > 4, "a model that repeats itself proves little"


@torch.no_grad()
def test_two_pictures_per_prompt(pair):
    theirs, ours = pair
    pixels, ids = random_pixels(ours.config, 2, 2), tokens(2, 5)
    soft = ours.encode_image(pixels)
    both = with_image(ids, soft.shape[1])
    expected = theirs(
        input_ids=both, pixel_values=pixels.flatten(0, 1), attention_mask=torch.ones_like(both), token_type_ids=torch.zeros_like(both)
    ).logits
    close(ours(soft, ids, torch.zeros_like(ids)), expected[:, soft.shape[1] :], BOUND)


@torch.no_grad()
def test_final_soft_cap():
    """Off by default here, applied by transformers 5.23 wherever a configuration records it: so capped against capped."""
    theirs = their_model(TINY_2, final_softcap=1.5)
    ours = same_weights(theirs)
    assert ours.config.text.final_softcap is None
    capped = PaliGemma(dataclasses.replace(TINY_2, text=dataclasses.replace(TINY_2.text, final_softcap=1.5)))
    capped.load_state_dict(ours.state_dict())
    pixels, ids = random_pixels(TINY_2, 1), tokens(1, 6)
    soft = ours.encode_image(pixels)
    both = with_image(ids, soft.shape[1])
    expected = theirs(
        input_ids=both, pixel_values=pixels, attention_mask=torch.ones_like(both), token_type_ids=torch.zeros_like(both)
    ).logits[:, soft.shape[1] :]
    zeros = torch.zeros_like(ids)
    close(capped(soft, ids, zeros), expected, BOUND)
    assert torch.equal(ours(soft, ids, zeros).argmax(-1), expected.argmax(-1)), "greedy answers do not depend on the cap"
    assert (ours(soft, ids, zeros) - expected).abs().max() > 1e-2


@torch.no_grad()
def test_bfloat16(pair):
    """Rounding differs from step to step, so only the size of the difference is bounded: ours is no further from float32 than theirs."""
    _, ours = pair
    pixels, ids = random_pixels(ours.config, 4), tokens(4, 9)
    zeros = torch.zeros_like(ids)
    both = with_image(ids, ours.encode_image(pixels).shape[1])
    exact = ours(ours.encode_image(pixels), ids, zeros)

    theirs16 = their_model(ours.config).to(torch.bfloat16)
    ours16 = same_weights(theirs16)
    found = ours16(ours16.encode_image(pixels), ids, zeros)
    assert found.dtype == torch.bfloat16
    expected = theirs16(
        input_ids=both,
        pixel_values=pixels.to(torch.bfloat16),
        attention_mask=torch.ones_like(both),
        token_type_ids=torch.zeros_like(both),
    ).logits[:, -9:]
    mine, their = (found - exact).square().mean().sqrt(), (expected - exact).square().mean().sqrt()
    assert mine < 1.2 * their
    assert mine < 0.06 * exact.std()


@torch.no_grad()
def test_training_losses_agree_where_suffixes_are_equally_long(pair):
    """Theirs is a mean over all suffix tokens, the reference's a mean of each example's mean: the same unless lengths differ."""
    theirs, ours = pair
    pixels, ids = random_pixels(ours.config, 2), tokens(2, 8)
    soft = ours.encode_image(pixels)
    count = soft.shape[1]
    both = with_image(ids, count)
    for ends, same in (([8, 8], True), ([8, 5], False)):
        places = torch.arange(8).expand(2, -1)
        mask_ar = (places >= 4).long()
        mask_loss = mask_ar * (places < torch.tensor(ends)[:, None])
        ahead = torch.zeros(2, count, dtype=torch.long)
        their_loss = theirs(
            input_ids=both,
            pixel_values=pixels,
            attention_mask=torch.ones_like(both),
            token_type_ids=torch.cat([ahead, mask_ar], 1),
            labels=torch.cat([ahead - 100, ids.masked_fill(mask_loss == 0, -100)], 1),
        ).loss
        our_loss = suffix_loss(ours(soft, ids[:, :-1], mask_ar[:, :-1]), ids[:, 1:], mask_loss[:, 1:])
        assert (our_loss.item() == pytest.approx(their_loss.item(), abs=1e-5)) == same


def renamed(state: dict[str, torch.Tensor], era: str) -> dict[str, torch.Tensor]:
    """A state dict of transformers 5 (in memory) under the names of other times."""
    out = {}
    for name, tensor in state.items():
        if era != "in memory":
            name = name.replace("model.vision_tower.", "vision_tower.").replace("model.multi_modal_projector.", "multi_modal_projector.")
            name = name.replace("model.language_model.", "language_model.model.")
            name = "language_model.lm_head.weight" if name == "lm_head.weight" else name
        if era == "hub":
            name = name.replace("vision_tower.", "vision_tower.vision_model.")
        if era != "tied" or "lm_head" not in name:
            out[name] = tensor.clone()
    return out


@pytest.mark.parametrize("era", ["in memory", "hub", "tied"])
@pytest.mark.parametrize("name", list(TINY))
def test_every_layout_of_names_gives_the_same_model(tmp_path, name, era):
    """As transformers holds it, as the hub's files have it (with an output matrix), and as transformers 5 writes it (without)."""
    theirs = their_model(TINY[name])
    theirs.config.save_pretrained(tmp_path)
    save_file(renamed(theirs.state_dict(), era), tmp_path / "model.safetensors")
    found, expected = load_model(tmp_path).state_dict(), same_weights(theirs).state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("name", list(TINY))
@torch.no_grad()
def test_what_we_write_they_read(tmp_path, name):
    ours = random_model(TINY[name])
    save_huggingface(ours, tmp_path)
    theirs, told = PaliGemmaForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    pixels, ids = random_pixels(ours.config, 1), tokens(1, 6)
    soft = ours.encode_image(pixels)
    theirs.config.image_token_id = IMAGE_TOKEN
    both = with_image(ids, soft.shape[1])
    expected = theirs(
        input_ids=both, pixel_values=pixels, attention_mask=torch.ones_like(both), token_type_ids=torch.zeros_like(both)
    ).logits
    close(ours(soft, ids, torch.zeros_like(ids)), expected[:, soft.shape[1] :], BOUND)


@torch.no_grad()
def test_surplus_rows_are_dropped():
    """Published tables have 64 rows that stand for no token. Here they would win every argmax."""
    wide = dataclasses.replace(TINY_1, text=dataclasses.replace(TINY_1.text, vocab_size=VOCAB_SIZE + 64, width=16, depth=1))
    theirs = their_model(wide)
    theirs.get_input_embeddings().weight[VOCAB_SIZE:] *= 1000
    ours = same_weights(theirs)
    assert ours.config.text.vocab_size == VOCAB_SIZE
    pixels, ids = random_pixels(wide, 1), tokens(1, 4)
    soft = ours.encode_image(pixels)
    both = with_image(ids, soft.shape[1])
    expected = theirs(
        input_ids=both, pixel_values=pixels, attention_mask=torch.ones_like(both), token_type_ids=torch.zeros_like(both)
    ).logits[:, -4:]
    assert (expected.argmax(-1) >= VOCAB_SIZE).all()
    close(ours(soft, ids, torch.zeros_like(ids)), expected[..., :VOCAB_SIZE], BOUND)
