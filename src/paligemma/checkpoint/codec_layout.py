"""Names and shapes of the mask codec's arrays, without building it: those of the published `vae-oid.npz` (see `model/mask_codec.py`)."""

from __future__ import annotations

from itertools import pairwise

from ..config import NUM_SEG

CODEBOOK = "_vq_vae._embedding"
FIRST = "decoder.0.weight"
"""Its shape shows width and depth."""


def codec_shapes(width: int, depth: int) -> dict[str, tuple[int, ...]]:
    """`width`: channels of the layers with the narrowest grid, a multiple of 8. `depth`: numbers in a row of the codebook."""
    shapes: dict[str, tuple[int, ...]] = {}
    narrowing = (width, width, width // 2, width // 4, width // 8)

    def layer(name: str, *weight: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, (outputs,)

    def residual(name: str) -> None:
        for place, size in ((0, 3), (2, 3), (4, 1)):
            layer(f"{name}.net.{place}", width, width, size, size, outputs=width)

    for place, (before, after) in zip((0, 2, 4, 6), pairwise((1, *narrowing[:0:-1])), strict=True):
        layer(f"encoder.{place}", after, before, 4, 4, outputs=after)
    residual("encoder.8")
    residual("encoder.9")
    layer("encoder.10", depth, width, 1, 1, outputs=depth)
    shapes[CODEBOOK] = (NUM_SEG, depth)
    layer("decoder.0", width, depth, 1, 1, outputs=width)
    residual("decoder.2")
    residual("decoder.3")
    for place, (before, after) in zip((4, 6, 8, 10), pairwise(narrowing), strict=True):
        layer(f"decoder.{place}", before, after, 4, 4, outputs=after)  # transposed: inputs first
    layer("decoder.12", 1, width // 8, 1, 1, outputs=1)
    return shapes
