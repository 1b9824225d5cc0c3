"""The whole model: who sees whom, cached against recomputed, batches against single rows, padding, dtypes, gradients, and every preset."""

from __future__ import annotations

import pytest
import torch

from paligemma.config import PRESETS
from paligemma.model import paligemma as module
from paligemma.model.paligemma import PaliGemma, prefix_lm_mask
from tests.tiny import TINY, TINY_1, TINY_2, random_model, random_pixels

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
STEP = 1e-4


@pytest.fixture(scope="module", params=list(TINY))
def model(request) -> PaliGemma:
    return random_model(TINY[request.param])


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(6, TINY_1.text.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def recomputed(model: PaliGemma, soft: torch.Tensor, prompt: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Logits before each answer token and after the last, all at once."""
    ids = torch.cat([prompt, answer], 1)
    mask_ar = torch.cat([torch.zeros_like(prompt), torch.ones_like(answer)], 1)
    return model(soft, ids, mask_ar)[:, prompt.shape[1] - 1 :]


def cached(model: PaliGemma, soft, prompt, answer, valid=None) -> torch.Tensor:
    """The same, one token at a time."""
    cache = model.new_cache(len(prompt), soft.shape[1] + prompt.shape[1] + answer.shape[1])
    hidden = [model.prefill(soft, prompt, valid, cache)]
    hidden += [model.extend(column, cache) for column in answer.T]
    return model.logits(torch.stack(hidden, 1))


# ---- who sees whom


def picture(docstring: str) -> torch.Tensor:
    """The table of ones and dots in a docstring."""
    rows = [line.split()[1:8] for line in docstring.splitlines() if line.split()[1:2] in (["1"], ["."])]
    return torch.tensor([[cell == "1" for cell in row] for row in rows])


def test_the_mask_is_the_one_drawn_in_the_docstring():
    drawn = picture(module.__doc__ or "")
    assert drawn.shape == (7, 7)
    assert torch.equal(prefix_lm_mask(torch.tensor([[0, 0, 0, 0, 0, 1, 1]]))[0, 0], drawn)


def test_padding_is_seen_by_nobody():
    mask = prefix_lm_mask(torch.tensor([[0, 0, 0, 1, 1]]), torch.tensor([[False, True, True, True, False]]))[0, 0]
    assert mask.long().tolist() == [
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 1, 1, 1, 0],
    ]


def test_blocks_may_alternate():
    """A block that is joined to the one before it sees it, and the other way round: the rule is a cumulative sum."""
    mask = prefix_lm_mask(torch.tensor([[0, 1, 0, 1]]))[0, 0]
    assert mask.long().tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@torch.no_grad()
def test_a_late_prompt_token_moves_the_early_ones_and_a_suffix_token_none(model):
    soft, ids = model.encode_image(random_pixels(model.config, 1)), tokens(1, 7)
    mask_ar = torch.tensor([[0, 0, 0, 0, 0, 1, 1]])
    before = model(soft, ids, mask_ar)

    def moved(place: int) -> list[bool]:
        changed = ids.clone()
        changed[0, place] += 1
        return [bool(row > 1e-5) for row in (model(soft, changed, mask_ar) - before).abs().amax(-1)[0]]

    assert moved(4) == [True] * 7
    assert moved(5) == [False] * 5 + [True] * 2
    assert moved(6) == [False] * 6 + [True]


@torch.no_grad()
def test_the_picture_moves_every_token_and_its_order_matters(model):
    ids, mask_ar = tokens(1, 4), torch.zeros(1, 4)
    pixels = random_pixels(model.config, 1, 2)
    before = model(model.encode_image(pixels), ids, mask_ar)
    swapped = model(model.encode_image(pixels.flip(1)), ids, mask_ar)
    assert (swapped - before).abs().amax(-1).min() > 1e-5


# ---- one token at a time


@torch.no_grad()
def test_decoding_with_a_cache_equals_recomputing(model):
    soft, prompt, answer = model.encode_image(random_pixels(model.config, 3)), tokens(3, 6), tokens(3, 8, seed=1)
    torch.testing.assert_close(cached(model, soft, prompt, answer), recomputed(model, soft, prompt, answer), **CLOSE)


@torch.no_grad()
def test_a_cache_keeps_what_lies_more_than_4096_tokens_back():
    """Every slot counts, however far back: Gemma 2's window is not used, see `Gemma`."""
    model = random_model(TINY_2)
    soft, prompt, answer = model.encode_image(random_pixels(TINY_2, 1)), tokens(1, 4200), tokens(1, 3, seed=1)
    other = prompt.clone()
    other[:, :80] = tokens(1, 80, seed=2)
    found = cached(model, soft, prompt, answer)
    torch.testing.assert_close(found, recomputed(model, soft, prompt, answer), **CLOSE)
    moved = (cached(model, soft, other, answer) - found).abs().amax(-1)
    assert moved.min() > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_a_batch_of_unequal_prompts_equals_one_by_one(model, side):
    soft, prompt, answer = model.encode_image(random_pixels(model.config, 3)), tokens(3, 6), tokens(3, 5, seed=1)
    lengths = [6, 3, 1]
    valid = torch.tensor([[place < n for place in range(6)] for n in lengths])
    together_prompt = prompt
    if side == "left":
        valid = valid.flip(1)
        together_prompt = torch.stack([row.roll(6 - n) for row, n in zip(prompt, lengths, strict=True)])
    together = cached(model, soft, together_prompt, answer, valid)
    for row, length in enumerate(lengths):
        alone = cached(model, soft[row : row + 1], prompt[row : row + 1, :length], answer[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], **CLOSE)


@torch.no_grad()
def test_rows_of_a_cache_go_on_alone(model):
    """Dropping finished rows and repeating others must not change what follows."""
    soft, prompt, answer = model.encode_image(random_pixels(model.config, 3)), tokens(3, 6), tokens(3, 4, seed=1)
    expected = recomputed(model, soft, prompt, answer)
    cache = model.new_cache(3, 20)
    model.prefill(soft, prompt, None, cache)
    model.extend(answer[:, 0], cache)
    rows = torch.tensor([2, 0, 2])
    cache = cache.select(rows)
    for step in (1, 2):
        found = model.logits(model.extend(answer[rows, step], cache))
        torch.testing.assert_close(found, expected[rows, step + 1], **CLOSE)


@torch.no_grad()
def test_prefill_wants_an_empty_cache():
    model = random_model(TINY_1)
    soft, cache = model.encode_image(random_pixels(TINY_1, 1)), model.new_cache(1, 20)
    model.prefill(soft, tokens(1, 3), None, cache)
    with pytest.raises(ValueError, match="empty cache"):
        model.prefill(soft, tokens(1, 3), None, cache)


# ---- padding and positions


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_nothing(model, side):
    """Neither its place nor the ids in it: with two pads more on either side, the same logits to the last bit of rounding."""
    soft, ids = model.encode_image(random_pixels(model.config, 2)), tokens(2, 6)
    mask_ar = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    pads, after = (2, 0) if side == "left" else (0, 2), slice(2, None) if side == "left" else slice(0, 6)
    expected = model(soft, ids, mask_ar)
    for pad_id in (0, 9):
        padded_ids = torch.nn.functional.pad(ids, pads, value=pad_id)
        valid = torch.nn.functional.pad(torch.ones_like(ids, dtype=torch.bool), pads, value=False)
        padded_ar = torch.nn.functional.pad(mask_ar, pads, value=0 if side == "left" else 1)
        torch.testing.assert_close(model(soft, padded_ids, padded_ar, valid)[:, after], expected, **CLOSE)


@torch.no_grad()
def test_training_pads_need_no_mask(model):
    """The reference trains without one: its pads come last and open new blocks, so no real token sees them."""
    soft, ids = model.encode_image(random_pixels(model.config, 2)), tokens(2, 6)
    mask_ar = torch.tensor([[0, 0, 0, 1, 1, 1]] * 2)
    padded = model(soft, torch.nn.functional.pad(ids, (0, 2)), torch.nn.functional.pad(mask_ar, (0, 2), value=1))
    torch.testing.assert_close(padded[:, :6], model(soft, ids, mask_ar), **CLOSE)


@torch.no_grad()
def test_positions_may_start_anywhere(model):
    """Hugging Face counts from one, big_vision from zero: rotary positions are relative."""
    x = torch.randn(1, 6, model.config.text.width, generator=torch.Generator().manual_seed(0))
    places = torch.arange(6)[None]
    torch.testing.assert_close(model.text(x, places + 1, None), model.text(x, places, None), **CLOSE)


@torch.no_grad()
def test_pads_take_no_position():
    valid = torch.tensor([[True, True, True, False, True], [False, True, True, True, True]])
    found = PaliGemma._positions(valid, torch.zeros(2, 5, 8))
    assert found[valid].tolist() == [0, 1, 2, 3, 0, 1, 2, 3]


# ---- pictures


@torch.no_grad()
def test_several_pictures_are_encoded_apart_and_joined_in_order(model):
    pixels = random_pixels(model.config, 2, 3)
    soft = model.encode_image(pixels)
    per_picture = model.config.vision.num_tokens
    assert soft.shape == (2, 3 * per_picture, model.config.text.width)
    for frame in range(3):
        alone = model.encode_image(pixels[:, frame])
        torch.testing.assert_close(soft[:, frame * per_picture : (frame + 1) * per_picture], alone, **CLOSE)


@torch.no_grad()
def test_only_text_is_scaled_by_the_square_root_of_the_width():
    model = random_model(TINY_2)
    seen = []
    model.text.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    soft, ids = model.encode_image(random_pixels(TINY_2, 1)), tokens(1, 3)
    model(soft, ids, torch.zeros_like(ids))
    count = soft.shape[1]
    torch.testing.assert_close(seen[0][:, :count], soft)
    torch.testing.assert_close(seen[0][:, count:], model.text.embed.weight[ids] * 40**0.5)


# ---- dtypes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_stays_in_its_dtype_and_near_float32(model, dtype):
    pixels, prompt, answer = random_pixels(model.config, 2), tokens(2, 6), tokens(2, 4, seed=1)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    exact = cached(model, model.encode_image(pixels), prompt, answer, valid)
    half = random_model(model.config).to(dtype)
    soft = half.encode_image(pixels)
    found = cached(half, soft, prompt, answer, valid)
    assert soft.dtype == found.dtype == half.dtype == half.new_cache(1, 1).keys.dtype == dtype
    assert (found - exact).square().mean().sqrt() < 8 * torch.finfo(dtype).eps * exact.std()


# ---- training


def test_gradients_reach_every_weight_and_are_finite(model):
    """With padding in the batch, whose rows see only pads."""
    model.zero_grad()
    ids, mask_ar = tokens(2, 6), torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    logits = model(model.encode_image(random_pixels(model.config, 2)), ids, mask_ar, valid)
    torch.nn.functional.cross_entropy(logits[valid], ids[valid]).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        # A bias on keys adds the same to all scores of a query: no gradient but rounding.
        assert weight.grad.abs().max() > (0 if name.endswith("attn.k.bias") else 1e-8), name


def test_gradients_agree_with_differences(model):
    """Autograd through the training path against the slope of the loss."""
    model = random_model(model.config).double()
    ids, mask_ar = tokens(1, 5), torch.tensor([[0, 0, 1, 1, 1]])
    pixels = random_pixels(model.config, 1).double()
    weights = [model.vision.patch_embed.weight, model.projector.weight, model.text.embed.weight, model.text.blocks[0].attn.k.weight]

    def loss() -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(model.encode_image(pixels), ids, mask_ar)[0, 1:-1], ids[0, 2:])

    for weight in weights:
        direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        (gradient,) = torch.autograd.grad(loss(), weight)
        with torch.no_grad():
            weight.add_(STEP * direction)
            above = loss()
            weight.sub_(2 * STEP * direction)
            below = loss()
            weight.add_(STEP * direction)
        assert (above - below).item() / (2 * STEP) == pytest.approx((gradient * direction).sum().item(), rel=1e-2, abs=1e-3)


# ---- presets


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_builds_with_the_parameters_it_says(name):
    with torch.device("meta"):
        model = PaliGemma(PRESETS[name])
    assert sum(weight.numel() for weight in model.parameters()) == PRESETS[name].num_parameters
    assert not list(model.buffers()), "all a checkpoint must hold are parameters"
