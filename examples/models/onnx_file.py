import jax
import numpy as np
import onnx
import torchax
from onnx import helper, numpy_helper
from onnx2torch import convert

import jaxlrp
from jaxlrp import composites

# In your own program: graph = onnx.load("network.onnx").
rng = np.random.default_rng(0)
weights = {
    "w1": rng.normal(size=(4, 8)).astype(np.float32),
    "b1": np.zeros(8, np.float32),
    "w2": rng.normal(size=(8, 3)).astype(np.float32),
    "b2": np.zeros(3, np.float32),
}
graph = helper.make_model(
    helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
            helper.make_node("Relu", ["h"], ["a"]),
            helper.make_node("Gemm", ["a", "w2", "b2"], ["y"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    ),
    opset_imports=[helper.make_opsetid("", 17)],
)

module = convert(graph).eval()  # ONNX to PyTorch, then to JAX
params, apply = torchax.extract_jax(module)
x = jax.random.normal(jax.random.key(0), (4, 4))


def scores(params, x):
    return apply(params, (x,))


explain = jax.jit(jaxlrp.value_and_lrp(scores, composites.EpsilonPlus()))
value, relevance = explain(params, x)
