"""The bicubic resize gives the very pixels that transformers' image processor gives."""

from __future__ import annotations

import numpy as np
from PIL import Image
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from paligemma.image import to_pixels

RNG = np.random.default_rng(0)


def test_bicubic_is_transformers_resize():
    for size, (width, height) in ((224, (411, 300)), (448, (411, 300)), (224, (17, 900)), (224, (224, 224)), (28, (1, 1))):
        image = Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
        theirs = SiglipImageProcessorPil(size={"height": size, "width": size})(image, return_tensors="np")["pixel_values"][0]
        ours = to_pixels(image, size)
        assert ours.dtype == theirs.dtype == np.float32
        assert ours.flags.c_contiguous
        assert (ours == theirs).all()
