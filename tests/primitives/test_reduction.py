"""Sums are linear, and relevance is shared in proportion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

X = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, (3, 4)), jnp.float32)

SUMS = {
    "sum": lambda x: x.sum(1),
    "cumulative": lambda x: jnp.cumsum(x, 1),
    "reverse cumulative": lambda x: lax.cumsum(x, 0, reverse=True),
    "windows": lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 2), "SAME"),
    "scattered": lambda x: jnp.zeros(2).at[jnp.array([0, 1, 0])].add(x[:, 0]),
    "fft": lambda x: jnp.fft.fft(x).real,
    "solved": lambda x: lax.linalg.triangular_solve(
        jnp.eye(3) + jnp.tri(3, k=-1), x, left_side=True, lower=True
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_linear_map_is_lrp_0(name):
    f = SUMS[name]
    out, pull = jaxlrp.relprop(f, X, composite=composites.AttnLRP())
    r = jnp.cos(jnp.arange(out.size)).reshape(out.shape)
    z = np.asarray(out)
    matrix = np.stack(
        [np.asarray(f(jnp.eye(12)[i].reshape(3, 4))).ravel() for i in range(12)]
    )
    expected = np.asarray(X).ravel() * (matrix @ (r / z).ravel())
    scale = np.abs(expected).max()
    np.testing.assert_allclose(pull(r).ravel() / scale, expected / scale, atol=1e-4)


@pytest.mark.always
@pytest.mark.parametrize("f", [jnp.prod, lambda x: jnp.cumprod(x.ravel())[-1]])
@pytest.mark.parametrize("rule", [rules.UniformSplit(1e-9), rules.Absolute()])
def test_product_over_an_axis_is_shared_evenly(f, rule):
    for composite in (None, composites.Composite("p").on("product", rule)):
        found = jaxlrp.lrp(lambda x: f(x[:1]), composite)(X)
        np.testing.assert_allclose(found[0], np.full(4, np.prod(X[0]) / 4), rtol=1e-5)


def test_gradient_of_a_product_on_request():
    y = np.prod(X[0])
    for rule, expected in ((rules.Taylor(), y), (rules.Gradient(), y * y / X[0])):
        composite = composites.Composite("p").on("product", rule)
        found = jaxlrp.lrp(lambda x: jnp.prod(x[0]), composite)(X)
        np.testing.assert_allclose(found[0], jnp.broadcast_to(expected, 4), rtol=1e-5)


@pytest.mark.always
def test_zero_among_factors_takes_what_there_is():
    x = jnp.array([2.0, 0.0, 3.0])
    assert jaxlrp.lrp(jnp.prod)(x).tolist() == [0, 0, 0]
    found = jaxlrp.lrp(jnp.cumprod, target="all")(x)
    np.testing.assert_allclose(found, [2, 0, 0], rtol=1e-6)


def test_only_sums_begin_a_statistic():
    sums = [n for n, e in jaxlrp.primitives.entries().items() if e.sums]
    assert sorted(sums) == ["reduce_sum", "reduce_window_sum"]


@pytest.mark.always
def test_a_reduction_with_a_start_is_of_the_degree_of_its_function():
    for function, start in ((lax.add, 2.0), (lax.max, 0.1)):
        f = lambda x, g=function, s=start: lax.reduce(x, np.float32(s), g, (1,))  # noqa: E731
        chosen = X == X.max(1, keepdims=True) if function is lax.max else X > 0
        found = jaxlrp.lrp(f, target="all")(X)
        np.testing.assert_allclose(found, X * chosen, rtol=1e-5)
    # Of a start that is explained, too, a product shares with it.
    f = lambda x: lax.reduce_window(x[0], x[1], lax.mul, (2,), (1,), "VALID")  # noqa: E731
    x, start = jax.jit(jaxlrp.lrp(f, target="all"))((X[0], X[1, 1]))
    np.testing.assert_allclose(x.sum() + start, f((X[0], X[1, 1])).sum(), rtol=1e-5)
    np.testing.assert_allclose(start, f((X[0], X[1, 1])).sum() / 3, rtol=1e-5)
    f = lambda x: lax.reduce(x, np.float32(2.0), lax.mul, (1,))  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(
        found, np.broadcast_to(f(X)[:, None] / 4, (3, 4)), rtol=1e-5
    )
