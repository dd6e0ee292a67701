"""Gradient, gradient times input, saliency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import attribution

RNG = np.random.default_rng(1)
W = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(5, 2, 3)), jnp.float32)


def quadratic(x):
    """Logits (batch, 4): sum of W x^2."""
    return jnp.einsum("nij,ijk->nk", x**2, W)


def by_hand(classes):
    return 2 * X * jnp.moveaxis(W[..., classes], -1, 0)


def test_gradient_is_that_of_the_logit_and_not_of_its_square():
    classes = quadratic(X).argmax(-1)
    np.testing.assert_allclose(
        attribution.gradient(quadratic)(X), by_hand(classes), rtol=1e-5
    )
    np.testing.assert_allclose(
        attribution.gradient(quadratic, target=2)(X),
        by_hand(np.full(5, 2)),
        rtol=1e-5,
    )


def test_all_classes_are_explained_by_vmap_over_the_target():
    def explain(target):
        return attribution.gradient(quadratic, target=target)(X)

    each = jax.vmap(explain)(jnp.arange(4))
    for target in range(4):
        np.testing.assert_allclose(each[target], by_hand(np.full(5, target)), rtol=1e-5)


def test_gradient_of_a_scalar_function_is_jax_grad():
    def f(x):
        return jnp.sin(x).sum()

    np.testing.assert_array_equal(attribution.gradient(f)(X), jax.grad(f)(X))


def test_gradient_of_several_outputs_ignores_integers():
    def f(x):
        return {"score": (x**2).sum(), "class": jnp.argmax(x)}

    np.testing.assert_allclose(
        attribution.gradient(f, target="all")(X), 2 * X, rtol=1e-6
    )


def test_gradient_x_input_is_their_product():
    np.testing.assert_allclose(
        attribution.gradient_x_input(quadratic, target=1)(X),
        X * by_hand(np.full(5, 1)),
        rtol=1e-5,
    )


def test_saliency_is_the_size_of_the_gradient():
    np.testing.assert_allclose(
        attribution.saliency(quadratic, target=1)(X),
        np.abs(by_hand(np.full(5, 1))),
        rtol=1e-5,
    )


@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
def test_saliency_takes_the_largest_along_axes(axis):
    np.testing.assert_allclose(
        attribution.saliency(quadratic, target=1, axis=axis)(X),
        np.abs(by_hand(np.full(5, 1))).max(axis),
        rtol=1e-5,
    )


def test_saliency_refuses_an_axis_that_is_not_there():
    with pytest.raises(ValueError, match=r"axis: got 3, but argument 0 has shape"):
        attribution.saliency(quadratic, axis=3)(X)
    with pytest.raises(TypeError, match="axis: got 'x', expected ints or None"):
        attribution.saliency(quadratic, axis="x")
