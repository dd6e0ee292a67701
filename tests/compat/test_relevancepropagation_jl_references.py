"""RelevancePropagation.jl's own reference files: its rules, a CNN, concepts.

Inputs and weights are streams of Julia's StableRNG(123). The normals are read from the
reference of a flattening layer, which gives its input back, the uniforms are made here.
Julia's axes are the other way round: its (6, 6, 3, 2) is (2, 3, 6, 6) here.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import concepts
from jaxlrp.compat import relevancepropagation_jl as julia
from jaxlrp.composites import Composite
from tests.models.networks import golden

ARRAYS = golden.arrays("relevancepropagation_jl")
# Computed in float32.
FLOAT32 = 1e-6
# The inputs do not lie in the box [0, 1]. A denominator all but cancels.
TOLERANCES = {("ZBoxRule", "Conv"): 5e-5}

RULES = {
    "ZeroRule": julia.ZeroRule(),
    "EpsilonRule": julia.EpsilonRule(),
    "GammaRule": julia.GammaRule(),
    "ZBoxRule": julia.ZBoxRule(0.0, 1.0),
    "AlphaBetaRule": julia.AlphaBetaRule(2.0, 1.0),
    "WSquareRule": julia.WSquareRule(),
    "FlatRule": julia.FlatRule(),
    "ZPlusRule": julia.ZPlusRule(),
    "GeneralizedGammaRule": julia.GeneralizedGammaRule(),
    # For a layer norm; on a layer it falls back to the zero rule.
    "LayerNormRule": julia.ZeroRule(),
}


def normal(*shape):
    """The first of the stream, `shape` in Julia's order."""
    stream = np.float64(ARRAYS["EpsilonRule.flatten"]).ravel()
    return stream[: math.prod(shape)].reshape(shape[::-1])


def conv(x, w, groups=1, padding="VALID"):
    """NNlib's convolution flips the kernel."""
    dims = ("NCHW", "OIHW", "NCHW")
    w = w[:, :, ::-1, ::-1]
    return lax.conv_general_dilated(
        x, w, (1, 1), padding, feature_group_count=groups, dimension_numbers=dims
    )


def pool(x, size, kind):
    window = (1, 1, size, size)
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / size**2


def scaled(x, w, b):
    """A `Scale`: each output has one input."""
    pixels = conv(x[:, :, None, None], w[:, None, None, None], groups=4)
    return (pixels + b[:, None, None])[..., 0, 0]


DENSE, BIAS = normal(3, 4), normal(3)
KERNEL, CHANNELS = normal(3, 3, 3, 4), normal(4)
LAYERS = {
    "Dense_relu": lambda x: jax.nn.relu(x @ DENSE + BIAS),
    "Dense_identity": lambda x: x @ np.eye(4, 3),
    "Scale_relu": lambda x: jax.nn.relu(scaled(x, CHANNELS, CHANNELS)),
    "Scale_identity": lambda x: scaled(x, np.ones(4), np.zeros(4)),
    "Conv": lambda x: conv(x, KERNEL) + CHANNELS[:, None, None],
    "Conv_relu": lambda x: jax.nn.relu(conv(x, KERNEL) + CHANNELS[:, None, None]),
    "MaxPool": lambda x: pool(x, 3, "max"),
    "MeanPool": lambda x: pool(x, 3, "mean"),
    "GlobalMaxPool": lambda x: x.max((2, 3), keepdims=True),
    "GlobalMeanPool": lambda x: x.mean((2, 3), keepdims=True),
    "flatten": lambda x: x.reshape(2, -1),
    "Dropout": lambda x: x,
}


def test_every_array_is_compared():
    rules = {key.split(".")[0] for key in ARRAYS}
    assert rules == {*RULES, "cnn"}
    layers = {key.split(".")[1] for key in ARRAYS if not key.startswith("cnn.")}
    assert layers == set(LAYERS)


@pytest.mark.always
@pytest.mark.parametrize("name", RULES)
def test_rule_gives_the_references(name):
    composite = Composite("rule").on("layer", RULES[name])
    if f"{name}.MeanPool" in ARRAYS:
        composite = composite.on("average", RULES[name])
    layers = [layer for layer in LAYERS if f"{name}.{layer}" in ARRAYS]
    assert len(layers) >= 6

    @jax.jit
    def every(vectors, images):
        explain = {
            key: jaxlrp.lrp(LAYERS[key], composite, target="all") for key in layers
        }
        flat = ("Dense", "Scale")
        return {
            key: f(vectors if key.startswith(flat) else images)
            for key, f in explain.items()
        }

    with jax.enable_x64(True):
        found = every(normal(4, 2), normal(6, 6, 3, 2))
    for layer, value in found.items():
        expected = ARRAYS[f"{name}.{layer}"]
        tolerance = TOLERANCES.get((name, layer), FLOAT32)
        error = np.abs(np.asarray(value) - expected).max() / np.abs(expected).max()
        assert error <= tolerance, layer


# The CNN

# Six layers in float32, with quotients of what is small beside its terms: here, too,
# float32 is up to 7e-6 off, and channels' parts of a map are smaller than the map.
ROUNDING = 5e-5


@functools.cache
def uniforms():
    """Float32 in [0, 1) of StableRNG(123)."""
    count = 512 * 1024
    state, out = (123 << 1) | 1, np.empty(count, np.uint32)
    mask, factor = (1 << 128) - 1, 0x45A31EFC5A35D971261FD0407A968ADD
    for i in range(count):
        state = state * factor & mask
        out[i] = (state >> 64) & 0x7FFFFF
    return (out | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)


def uniform(*shape):
    return uniforms()[: math.prod(shape)].reshape(shape[::-1])


def glorot(*shape):
    """Flux's `glorot_uniform`."""
    field = math.prod(shape[:-2])
    fans = np.float32(24.0 / (field * shape[-2] + field * shape[-1]))
    return np.float64((uniform(*shape) - np.float32(0.5)) * np.sqrt(fans))


SHAPES = (
    (3, 3, 3, 8),
    (3, 3, 8, 8),
    (3, 3, 8, 16),
    (3, 3, 16, 16),
    (512, 1024),
    (100, 512),
)


def halved(x):
    """NNlib's max pooling by 2.

    Its gradient goes to the first of a window that is *nearly* the largest, `x ≈ y` in
    Julia: one window of this network has two such.
    """
    n, c, h, w = x.shape
    windows = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5)
    windows = windows.reshape(n, c, h // 2, w // 2, 4)
    given = lax.stop_gradient(windows)
    top = given.max(-1, keepdims=True)
    near = abs(given - top) <= np.sqrt(np.finfo(np.float32).eps) * abs(top)
    return jnp.take_along_axis(windows, near.argmax(-1)[..., None], -1)[..., 0]


def cnn(params, x):
    for i in range(4):
        x = jax.nn.relu(conv(x, params[i], padding="SAME"))
        if i == 3:
            x = checkpoint_name(x, "conv4")
        if i % 2:
            x = halved(x)
    x = x.reshape(x.shape[0], -1)
    return jax.nn.relu(jax.nn.relu(x @ params[4]) @ params[5])


def seed(kind, y):
    """A one at the highest score, or at the first."""
    at = y.argmax(-1) if kind == "max" else jnp.zeros(1, int)
    return jax.nn.one_hot(at, y.shape[-1], dtype=y.dtype)


PRESETS = {
    "LRPZero": Composite("zero").on("layer", julia.ZeroRule()),
    "LRPEpsilonAlpha2Beta1Flat": julia.EpsilonAlpha2Beta1Flat(),
}


@pytest.fixture(scope="module")
def network():
    params = [glorot(*shape) for shape in SHAPES]
    return params, np.float64(uniform(32, 32, 3, 1))


@pytest.mark.parametrize("name", PRESETS)
def test_preset_explains_the_network(name, network):
    @jax.jit
    def explain(params, image):
        out, pull = jaxlrp.relprop(
            cnn, params, image, composite=PRESETS[name], argnums=1
        )
        return {kind: pull(seed(kind, out)) for kind in ("max", "ns1")}

    with jax.enable_x64(True):
        found = explain(*network)
    for kind, value in found.items():
        expected = ARRAYS[f"cnn.{name}_{kind}"]
        assert (
            np.abs(np.asarray(value) - expected).max()
            <= ROUNDING * np.abs(expected).max()
        )


@pytest.mark.parametrize("kind", ["max", "ns1"])
def test_concepts_of_the_network(kind, network):
    """The maps of the two channels that have most relevance."""
    of = {"composite": julia.EpsilonPlus(), "site": "conv4", "axis": 1}
    target = functools.partial(seed, kind)

    @jax.jit
    def explain(params, image):
        given = params, image
        channels = concepts.channel_relevance(cnn, **of, target=target)(*given)
        top = jnp.argsort(channels.ravel())[::-1][:2]
        return concepts.heatmaps(cnn, **of, channels=top, target=target)(*given)

    with jax.enable_x64(True):
        found = explain(*network)
    expected = ARRAYS[f"cnn.CRP_{kind}"]
    value = np.asarray(found).reshape(expected.shape)
    assert np.abs(value - expected).max() <= ROUNDING * np.abs(expected).max()
