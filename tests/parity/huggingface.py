"""Random small PaliGemmas of Hugging Face transformers (a test-only dependency) and the same weights in our model."""

from __future__ import annotations

import tempfile

import torch
from transformers import Gemma2Config, GemmaConfig, PaliGemmaForConditionalGeneration, SiglipVisionConfig
from transformers import PaliGemmaConfig as TheirConfig

from paligemma.checkpoint import load_model
from paligemma.config import PaliGemmaConfig
from paligemma.model.paligemma import PaliGemma

IMAGE_TOKEN = 5
"""Any id will do: the rows of its embedding are replaced by the picture's."""


def their_config(config: PaliGemmaConfig, final_softcap: float | None = None) -> TheirConfig:
    """Hugging Face's configuration of the same dimensions."""
    v, t = config.vision, config.text
    vision = SiglipVisionConfig(
        hidden_size=v.width,
        intermediate_size=v.mlp_dim,
        num_hidden_layers=v.depth,
        num_attention_heads=v.heads,
        image_size=v.image_size,
        patch_size=v.patch_size,
        projection_dim=t.width,
        vision_use_head=False,
    )
    common = {
        "vocab_size": t.vocab_size,
        "hidden_size": t.width,
        "intermediate_size": t.mlp_dim,
        "num_hidden_layers": t.depth,
        "num_attention_heads": t.heads,
        "num_key_value_heads": t.kv_heads,
        "head_dim": t.head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
    }
    if config.version == 1:
        text = GemmaConfig(**common)
    else:
        text = Gemma2Config(
            **common,
            query_pre_attn_scalar=round(t.scale**-2),
            attn_logit_softcapping=t.attn_softcap,
            final_logit_softcapping=final_softcap,
        )
    return TheirConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_TOKEN,
        projection_dim=t.width,
        hidden_size=t.width,
        vocab_size=t.vocab_size,
    )


def their_model(config: PaliGemmaConfig, seed: int = 0, final_softcap: float | None = None) -> PaliGemmaForConditionalGeneration:
    """In float32, with every weight random: norms and biases too."""
    model = PaliGemmaForConditionalGeneration(their_config(config, final_softcap)).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            size = 0.3 if "embed_tokens" in name else 2.0  # else a random model would only repeat its last token
            spread = 0.1 if weight.dim() < 2 or "position" in name else size * weight[0].numel() ** -0.5
            start = weight if "norm" in name else 0.0
            weight.copy_(start + torch.randn(weight.shape, generator=generator) * spread)
    return model


def same_weights(theirs: PaliGemmaForConditionalGeneration) -> PaliGemma:
    """Our model with the weights of theirs: written by transformers, read by our loader."""
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return load_model(folder, mapped=False)
