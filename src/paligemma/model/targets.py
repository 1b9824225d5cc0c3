"""Which linear layers something is done to: groups with names, and patterns over this package's names of modules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from torch import nn

from ..errors import UsageError, did_you_mean

GROUPS: dict[str, tuple[str, ...]] = {
    "language": ("text.blocks.*.attn.*", "text.blocks.*.mlp.*"),
    "language-attention": ("text.blocks.*.attn.*",),
    "vision": ("vision.blocks.*.attn.*", "vision.blocks.*.mlp.*"),
    "vision-attention": ("vision.blocks.*.attn.*",),
    "projector": ("projector",),
}
"""Attention and MLPs of the decoder, of the image tower, and what joins the two. The tied embedding table is no linear layer."""


def linear_layers(model: nn.Module, targets: Iterable[str] = ("*",)) -> dict[str, nn.Module]:
    """Linear layers by name, in the model's order.

    targets: keys of `GROUPS`, names such as `projector`, or patterns such as `text.blocks.*.attn.q` (`*` stands for anything).
    What has `in_features` counts as linear, whatever is inside. Raises `UsageError` for a target that no layer goes by.
    """
    layers = dict(_outermost(model, ""))
    chosen: set[str] = set()
    for target in targets:
        found = {name for name in layers if any(fnmatchcase(name, pattern) for pattern in GROUPS.get(target, (target,)))}
        if not found:
            known = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in layers)
            raise UsageError(
                f"no linear layer of the model is called {target!r}",
                hint=did_you_mean(target, [*GROUPS, *known], "targets are " + ", ".join([*GROUPS, *known])),
                code="unknown_target",
            )
        chosen |= found
    return {name: layer for name, layer in layers.items() if name in chosen}


def swap(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` where the module of that name is."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def _outermost(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        if hasattr(child, "in_features"):
            yield prefix + name, child
        else:
            yield from _outermost(child, f"{prefix}{name}.")
