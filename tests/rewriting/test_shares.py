"""How relevance is cut into shares: factors by hand, and what must not pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp._rewriting.shares import shared
from jaxlrp.rules import Share

P = np.array([3.0, 1.0, 2.0, 0.0, 2.0])
N = np.array([-1.0, -4.0, 0.0, -2.0, -2.0])
Y = P + N
C = np.array([0.5, -2.0, 1.5, 3.0, 7.0])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def halves(p, n, epsilon=1e-9):
    """Alpha-beta's: twice to what is positive, less once to what is negative."""
    parts = ((p, 2.0), (n, -1.0))
    return [Share(z, z, epsilon, part, rounding=z == 0) for z, part in parts]


def sides(z, epsilon=1e-9):
    return [Share(z, z, epsilon, side=1), Share(z, z, epsilon, side=-1)]


def multipliers(y, made, c, rectified=False):
    """What each share's surrogate gets."""

    def f(hs):
        shares = [
            dataclasses.replace(s, surrogate=h) for s, h in zip(made, hs, strict=True)
        ]
        return shared(jnp.asarray(y), shares, False, rectified)[0]

    hs = [jnp.asarray(s.surrogate) for s in made]
    value, pull = jax.vjp(f, hs)
    np.testing.assert_array_equal(value, y)
    return pull(jnp.asarray(c, value.dtype))[0]


def quotient(y, z, epsilon):
    """`y / s(z)`, zero where nothing contributes."""
    return np.where(z == 0, 0, y / (z + np.where(z < 0, -epsilon, epsilon)))


@pytest.mark.parametrize("epsilon", [1e-9, 0.25])
def test_one_number_tells_the_factors_of_both_halves(epsilon):
    found = multipliers(Y, halves(P, N, epsilon), C)
    np.testing.assert_allclose(found[0], 2 * quotient(Y, P, epsilon) * C, rtol=1e-6)
    np.testing.assert_allclose(found[1], -quotient(Y, N, epsilon) * C, rtol=1e-6)


def test_halves_in_front_of_a_relu_have_what_is_above_zero():
    found = multipliers(Y, halves(P, N), C, rectified=True)
    above = Y > 0
    expected = [above * 2 * quotient(Y, P, 1e-9) * C, above * -quotient(Y, N, 1e-9) * C]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_half_that_is_rounding_gets_nothing():
    p = np.array([1.0, 1.0, 1e-10])
    n = np.array([-1e-15, -1e-3, 1e-26])
    first, second = halves(p, n)
    second = dataclasses.replace(second, rounding=np.array([True, False, True]))
    found = multipliers(p + n, [first, second], np.ones(3))
    np.testing.assert_allclose(found[0], 2 * quotient(p + n, p, 1e-9))
    assert found[1][0] == 0
    np.testing.assert_allclose(found[1][1], (1 - 1e-3) / 1e-3, rtol=1e-5)
    assert np.abs(found[1][2]) < 1


def test_a_half_that_is_small_beside_the_other_is_exact():
    p, n = np.array([1.0, 3.0, 1e-9]), np.array([-1e-9, -2.0, -1.0])
    single = [np.float32(v) for v in (p, n)]
    found = multipliers(single[0] + single[1], halves(*single), np.ones(3, np.float32))
    np.testing.assert_allclose(found[0], 2 * quotient(p + n, p, 1e-9), rtol=1e-6)
    np.testing.assert_allclose(found[1], -quotient(p + n, n, 1e-9), rtol=1e-6)


def test_each_side_has_the_outputs_of_its_sign():
    z = np.array([4.0, -6.0, 3.0, -2.5, 1.0])
    y = np.array([2.0, -3.0, 2.0, -2.0, 0.0])
    up, down = multipliers(y, sides(z), C)
    np.testing.assert_allclose(up, np.where(y > 0, y / z, 0) * C, rtol=1e-8)
    np.testing.assert_allclose(down, np.where(y < 0, y / z, 0) * C, rtol=1e-8)


@pytest.mark.parametrize("made", [halves(P, N), sides(Y), [Share(Y, Y, 1e-6)]])
@pytest.mark.parametrize("rectified", [False, True])
def test_what_is_no_number_is_not_hidden(made, rectified):
    broken = [
        dataclasses.replace(s, surrogate=s.surrogate * np.nan, z=s.z * np.nan)
        for s in made
    ]
    found = multipliers(Y * np.nan, broken, C, rectified)
    assert np.isnan(np.sum(found, axis=0)).all()


@pytest.mark.parametrize(
    "made", [halves(P, N), sides(Y), [Share(P, P, 1e-6)], [Share(Y, Y, 1e-6)]]
)
def test_behind_the_zeros_of_a_relu_anything_may_arrive(made):
    below = Y <= 0
    c = np.where(below, np.inf, C)
    for found in multipliers(Y, made, c, rectified=True):
        np.testing.assert_array_equal(found[below], 0.0)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("p", [3.0, 6.0, 2.0, 1.0, 4.0])
def test_halves_have_an_outer_derivative(p):
    """The multipliers of `p` and `n` are `2 y / p` and `-y / n`; `y` may be zero."""
    n = -2.0

    def f(p):
        def g(p, n):
            return shared(p + n, halves(p, n, 0.0), False)[0]

        return jax.vjp(g, p, jnp.full(1, n))[1](jnp.ones(1))

    p = jnp.full(1, p)
    found, slopes = jax.jvp(f, (p,), (jnp.ones(1),))
    np.testing.assert_allclose(found, [2 * (p + n) / p, -(p + n) / n])
    np.testing.assert_allclose(slopes, [-2 * n / p**2, [-1 / n]])
