"""iNNvestigate's own reference files: 26 analyzers on single layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import attribution
from jaxlrp.compat import innvestigate as inn
from tests.models.networks import golden

LAYERS = (
    "Dense",
    "Dense_relu",
    "Conv2D",
    "Conv2D_relu",
    "AveragePooling2D",
    "MaxPooling2D",
)
WINDOW = (1, 2, 2, 1)
# Their arrays were computed in float32, as these are.
FLOAT32 = 3e-6


def conv(x, kernel):
    dims = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dims)


def model(layer):
    """The layer, and its results as a model's scores."""

    def f(kernel, x):
        kind, _, activation = layer.partition("_")
        if kind == "Dense":
            y = x @ kernel
        elif kind == "Conv2D":
            y = conv(x, kernel)
        elif kind == "MaxPooling2D":
            y = lax.reduce_window(x, -jnp.inf, lax.max, WINDOW, WINDOW, "VALID")
        else:
            y = lax.reduce_window(x, 0.0, lax.add, WINDOW, WINDOW, "VALID") / 4
        y = jax.nn.relu(y) if activation else y
        return y.reshape(y.shape[0], -1)

    return f


ANALYZERS = {
    "LRPZ": inn.LRPZ(),
    "LRPZ_Flat_input_layer_rule": inn.input_layer_rule(inn.LRPZ(), "Flat"),
    "LRPZ_boxed_input_layer_rule": inn.input_layer_rule(inn.LRPZ(), (-10.0, 10.0)),
    "LRPZPlus": inn.LRPZPlus(),
    "LRPZPlusFast": inn.LRPZPlusFast(),
    "LRPAlpha1Beta0": inn.LRPAlpha1Beta0(),
    "LRPAlpha1Beta0IgnoreBias": inn.LRPAlpha1Beta0IgnoreBias(),
    "LRPAlpha2Beta1": inn.LRPAlpha2Beta1(),
    "LRPAlpha2Beta1IgnoreBias": inn.LRPAlpha2Beta1IgnoreBias(),
    "LRPEpsilon": inn.LRPEpsilon(),
    "LRPEpsilonIgnoreBias": inn.LRPEpsilonIgnoreBias(),
    "LRPZIgnoreBias": inn.LRPZIgnoreBias(),
    "LRPFlat": inn.LRPFlat(),
    "LRPWSquare": inn.LRPWSquare(),
    "LRPSequentialPresetA": inn.LRPSequentialPresetA(),
    "LRPSequentialPresetB": inn.LRPSequentialPresetB(),
    "LRPSequentialPresetAFlat": inn.LRPSequentialPresetAFlat(),
    "LRPSequentialPresetBFlat": inn.LRPSequentialPresetBFlat(),
    "DeepTaylor": inn.DeepTaylor(),
    "BoundedDeepTaylor": inn.BoundedDeepTaylor(-128.0, 128.0),
    "Deconvnet": inn.Deconvnet(),
    "GuidedBackprop": inn.GuidedBackprop(),
}


def gradients(f):
    """What is no relevance, by iNNvestigate's names."""
    return {
        "Gradient": attribution.gradient(f),
        "InputTimesGradient": attribution.gradient_x_input(f),
        "IntegratedGradients": attribution.integrated_gradients(
            f, steps=64, quadrature="left"
        ),
        "SmoothGrad": attribution.smoothgrad(
            f, jax.random.key(0), samples=64, sigma=1.0, relative=False
        ),
    }


def explained(name, f):
    if name not in ANALYZERS:
        return gradients(f)[name]
    if "DeepTaylor" in name:  # it puts a ReLU behind the output
        return jaxlrp.lrp(lambda p, x: jax.nn.relu(f(p, x)), ANALYZERS[name])
    return jaxlrp.lrp(f, ANALYZERS[name])


def kernels(name):
    arrays = golden.arrays("innvestigate")
    return (*arrays[f"{name}.dense"], *arrays[f"{name}.conv"], None, None)


def test_every_analyzer_is_compared():
    files = {k.split(".")[0] for k in golden.arrays("innvestigate") if "." in k}
    assert files == {*ANALYZERS, *gradients(lambda p, x: x)}
    assert len(files) == 26


@pytest.mark.always
@pytest.mark.parametrize("name", [*ANALYZERS, *gradients(lambda p, x: x)])
def test_analyzer_gives_the_references(name):
    arrays = golden.arrays("innvestigate")

    @jax.jit
    def every(kernels, x):
        pairs = zip(LAYERS, kernels, strict=True)
        return [explained(name, model(layer))(kernel, x) for layer, kernel in pairs]

    found = every(kernels(name), arrays["x"])
    for layer, value, expected in zip(LAYERS, found, arrays[f"{name}.R"], strict=True):
        # Noise of another generator: as far off as iNNvestigate's own test lets it be.
        rtol, atol = (0.25, 0.2) if name == "SmoothGrad" else (0, FLOAT32)
        atol = atol if rtol else atol * np.abs(expected).max()
        np.testing.assert_allclose(value, expected, rtol=rtol, atol=atol, err_msg=layer)
