"""What is divided out and multiplied in again receives nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites

X = np.random.default_rng(0).normal(size=(3, 6)).astype("f4")
W = np.random.default_rng(1).normal(size=(6, 4)).astype("f4")
B = np.random.default_rng(2).normal(size=4).astype("f4")
COMPOSITES = (None, composites.AttnLRP(), composites.EpsilonPlus(), composites.CPLRP())


def size(x):
    return jnp.abs(x).max(-1, keepdims=True)


def centre(x):
    return x.mean(-1, keepdims=True)


# Each cancels, so that `x @ W + B` is left.
CANCELS = {
    "divided first": lambda x: (x / size(x)) @ W * size(x) + B,
    "multiplied first": lambda x: (x * size(x)) @ W / size(x) + B,
    "one over it": lambda x: (x * (1 / size(x))) @ W * size(x) + B,
    "to the power -1": lambda x: (x * size(x) ** -1) @ W * size(x) + B,
    "one over it twice": lambda x: (x * (7 / size(x))) @ W * (1 / (7 / size(x))) + B,
    "with constants": lambda x: (x / (size(x) / 5)) @ W * (size(x) * 0.2) + B,
    "by its root": lambda x: (x / jnp.sqrt(size(x))) @ W * jnp.sqrt(size(x)) + B,
    "not a statistic": lambda x: (
        (x / (1 + x[:, :1] ** 2)) @ W * (1 + x[:, :1] ** 2) + B
    ),
    "in another shape": lambda x: (
        (x.T / jnp.abs(x).max(-1)).T @ W * jnp.abs(x).max(-1)[:, None] + B
    ),
    "by einsum": lambda x: (
        jnp.einsum("bo,b->bo", (x / size(x)) @ W, jnp.abs(x).max(-1)) + B
    ),
    "an offset": lambda x: ((x + centre(x)) - centre(x)) @ W + B,
    "an offset taken off first": lambda x: ((x - centre(x)) + centre(x)) @ W + B,
    "under vmap": jax.vmap(lambda x: (x / size(x)) @ W * size(x)[0] + B),
}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("form", CANCELS)
def test_what_cancels_is_held(form, composite):
    f, target = CANCELS[form], np.array([0, 1, 2])
    np.testing.assert_allclose(f(X), X @ W + B, rtol=1e-4, atol=1e-5)
    found = jax.jit(jaxlrp.lrp(f, composite, target=target))(X)
    expected = jax.jit(jaxlrp.lrp(lambda x: x @ W + B, composite, target=target))(X)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.always
def test_both_parts_of_a_sum_have_the_scale():
    def f(x):
        y = x / size(x)
        return (y @ W + jnp.roll(y, 1, 1) @ W) * size(x)

    found = jaxlrp.lrp(f, composites.AttnLRP(), target="all")(X)
    plain = lambda x: x @ W + jnp.roll(x, 1, 1) @ W  # noqa: E731
    expected = jaxlrp.lrp(plain, composites.AttnLRP(), target="all")(X)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_product_of_two_products_holds_nothing():
    f = lambda a, b: (a * b).sum() * (b + 1).sum()  # noqa: E731
    a, b = jaxlrp.lrp(f, composites.AttnLRP(), argnums=(0, 1), target="all")(X[0], X[1])
    assert np.abs(a).max() > 0 and np.abs(b).max() > 0


def test_another_scale_is_not_held():
    f = lambda x, s: (x / size(x)) @ W * s  # noqa: E731
    explain = jaxlrp.lrp(f, composites.AttnLRP(), argnums=(0, 1), target="all")
    x, s = explain(X, jnp.ones((3, 1)))
    np.testing.assert_allclose(x.sum(-1), s[:, 0], rtol=1e-4)


def test_an_offset_that_a_layer_has_changed_is_no_longer_the_offset():
    """As in a forecast from the last value, `W (x - last) + last`."""
    square = np.random.default_rng(3).normal(size=(6, 6)).astype("f4")
    f = lambda x: (x - x[:, -1:]) @ square + x[:, -1:]  # noqa: E731
    composite = composites.Uniform(jaxlrp.rules.LRP0())
    found = jaxlrp.lrp(f, composite, target="all")(X)
    slope = jax.grad(lambda x: f(x).sum())(X)
    np.testing.assert_allclose(found, X * slope, rtol=1e-3, atol=1e-4)


def test_a_residual_sum_is_no_offset():
    f = lambda x: jnp.tanh(x + jnp.tanh(x @ W @ W.T)) + x  # noqa: E731
    roles = [row.role for row in jaxlrp.plan(f)(X).rows]
    assert "normaliser" not in roles


def test_relevance_is_all_of_the_signals():
    f = lambda x: ((x / size(x)) * size(x)).sum(-1)  # noqa: E731
    found = jaxlrp.lrp(f, composites.AttnLRP(), target="all")(X)
    np.testing.assert_allclose(found, X, rtol=1e-5)


def test_a_scale_of_one_part_of_a_sum_is_none_of_the_whole():
    for swap in (False, True):

        def f(x, swap=swap):
            parts = [(x / size(x)) @ W, x @ W]
            a, b = parts[::-1] if swap else parts
            return (a + b) * size(x)

        roles = [row.role for row in jaxlrp.plan(f, composites.AttnLRP())(X).rows]
        assert roles.count("product") == 1


@pytest.mark.always
def test_a_scale_is_taken_back_once():
    once = lambda x: x * size(x)  # noqa: E731
    for f in (
        lambda x: (x / size(x)) * size(x) * size(x),
        lambda x: (x * size(x)) / size(x) * size(x),
    ):
        found = jaxlrp.lrp(f, composites.AttnLRP(), target="all")(X)
        expected = jaxlrp.lrp(once, composites.AttnLRP(), target="all")(X)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
