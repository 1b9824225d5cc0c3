"""Small models for tests: the dimensions of each kind of PaliGemma, shrunk, and random weights in which nothing is left at zero or one.

Torch is imported inside the functions, so that tests of the torch-free parts may import this module.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from paligemma.config import PaliGemmaConfig, TextConfig, VisionConfig

if TYPE_CHECKING:
    from torch import Tensor

    from paligemma.model.mask_codec import MaskCodec
    from paligemma.model.paligemma import PaliGemma
    from paligemma.tokenizer import Tokenizer

VOCAB = 211
VISION = VisionConfig(width=24, depth=2, mlp_dim=44, heads=2, image_size=28)
"""Two by two patches: four soft tokens a picture."""

GEMMA_1 = TextConfig(width=32, depth=3, mlp_dim=56, heads=4, kv_heads=1, head_dim=16, vocab_size=VOCAB)
"""Like Gemma 1: one key/value head, and heads * head_dim != width, so that a transposed matrix cannot fit."""
GEMMA_2 = TextConfig(width=40, depth=3, mlp_dim=56, heads=4, kv_heads=2, head_dim=16, vocab_size=VOCAB, attn_softcap=2.0, post_norms=True)
"""Like Gemma 2; the soft-cap is low enough to bend the logits of a random model."""
GEMMA_27B = TextConfig(
    width=48,
    depth=2,
    mlp_dim=80,
    heads=6,
    kv_heads=3,
    head_dim=12,
    vocab_size=VOCAB,
    query_scale=20**-0.5,
    attn_softcap=2.0,
    post_norms=True,
)
"""Like Gemma 2 27B: besides, the query scale is not head_dim ** -0.5."""

TINY_1 = PaliGemmaConfig(VISION, GEMMA_1, version=1, name="tiny-1")
TINY_2 = PaliGemmaConfig(VISION, GEMMA_2, version=2, name="tiny-2")
TINY_27B = PaliGemmaConfig(VISION, GEMMA_27B, version=2, name="tiny-27b")
TINY = {config.name: config for config in (TINY_1, TINY_2, TINY_27B)}


def random_model(config: PaliGemmaConfig, seed: int = 0) -> PaliGemma:
    """A float32 model in evaluation mode. Norm weights and biases are random too: a swapped or forgotten one shows."""
    from paligemma.model.paligemma import PaliGemma

    return _randomised(PaliGemma(config), seed)


def random_codec(seed: int = 0, width: int = 16, codebook_dim: int = 24) -> MaskCodec:
    """A narrow mask codec with random weights and codes."""
    from paligemma.model.mask_codec import MaskCodec

    return _randomised(MaskCodec(width, codebook_dim), seed)


def random_pixels(config: PaliGemmaConfig, *batch: int, seed: int = 0) -> Tensor:
    """Pixels (*batch, 3, S, S) in [-1, 1]."""
    import torch

    side = config.vision.image_size
    return torch.rand(*batch, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def _randomised(module, seed: int):
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if tensor.dim() < 2 or "pos_embed" in name:
                start = tensor if "norm" in name else 0.0  # norms stay near the zero or one they start from
                tensor.copy_(start + 0.1 * noise)
            else:
                # Strong layers and weak, tied embeddings: else a random model would only repeat its last token.
                size = 0.3 if name.startswith("text.embed") else 2.0
                tensor.copy_(noise * size * tensor[0].numel() ** -0.5)
    return module.eval()


TOKENIZER_VOCAB = 1552
"""400 text pieces, 1024 location pieces, 128 mask pieces: rows of the models that go with `tiny_tokenizer`."""


@functools.cache
def tiny_tokenizer() -> Tokenizer:
    """PaliGemma's structure, learnt from a few sentences: <pad> 0, <eos> 1, <bos> 2, newline 4, <loc0000> 400, <seg000> 1424."""
    from paligemma.tokenizer import Tokenizer
    from paligemma.tokenizer_training import train_tokenizer

    return Tokenizer.from_bytes(train_tokenizer(SENTENCES, TOKENIZER_VOCAB))


def tiny_config(version: Literal[1, 2] = 1) -> PaliGemmaConfig:
    """The tiny model of that version with a row for each of `tiny_tokenizer`'s tokens."""
    config = {1: TINY_1, 2: TINY_2}[version]
    return dataclasses.replace(config, text=dataclasses.replace(config.text, vocab_size=TOKENIZER_VOCAB))


def tiny_model(seed: int = 0, version: Literal[1, 2] = 1) -> PaliGemma:
    """A random model to go with `tiny_tokenizer`."""
    return random_model(tiny_config(version), seed)


SENTENCES = (
    """
caption en
caption de
answer en how many dogs are there?
answer en what is on the left of the cat?
answer de wie viele Katzen sind im Bild?
detect cat ; dog
segment the cat on the left
segment the big red apple
ocr
a cat and two dogs
two cats and a dog on the grass
eine Katze und zwei Hunde
ein roter Apfel neben einer Katze
un chat et deux chiens
dos perros y un gato
cat dog apple house tree car boat fish bird star
yes no one two three four five six
OPEN the door, 1984!
""".strip().splitlines()
    * 3
)


@functools.cache
def tiny_tokenizer_json() -> bytes:
    """`tiny_tokenizer` as a `tokenizer.json`, with Hugging Face's `<image>` after the last piece."""
    from paligemma.tokenizer import LOCATION_PIECES

    vocabulary = {tiny_tokenizer().piece(id): id for id in range(400)}
    return tokenizer_json(vocabulary, ["<pad>", "<eos>", "<bos>", "<unk>", "\n", *LOCATION_PIECES, "<image>"])


def tokenizer_json(vocabulary: dict[str, int], added: Sequence[str]) -> bytes:
    """A `tokenizer.json` as Hugging Face writes Gemma's: byte pairs in the order of their ids, `added` recognised before splitting.

    It also truncates, pads and adds <bos>, which all of its users must switch off.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, processors

    merges = []
    whole = set(added)
    for piece in sorted(vocabulary, key=vocabulary.__getitem__):
        if len(piece) > 1 and piece not in whole and not piece.startswith("<0x"):
            pairs = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
            known = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
            merges += sorted(known, key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    control = ("<pad>", "<eos>", "<bos>", "<unk>", "<image>")
    tokenizer.add_tokens([tokenizers.AddedToken(piece, special=piece in control, normalized=False) for piece in added])
    tokenizer.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=40)
    return tokenizer.to_str().encode()
