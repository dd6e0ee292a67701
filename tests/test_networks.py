"""Whole networks in Flax: JAX's transformations compose, and no relevance is lost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from tests.models.networks import linen_models, nnx_models
from tests.models.networks.flax_models import MODELS

COMPOSITES = {
    "AttnLRP": composites.AttnLRP(),
    "Epsilon": composites.Epsilon(),
    "EpsilonPlus": composites.EpsilonPlus(),
    "EpsilonPlusFlat": composites.EpsilonPlusFlat(),
    "EpsilonGammaBox": composites.EpsilonGammaBox(-4.0, 4.0),
}
# All networks with AttnLRP; those of ReLU and convolutions with the others too.
PAIRS = [(name, "AttnLRP") for name in MODELS] + [
    (f"{framework}.{name}", composite)
    for framework in ("linen", "nnx")
    for name in ("mlp", "vgg", "resnet", "unet")
    for composite in COMPOSITES
    if composite != "AttnLRP"
]


# `jax.nn.dot_product_attention` takes softmax in float32 whatever the dtype.
FLOAT32_INSIDE = ("nnx.vit", "nnx.bert", "nnx.llama", "nnx.scanned")


@functools.cache
def network(name: str):
    return MODELS[name](jnp.float32)


@functools.cache
def explainer(name: str, composite: str):
    """Value and relevance of a network, compiled."""
    apply, _, _ = network(name)
    return jax.jit(jaxlrp.value_and_lrp(apply, COMPOSITES[composite]))


def assert_close(value, expected, tolerance=1e-5):
    """Largest difference, relative to the largest entry."""
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    assert np.abs(value - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize(("name", "composite"), PAIRS)
def test_relevance_is_like_the_input(name, composite):
    apply, params, x = network(name)
    value, relevance = explainer(name, composite)(params, x)
    assert_close(value, jax.jit(apply)(params, x))
    assert relevance.shape == x.shape
    assert relevance.dtype == x.dtype
    assert np.isfinite(relevance).all()
    assert np.abs(relevance).max() > 0


@pytest.mark.parametrize("name", MODELS)
def test_jit_equals_eager(name):
    apply, params, x = network(name)
    eager = jaxlrp.lrp(apply, COMPOSITES["AttnLRP"])(params, x)
    assert_close(explainer(name, "AttnLRP")(params, x)[1], eager)


@pytest.mark.parametrize(
    ("name", "composite"),
    [
        *((name, "AttnLRP") for name in MODELS),
        ("linen.resnet", "EpsilonPlusFlat"),
        ("nnx.unet", "EpsilonGammaBox"),
    ],
)
def test_vmap_equals_loop(name, composite):
    # A slope y / x near zero makes much of float32's rounding, a GRU has many.
    wide = name == "linen.gru"
    with jax.enable_x64(wide):
        if wide:
            apply, params, x = MODELS[name](jnp.float64)
            explain = jax.jit(jaxlrp.value_and_lrp(apply, COMPOSITES[composite]))
        else:
            _, params, x = network(name)
            explain = explainer(name, composite)
        assert_mapped(explain, params, x)


def assert_mapped(explain, params, x):
    loop = jnp.concatenate([explain(params, row[None])[1] for row in x])
    mapped = jax.vmap(explain, in_axes=(None, 0))(params, x[:, None])[1][:, 0]
    assert_close(mapped, loop)
    assert_close(explain(params, x)[1], loop)


@pytest.mark.parametrize(
    ("name", "composite", "dtype"),
    [
        *((*pair, "float64") for pair in PAIRS),
        *((name, "AttnLRP", "float32") for name in MODELS if name[:3] != "nnx"),
    ],
)
def test_parts_sum_to_the_whole(name, composite, dtype):
    with jax.enable_x64(dtype == "float64"):
        apply, params, x = MODELS[name](jnp.dtype(dtype))
        audit = jaxlrp.audit(apply, COMPOSITES[composite])(params, x)
    parts = [audit.total_in, *audit.absorbed.values()]
    size = sum(map(abs, parts))
    assert size > 0
    exact = 1e-7 if name in FLOAT32_INSIDE else 1e-10
    tolerance = 1e-5 if dtype == "float32" else exact
    assert abs(sum(parts) - audit.total_out) <= tolerance * size


PIECEWISE_LINEAR = {
    "linen.mlp": lambda dtype: linen_models.mlp(dtype, bias=False),
    "linen.vgg": lambda dtype: linen_models.vgg(dtype, bias=False),
    "linen.unet": lambda dtype: linen_models.unet(dtype, bias=False),
    "linen.resnet": linen_models.resnet,
    "nnx.mlp": lambda dtype: nnx_models.mlp(dtype, bias=False),
    "nnx.unet": lambda dtype: nnx_models.unet(dtype, bias=False),
    "nnx.vgg": nnx_models.vgg,
    "nnx.resnet": nnx_models.resnet,
}


@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_lrp0_is_gradient_times_input(name):
    """Of a ReLU network; a bias takes its share in both."""
    with jax.enable_x64(True):
        apply, params, x = PIECEWISE_LINEAR[name](jnp.float64)
        explain = jax.jit(jaxlrp.lrp(apply, composites.Uniform(rules.LRP0())))
        gradient = jax.grad(lambda x: apply(params, x).max(-1).sum())(x)
        assert_close(explain(params, x), x * gradient, 1e-10)


@pytest.mark.parametrize("name", ["linen.mlp", "linen.vgg", "nnx.mlp"])
def test_without_biases_all_relevance_arrives(name):
    with jax.enable_x64(True):
        apply, params, x = PIECEWISE_LINEAR[name](jnp.float64)
        explain = jaxlrp.value_and_lrp(apply, composites.Uniform(rules.LRP0()))
        value, relevance = jax.jit(explain)(params, x)
        axes = tuple(range(1, x.ndim))
        assert_close(relevance.sum(axes), value.max(-1), 1e-10)


def test_scanned_layers_equal_the_same_layers_written_out():
    explain = [
        jax.jit(jaxlrp.lrp(apply, COMPOSITES["AttnLRP"]))(params, x)
        for apply, params, x in (linen_models.scanned(), linen_models.unrolled())
    ]
    assert_close(*explain)


@pytest.mark.always
@pytest.mark.parametrize("name", ["linen.bert", "nnx.bert"])
def test_padding_gets_no_relevance(name):
    _, params, x = network(name)
    _, relevance = explainer(name, "AttnLRP")(params, x)
    assert (np.asarray(relevance[:, -1]) == 0).all()
    assert (np.abs(np.asarray(relevance[:, :-1])).max((1, 2)) > 0).all()
