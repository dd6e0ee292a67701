"""Taylor coefficients along a line against nested derivatives and closed forms."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp import _series

ORDER = 3


def nested(function, xs, ways, order):
    """By derivatives of derivatives of `t -> function(xs + t ways)`."""

    def along(t):
        return function([x + t * w for x, w in zip(xs, ways, strict=True)])

    found = []
    for k in range(order + 1):
        found.append(along(0.0) / math.factorial(k))
        along = (lambda g: lambda t: jax.jvp(g, (t,), (1.0,))[1])(along)
    return found


def scanned(xs):
    def body(carry, slice_):
        return jnp.sin(carry) * slice_, carry**2

    carry, stacked = lax.scan(body, xs[0], jnp.stack([xs[0], xs[1]]), reverse=True)
    return (carry * stacked).sum()


def branched(xs):
    above = xs[0].sum() > 0
    return lax.cond(above, lambda x: jnp.exp(x).sum(), lambda x: x[0] ** 5, xs[0])


def pooled(xs):
    picture = jnp.outer(jnp.tanh(xs[0]), xs[1])[None, :, :, None]
    return (nn.max_pool(picture, (2, 2), (1, 1)) ** 3).sum()


PROGRAMS = {
    "softplus, elsewhere": lambda xs: jax.nn.softplus(xs[0] @ xs[1]),
    "softplus, at zero": lambda xs: (
        jax.nn.softplus((xs[0] - xs[0]) @ xs[1] + 0.0) * (xs[0] @ xs[1])
    ),
    "gelu": lambda xs: jax.nn.gelu(xs[0], approximate=False) @ xs[1],
    "silu, layer norm": lambda xs: jax.nn.silu(jax.nn.standardize(xs[0])) @ xs[1],
    "softmax": lambda xs: jax.nn.softmax(xs[0] * xs[1]) @ xs[1],
    "power of a negative number": lambda xs: xs[0] ** 3.0 @ xs[1] ** 2.0,
    "quotient, root": lambda xs: (xs[0] / jnp.sqrt(1 + xs[1] ** 2)).sum(),
    "scan": scanned,
    "branch": branched,
    "max pooling": pooled,
    "checkpoint": lambda xs: jax.checkpoint(lambda a: jnp.cos(a).prod())(xs[0]),
    "sort, cumulative": lambda xs: jnp.sort(xs[0] ** 2) @ jnp.cumprod(xs[1]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_coefficients_are_those_of_nested_derivatives(name):
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        xs, ways = (list(jnp.asarray(random.normal(size=(2, 3)))) for _ in range(2))

        @jax.jit
        def both(xs, ways):
            function = PROGRAMS[name]
            found = _series.coefficients(function, xs, ways, ORDER)
            return found, nested(function, xs, ways, ORDER)

        np.testing.assert_allclose(*both(xs, ways), rtol=1e-9, atol=1e-11)


def test_softplus_has_its_own_derivatives_at_zero():
    """What `jet` makes of it there, a maximum and an absolute value, is not."""
    with jax.enable_x64(True):
        found = _series.coefficients(
            lambda xs: jax.nn.softplus(xs[0]), [jnp.zeros(())], [jnp.ones(())], 4
        )
        expected = [math.log(2), 1 / 2, 1 / 8, 0, -1 / 192]
        np.testing.assert_allclose(found, expected, atol=1e-15)


@pytest.mark.parametrize(
    "function", [jax.nn.relu, jnp.abs, lambda x: jnp.maximum(x, 0)]
)
def test_kinks_have_the_derivative_of_jax(function):
    found = _series.coefficients(
        lambda xs: function(xs[0]), [jnp.zeros(())], [jnp.ones(())], 2
    )
    np.testing.assert_allclose(found, [0, jax.grad(function)(0.0), 0])


def test_a_power_of_a_negative_base_has_its_series():
    cube = jnp.float32(3.0)
    found = _series.coefficients(
        lambda xs: jnp.power(xs[0], cube), [jnp.array(-2.0)], [jnp.array(1.0)], ORDER
    )
    np.testing.assert_allclose(found, [-8.0, 12.0, -6.0, 1.0], rtol=1e-6)


def test_coefficients_have_gradients():
    """`d/dx` of the third coefficient along `d`: four times the fourth, along `d`."""
    with jax.enable_x64(True):
        x, d = jnp.array([0.3, -0.7]), jnp.array([1.0, 2.0])

        def coefficients(x, order):
            return _series.coefficients(
                lambda xs: jnp.sin(xs[0]).prod(), [x], [d], order
            )

        slope = jax.jit(jax.grad(lambda x: coefficients(x, 3)[3]))(x)
        np.testing.assert_allclose(slope @ d, 4 * coefficients(x, 4)[4], rtol=1e-12)


def test_a_primitive_without_a_derivative_is_named():
    def f(xs):
        return lax.igamma_grad_a(xs[0], xs[0]).sum()

    with pytest.raises(TypeError, match=r"igamma_grad_a.*has no derivative.*order 3"):
        _series.coefficients(f, [jnp.ones(2)], [jnp.ones(2)], 3)
