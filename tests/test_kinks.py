"""Kinks of functions of one variable, and choices that the input makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp import _curvature, _kinks, interactions
from jaxlrp.errors import CurvatureWarning

RNG = np.random.default_rng(5)
W = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
X = jnp.array([0.5, -1.2, 0.8])

SMOOTH = {
    "elu": jax.nn.elu,
    "softplus": jax.nn.softplus,
    "by hand": lambda x: jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-abs(x))),
    "steep": lambda x: jax.nn.sigmoid(500 * jnp.where(x == 0, 0, x)),
    "pole": lambda x: jnp.where(x > 0, 1 / x, jnp.nan),
    "of a square": lambda x: x**2 * jnp.sign(x),
}
HIDDEN = {
    "hard_swish": jax.nn.hard_swish,
    "selu": jax.nn.selu,
    "branch": lambda x: jnp.where(x > 2, x**2, x + 2),
    "small": lambda x: x**2 + 0.02 * jnp.maximum(x - 5.0003, 0),
    "step": lambda x: x**2 + jnp.floor(x),
    "much steeper": lambda x: jax.nn.sigmoid(5000 * (x + 3.0003)) + jax.nn.selu(x),
    "steep before": lambda x: jax.nn.sigmoid(500 * (x + 3)) + jax.nn.selu(x),
}


@pytest.mark.always
@pytest.mark.whole
@pytest.mark.parametrize("name", [*SMOOTH, *HIDDEN])
def test_jumps_are_found_by_looking(name):
    assert _kinks.jumps((SMOOTH | HIDDEN)[name]) == (name in HIDDEN)


def network(activation):
    return lambda xs: jnp.tanh(activation(xs[0] @ W)).sum()


@pytest.mark.whole
@pytest.mark.always
@pytest.mark.parametrize("beta", [None, 10.0])
def test_curvature_with_a_kink_is_refused_by_its_line(beta):
    with pytest.raises(
        ValueError, match=r"jumps, .*test_kinks.py|test_kinks.py.*jumps"
    ):
        _curvature.curved(network(HIDDEN["branch"]), [X], beta)
    left = _curvature.curved(network(HIDDEN["branch"]), [X], jnp.inf)
    assert left([X]) == network(HIDDEN["branch"])([X])


@pytest.mark.whole
@pytest.mark.parametrize("name", ["hard_swish", "selu"])
def test_activations_of_jax_with_curvature_and_kinks_are_refused(name):
    with pytest.raises(ValueError, match="jumps"):
        _curvature.curved(network(HIDDEN[name]), [X], None)


@pytest.mark.parametrize("name", ["elu", "gelu", "mish", "celu", "log_sigmoid"])
@pytest.mark.filterwarnings("error")
def test_smooth_activations_are_left(name):
    f = network(getattr(jax.nn, name))
    assert _curvature.curved(f, [X], None)([X]) == f([X])


def test_an_activation_in_a_loop_is_looked_at():
    def f(xs):
        body = lambda h, _: (jax.nn.selu(h), None)  # noqa: E731
        return lax.scan(body, xs[0], None, length=2)[0].sum()

    with pytest.raises(ValueError, match="jumps"):
        _curvature.curved(f, [X], None)


def test_equal_layers_are_looked_at_once(monkeypatch):
    seen = []
    monkeypatch.setattr(_kinks, "jumps", lambda g, slopes: bool(seen.append(g)))
    _curvature.curved(lambda xs: jax.nn.elu(jax.nn.elu(xs[0]) @ W).sum(), [X], None)
    assert len(seen) == 2  # of different shapes
    _curvature.curved(lambda xs: jax.nn.elu(jax.nn.elu(xs[0]) + 1).sum(), [X], None)
    assert len(seen) == 3


def test_a_kink_is_no_jump_of_the_value():
    assert _kinks.jumps(jax.nn.selu) and not _kinks.jumps(jax.nn.selu, slopes=False)
    assert _kinks.jumps(lambda x: jnp.where(x > 1, x, 0), slopes=False)


CHOICES = {
    "sign": lambda x: x * jnp.sign(x),
    "other's sign": lambda x: x[0] ** 2 * jnp.sign(x[1]),
    "mask": lambda x: x * (x > 0),
    "held mask": lambda x: x * lax.stop_gradient((x > 0).astype(x.dtype)),
    "index": lambda x: x[jnp.argmax(x)] ** 2,
    "branch": lambda x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
    "half": lambda x: jax.nn.elu(x.astype(jnp.bfloat16)).astype(jnp.float32),
    "weight": lambda x: jnp.where(x > W[0, :3], jnp.sin(x), jnp.cos(x)),
}


@pytest.mark.always
@pytest.mark.parametrize("name", CHOICES)
def test_choices_of_the_input_are_told_by_their_line(name):
    f = lambda xs: CHOICES[name](xs[0]).sum()  # noqa: E731
    with pytest.warns(CurvatureWarning, match=r"test_kinks.py:\d+"):
        _curvature.curved(f, [X], None)


GUARDS = {
    "softmax": lambda x: jax.nn.softmax(x)[0],
    "logsumexp": jax.nn.logsumexp,
    "norm": lambda x: jnp.where(x.sum() == 0, 0.0, jnp.linalg.norm(x)),
    "finite": lambda x: jnp.where(jnp.isfinite(x), jnp.sin(x), 0.0).sum(),
    "held": lambda x: (x * lax.stop_gradient(x.max())).sum(),
    "mask": lambda x: jnp.where(jnp.arange(3) > 0, jnp.sin(x), 0.0).sum(),
}


@pytest.mark.parametrize("name", GUARDS)
@pytest.mark.filterwarnings("error")
def test_guards_are_no_choices(name):
    f = lambda xs: GUARDS[name](xs[0])  # noqa: E731
    assert _curvature.curved(f, [X], None)([X]) == f([X])


def test_interactions_tell_of_choices():
    f = lambda x: x[0] ** 2 * jnp.sign(x[1])  # noqa: E731
    with pytest.warns(CurvatureWarning, match="sign"):
        interactions.integrated_hessians(f)(jnp.array([1.0, 2.0]))
