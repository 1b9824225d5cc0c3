"""`python -m bench.edge_peers`: the decoder's MLP matrices in the runtimes that a pack might have been built on, beside our kernels.

Twelve matrices of each shape, with 8 bits and with 4, one row and 264 rows, in turns: our kernels; ONNX Runtime's MatMulNBits (8-bit
activations, `accuracy_level` 4); OpenVINO's products with compressed weights and dynamic quantization. All on the same threads.
Needs `pip install onnx onnxruntime openvino`; a runtime that is not installed is left out.
"""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from paligemma.benchmark.limits import byte_products, memory_read
from paligemma.edge.native import Kernels
from paligemma.edge.packing import Bits, pack

from .edge_kernels import MATRICES, ROWS, SHAPES
from .worker import THREADS

GROUP = 128
TURNS = 9
PAUSE = 0.2
"""Seconds before a turn: threads of the engine before it wait for more work for a while without sleeping, and take a core meanwhile."""
Product = Callable[[np.ndarray], object]
"""x (rows, inputs) -> the products with all matrices."""


def ours(inputs: int, outputs: int, bits: Bits) -> Product:
    rng, kernels = np.random.default_rng(0), Kernels(THREADS)
    made = []
    for _ in range(MATRICES):
        values = rng.integers(-7, 8, (outputs, inputs), np.int8)
        shape, kind = ((outputs,), np.float32) if bits == 8 else ((outputs, inputs // GROUP), np.float16)
        made.append(pack(values, np.full(shape, 0.01, kind), bits, None if bits == 8 else GROUP))
    return lambda x: [kernels.linear(one, x) for one in made]


def onnx_runtime(inputs: int, outputs: int, bits: Bits) -> Product:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng, blocks = np.random.default_rng(0), inputs // GROUP
    nodes, weights, results = [], [], []
    for i in range(MATRICES):
        packed = rng.integers(0, 256, (outputs, blocks, GROUP * bits // 8), np.uint8)
        weights.append(numpy_helper.from_array(packed, f"w{i}"))
        weights.append(numpy_helper.from_array(np.full(outputs * blocks, 0.01, np.float32), f"s{i}"))
        more = {"K": inputs, "N": outputs, "bits": bits, "block_size": GROUP, "accuracy_level": 4}
        nodes.append(helper.make_node("MatMulNBits", ["x", f"w{i}", f"s{i}"], [f"y{i}"], domain="com.microsoft", **more))
        results.append(helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["rows", outputs]))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])], results, weights)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(onnx.ModelProto.SerializeToString(model), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})


def openvino(inputs: int, outputs: int, bits: Bits) -> Product:
    import openvino as ov
    from openvino import opset13 as op

    rng = np.random.default_rng(0)
    x = op.parameter([-1, inputs], np.float32, name="x")
    results = []
    numbers: list[np.ndarray] = []  # tensors look into them
    for _ in range(MATRICES):
        if bits == 8:
            weights = op.constant(rng.integers(-127, 128, (outputs, inputs), np.int8))
            scaled = op.multiply(op.convert(weights, "f32"), op.constant(np.full((outputs, 1), 0.01, np.float32)))
        else:
            shape = [outputs, inputs // GROUP, GROUP]
            numbers.append(rng.integers(0, 256, outputs * inputs // 2, np.uint8))
            packed = ov.Tensor(numbers[-1], shape, ov.Type.i4)
            scales = op.constant(np.full((outputs, inputs // GROUP, 1), 0.01, np.float32))
            grouped = op.multiply(op.convert(op.constant(packed, shared_memory=True), "f32"), scales)
            scaled = op.reshape(grouped, np.asarray([outputs, inputs]), special_zero=False)
        results.append(op.matmul(x, scaled, False, True))
    model = ov.Model(results, [x])
    hints = {
        "INFERENCE_NUM_THREADS": THREADS, "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
    }  # fmt: skip
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
    return lambda x, _kept=numbers: request.infer({0: x}, share_inputs=True, share_outputs=True)


ENGINES: dict[str, tuple[str, Callable[[int, int, Bits], Product]]] = {
    "ours": ("paligemma", ours),
    "ONNX Runtime": ("onnxruntime", onnx_runtime),
    "OpenVINO": ("openvino", openvino),
}


def timed(products: dict[str, Product], x: np.ndarray) -> Iterator[tuple[str, float]]:
    """Median seconds of a matrix, of turns after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in products}
    for turn in range(TURNS + 1):
        for name, product in products.items():
            time.sleep(PAUSE)
            start = time.perf_counter()
            product(x)
            if turn:
                seconds[name].append((time.perf_counter() - start) / MATRICES)
    return ((name, statistics.median(values)) for name, values in seconds.items())


def main() -> None:
    present = {name: make for name, (package, make) in ENGINES.items() if importlib.util.find_spec(package)}
    kernels = Kernels(THREADS)
    read, most = memory_read(kernels), byte_products(kernels)
    print(f"{kernels.isa}, {THREADS} threads: memory read {read / 1e9:.1f} GB/s, products of bytes {most / 1e9:.0f} GFLOP/s\n")
    print(f"| in x out | bits | engine | 1 row, G weights/s | {ROWS} rows, GFLOP/s |\n|---|---|---|---|---|")
    bits: tuple[Bits, ...] = (8, 4)
    for (inputs, outputs), count in itertools.product(SHAPES, bits):
        products = {name: make(inputs, outputs, count) for name, make in present.items()}
        x = np.random.default_rng(1).standard_normal((ROWS, inputs), np.float32)
        one, many = dict(timed(products, x[:1])), dict(timed(products, x))
        for name in products:
            weights = inputs * outputs / 1e9
            cells = [f"{inputs} x {outputs}", str(count), name, f"{weights / one[name]:.1f}", f"{2 * ROWS * weights / many[name]:.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
