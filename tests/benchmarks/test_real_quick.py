"""Convolutions of single channels become shifted products, and are the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from benchmarks.real.quick import quick
from jaxlrp import composites

NHWC = ("NHWC", "HWIO", "NHWC")


def random(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape), "f4")


def convolutions(f, *args):
    """How many groups the convolutions of a function have."""
    text = str(jax.make_jaxpr(f)(*args))
    return [int(part.split()[0]) for part in text.split("feature_group_count=")[1:]]


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": "SAME"},
        {"padding": "VALID"},
        {"padding": "SAME", "strides": 2},
        {"padding": ((3, 1), (0, 2)), "strides": 3},
        {"padding": ((2, -1), (1, 1)), "lhs_dilation": (2, 3)},
    ],
)
def test_convolutions_of_channels_are_the_same(size, kernel, options):
    options = dict(options)
    stride = options.pop("strides", 1)
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(stride, stride),
        dimension_numbers=NHWC,
        feature_group_count=5,
        **options,
    )
    x, k = random(2, size, size + 2, 5), random(kernel, kernel, 1, 5)
    assert convolutions(convolve, x, k) == [5]
    assert convolutions(quick(convolve), x, k) == []
    np.testing.assert_allclose(quick(convolve)(x, k), convolve(x, k), atol=1e-5)


def test_axes_may_have_another_order():
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(2, 1),
        padding="SAME",
        dimension_numbers=("NCHW", "OIHW", "HWNC"),
        feature_group_count=5,
    )
    x, k = random(2, 5, 8, 6), random(5, 1, 3, 2)
    assert convolutions(quick(convolve), x, k) == []
    np.testing.assert_allclose(quick(convolve)(x, k), convolve(x, k), atol=1e-5)


@pytest.mark.parametrize("groups, outputs", [(1, 4), (2, 4), (4, 8)])
def test_other_convolutions_stay(groups, outputs):
    convolve = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=NHWC,
        feature_group_count=groups,
    )
    x, k = random(2, 6, 6, 4), random(3, 3, 4 // groups, outputs)
    assert convolutions(quick(convolve), x, k) == [groups]
    np.testing.assert_array_equal(quick(convolve)(x, k), convolve(x, k))


def network(params, x):
    """Nested functions, a loop and a branch with convolutions of channels in them."""

    @jax.jit
    def layer(x, k):
        y = jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=3
        )
        return jax.nn.relu(y)

    def body(x, k):
        return layer(x, k), x.sum()

    x, sums = jax.lax.scan(body, x[None], params)
    x = jax.lax.cond(sums[0] > 0, lambda x: layer(x, params[0]), lambda x: -x, x)
    return {"scores": x.sum((0, 1, 2)), "sums": sums}


@pytest.mark.parametrize("size", [6, 7])
def test_bodies_of_programs_are_rewritten(size):
    params, x = random(2, 3, 3, 1, 3), random(size, size, 3)
    assert set(convolutions(network, params, x)) == {3}
    assert convolutions(quick(network), params, x) == []
    found, expected = quick(network)(params, x), network(params, x)
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_relevance_is_that_of_the_network_as_it_was_written():
    params, x = random(2, 3, 3, 1, 3), random(6, 6, 3)

    def scores(params, x):
        return network(params, x)["scores"]

    explain = jaxlrp.lrp(scores, composites.EpsilonPlus(), target=1)
    assert set(convolutions(explain, params, x)) == {3}
    assert convolutions(quick(explain), params, x) == []
    expected = explain(params, x)
    np.testing.assert_allclose(quick(explain)(params, x), expected, atol=1e-4)
    many = jnp.stack([x, 2 * x])
    found = jax.jit(jax.vmap(quick(explain), (None, 0)))(params, many)
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
