"""The decoder of the mask codec as a graph: codes (N, 16) -> soft masks (N, 64, 64). As `model/mask_codec.py` in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ..config import MASK_CODES, MASK_SIZE
from .graph import IR_VERSION, OPSET

CODES, MASKS = "codes", "masks"
CODEBOOK = "_vq_vae._embedding"
RESIDUALS, UPS, LAST = (2, 3), (4, 6, 8, 10), 12
"""Numbers of the decoder's layers, as in the published file: 0 is the first, and where there is none it is a ReLU's."""


def build(arrays: Mapping[str, NDArray[np.float32]]) -> ModelProto:
    """`arrays`: of the codec, by the names of the published file."""
    nodes, used = [], {CODEBOOK}
    side = round(MASK_CODES**0.5)

    def op(kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        out = to or f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    def layer(kind: str, x: str, number: str, **attributes: Any) -> str:
        names = f"decoder.{number}.weight", f"decoder.{number}.bias"
        used.update(names)
        return op(kind, x, *names, **attributes)

    def relu(x: str) -> str:
        return op("Relu", x)

    vectors = op("Gather", CODEBOOK, CODES)  # (N, 16, depth)
    x = op("Reshape", op("Transpose", vectors, perm=[0, 2, 1]), "grid")
    x = relu(layer("Conv", x, "0"))
    for number in RESIDUALS:
        inner = relu(layer("Conv", x, f"{number}.net.0", pads=[1] * 4))
        inner = relu(layer("Conv", inner, f"{number}.net.2", pads=[1] * 4))
        x = op("Add", x, layer("Conv", inner, f"{number}.net.4"))
    for number in UPS:
        x = relu(layer("ConvTranspose", x, str(number), strides=[2, 2], pads=[1] * 4))
    op("Reshape", layer("Conv", x, str(LAST)), "square", to=MASKS)

    shapes = {"grid": (0, -1, side, side), "square": (-1, MASK_SIZE, MASK_SIZE)}
    initializers = [numpy_helper.from_array(arrays[name], name) for name in sorted(used)]
    initializers += [numpy_helper.from_array(np.asarray(shape, np.int64), name) for name, shape in shapes.items()]
    codes = helper.make_tensor_value_info(CODES, TensorProto.INT64, ["masks", MASK_CODES])
    masks = helper.make_tensor_value_info(MASKS, TensorProto.FLOAT, ["masks", MASK_SIZE, MASK_SIZE])
    graph = helper.make_graph(nodes, MASKS, [codes], [masks], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="paligemma")
