"""An ONNX graph put together node by node, with the layers that both towers are made of.

Axes: T tokens or patches, N outputs, K inputs. There is no batch: a page asks about one picture at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ..checkpoint.opening import Weights
from ..errors import CheckpointError
from . import blocks
from .blocks import Floats
from .data_files import DataFiles, Place, tensor_at

OPSET, IR_VERSION = 20, 10
"""What ONNX Runtime Web of `runtime.VERSION` reads, and older ones too."""
MICROSOFT = "com.microsoft"
"""ONNX Runtime's own operators."""
READ = 2**23
"""Weights that are read at once."""
Bits = Literal[32, 8, 4]
"""Of a weight; 32: float32."""
Size = int | str
"""Of an axis: a number, or a name where it differs from call to call."""


@dataclass(frozen=True)
class Matrix:
    """Where a matrix, or some rows of it, lie. `scales`: of blocks of few bits."""

    shape: tuple[int, int]
    weights: Place
    scales: Place | None


class Graph:
    """`weights`: of the checkpoint. `progress`: called with the bytes of each matrix once it is written."""

    def __init__(self, name: str, weights: Weights, files: DataFiles, progress: Callable[[int], None]):
        self.name, self._weights, self._files, self._progress = name, weights, files, progress
        self._nodes: list[Any] = []
        self._initializers: list[TensorProto] = []
        self._constants: dict[tuple[Any, ...], str] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(self, name: str, *shape: Size, kind: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, value: str, *shape: Size) -> None:
        """`value`: what it is; a node of that name is the output itself."""
        if value != name:
            self.op("Identity", value, to=name)
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def op(self, kind: str, *inputs: str, to: str | None = None, domain: str = "", **attributes: Any) -> str:
        """A node with one output, whose name is returned."""
        return self.ops(kind, *inputs, count=1, to=to, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, count: int, to: str | None = None, domain: str = "", **attributes: Any) -> list[str]:
        """A node with `count` outputs."""
        at = len(self._nodes)
        names = [to] if to else [f"{kind}_{at}_{i}" for i in range(count)]
        self._nodes.append(helper.make_node(kind, inputs, names, name=f"{kind}_{at}", domain=domain, **attributes))
        return names

    def vector(self, name: str, offset: float = 0.0) -> str:
        """A small array of the checkpoint, kept in the graph itself; `offset` is added to it."""
        return self.array(name, self.read(name) + np.float32(offset))

    def array(self, name: str, values: NDArray[Any]) -> str:
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def number(self, value: float) -> str:
        return self._constant(np.asarray(value, np.float32))

    def numbers(self, *values: int) -> str:
        """Whole numbers, such as a shape."""
        return self._constant(np.asarray(values, np.int64))

    def reshape(self, x: str, *shape: int) -> str:
        """-1: what is left."""
        return self.op("Reshape", x, self.numbers(*shape))

    def read(self, name: str) -> Floats:
        return np.concatenate([piece.reshape(-1) for piece in self._pieces(name, 0, None)]).reshape(self._weights.specs[name].shape)

    # Matrices

    def matrix(self, name: str, bits: Bits, rows: range | None = None) -> Matrix:
        """Writes a matrix of the checkpoint, or some of its rows, into the data files."""
        outputs, inputs = self._weights.specs[name].shape
        rows = range(outputs) if rows is None else rows
        shape = (len(rows), inputs)
        if bits == 32:
            matrix = Matrix(shape, self._files.write(self._pieces(name, rows.start, rows.stop), 4 * len(rows) * inputs), None)
        else:
            block = blocks.block_of(inputs)
            scales: list[Floats] = []

            def numbers() -> Iterator[NDArray[np.uint8]]:
                for piece in self._pieces(name, rows.start, rows.stop):
                    packed, scale = blocks.quantize(piece, bits, block)
                    scales.append(scale)
                    yield packed

            many = len(rows) * blocks.count(inputs, block)
            weights = self._files.write(numbers(), many * block * bits // 8)
            matrix = Matrix(shape, weights, self._files.write(scales, 4 * many))
        self._progress(4 * len(rows) * inputs)
        return matrix

    def linear(self, x: str, name: str, bits: Bits, *, bias: bool = False) -> str:
        """x (T, K) -> (T, N) by the checkpoint's layer of that name."""
        out = self.product(x, f"{name}.weight", self.matrix(f"{name}.weight", bits), bits)
        return self.op("Add", out, self.vector(f"{name}.bias")) if bias else out

    def product(self, x: str, name: str, matrix: Matrix, bits: Bits) -> str:
        """x (T, K) times the transpose of a matrix (N, K). `name`: of its arrays in the graph."""
        outputs, inputs = matrix.shape
        if matrix.scales is None:
            self._initializers.append(tensor_at(name, TensorProto.FLOAT, matrix.shape, matrix.weights))
            return self.op("Gemm", x, name, transB=1)
        block = blocks.block_of(inputs)
        shape = (outputs, blocks.count(inputs, block), block * bits // 8)
        self._initializers.append(tensor_at(name, TensorProto.UINT8, shape, matrix.weights))
        self._initializers.append(tensor_at(f"{name}.scales", TensorProto.FLOAT, (shape[0] * shape[1],), matrix.scales))
        return self.op(
            "MatMulNBits", x, name, f"{name}.scales", domain=MICROSOFT, K=inputs, N=outputs, bits=bits, block_size=block,
            accuracy_level=1,  # sums in float32
        )  # fmt: skip

    def plain(self, name: str) -> str:
        """An array of the checkpoint in float32, in the data files."""
        shape = self._weights.specs[name].shape
        size = 4 * int(np.prod(shape))
        place = self._files.write(self._pieces(name, 0, None), size)
        self._initializers.append(tensor_at(name, TensorProto.FLOAT, shape, place))
        self._progress(size)
        return name

    # Layers

    def attention(self, q: str, k: str, v: str, softcap: float | None = None) -> str:
        """q (heads, T, H), scaled, over k and v (heads, S, H) -> (heads, T, H). Every query sees every key: there is no mask."""
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 2, 1]))
        if softcap is not None:
            scores = self.softcap(scores, softcap)
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def softcap(self, x: str, cap: float) -> str:
        return self.op("Mul", self.op("Tanh", self.op("Div", x, self.number(cap))), self.number(cap))

    def gelu(self, x: str) -> str:
        """The tanh approximation."""
        return self.op("FastGelu", x, domain=MICROSOFT)

    def heads(self, x: str, count: int, size: int) -> str:
        """(T, count * size) -> (count, T, size)."""
        return self.op("Transpose", self.reshape(x, -1, count, size), perm=[1, 0, 2])

    def joined(self, x: str, count: int, size: int) -> str:
        """(count, T, size) -> (T, count * size)."""
        return self.reshape(self.op("Transpose", x, perm=[1, 0, 2]), -1, count * size)

    def proto(self) -> ModelProto:
        graph = helper.make_graph(self._nodes, self.name, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="paligemma")

    def _constant(self, value: NDArray[Any]) -> str:
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = self.array(f"constant_{len(self._constants)}", value)
        return self._constants[key]

    def _pieces(self, name: str, start: int, stop: int | None) -> Iterator[Floats]:
        """The numbers in float32, some rows at a time: (rows, width), or (rows,) of a vector."""
        spec = self._weights.specs[name]
        width = int(np.prod(spec.shape[1:]))
        step = max(1, READ // width)
        for row in range(start, spec.shape[0] if stop is None else stop, step):
            rows = min(step, (spec.shape[0] if stop is None else stop) - row)
            flat = self._weights.floats(name, row * width, rows * width)
            if not np.isfinite(flat).all():
                raise CheckpointError(f"{name} holds values that are no numbers", hint="`paligemma doctor` says more", code="not_finite")
            yield flat.reshape(rows, width)
