"""Image tokens of pictures that come again: the last few are kept, so that a picture under several questions is encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from .network import Network


class Features:
    """`keep`: of how many pictures; 0: none. A picture of 224 pixels takes 1 MB in bfloat16, one of 896 pixels 16 MB."""

    def __init__(self, network: Network, keep: int = 32):
        self.network, self.keep = network, keep
        self._kept: OrderedDict[tuple[str | None, str | None, bytes], Any] = OrderedDict()

    def of(self, pictures: Sequence[np.ndarray], owners: Sequence[str | None] | None = None) -> list[Any]:
        """pictures (3, S, S), or (F, 3, S, S) for several under one prompt -> image tokens (1, F * P, D) of each.

        What is new goes through the image tower together, each picture once for each of its `owners`: how soon an answer comes tells nobody
        whether somebody else has asked about the same picture.
        """
        own = [None] * len(pictures) if owners is None else owners
        digests = [blake2b(pixels.tobytes(), digest_size=32).digest() for pixels in pictures]
        keys = [(owner, self.network.sight, digest) for owner, digest in zip(own, digests, strict=True)]
        found = {key: self._kept[key] for key in keys if key in self._kept}
        new = {key: pixels for key, pixels in zip(keys, pictures, strict=True) if key not in found}
        if new:
            frames = [pixels if pixels.ndim == 4 else pixels[None] for pixels in new.values()]
            soft, start = self.network.encode(np.concatenate(frames)), 0
            for key, one in zip(new, frames, strict=True):
                rows = soft[list(range(start, start + len(one)))]  # copied: a slice would keep the whole batch for as long as one picture
                found[key] = rows.reshape(1, -1, soft.shape[-1])
                start += len(one)
        for key in keys:
            self._kept[key] = found[key]
            self._kept.move_to_end(key)
        while len(self._kept) > self.keep:
            self._kept.popitem(last=False)
        return [found[key] for key in keys]
