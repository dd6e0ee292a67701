"""Relevance in every floating dtype: its own dtype, finite, close to float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

rng = np.random.default_rng(0)
# How far off a few layers may be, relative to the largest relevance.
TOLERANCES = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-5, "float64": 1e-12}
each_dtype = pytest.mark.parametrize("dtype", TOLERANCES)


def dense(params, x):
    h = jax.nn.relu(x @ params["u"] + params["b"])
    return jax.nn.relu(h @ params["v"]) @ params["w"]


def attention(params, x):
    q, k, v = (jax.nn.silu(x @ params[name]) for name in "uvw")
    h = x + jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v
    centred = h - h.mean(-1, keepdims=True)
    return centred * lax.rsqrt((centred**2).mean(-1, keepdims=True) + 0.1)


# Positive inputs and mostly positive weights, so that sums cancel little and
# rounding shows as rounding.
PARAMS = {name: rng.uniform(-0.2, 1.0, size=(4, 4)) for name in "uvw"}
PARAMS["b"] = rng.uniform(0.0, 0.2, size=4)
X = rng.uniform(0.1, 1.0, size=(3, 4))
COMPOSITES = {
    "Default": None,
    "LRP0": composites.AttnLRP(),
    "Epsilon": composites.Epsilon(),
    "ZPlus": composites.Uniform(rules.ZPlus()),
    "Gamma": composites.Uniform(rules.Gamma()),
    "GeneralizedGamma": composites.Uniform(rules.GeneralizedGamma()),
    "AlphaBeta": composites.Uniform(rules.AlphaBeta(1.5, 0.5)),
    "WSquare": composites.Uniform(rules.WSquare()),
    "Flat": composites.Uniform(rules.Flat()),
    "ZBox": composites.Uniform(rules.LRP0()).on(
        "layer", rules.ZBox(-2.0, 2.0), first=True
    ),
}


def explained(f, composite, dtype):
    with jax.enable_x64(dtype == "float64"):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        params, x = jax.tree.map(cast, (PARAMS, X))
        explain = jaxlrp.value_and_lrp(f, COMPOSITES[composite], target=0)
        value, relevance = jax.jit(explain)(params, x)
        assert value.dtype == dtype
        assert relevance.dtype == dtype and relevance.shape == x.shape
        return np.asarray(relevance, np.float64)


reference = functools.cache(functools.partial(explained, dtype="float64"))


@pytest.mark.parametrize("dtype", [d for d in TOLERANCES if d != "float64"])
@pytest.mark.parametrize("composite", COMPOSITES)
def test_low_precision_is_close_to_float64(composite, dtype):
    expected = reference(dense, composite)
    relevance = explained(dense, composite, dtype)
    assert np.isfinite(relevance).all()
    error = np.abs(relevance - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", [d for d in TOLERANCES if d != "float64"])
@pytest.mark.parametrize("composite", ["Default", "LRP0", "Epsilon"])
def test_softmax_and_normalisers_in_low_precision(composite, dtype):
    expected = reference(attention, composite)
    relevance = explained(attention, composite, dtype)
    assert np.isfinite(relevance).all()
    error = np.abs(relevance - expected).max() / np.abs(expected).max()
    assert error <= 3 * TOLERANCES[dtype]


@each_dtype
@pytest.mark.parametrize("composite", COMPOSITES)
def test_zeros_and_units_without_positive_share_stay_finite(composite, dtype):
    """All contributions negative: a share of nothing, with `1e-6` to divide by."""
    with jax.enable_x64(dtype == "float64"):
        w = jnp.asarray([[2.0, -3.0], [4.0, -1.0]], dtype)

        def f(x):
            return jax.nn.relu(x @ w) @ -w + jnp.asarray(30.0, dtype)

        x = jnp.asarray([[0.0, 0.0], [-1.0, -2.0], [1.0, 2.0], [1e-3, 0.0]], dtype)
        relevance = jaxlrp.lrp(f, COMPOSITES[composite])(x)
    assert relevance.dtype == dtype
    assert np.isfinite(np.asarray(relevance, np.float64)).all()


@each_dtype
@pytest.mark.parametrize(
    "phi", [jax.nn.sigmoid, jnp.cos, jax.nn.silu, jnp.tanh, jnp.sqrt]
)
def test_activations_near_zero_stay_finite(phi, dtype):
    """`phi(x) / x` may leave the range of the dtype; what it multiplies must not."""
    with jax.enable_x64(dtype == "float64"):
        tiny = float(jnp.finfo(dtype).tiny)
        x = jnp.asarray([0.0, tiny, 1e-6, 1e-3, 1.0], dtype)
        relevance = jax.jit(jaxlrp.lrp(phi, target="all"))(x)
    assert np.isfinite(np.asarray(relevance, np.float64)).all()


@pytest.mark.parametrize("composite", ["Default", "ZPlus", "Flat"])
def test_a_layer_in_low_precision_between_float32(composite):
    def f(params, x):
        h = x.astype(jnp.bfloat16) @ params["u"].astype(jnp.bfloat16)
        return jax.nn.relu(h.astype(jnp.float32) + params["b"]) @ params["w"]

    def wide(params, x):
        return jax.nn.relu(x @ params["u"] + params["b"]) @ params["w"]

    relevance = explained(f, composite, "float32")
    expected = reference(wide, composite)
    error = np.abs(relevance - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCES["bfloat16"]


def test_arguments_of_different_dtypes_keep_their_own():
    a, b = jnp.ones((2, 3), jnp.bfloat16), jnp.ones(3, jnp.float32)
    on_a, on_b = jaxlrp.lrp(lambda a, b: a * b, argnums=(0, 1), target="all")(a, b)
    assert on_a.dtype == jnp.bfloat16 and on_b.dtype == jnp.float32


def test_weak_types_do_not_widen():
    relevance = jaxlrp.lrp(lambda x: 2.0 * x + 1, target="all")(
        jnp.ones(3, jnp.float16)
    )
    assert relevance.dtype == jnp.float16


# ---- LRP-0 and conservation --------------------------------------------------------


def piecewise_linear(params, x):
    """Convolution, max pooling, a residual, a mean: no biases."""
    y = jax.nn.relu(lax.conv_general_dilated(x, params["k"], (1,), "SAME"))
    y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 1, 2), (1, 1, 2), "VALID")
    y = y + jax.nn.leaky_relu(
        lax.conv_general_dilated(y, params["l"], (1,), "SAME"), 0.1
    )
    return jnp.maximum(y.mean(-1), 0) @ params["w"]


CONVOLUTIONAL = {
    "k": rng.normal(size=(4, 2, 3)),
    "l": rng.normal(size=(4, 4, 3)),
    "w": rng.normal(size=(4, 5)),
}
IMAGE = rng.normal(size=(3, 2, 8))


@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 2e-6), ("float64", 1e-14)])
def test_lrp0_without_biases_is_gradient_times_input_to_rounding(dtype, rounding):
    with jax.enable_x64(dtype == "float64"):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        params, x = jax.tree.map(cast, (CONVOLUTIONAL, IMAGE))
        explain = jax.jit(jaxlrp.lrp(piecewise_linear, composites.AttnLRP(), target=2))
        gradient = jax.jit(jax.grad(lambda x: piecewise_linear(params, x)[:, 2].sum()))
        relevance, expected = explain(params, x), x * gradient(x)
    assert np.abs(expected).max() > 0
    assert np.abs(relevance - expected).max() <= rounding * np.abs(expected).max()


# Where nothing is absorbed but by the stabiliser, which is made small.
CONSERVING = {
    "LRP0": (composites.Uniform(rules.LRP0()), IMAGE),
    "Epsilon": (composites.Uniform(rules.Epsilon(0.0)), IMAGE),
    "relative Epsilon": (composites.Uniform(rules.Epsilon(0.0, relative=True)), IMAGE),
    "zennit's Epsilon": (
        composites.Epsilon(0.0)
        .on("sum", rules.Norm(0.0))
        .on("average", rules.Norm(0.0)),
        IMAGE,
    ),
    # Every unit that is positive has a positive share.
    "ZPlus": (composites.Uniform(rules.ZPlus(0.0)), IMAGE),
    "GeneralizedGamma": (
        composites.Uniform(rules.GeneralizedGamma(0.5, epsilon=0.0)),
        IMAGE,
    ),
    "Flat first": (
        composites.Uniform(rules.LRP0()).on("layer", rules.Flat(0.0), first=True),
        IMAGE,
    ),
    "ZBox first": (
        composites.Uniform(rules.LRP0()).on(
            "layer", rules.ZBox(-5.0, 5.0, epsilon=0.0), first=True
        ),
        IMAGE,
    ),
    "WSquare first": (
        composites.Uniform(rules.LRP0()).on("layer", rules.WSquare(0.0), first=True),
        IMAGE,
    ),
}


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)]
)
@pytest.mark.parametrize("name", CONSERVING)
def test_relevance_is_conserved_where_a_rule_promises_it(name, dtype, tolerance):
    composite, image = CONSERVING[name]
    with jax.enable_x64(dtype == "float64"):
        cast = functools.partial(jnp.asarray, dtype=dtype)
        params, x = jax.tree.map(cast, (CONVOLUTIONAL, image))
        explain = jax.jit(jaxlrp.value_and_lrp(piecewise_linear, composite))
        value, relevance = explain(params, x)
    total = np.asarray(relevance).sum((1, 2), dtype=np.float64)
    size = np.abs(relevance).sum((1, 2), dtype=np.float64)
    assert (np.abs(total - np.asarray(value).max(-1)) <= tolerance * size).all()
