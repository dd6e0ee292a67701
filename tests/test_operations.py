"""The custom operations against derivatives written by hand, first and second."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxlrp import _operations as ops

Y = jnp.array([2.0, -3.0, 0.5])
H = jnp.array([1.5, 2.0, -4.0])
K = jnp.array([-1.0, 0.25, 3.0])
C = jnp.array([0.3, -0.7, 1.1])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def wide(*xs):
    return tuple(jnp.asarray(np.asarray(x), jnp.float64) for x in xs)


def assert_close(value, expected, tolerance=1e-12):
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)


def two_scales(y, aux):
    return tuple(part * y / h for part, h in aux)


def shared(y, h, k, a, b):
    return ops.route(two_scales, y, (h, k), ((a, h), (b, k)))


# ---- the stabiliser ----------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.5, jnp.array(0.5), np.full(4, 0.5)])
def test_the_stabiliser_moves_away_from_zero_and_zero_is_positive(epsilon):
    z = jnp.array([-2.0, -0.0, 0.0, 3.0])
    assert_close(ops.stabilise(z, epsilon), [-2.5, 0.5, 0.5, 3.5])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_stabiliser_never_divides_by_zero(dtype):
    z = ops.stabilise(jnp.zeros(2, dtype), 0.0)
    assert z.dtype == (jnp.float64 if dtype == "float64" else jnp.float32)
    assert np.isfinite(1 / np.asarray(z)).all()


# ---- route -------------------------------------------------------------------------


def test_route_has_the_value_y():
    y, h, k = wide(Y, H, K)
    np.testing.assert_array_equal(shared(y, h, k, 2.0, -1.0), y)
    np.testing.assert_array_equal(jax.jit(shared)(y, h, k, 2.0, -1.0), y)


def test_route_hands_the_multiplier_to_the_surrogates_alone():
    y, h, k, c = wide(Y, H, K, C)
    _, pull = jax.vjp(shared, y, h, k, 2.0, -1.0)
    to_y, to_h, to_k, to_a, to_b = pull(c)
    assert_close(to_h, 2.0 * y / h * c)
    assert_close(to_k, -1.0 * y / k * c)
    np.testing.assert_array_equal(to_y, np.zeros(3))
    assert to_a == to_b == 0.0


def test_a_value_that_is_its_own_surrogate_is_scaled():
    (y, c) = wide(Y, C)
    half = lambda y, aux: (jnp.full_like(y, 0.5),)  # noqa: E731
    _, pull = jax.vjp(lambda y: ops.route(half, y, (y,), ()), y)
    assert_close(pull(c)[0], 0.5 * c)


def test_route_without_surrogates_blocks():
    (y, c) = wide(Y, C)
    _, pull = jax.vjp(lambda x: ops.route(lambda *_: (), x**2, (), ()), y)
    np.testing.assert_array_equal(pull(c)[0], np.zeros(3))


def relevance_of_square(x):
    """Relevance of `x**2` by an epsilon-like rule, with `h = 3 x` as surrogate."""

    def f(x):
        y = x**2
        scale = lambda y, h: (y / (h + 1.0),)  # noqa: E731
        return ops.route(scale, y, (3.0 * x,), 3.0 * x)

    y, pull = jax.vjp(f, x)
    return x * pull(jnp.ones_like(y))[0]


def test_an_outer_derivative_sees_plain_arithmetic():
    """`R = 3 x^3 / (3 x + 1)`, by hand."""
    (x,) = wide(Y)
    assert_close(relevance_of_square(x), 3 * x**3 / (3 * x + 1))
    slope = jax.vmap(jax.grad(relevance_of_square))(x)
    assert_close(slope, (9 * x**2 * (3 * x + 1) - 9 * x**3) / (3 * x + 1) ** 2)
    check_grads(relevance_of_square, (x,), order=2, modes=["fwd", "rev"])


def test_an_outer_derivative_passes_where_route_blocks():
    """A held scale is a constant for relevance, not for an optimiser."""

    def relevance(x):
        def f(x):
            blocked = ops.route(lambda *_: (), jnp.sin(x), (), ())
            return x * blocked

        y, pull = jax.vjp(f, x)
        return x * pull(jnp.ones_like(y))[0]

    (x,) = wide(Y)
    assert_close(relevance(x), x * jnp.sin(x))
    slope = jax.vmap(jax.grad(relevance))(x)
    assert_close(slope, jnp.sin(x) + x * jnp.cos(x))


# ---- hold --------------------------------------------------------------------------


def test_hold_differentiates_the_first_operands_alone():
    y, h, c = wide(Y, H, C)
    f = lambda xs, held: jnp.sin(xs[0]) * held[0]  # noqa: E731
    value, pull = jax.vjp(lambda x, h: ops.hold(f, (x,), (h,)), y, h)
    assert_close(value, jnp.sin(y) * h)
    to_x, to_held = pull(c)
    assert_close(to_x, jnp.cos(y) * h * c)
    np.testing.assert_array_equal(to_held, np.zeros(3))


def test_an_outer_derivative_reaches_what_is_held():
    """`R = x h(x)` with `h` held: its slope has both terms of the product rule."""

    def relevance(x):
        f = lambda xs, held: xs[0] * held[0]  # noqa: E731
        y, pull = jax.vjp(lambda x: ops.hold(f, (x,), (jnp.tanh(x),)), x)
        return x * pull(jnp.ones_like(y))[0]

    (x,) = wide(Y)
    assert_close(relevance(x), x * jnp.tanh(x))
    slope = jax.vmap(jax.grad(relevance))(x)
    assert_close(slope, jnp.tanh(x) + x * (1 - jnp.tanh(x) ** 2))
    check_grads(relevance, (x,), order=2, modes=["fwd", "rev"])


# ---- secant ------------------------------------------------------------------------


def phi(x, held):
    return x * jax.nn.sigmoid(x * held)


def test_the_secant_scales_by_value_over_input():
    x, c = wide(Y, C)
    value, pull = jax.vjp(lambda x: ops.secant(phi, x, 2.0, None), x)
    assert_close(value, phi(x, 2.0))
    assert_close(pull(c)[0], jax.nn.sigmoid(2.0 * x) * c)


def test_the_secant_at_zero_is_the_derivative():
    zero = jnp.zeros(1, jnp.float64)
    _, pull = jax.vjp(lambda x: ops.secant(phi, x, 2.0, None), zero)
    assert_close(pull(jnp.ones(1, jnp.float64))[0], 0.5)


def test_the_secant_where_the_derivative_is_infinite_passes_nothing():
    zero = jnp.zeros(1, jnp.float64)
    _, pull = jax.vjp(lambda x: ops.secant(lambda x, _: jnp.sqrt(x), x, (), None), zero)
    np.testing.assert_array_equal(pull(jnp.ones(1, jnp.float64))[0], [0.0])


def test_the_secants_stabiliser_stands_in_the_denominator():
    x, c = wide(Y, C)
    _, pull = jax.vjp(lambda x: ops.secant(phi, x, 1.0, 0.5), x)
    assert_close(pull(c)[0], phi(x, 1.0) / (x + 0.5) * c)


def through_a_secant(u):
    """`d phi(w u) / d u` by the secant: `w phi(w u) / (w u)`."""
    w = jnp.array([1.0, -2.0, 0.7])
    y, pull = jax.vjp(lambda u: ops.secant(phi, w * u, 1.5, None), u)
    return pull(jnp.ones_like(y))[0]


def test_an_outer_derivative_of_the_secant():
    (u,) = wide(Y)
    check_grads(through_a_secant, (u,), order=2, modes=["fwd", "rev"])


def test_an_outer_derivative_of_the_secant_at_zero():
    """The secant's slope at zero is half of the second derivative."""
    zero = jnp.zeros(3, jnp.float64)
    step = 1e-5
    slope = jax.jvp(through_a_secant, (zero,), (jnp.ones_like(zero),))[1]
    expected = through_a_secant(zero + step) - through_a_secant(zero - step)
    assert_close(slope, expected / (2 * step), 1e-6)


KEEPING = {
    "the result": (ops.Keeping(result=True), ()),
    "no array": (ops.Keeping(by_points=True), ()),
    "what it is made of": (ops.Keeping(origin=lambda u, w: u * w), ("u", "w")),
    "all": (ops.Keeping(lambda u, w: u * w, True, True), ("u", "w")),
}


def kept_by_a_secant(keeping, names):
    def slope(u, beta):
        w = jnp.array([1.0, -2.0, 0.7])

        def activation(u):
            given = tuple({"u": u, "w": w}[name] for name in names)
            return ops.secant(phi, u * w, beta, None, keeping, given)

        y, pull = jax.vjp(activation, u)
        return pull(jnp.ones_like(y))[0]

    return slope


@pytest.mark.parametrize("what", KEEPING)
def test_what_the_secant_keeps_changes_no_derivative(what):
    """Of any order, at zero and elsewhere, and in what the function holds."""
    (u,) = wide(Y)
    slope, plain = kept_by_a_secant(*KEEPING[what]), kept_by_a_secant(ops.Keeping(), ())
    beta = jnp.array(1.5, jnp.float64)
    at_zero = u.at[0].set(0.0)
    for order in (slope, jax.jacobian(slope, (0, 1))):
        expected = plain if order is slope else jax.jacobian(plain, (0, 1))
        for x in (u, at_zero):
            jax.tree.map(assert_close, order(x, beta), expected(x, beta))


def test_the_secant_keeps_what_it_is_told_to():
    """The residuals: of `exp(a x)` by scalars, `x` and the result."""
    u, w = jnp.ones((5, 1)), jnp.ones((1, 7))
    keeping = ops.Keeping(lambda u, w: u * w, result=True)

    def relevance(u):
        f = lambda x, _: jnp.exp(x)  # noqa: E731
        return ops.secant(f, u * w, (), None, keeping, (u, w)).sum()

    _, pull = jax.vjp(relevance, u)
    kept = sorted(x.shape for x in jax.tree.leaves(pull) if x.size > 1)
    assert kept.count((5, 7)) == 1  # the result, and not what it is of


# ---- taps --------------------------------------------------------------------------


NOTHING = (jnp.zeros(()), jnp.zeros(()))


def test_a_tap_collects_the_relevance_that_passes_and_its_size():
    x, c, r = wide(Y, C, K)
    nothing = tuple(jnp.zeros((), x.dtype) for _ in range(3))
    value, pull = jax.vjp(ops.tap, x, jnp.zeros_like(x), nothing)
    np.testing.assert_array_equal(value[0], x)
    np.testing.assert_array_equal(value[1], np.zeros_like(x))
    to_x, to_shadow, (total, size, of_values) = pull((c, r))
    np.testing.assert_array_equal(to_x, c)
    np.testing.assert_array_equal(to_shadow, r)
    assert_close(total, (x * c + r).sum())
    assert_close(size, jnp.abs(x * c + r).sum())
    assert_close(of_values, jnp.abs(x).sum())


def test_a_tap_with_weights_collects_a_part_and_passes_all():
    x, c, k = wide(Y, C, K)
    weight = jnp.where(k > 0, k, 0.0)
    _, pull = jax.vjp(lambda x, t: ops.tap(x, None, t, weight)[0], x, NOTHING)
    to_x, (total, size) = pull(c)
    np.testing.assert_array_equal(to_x, c)
    assert_close(total, (x * c * weight).sum(), 1e-5)
    assert_close(size, jnp.abs(x * c * weight).sum(), 1e-5)


def test_a_tap_ignores_infinities_that_nothing_reaches():
    x = jnp.array([1.0, -jnp.inf])
    _, pull = jax.vjp(lambda x, t: ops.tap(x, None, t)[0], x, NOTHING)
    assert pull(jnp.array([2.0, 0.0]))[1] == (2.0, 2.0)


def test_a_tap_beside_a_value_that_is_a_symbol_collects_plain_relevance():
    (c,) = wide(C)
    value, pull = jax.vjp(lambda s, t: ops.tap(None, s, t)[1], jnp.zeros(3), NOTHING)
    np.testing.assert_array_equal(value, np.zeros(3))
    to_shadow, (total, size) = pull(c)
    np.testing.assert_array_equal(to_shadow, c)
    assert_close(total, c.sum(), 1e-6)
    assert_close(size, jnp.abs(c).sum(), 1e-6)


def test_a_tap_inside_a_scan_adds_over_the_steps():
    x = jnp.arange(1.0, 5.0)

    def f(x, t):
        body = lambda c, v: (c + ops.tap(2.0 * v, None, t)[0], None)  # noqa: E731
        return jax.lax.scan(body, 0.0, x)[0]

    _, pull = jax.vjp(f, x, NOTHING)
    assert_close(pull(jnp.ones(()))[1][0], (2.0 * x).sum())


@pytest.mark.parametrize("transform", [jax.jit, jax.checkpoint, lambda f: f])
def test_the_operations_compose(transform):
    x, h, k = wide(Y, H, K)
    f = transform(lambda x, h, k: shared(x * 2.0, h, k, 2.0, -1.0))
    grads = jax.grad(lambda *a: f(*a).sum(), argnums=(0, 1, 2))
    whole = grads(x, h, k)
    rows = [grads(*row) for row in zip(x, h, k, strict=True)]
    for i, g in enumerate(whole):
        assert_close(g, jnp.stack([row[i] for row in rows]))
        mapped = jax.vmap(grads)(x, h, k)[i]
        assert_close(g, mapped)
