"""Which programs have second derivatives, and softplus in the place of ReLUs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp import _curvature

RNG = np.random.default_rng(3)
W = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)
X = jnp.asarray(RNG.normal(size=4), jnp.float32)


def softplus(x, beta):
    return jax.nn.softplus(beta * x) / beta


def by_loop(activation):
    def f(xs):
        def body(h, _):
            return activation(h @ W), None

        return lax.scan(body, xs[0], None, length=3)[0].sum()

    return f


# Each with the activation, and what it is with softplus.
SMOOTH = {
    "relu": (jax.nn.relu, softplus),
    "maximum": (lambda x: jnp.maximum(x, 0), softplus),
    "minimum": (lambda x: jnp.minimum(x, 0), lambda x, b: -softplus(-x, b)),
    "leaky": (
        lambda x: jnp.maximum(x, 0.1 * x),
        lambda x, b: 0.1 * x + softplus(0.9 * x, b),
    ),
    "relu6": (
        jax.nn.relu6,
        lambda x, b: 6 - softplus(6 - softplus(x, b), b),
    ),
    "abs": (jnp.abs, lambda x, b: softplus(2 * x, b) - x),
    "clip": (
        lambda x: jnp.clip(x, -1, 1),
        lambda x, b: 1 - softplus(1 - (softplus(x + 1, b) - 1), b),
    ),
}


@pytest.mark.parametrize("beta", [1.0, 20.0])
@pytest.mark.parametrize("name", SMOOTH)
def test_softplus_replaces_kinks(name, beta):
    kinked, smooth = SMOOTH[name]
    score = _curvature.curved(lambda xs: kinked(xs[0] @ W).sum(), [X], beta)
    np.testing.assert_allclose(score([X]), smooth(X @ W, beta).sum(), rtol=1e-5)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.checkpoint, jax.jit])
def test_softplus_replaces_relus_in_loops_and_calls(wrap):
    score = _curvature.curved(wrap(by_loop(jax.nn.relu)), [X], 2.0)
    expected = by_loop(lambda x: softplus(x, 2.0))([X])
    np.testing.assert_allclose(score([X]), expected, rtol=1e-5)


def test_softplus_replaces_relus_in_branches():
    def with_(activation):
        return lambda xs: lax.cond(
            xs[0].sum() > 9, lambda h: h.sum(), lambda h: activation(h).sum(), xs[0]
        )

    score = _curvature.curved(with_(jax.nn.relu), [X], 2.0)
    expected = with_(lambda x: softplus(x, 2.0))([X])
    np.testing.assert_allclose(score([X]), expected, rtol=1e-5)


def test_a_large_number_stays_what_it_is():
    score = _curvature.curved(lambda xs: jax.nn.relu(xs[0]).sum(), [X], 10.0)
    x = jnp.array([1e6, -1e6, 1e30, 0.0])
    slopes = jax.grad(lambda x: score([x]))(x)
    np.testing.assert_allclose(score([x]), 1e30)
    np.testing.assert_allclose(slopes, [1, 0, 1, 0.5])


def test_what_keeps_a_variance_from_being_negative_is_no_activation():
    """Flax's layer norm has a maximum with zero: softplus there would change it."""
    norm = nn.LayerNorm()
    params = norm.init(jax.random.key(0), X)

    def f(xs):
        return (norm.apply(params, xs[0]) ** 3).sum()

    assert _curvature.curved(f, [X], None) is f
    both = _curvature.curved(lambda xs: f([jax.nn.relu(xs[0] @ W)]), [X], 3.0)
    np.testing.assert_allclose(both([X]), f([softplus(X @ W, 3.0)]), rtol=1e-5)


@pytest.mark.parametrize(
    "f",
    [
        jax.nn.gelu,
        jax.nn.softplus,
        jax.nn.softmax,
        jnp.tanh,
        jax.nn.elu,
        lambda x: 2 * x,
    ],
)
def test_smooth_functions_stay_themselves(f):
    def score(xs):
        return (f(xs[0]) ** 2).sum()

    assert _curvature.curved(score, [X], None) is score


@pytest.mark.parametrize("name", [*SMOOTH, "in a loop"])
def test_kinks_are_refused_by_their_line(name):
    f = by_loop(jax.nn.relu)
    if name in SMOOTH:
        f = lambda xs: SMOOTH[name][0](xs[0] @ W).sum()  # noqa: E731
    with pytest.raises(ValueError, match=r"f: .*test_curvature\.py.*beta=10\.0 puts"):
        _curvature.curved(f, [X], None)
    assert _curvature.curved(f, [X], jnp.inf) is f
    assert _curvature.curved(f, [X], np.inf) is f


def test_choices_that_are_no_maxima_are_refused():
    def f(xs):
        return jax.nn.leaky_relu(xs[0] @ W).sum()

    with pytest.raises(ValueError, match=r"select_n at .*no softplus replaces"):
        _curvature.curved(f, [X], 1.0)([X])
    with pytest.raises(ValueError, match="not twice differentiable"):
        _curvature.curved(f, [X], None)
    masked = lambda xs: jnp.where(W > 0, xs[0], 2 * xs[0]).sum()  # noqa: E731
    assert _curvature.curved(masked, [X], None) is masked


def test_while_loops_are_refused():
    def f(xs):
        return lax.while_loop(lambda h: h.sum() < 9, lambda h: h + 1, xs[0]).sum()

    for beta in (None, 1.0, np.inf):
        with pytest.raises(ValueError, match=r"while loop at .*test_curvature\.py"):
            _curvature.curved(f, [X], beta)


@pytest.mark.parametrize("beta", [0.0, -1, "x", True, [1.0]])
def test_beta_is_a_positive_number(beta):
    with pytest.raises((TypeError, ValueError), match="^beta: "):
        _curvature.check_beta(beta)
