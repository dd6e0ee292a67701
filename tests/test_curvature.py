"""Which programs have second derivatives, and softplus in the place of ReLUs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp import _curvature
from jaxlrp.errors import CurvatureWarning

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
    "leaky_relu": (
        lambda x: jax.nn.leaky_relu(x, 0.2),
        lambda x, b: 0.2 * x + softplus(0.8 * x, b),
    ),
    "falling": (
        lambda x: jnp.where(x <= 0.5, x, 0.5),
        lambda x, b: 0.5 - softplus(0.5 - x, b),
    ),
    "rising": (
        lambda x: jnp.where(x < 0, 0.1 * x, 2 * x),
        lambda x, b: 0.1 * x + softplus(1.9 * x, b),
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

    with pytest.warns(CurvatureWarning, match="decides"):  # which branch it takes
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
        lambda x: jnp.abs(jnp.fft.fft(x)),
    ],
)
def test_smooth_functions_stay_themselves(f):
    def score(xs):
        return (f(xs[0]) ** 2).sum()

    assert _curvature.curved(score, [X], None) is score


@pytest.mark.whole
@pytest.mark.parametrize("name", [*SMOOTH, "in a loop"])
def test_kinks_are_refused_by_their_line(name):
    f = by_loop(jax.nn.relu)
    if name in SMOOTH:
        f = lambda xs: SMOOTH[name][0](xs[0] @ W).sum()  # noqa: E731
    with pytest.raises(ValueError, match=r"f: .*test_curvature\.py.*beta=10\.0 puts"):
        _curvature.curved(f, [X], None)
    assert _curvature.curved(f, [X], jnp.inf) is f
    assert _curvature.curved(f, [X], np.inf) is f


IMAGE = jnp.asarray(RNG.normal(size=(1, 7, 6, 2)), jnp.float32)


def by_windows(x, size, stride, low, high, beta):
    """`log(sum exp(beta x)) / beta` over windows of an image, place by place."""
    x = np.pad(x, ((0, 0), low, high, (0, 0)), constant_values=-np.inf)
    rows = range(0, x.shape[1] - size + 1, stride)
    columns = range(0, x.shape[2] - size + 1, stride)
    found = [
        np.log(np.exp(beta * x[:, i : i + size, j : j + size]).sum((1, 2))) / beta
        for i in rows
        for j in columns
    ]
    return np.stack(found, 1).reshape(1, len(rows), len(columns), -1)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
@pytest.mark.parametrize(
    ("size", "stride", "padding", "ends"),
    [
        (2, 2, "VALID", ((0, 0), (0, 0))),
        (3, 2, "SAME", ((1, 1), (0, 1))),
        (3, 1, ((2, 1), (0, 2)), ((2, 1), (0, 2))),
    ],
)
def test_max_pooling_is_smooth_over_its_windows(size, stride, padding, ends, wrap):
    def pool(x):
        return nn.max_pool(x, (size, size), (stride, stride), padding)

    weights = jnp.asarray(RNG.normal(size=pool(IMAGE).shape), jnp.float32)
    for beta in (1.0, 30.0):
        score = _curvature.curved(
            wrap(lambda xs: (pool(xs[0]) * weights).sum()), [IMAGE], beta
        )
        expected = by_windows(np.asarray(IMAGE, np.float64), size, stride, *ends, beta)
        np.testing.assert_allclose(
            score([IMAGE]), (expected * weights).sum(), rtol=1e-4, atol=1e-5
        )
        hessian = jax.hessian(lambda x, score=score: score([x]))(IMAGE)
        assert np.isfinite(hessian).all() and np.abs(hessian).max() > 1e-3


@pytest.mark.parametrize(
    ("largest", "axis"),
    [(True, 0), (True, (0, 2)), (True, None), (False, (1, 2)), (False, -1)],
)
def test_maxima_over_axes_are_smooth(largest, axis):
    x = IMAGE[0]
    sign = 1 if largest else -1
    over = jnp.max if largest else jnp.min
    score = _curvature.curved(lambda xs: (over(xs[0], axis) ** 2).sum(), [x], 3.0)
    smooth = sign * jax.nn.logsumexp(sign * 3.0 * x, axis) / 3
    np.testing.assert_allclose(score([x]), (smooth**2).sum(), rtol=1e-5)


def test_maxima_of_far_values_stay_finite():
    x = jnp.array([[-1e4, 0.0, 1e4], [-3e38, -3e38, -1e4]])
    score = _curvature.curved(lambda xs: xs[0].max(1).sum(), [x], 50.0)
    value, slopes = jax.value_and_grad(score)([x])
    np.testing.assert_allclose(value, 0, atol=1)
    np.testing.assert_allclose(slopes[0], [[0, 0, 1], [0, 0, 1]])


@pytest.mark.whole
@pytest.mark.parametrize(
    "f",
    [
        lambda x: lax.reduce_window(
            x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        ).sum(),
        lambda x: x.max((1, 2)).sum(),
        lambda x: lax.scan(lambda c, h: (c + h.max(), None), 0.0, x[0])[0],
    ],
)
def test_maxima_over_places_are_refused_by_their_line(f):
    with pytest.raises(ValueError, match=r"maximum at .*test_curvature\.py.*beta=10"):
        _curvature.curved(lambda xs: f(xs[0]), [IMAGE], None)


@pytest.mark.parametrize(
    "softmax",
    [
        jax.nn.softmax,
        lambda s: jnp.exp(s - s.max()) / jnp.exp(s - s.max()).sum(),
        lambda s: (
            jnp.exp(s - s.max(-1, keepdims=True))
            / jnp.exp(s - s.max(-1, keepdims=True)).sum(-1, keepdims=True)
        ),
        lambda s: jax.nn.logsumexp(s),
    ],
)
def test_a_maximum_that_a_softmax_subtracts_is_no_kink(softmax):
    def score(xs):
        return (softmax(xs[0] @ W) ** 2).sum()

    assert _curvature.curved(score, [X], None) is score


def between(h):
    return jnp.where((h > 0) & (h < 1), h, 0.5 * h)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("f", "name"),
    [
        (between, "select_n"),
        (jax.nn.hard_tanh, "select_n"),
        (jnp.sort, "sort"),
        (lambda h: lax.top_k(h, 2)[0], "top_k"),
        (lax.cummax, "cummax"),
        (lambda h: jnp.median(h), "sort"),
    ],
)
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.CurvatureWarning")  # the median's
def test_choices_that_no_softplus_replaces_are_refused(f, name):
    score = lambda xs: f(xs[0] @ W).sum()  # noqa: E731
    with pytest.raises(ValueError, match="not twice differentiable.*test_curvature"):
        _curvature.curved(score, [X], None)
    with pytest.raises(
        ValueError, match=rf"f: {name} at .*test_curvature\.py.*no soft"
    ):
        _curvature.curved(score, [X], 1.0)([X])
    assert _curvature.curved(score, [X], jnp.inf) is score


def test_choices_by_what_is_known_are_no_kinks():
    masked = lambda xs: jnp.where(W > 0, xs[0], 2 * xs[0]).sum()  # noqa: E731
    assert _curvature.curved(masked, [X], None) is masked


def test_callbacks_are_refused_by_their_line():
    shape = jax.ShapeDtypeStruct((4,), jnp.float32)

    def f(xs):
        return jax.pure_callback(np.sin, shape, xs[0] @ W).sum()

    with pytest.raises(ValueError, match=r"f: it calls back .*test_curvature\.py"):
        _curvature.curved(f, [X], None)
    told = lambda xs: (xs[0] * jax.pure_callback(np.sin, shape, W[0])).sum()  # noqa: E731
    assert _curvature.curved(told, [X], None) is told


def test_while_loops_are_refused():
    def f(xs):
        return lax.while_loop(lambda h: h.sum() < 9, lambda h: h + 1, xs[0]).sum()

    for beta in (None, 1.0, np.inf):
        with pytest.raises(ValueError, match=r"while loop at .*test_curvature\.py"):
            _curvature.curved(f, [X], beta)


@pytest.mark.whole
@pytest.mark.parametrize("beta", [0.0, -1, "x", True, [1.0]])
def test_beta_is_a_positive_number(beta):
    with pytest.raises((TypeError, ValueError), match="^beta: "):
        _curvature.check_beta(beta)


# ---- what relevance does not pass ----------------------------------------------------

V = jnp.asarray(RNG.normal(size=(4, 4)), jnp.float32)


# Each with its activation smooth.
BESIDE = {
    "a gate": lambda r, x: r(x @ W) * (x @ V),
    "a gate for all": lambda r, x: r((x @ W).sum() / 4 + V[0]) * x,
    "a divisor": lambda r, x: x / (1 + r(x @ W)),
    "a looped gate": lambda r, x: lax.fori_loop(0, 2, lambda _, h: r(h @ W) * h, x),
}


@pytest.mark.parametrize("f", BESIDE.values(), ids=BESIDE)
def test_kinks_of_gates_and_divisors_are_seen(f):
    def score(activation):
        return lambda xs: jnp.tanh(f(activation, xs[0])).sum()

    with pytest.raises(ValueError, match="not twice differentiable"):
        _curvature.curved(score(jax.nn.relu), [X], None)
    smooth = _curvature.curved(score(jax.nn.relu), [X], 10.0)
    expected = score(lambda x: softplus(x, 10.0))
    for derivative in (lambda f: f, jax.hessian):
        found, known = derivative(smooth)([X]), derivative(expected)([X])
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(known), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_absolute_values_in_a_norm_are_kinks():
    def f(xs):
        return (xs[0] / jnp.abs(xs[0] @ W).sum())[0]

    with pytest.raises(ValueError, match="not twice differentiable"):
        _curvature.curved(f, [X], None)
    found = jax.hessian(_curvature.curved(f, [X], 10.0))([X])[0][0]

    def smooth(x):
        z = x @ W
        return x[0] / (softplus(2 * z, 10.0) - z).sum()

    np.testing.assert_allclose(found, jax.hessian(smooth)(X), rtol=1e-4, atol=1e-5)


SMOOTH_BESIDE = {
    "softsign": lambda x: jax.nn.soft_sign(x @ W),
    "huber": lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5),
    "norm": lambda x: x / jnp.maximum(jnp.sqrt((x * x).sum()), 1e-6),
    "variance": lambda x: x / jnp.sqrt(jnp.maximum((x * x).mean(), 0) + 1e-5),
    "softmax as a gate": lambda x: jax.nn.softmax(x @ W) * (x @ V),
    "a gate of its own input": lambda x: jax.nn.relu(x @ W) * jnp.tanh(x @ W),
    "smooth gate": lambda x: jax.nn.silu(x @ W) * (x @ V),
}


@pytest.mark.parametrize("f", SMOOTH_BESIDE.values(), ids=SMOOTH_BESIDE)
def test_smooth_gates_and_guards_stay(f):
    def score(xs):
        return f(xs[0]).sum()

    assert _curvature.curved(score, [X], None) is score


@pytest.mark.parametrize(
    "activation",
    [
        lambda x: jnp.where(x > 1, x, 0.0),
        lambda x: jnp.where(jnp.abs(x) > 0.5, x, 0.0),
    ],
)
def test_softplus_does_not_join_what_jumps(activation):
    def f(xs):
        return jnp.tanh(activation(xs[0] @ W)).sum()

    with pytest.raises(ValueError, match="jumps"):
        _curvature.curved(f, [X], 10.0)
    assert _curvature.curved(f, [X], jnp.inf) is f
