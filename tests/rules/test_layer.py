"""Every rule against its formula: published numbers, and dense matrices in float64."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

EPSILON = 1e-6


# ---- the formulas, on `z = M x + b` with a dense matrix M: Float['out in'] ---------


def stabilised(z, epsilon=EPSILON):
    return z + epsilon * np.where(z >= 0, 1.0, -1.0)


def plus(v):
    return np.maximum(v, 0)


def minus(v):
    return np.minimum(v, 0)


def lrp0(m, b, x, r):
    return x * (m.T @ (r / (m @ x + b)))


def epsilon(m, b, x, r, epsilon=EPSILON):
    return x * (m.T @ (r / stabilised(m @ x + b, epsilon)))


def gamma(m, b, x, r, gamma=0.25):
    changed = m + gamma * plus(m)
    return x * (changed.T @ (r / stabilised(changed @ x + b + gamma * plus(b))))


def generalized_gamma(m, b, x, r, gamma=0.25):
    z = m @ x + b
    more, less = m + gamma * plus(m), m + gamma * minus(m)
    above = more @ plus(x) + less @ minus(x) + b + gamma * plus(b)
    below = less @ plus(x) + more @ minus(x) + b + gamma * minus(b)
    u = (z > 0) * r / stabilised(above)
    v = (z < 0) * r / stabilised(below)
    return plus(x) * (more.T @ u + less.T @ v) + minus(x) * (less.T @ u + more.T @ v)


def alpha_beta(m, b, x, r, alpha, beta):
    p = plus(m) @ plus(x) + minus(m) @ minus(x) + plus(b)
    n = minus(m) @ plus(x) + plus(m) @ minus(x) + minus(b)
    u, v = r / stabilised(p), r / stabilised(n)
    positive = plus(x) * (plus(m).T @ u) + minus(x) * (minus(m).T @ u)
    negative = plus(x) * (minus(m).T @ v) + minus(x) * (plus(m).T @ v)
    return alpha * positive - beta * negative


def w_square(m, b, x, r):
    return (m**2).T @ (r / stabilised((m**2).sum(1) + b**2))


def flat(m, b, x, r):
    connected = (m != 0).astype(float)
    return connected.T @ (r / stabilised(connected.sum(1)))


def balanced(m, b, x, r):
    connected = (m != 0).astype(float)
    outputs = connected.sum(0)
    part = np.where(outputs > 0, 1 / np.maximum(outputs, 1), 0)
    return part * (connected.T @ (r / (connected @ part)))


def z_box(m, b, x, r, low, high):
    low, high = np.broadcast_to(low, x.shape), np.broadcast_to(high, x.shape)
    u = r / stabilised(m @ x - plus(m) @ low - minus(m) @ high)
    return x * (m.T @ u) - low * (plus(m).T @ u) - high * (minus(m).T @ u)


RULES = {
    "lrp0": (rules.LRP0(), lrp0),
    "epsilon": (rules.Epsilon(EPSILON), epsilon),
    "epsilon large": (
        rules.Epsilon(0.25),
        functools.partial(epsilon, epsilon=0.25),
    ),
    "norm": (rules.Norm(EPSILON), epsilon),
    "gamma": (rules.Gamma(0.25), gamma),
    "generalised gamma": (rules.GeneralizedGamma(0.25), generalized_gamma),
    "alpha-beta": (
        rules.AlphaBeta(2.0, 1.0),
        functools.partial(alpha_beta, alpha=2.0, beta=1.0),
    ),
    "z-plus": (rules.ZPlus(), functools.partial(alpha_beta, alpha=1.0, beta=0.0)),
    "w-square": (rules.WSquare(), w_square),
    "flat": (rules.Flat(), flat),
    "flat, balanced": (rules.Flat(0.0, balanced=True), balanced),
    "z-box": (rules.ZBox(-3.0, 3.0), functools.partial(z_box, low=-3.0, high=3.0)),
}


# ---- layers, however they are written ------------------------------------------------


def draw(*shape, seed=0):
    """Numbers of both signs, none close to zero: Float[Array, '*shape'] in float64."""
    rng = np.random.default_rng([seed, *shape])
    values = rng.uniform(0.2, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
    return jnp.asarray(values)


def conv(x, w, strides=None, padding="SAME", numbers=None, **options):
    strides = strides or (1,) * (x.ndim - 2)
    return lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=numbers, **options
    )


def batch_norm(y, channels, axis=-1):
    """Inference mode: statistics and parameters are constants."""
    shape = [1] * y.ndim
    shape[axis] = channels
    mean, scale, bias = (draw(channels, seed=k).reshape(shape) for k in (1, 2, 3))
    variance = jnp.abs(draw(channels, seed=4)).reshape(shape)
    return (y - mean) * (lax.rsqrt(variance + 1e-5) * scale) + bias


def heads(x):
    """Two heads by einsum, merged, then the bias."""
    y = jnp.einsum("btd,dhe->bthe", x, draw(4, 2, 3))
    return y.reshape(*x.shape[:2], 6) + draw(6)


NHWC = ("NHWC", "HWIO", "NHWC")

LAYERS = {
    "bias": ((2, 4), lambda x: x @ draw(4, 3) + draw(3)),
    "no bias": ((2, 4), lambda x: x @ draw(4, 3)),
    "weights on the left": ((4,), lambda x: draw(3, 4) @ x + draw(3)),
    "mapped rows": ((2, 4), jax.vmap(lambda row: draw(3, 4) @ row + draw(3))),
    "bias first": ((2, 4), lambda x: draw(3) + x @ draw(4, 3)),
    "subtracted from the bias": ((2, 4), lambda x: draw(3) - x @ draw(4, 3)),
    "negated": ((2, 4), lambda x: -(x @ draw(4, 3) + draw(3))),
    "scaled": ((2, 4), lambda x: (x @ draw(4, 3)) * draw(3, seed=5) + draw(3)),
    "divided": ((2, 4), lambda x: (x @ draw(4, 3) - draw(3)) / draw(3, seed=5)),
    "chain": (
        (2, 4),
        lambda x: 2.0 * (1.0 - ((x @ draw(4, 3) + draw(3)) * 0.5 - draw(3, seed=1))),
    ),
    "bias behind a transpose": (
        (2, 5, 4),
        lambda x: (x @ draw(4, 3)).transpose(2, 0, 1) + draw(3)[:, None, None],
    ),
    "bias before a reshape": (
        (2, 4),
        lambda x: (x @ draw(4, 6) + draw(6)).reshape(2, 2, 3).swapaxes(0, 1),
    ),
    "bias on split axes": (
        (2, 4),
        lambda x: (x @ draw(4, 6)).reshape(2, 2, 3) + draw(2, 3),
    ),
    "bias on one of two split axes": (
        (2, 4),
        lambda x: (x @ draw(4, 6)).reshape(2, 2, 3) + draw(2, 1),
    ),
    "heads merged then bias": ((2, 3, 4), heads),
    "output projection of heads": (
        (2, 3, 2, 4),
        lambda x: jnp.einsum("bthe,hed->btd", x, draw(2, 4, 5)) + draw(5),
    ),
    "batched kernels": (
        (2, 3, 4),
        lambda x: jnp.einsum("bgd,gde->bge", x, draw(3, 4, 2)) + draw(3, 2),
    ),
    "batch norm": ((2, 4), lambda x: batch_norm(x @ draw(4, 3) + draw(3), 3)),
    "conv NCHW": (
        (2, 2, 4, 4),
        lambda x: conv(x, draw(3, 2, 3, 3)) + draw(3)[:, None, None],
    ),
    "conv NHWC batch norm": (
        (2, 4, 4, 2),
        lambda x: batch_norm(conv(x, draw(3, 3, 2, 3), numbers=NHWC) + draw(3), 3),
    ),
    "conv strided": (
        (1, 2, 5, 5),
        lambda x: (
            conv(x, draw(3, 2, 3, 2), (2, 1), [(1, 0), (0, 1)]) + draw(3)[:, None, None]
        ),
    ),
    "conv dilated": (
        (1, 2, 5, 5),
        lambda x: conv(x, draw(3, 2, 2, 2), padding="VALID", rhs_dilation=(2, 3)),
    ),
    "conv grouped": (
        (1, 4, 4, 4),
        lambda x: (
            conv(x, draw(6, 2, 3, 3), feature_group_count=2) + draw(6)[:, None, None]
        ),
    ),
    "conv depthwise": (
        (1, 4, 4, 3),
        lambda x: (
            conv(x, draw(3, 3, 1, 6), numbers=NHWC, feature_group_count=3) + draw(6)
        ),
    ),
    "conv transposed": (
        (1, 3, 3, 2),
        lambda x: lax.conv_transpose(x, draw(3, 3, 2, 3), (2, 2), "SAME") + draw(3),
    ),
    "conv 1d": (
        (2, 5, 2),
        lambda x: conv(x, draw(3, 2, 3), numbers=("NWC", "WIO", "NWC")) + draw(3),
    ),
    "conv 3d": (
        (1, 2, 3, 3, 3),
        lambda x: conv(x, draw(2, 2, 2, 2, 2)) + draw(2)[:, None, None, None],
    ),
    "conv then channels last": (
        (1, 2, 3, 3),
        lambda x: conv(x, draw(3, 2, 3, 3)).transpose(0, 2, 3, 1) * draw(3) + draw(3),
    ),
    "many inputs": ((2, 80), lambda x: x @ draw(80, 3) + draw(3)),
    "many rows": ((3, 20, 70), lambda x: (x @ draw(70, 3) + draw(3)) * draw(3, seed=5)),
    "conv of many channels": (
        (2, 4, 4, 8),
        lambda x: batch_norm(conv(x, draw(3, 3, 8, 3), numbers=NHWC), 3),
    ),
    "conv flattened": (
        (2, 3, 3, 2),
        lambda x: (conv(x, draw(2, 2, 2, 3), numbers=NHWC) + draw(3)).reshape(2, -1),
    ),
}


@functools.cache
def relevances(name: str):
    """(matrix, bias, input, R_out, relevance by rule) of one layer, in float64."""
    with jax.enable_x64(True):
        shape, f = LAYERS[name]
        x = draw(*shape, seed=9)
        zero = jnp.zeros(shape)
        bias = np.asarray(f(zero)).ravel()
        matrix = np.asarray(jax.jacfwd(f)(zero)).reshape(bias.size, x.size)
        r = draw(*jax.eval_shape(f, x).shape, seed=8)

        @jax.jit
        def explain(x, r):
            return {
                key: jaxlrp.relprop(f, x, composite=composites.Uniform(rule))[1](r)
                for key, (rule, _) in RULES.items()
            }

        found = {k: np.asarray(v).ravel() for k, v in explain(x, r).items()}
        return matrix, bias, np.asarray(x).ravel(), np.asarray(r).ravel(), found


@pytest.mark.always
@pytest.mark.parametrize("layer", LAYERS)
def test_every_rule_equals_its_formula_on_a_dense_matrix(layer):
    matrix, bias, x, r, found = relevances(layer)
    for rule, (_, formula) in RULES.items():
        expected = formula(matrix, bias, x, r)
        error = np.abs(found[rule] - expected).max() / np.abs(expected).max()
        assert error < 1e-7, rule


@pytest.mark.whole
@pytest.mark.parametrize("layer", LAYERS)
def test_layer_with_its_affine_chain_is_one_step(layer):
    with jax.enable_x64(True):
        shape, f = LAYERS[layer]
        plan = jaxlrp.plan(f)(jax.ShapeDtypeStruct(shape, jnp.float64))
    kinds = [row.role for row in plan.rows if row.role != "structural"]
    assert kinds == ["convolution" if "conv" in layer else "dense"]


@pytest.mark.always
@pytest.mark.parametrize("layer", ["bias", "scaled", "conv NCHW", "conv grouped"])
def test_known_signs_give_the_same_numbers(layer):
    with jax.enable_x64(True):
        shape, f = LAYERS[layer]
        x = jnp.abs(draw(*shape, seed=9))
        r = draw(*jax.eval_shape(f, x).shape, seed=8)

        def known(x):
            return f(jax.nn.relu(x))

        @functools.partial(jax.jit, static_argnums=0)
        def explain(g, x, r):
            return [
                jaxlrp.relprop(g, x, composite=composites.Uniform(rule))[1](r)
                for rule, _ in RULES.values()
            ]

        for special, general in zip(
            explain(known, x, r), explain(f, x, r), strict=True
        ):
            np.testing.assert_allclose(special, general, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", ["bias", "many rows", "conv of many channels"])
def test_in_front_of_a_relu_nothing_arrives_below_zero(layer):
    matrix, bias, _, _, _ = relevances(layer)
    with jax.enable_x64(True):
        shape, f = LAYERS[layer]
        x = jnp.abs(draw(*shape, seed=9))
        at = np.asarray(x).ravel()
        arriving = plus(matrix @ at + bias)

        def rectified(x):
            return jax.nn.relu(f(jax.nn.relu(x)))

        @jax.jit
        def explain(x):
            return {
                key: jaxlrp.lrp(rectified, composites.Uniform(rule), target="all")(x)
                for key, (rule, _) in RULES.items()
                if not rule.needs_shadow
            }

        explained = explain(x)
    for key, found in explained.items():
        expected = RULES[key][1](matrix, bias, at, arriving)
        np.testing.assert_allclose(
            np.ravel(found), expected, rtol=0, atol=1e-7 * np.abs(expected).max()
        )


@pytest.mark.parametrize("layer", ["many inputs", "conv of many channels"])
def test_in_single_precision_parts_that_cancel_are_exact_enough(layer):
    matrix, bias, x, r, _ = relevances(layer)
    shape, f = LAYERS[layer]
    for key in ("alpha-beta", "z-plus", "generalised gamma"):
        rule, formula = RULES[key]
        composite = composites.Uniform(rule)
        single = jnp.asarray(x.reshape(shape), jnp.float32)
        out = jax.eval_shape(f, single).shape
        relevance = jnp.asarray(r.reshape(out), jnp.float32)
        found = jaxlrp.relprop(f, single, composite=composite)[1](relevance)
        expected = formula(matrix, bias, x, r)
        error = np.abs(np.ravel(found) - expected).max() / np.abs(expected).max()
        assert error < 1e-5, key


@pytest.mark.always
def test_sums_of_which_nothing_is_left_receive_nothing():
    w = jnp.abs(draw(80, 4)).astype(jnp.float32)  # no negative contribution at all
    x = jnp.abs(draw(5, 80)).astype(jnp.float32)
    composite = composites.Uniform(rules.AlphaBeta(2.0, 1.0))
    for f in (lambda x: x @ w, lambda x: jax.nn.relu(x) @ w):
        found = jax.jit(jaxlrp.lrp(f, composite, target="all"))(x)
        expected = 2 * x * (w @ (jnp.ones((4, 5))))[:, :].T
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_box_bounds_may_differ_by_channel():
    matrix, bias, x, r, _ = relevances("conv NHWC batch norm")
    with jax.enable_x64(True):
        shape, f = LAYERS["conv NHWC batch norm"]
        low, high = jnp.array([-3.0, -2.0]), jnp.array([2.0, 4.0])
        composite = composites.Uniform(rules.ZBox(low, high))
        at = jnp.asarray(x.reshape(shape))
        pull = jaxlrp.relprop(f, at, composite=composite)[1]
        found = pull(jnp.asarray(r).reshape(jax.eval_shape(f, at).shape))
        bounds = (np.broadcast_to(v, shape).ravel() for v in (low, high))
        np.testing.assert_allclose(
            np.ravel(found), z_box(matrix, bias, x, r, *bounds), rtol=1e-6, atol=1e-8
        )


def test_box_bounds_may_differ_by_element():
    with jax.enable_x64(True):
        x, m, r = draw(4), draw(4, 3), draw(3)
        low, high = np.linspace(-3, -2, 4), np.linspace(2, 4, 4)
        composite = composites.Uniform(rules.ZBox(jnp.asarray(low), jnp.asarray(high)))
        found = jaxlrp.relprop(lambda x: x @ m, x, composite=composite)[1](r)
        expected = z_box(np.asarray(m).T, 0.0, np.asarray(x), np.asarray(r), low, high)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_relative_epsilon_is_in_units_of_the_layer():
    with jax.enable_x64(True):
        x, m, r = draw(2, 4), draw(4, 3), draw(2, 3)
        composite = composites.Uniform(rules.Epsilon(0.1, relative=True))

        def share(scale):
            f = lambda x: x @ (m * scale)  # noqa: E731
            return np.asarray(jaxlrp.relprop(f, x, composite=composite)[1](r))

        z = np.asarray(x @ m)
        size = np.sqrt((z**2).mean(1, keepdims=True))
        s = np.asarray(r) / stabilised(z, 0.1 * size)
        np.testing.assert_allclose(share(1.0), x * (s @ np.asarray(m).T), rtol=1e-9)
        np.testing.assert_allclose(share(1e3), share(1.0), rtol=1e-9)


@pytest.mark.whole
@pytest.mark.parametrize("rule", [rules.Epsilon(0.1), rules.Gamma(0.5), rules.Flat()])
def test_weights_can_be_what_is_explained(rule):
    """With the input held, the weights are the signal and the input the kernel."""
    with jax.enable_x64(True):
        x, w, r = draw(1, 4), draw(4, 3), draw(1, 3)
        composite = composites.Uniform(rule)
        _, pull = jaxlrp.relprop(lambda w: x @ w, w, composite=composite)
        formula = {
            "Epsilon": functools.partial(epsilon, epsilon=0.1),
            "Gamma": functools.partial(gamma, gamma=0.5),
            "Flat": flat,
        }[type(rule).__name__]
        # z_i = sum_j x_j w_ji: a block-diagonal matrix acts on w.
        matrix = np.kron(np.asarray(x), np.eye(3))
        expected = formula(matrix, 0.0, np.asarray(w).ravel(), np.asarray(r).ravel())
        np.testing.assert_allclose(pull(r).ravel(), expected, rtol=1e-9)


# ---- published numbers ---------------------------------------------------------------

# One dense layer, two outputs; the values are those of the peers' own code.
A_X = (1.0, -2.0, 0.5)
A_W = ((0.5, -1.0, 2.0), (-1.5, 0.25, 1.0))
A_B = (0.3, -0.4)
A_R = (2.0, 1.0)

SETTING_A = [
    (rules.LRP0(), True, (1.052632, 1.315789, 0.263158)),
    (rules.Epsilon(1e-9), True, (1.052632, 1.315789, 0.263158)),
    (rules.Epsilon(0.1), True, (1.00641, 1.27564, 0.262821)),
    (rules.Epsilon(1e-9), False, (1.285714, 1.476190, 0.238095)),
    (rules.GeneralizedGamma(0.25), True, (1.01316, 1.30263, 0.326316)),
    (rules.GeneralizedGamma(0.25), False, (1.22321, 1.45536, 0.321429)),
    (rules.GeneralizedGamma(100.0), False, (1.03758, 1.39348, 0.568947)),
    (rules.Gamma(0.25), True, (1.083591, 1.270124, 0.259288)),
    (rules.Gamma(0.25), False, (1.322581, 1.448925, 0.228495)),
    (rules.ZPlus(), True, (0.263158, 1.052632, 1.526316)),
    (rules.ZPlus(), False, (0.285714, 1.142857, 1.571429)),
    (rules.AlphaBeta(1.0, 0.0), True, (0.263158, 1.052632, 1.526316)),
    (rules.AlphaBeta(2.0, 1.0), True, (-0.098684, 1.896930, 3.052632)),
    (rules.AlphaBeta(2.0, 1.0), False, (-0.178571, 2.035714, 3.142857)),
    (rules.ZBox(-3.0, 3.0), True, (0.730159, 0.751323, 1.518520)),
    (rules.WSquare(), True, (0.741581, 0.392530, 1.786104)),
    (rules.WSquare(), False, (0.774483, 0.399820, 1.825700)),
    (rules.Flat(), True, (1.0, 1.0, 1.0)),
]


@pytest.mark.whole
@pytest.mark.parametrize(("rule", "bias", "expected"), SETTING_A)
@pytest.mark.parametrize("scale", [None, (0.5, 2.0)])
def test_dense_layer_has_the_published_relevance(rule, bias, expected, scale):
    with jax.enable_x64(True):
        w, b = jnp.array(A_W).T, jnp.array(A_B) * bias
        s = jnp.ones(2) if scale is None else jnp.array(scale)

        def layer(x):  # a constant factor behind the layer belongs to its weights
            y = x @ (w / s)
            y = y if scale is None else y * s
            return y + b if bias else y

        composite = composites.Uniform(rule)
        _, pull = jaxlrp.relprop(layer, jnp.array(A_X), composite=composite)
        np.testing.assert_allclose(pull(jnp.array(A_R)), expected, atol=1e-5)


def test_bias_against_the_signal():
    """Where bias and contributions disagree in sign, as all peers but one have it."""
    with jax.enable_x64(True):
        w, b = jnp.array(A_W).T, jnp.array((-0.3, 0.4))
        composite = composites.Uniform(rules.Epsilon(1e-9))
        _, pull = jaxlrp.relprop(
            lambda x: x @ w + b, jnp.array(A_X), composite=composite
        )
        expected = (1.676136, 1.704545, 0.170455)
        np.testing.assert_allclose(pull(jnp.array(A_R)), expected, atol=1e-5)


def test_hand_checked_epsilon_of_relevance_propagation_jl():
    with jax.enable_x64(True):
        w, b = jnp.array(((3.0, 4.0), (5.0, 6.0))).T, jnp.array((7.0, 8.0))
        _, pull = jaxlrp.relprop(
            lambda x: x @ w + b, jnp.array((1.0, 2.0)), composite=composites.AttnLRP()
        )
        found = pull(jnp.array((1 / 3, 2 / 3)))
        np.testing.assert_allclose(found, (17 / 90, 316 / 675), rtol=1e-9)


SETTING_B = [
    (rules.Epsilon(1e-6), (0.743707, 1.39121, 2.12509, -0.246071)),
    (rules.GeneralizedGamma(0.25), (0.738224, 1.37934, 2.07279, -0.190521)),
    (rules.ZPlus(), (0.217391, 0.434783, 1.29383, 0.714284)),
    (rules.AlphaBeta(2.0, 1.0), (-0.065217, -0.030435, 1.98766, 0.428569)),
    (rules.ZBox(-3.0, 3.0), (1.13333, 0.980303, 0.955882, 0.930481)),
    (rules.WSquare(), (1.23613, 1.08337, 1.05061, 0.608132)),
    (rules.Flat(), (0.833333, 1.16667, 1.16667, 0.833333)),
]


@pytest.mark.parametrize(("rule", "expected"), SETTING_B)
def test_padded_convolution_has_the_published_relevance(rule, expected):
    with jax.enable_x64(True):
        x = jnp.array((1.0, -2.0, 3.0, 0.5)).reshape(1, 1, 4)
        w = jnp.array((1.0, -1.0, 0.5)).reshape(1, 1, 3)
        f = lambda x: conv(x, w, padding=[(1, 1)]) + 0.1  # noqa: E731
        out, pull = jaxlrp.relprop(f, x, composite=composites.Uniform(rule))
        np.testing.assert_allclose(out.ravel(), (-1.9, 4.6, -4.65, 2.6), rtol=1e-12)
        found = pull(jnp.ones_like(out)).ravel()
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize("composite", [composites.AttnLRP(), composites.Epsilon()])
def test_residual_sum_is_shared_in_proportion(composite):
    a, b = jnp.array((3.0, -1.0, 0.5)), jnp.array((-1.0, 0.5, 0.25))
    _, pull = jaxlrp.relprop(jnp.add, a, b, composite=composite, argnums=(0, 1))
    to_a, to_b = pull(jnp.array((1.0, 2.0, -1.0)))
    np.testing.assert_allclose(to_a, (1.5, 4.0, -2 / 3), rtol=1e-5)
    np.testing.assert_allclose(to_b, (-0.5, -2.0, -1 / 3), rtol=1e-5)


D_X = jnp.array((1.0, 2.0, -1.0))
D_R = jnp.array((1.0, 0.5, -0.25))


def test_softmax_has_the_published_relevance():
    _, pull = jaxlrp.relprop(jax.nn.softmax, D_X)
    np.testing.assert_allclose(pull(D_R), (0.675629, -0.763461, 0.293899), atol=1e-5)


def test_layer_norm_has_the_published_relevance():
    w, b = jnp.array((2.0, 1.0, 0.5)), jnp.array((0.1, -0.2, 0.3))

    def norm(x):
        centred = x - x.mean()
        return centred / jnp.sqrt((centred**2).mean() + 1e-5) * w + b

    out = norm(D_X)
    plain = composites.Proportional()
    seed = jaxlrp.lrp(norm, plain, target=lambda out: D_R)(D_X)
    # As a multiple of the output: the shift absorbs, the mean does not stand still.
    held = 1 / jnp.sqrt(((D_X - D_X.mean()) ** 2).mean() + 1e-5)
    c = D_R / out * w * held
    np.testing.assert_allclose(seed, D_X * (c - c.mean()), rtol=1e-4)
    np.testing.assert_allclose(seed, (1.440287, -1.251219, 0.814678), atol=1e-4)


def test_mean_is_shared_in_proportion():
    _, pull = jaxlrp.relprop(jnp.mean, D_X)
    np.testing.assert_allclose(pull(jnp.ones(())), (0.5, 1.0, -0.5), rtol=1e-6)


def average_pool(x):
    y = lax.reduce_window(x, 0.0, lax.add, (2,), (2,), "VALID")
    return y / 2


def test_average_pool_is_shared_in_proportion():
    x = jnp.array((1.0, -2.0, 3.0, 0.5))
    _, pull = jaxlrp.relprop(average_pool, x, composite=composites.Epsilon())
    np.testing.assert_allclose(pull(jnp.ones(2)), (-1, 2, 0.857, 0.143), atol=1e-3)


def test_max_pool_takes_the_first_of_a_tie_and_the_maximum_shares_it():
    x = jnp.array((2.0, 2.0))
    pool = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID")  # noqa: E731
    assert jaxlrp.lrp(pool)(x).tolist() == [2.0, 0.0]
    assert jaxlrp.lrp(jnp.max)(x).tolist() == [1.0, 1.0]


def test_max_pool_of_relevance_propagation_jl():
    x = jnp.array(((1.0, 2, 3), (10, 5, 6), (7, 8, 9)))
    pool = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID")  # noqa: E731
    _, pull = jaxlrp.relprop(pool, x)
    found = pull(jnp.array(((1.0, 2), (3, 4))) / 30)
    expected = np.array(((0, 0, 0), (4, 0, 2), (0, 0, 4))) / 30
    np.testing.assert_allclose(found, expected, atol=1e-6)


# ---- properties ----------------------------------------------------------------------

CONSERVING = [
    "lrp0",
    "z-plus",
    "alpha-beta",
    "flat",
    "flat, balanced",
    "z-box",
    "generalised gamma",
]


@pytest.mark.always
@pytest.mark.parametrize("rule", CONSERVING)
def test_without_a_bias_relevance_is_conserved(rule):
    *_, r, found = relevances("no bias")
    np.testing.assert_allclose(found[rule].sum(), r.sum(), rtol=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize("rule", RULES)
def test_relevance_is_linear_in_what_arrives(rule):
    with jax.enable_x64(True):
        x, w, b = draw(4), draw(4, 3), draw(3)
        composite = composites.Uniform(RULES[rule][0])
        _, pull = jaxlrp.relprop(lambda x: x @ w + b, x, composite=composite)
        r, s = draw(3, seed=1), draw(3, seed=2)
        np.testing.assert_allclose(
            pull(2 * r - s), 2 * pull(r) - pull(s), rtol=1e-9, atol=1e-12
        )


@pytest.mark.always
def test_generalised_gamma_drops_relevance_of_exact_zeros():
    composite = composites.Uniform(rules.GeneralizedGamma(0.25))
    w = jnp.array(((1.0,), (1.0,)))
    _, pull = jaxlrp.relprop(
        lambda x: x @ w, jnp.array((1.0, -1.0)), composite=composite
    )
    assert pull(jnp.ones(1)).tolist() == [0.0, 0.0]


@pytest.mark.whole
@pytest.mark.parametrize("rule", RULES)
def test_zero_input_and_zero_weights_give_finite_relevance(rule):
    composite = composites.Uniform(RULES[rule][0])
    for x, w in ((jnp.zeros(4), jnp.ones((4, 3))), (jnp.ones(4), jnp.zeros((4, 3)))):
        _, pull = jaxlrp.relprop(lambda x, w=w: x @ w, x, composite=composite)
        assert np.isfinite(pull(jnp.full(3, 10.0))).all()


def test_a_bias_over_a_tiny_epsilon_is_zero_where_contributions_are():
    """`b / epsilon` is infinite, and would meet them as no number."""
    rule = rules.Epsilon(np.float32(1e-37), bias="ignore")
    x, w = jnp.zeros(3, jnp.float32), jnp.ones((3, 2), jnp.float32)
    composite = composites.Uniform(rule)
    found = jaxlrp.lrp(lambda x: x @ w + 1e4, composite, target="all")(x)
    assert found.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z-plus", "z-box"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype_of_the_input_is_kept(rule, dtype):
    x, w, b = (draw(*s).astype(dtype) for s in ((2, 4), (4, 3), (3,)))
    composite = composites.Uniform(RULES[rule][0])
    found = jaxlrp.lrp(lambda x: x @ w + b, composite, target="all")(x)
    assert found.dtype == x.dtype
    wide = jaxlrp.lrp(
        lambda x: x @ w.astype("float32") + b.astype("float32"), composite, target="all"
    )(x.astype("float32"))
    tolerance = {"bfloat16": 5e-2, "float16": 1e-2, "float32": 1e-6}[dtype]
    assert np.abs(found - wide).max() <= tolerance * np.abs(wide).max()


def test_single_precision_model_stays_single_under_x64():
    with jax.enable_x64(True):
        x, w = (draw(*s).astype("float32") for s in ((2, 4), (4, 3)))
        f = lambda x: jax.nn.relu(x @ w + 0.5) * 2 @ w.T - 1  # noqa: E731
        for rule, _ in RULES.values():
            explain = jaxlrp.lrp(f, composites.Uniform(rule))
            assert jax.eval_shape(explain, x).dtype == jnp.float32


def test_hyper_parameters_can_be_mapped_and_differentiated():
    with jax.enable_x64(True):
        x, w, b = draw(4), draw(4, 3), draw(3)

        def share(gamma):
            rule = rules.GeneralizedGamma(gamma)
            f = jaxlrp.lrp(lambda x: x @ w + b, composites.Uniform(rule), target="all")
            return f(x)

        gammas = jnp.array((0.0, 0.25, 2.0))
        mapped = jax.vmap(share)(gammas)
        np.testing.assert_allclose(mapped, jnp.stack([share(g) for g in gammas]))
        slope = jax.jacfwd(share)(0.25)
        numeric = (share(0.25 + 1e-6) - share(0.25 - 1e-6)) / 2e-6
        np.testing.assert_allclose(slope, numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("rule", ["epsilon", "generalised gamma", "alpha-beta", "flat"])
def test_relevance_can_be_differentiated(rule):
    """The derivative of a relevance, against finite differences."""
    with jax.enable_x64(True):
        x, w, b, v = draw(4), draw(4, 3), draw(3), draw(3, 2)
        composite = composites.Uniform(RULES[rule][0])
        f = lambda x: jax.nn.silu(x @ w + b) @ v  # noqa: E731
        explain = jax.jit(lambda x: jaxlrp.lrp(f, composite, target=1)(x)[0])
        slope = jax.grad(explain)(x)
        step = 1e-6
        for i in range(4):
            at = [x.at[i].add(step), x.at[i].add(-step)]
            numeric = (explain(at[0]) - explain(at[1])) / (2 * step)
            np.testing.assert_allclose(slope[i], numeric, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "rule",
    [
        r
        for r in vars(rules).values()
        if dataclasses.is_dataclass(r)
        and isinstance(r, type)
        and issubclass(r, rules.Rule)
    ],
)
def test_rule_says_what_it_is(rule):
    assert rule.__doc__
    assert rule.exactness in ("exact", "proportional", "Taylor", "none")
    assert rule() == rule()
    leaves, tree = jax.tree.flatten(rule())
    assert jax.tree.unflatten(tree, leaves) == rule()


def test_rule_for_weights_refuses_a_mere_sum():
    with pytest.raises(TypeError, match="average"):
        composites.Composite("mine").on("average", RULES["w-square"][0])


@pytest.mark.always
def test_flat_counts_the_inputs_that_a_window_has():
    x = jnp.zeros((1, 1, 4, 4))
    f = lambda x: conv(x, jnp.full((1, 1, 3, 3), 2.0))  # noqa: E731
    _, pull = jaxlrp.relprop(f, x, composite=composites.Uniform(rules.Flat()))
    found = pull(jnp.ones_like(x))
    assert math.isclose(float(found.sum()), 16.0, rel_tol=1e-5)
    corner = 1 / 4 + 2 / 6 + 1 / 9  # windows of 4, 6, 6 and 9 pixels hold the corner
    assert math.isclose(float(found[0, 0, 0, 0]), corner, rel_tol=1e-5)


STEMS = {
    "three by two": ((3, 3), (2, 2), "SAME"),
    "seven by two, padded": ((7, 7), (2, 2), [(3, 3), (3, 3)]),
    "five by three": ((5, 5), (3, 3), "VALID"),
    "uneven": ((3, 2), (2, 1), "VALID"),
    "apart": ((2, 2), (3, 3), "VALID"),
}


def inside(a, margin=13):
    return a[0, margin:-margin, margin:-margin]


@pytest.mark.parametrize("stem", STEMS)
def test_balanced_flat_is_level_where_windows_overlap_unevenly(stem):
    """It conserves at every output, and draws no pattern inside of the image."""
    size, strides, padding = STEMS[stem]
    with jax.enable_x64(True):
        x = draw(1, 36, 36, 3)
        f = lambda x: conv(x, draw(*size, 3, 4), strides, padding, NHWC)  # noqa: E731
        composite = composites.Uniform(rules.Flat(0.0, balanced=True))
        out, pull = jaxlrp.relprop(f, x, composite=composite)
        pull = jax.jit(pull)
        found = np.asarray(pull(jnp.ones_like(out)))
        r = draw(*out.shape, seed=1)
        np.testing.assert_allclose(pull(r).sum(), r.sum(), rtol=1e-12)
    np.testing.assert_allclose(found.sum(), out.size, rtol=1e-12)
    met = inside(found)
    if stem == "apart":  # pixels between the windows belong to none
        met = met[met != 0]
    per_pixel = 4 / 3 / np.prod(np.minimum(size, strides))
    np.testing.assert_allclose(met, per_pixel, rtol=1e-12)


def test_flat_draws_a_checkerboard_behind_a_strided_stem():
    x = jnp.zeros((1, 17, 17, 1))
    f = lambda x: conv(x, jnp.ones((3, 3, 1, 1)), (2, 2), "VALID", NHWC)  # noqa: E731
    out, pull = jaxlrp.relprop(f, x, composite=composites.Uniform(rules.Flat()))
    found = np.asarray(pull(jnp.ones_like(out)))[0, 4:8, 4:8, 0]
    windows = np.array([[4, 2, 4, 2], [2, 1, 2, 1]] * 2)
    np.testing.assert_allclose(found, windows / 9, rtol=1e-5)


# ---- one factor for each output: what is told from it, and ReLUs behind a layer ------


def on_dense(rule):
    return composites.Default().on("dense", rule)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("bias", "in_sum"),
    [("ignore", 0.0), ("absorb", 3.0 + 0.5 * 3.0), ("whole", 3.0)],
)
def test_a_bias_may_turn_the_sign_of_what_is_shared(bias, in_sum):
    """`z = 1 - 2` and `y = 2`, so that gamma strengthens what is positive."""
    x, w = jnp.array([1.0, 1.0]), jnp.array([[1.0], [-2.0]])
    rule = rules.GeneralizedGamma(0.5, bias=bias, epsilon=0.0)
    explain = jaxlrp.lrp(lambda x: x @ w + 3.0, on_dense(rule), target=0)
    h = np.array([1.5, -2.0])
    np.testing.assert_allclose(explain(x), 2.0 * h / (h.sum() + in_sum), rtol=1e-6)


@pytest.mark.parametrize("relu", [jax.nn.relu, lambda x: jnp.maximum(x, 0)])
@pytest.mark.parametrize("key", [*RULES, "gradient", "top"])
def test_a_relu_behind_a_layer_is_the_same_whether_it_is_watched_or_not(key, relu):
    added = {"gradient": rules.Gradient(), "top": rules.TopK(rules.ZPlus(), 0.5)}
    rule = added[key] if key in added else RULES[key][0]
    with jax.enable_x64(True):
        w, b, v = draw(70, 12), draw(12), draw(12, 3)
        x = jnp.abs(draw(2, 70, seed=3))
        f = lambda x: relu(x @ w + b) @ v  # noqa: E731
        composite = composites.Default().on("dense", rule, first=True)
        plain = jaxlrp.lrp(f, composite, target="all")(x)
        named = lambda x: jax.named_call(f, name="all")(x)  # noqa: E731
        watched, _ = jaxlrp.lrp(named, composite, target="all", capture="all")(x)
        audit = jaxlrp.audit(f, composite, target="all")(x)
        total = float(plain.sum())
    np.testing.assert_allclose(plain, watched, atol=1e-9 * np.abs(watched).max())
    assert total == pytest.approx(float(audit.total_in), rel=1e-9, abs=1e-9)


@pytest.mark.whole
@pytest.mark.parametrize("bias", [-16.0, -48.0, -160.0])
def test_a_bias_has_its_part_where_no_input_contributes_to_it(bias):
    params = {"w": jnp.ones((64, 1)), "b": jnp.array([bias])}
    layer = lambda params, x: x @ params["w"] + params["b"]  # noqa: E731
    explain = jaxlrp.parameter_relevance(
        layer, on_dense(rules.AlphaBeta(2.0, 1.0)), target=0
    )
    found = explain(params, jnp.ones(64))
    # -beta R b / n, of which the bias is all.
    np.testing.assert_allclose(found["b"], [-(64.0 + bias)], rtol=1e-5)


def test_an_outer_derivative_where_contributions_cancel():
    """`R_j = 2 y w+ x / p - y w- x / n`, whose slope at `y = 0` is that of `y`."""
    w = jnp.array([1.0, -1.0] * 32)[:, None]
    composite = on_dense(rules.AlphaBeta(2.0, 1.0, epsilon=0.0))

    def first(x):
        return jaxlrp.lrp(lambda x: x @ w, composite, target=0)(x)[0]

    with jax.enable_x64(True):
        slope = jax.grad(first)(jnp.ones(64))
    assert slope[0] == pytest.approx(2 / 32)


@pytest.mark.parametrize("options", [{"bias": "ignore"}, {"relative": True}])
@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_of_a_part_that_is_empty_gets_nothing(sign, options):
    """All contributions have one sign, though inputs and weights have both."""
    flip = np.array([1.0, -1.0] * 48)
    x = np.random.default_rng(0).uniform(0.5, 1.5, 96) * flip
    w = np.random.default_rng(1).uniform(0.5, 1.5, (96, 2)) * sign * flip[:, None]
    scale = np.array([0.3, 0.7])  # folded into the weights: it rounds
    x, w, folded = (jnp.asarray(v, jnp.float32) for v in (x, w, scale))
    composite = on_dense(rules.AlphaBeta(2.0, 1.0, **options))
    found = jaxlrp.lrp(lambda x: x @ w * folded, composite, target="all")(x)
    wanted = (2 if sign > 0 else -1) * np.asarray(x) * (w * scale).sum(1)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_a_small_part_beside_a_large_bias_is_exact_in_single_precision():
    x = jnp.full(64, 1e-6, jnp.float32)
    w = jnp.array([1.0, -0.5] * 32, jnp.float32)[:, None]
    rule = rules.AlphaBeta(2.0, 1.0, epsilon=1e-30)
    found = jaxlrp.lrp(lambda x: x @ w + 1.0, on_dense(rule), target=0)(x)
    p, n = 32e-6, -16e-6
    y = 1.0 + p + n
    expected = np.tile([2 * y * (p / 32) / (p + 1.0), -y / 32], 32)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.always
def test_what_is_no_relu_hands_on_relevance_of_negative_outputs():
    """Behind a layer as a ReLU is: `|z|`, `min(z, 0)`, a leaky ReLU, a clip."""
    readers = {
        "abs": (jnp.abs, np.abs),
        "minimum": (lambda z: jnp.minimum(z, 0.0), lambda z: np.minimum(z, 0)),
        "leaky": (jax.nn.leaky_relu, lambda z: np.where(z > 0, z, 0.01 * z)),
        "clip": (lambda z: jnp.clip(z, -9.0, 9.0), lambda z: z),
        "relu": (jax.nn.relu, plus),
    }
    with jax.enable_x64(True):
        w, b = draw(6, 8), draw(8)
        x = jnp.abs(draw(6, seed=1))
        m = np.asarray(w).T
        z = m @ np.asarray(x) + np.asarray(b)
        assert (z < -0.1).sum() > 1 and (z > 0.1).sum() > 1
        for key in ("epsilon large", "generalised gamma", "alpha-beta"):
            rule, formula = RULES[key]
            for phi, written in readers.values():
                f = lambda x, phi=phi: phi(x @ w + b)  # noqa: E731
                found = jaxlrp.lrp(f, on_dense(rule), target="all")(x)
                wanted = formula(m, np.asarray(b), np.asarray(x), written(z))
                np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.whole
@pytest.mark.parametrize("relu", [jax.nn.relu, lambda x: jnp.maximum(x, 0)])
def test_a_filter_in_front_of_a_relu_counts_no_relevance_below_zero(relu):
    """`R = 3, 0, 2, 0`: what is multiplied by the large negative outputs is not it."""
    w = jnp.array([[3.0, -10.0, 2.0, -8.0]])
    composite = on_dense(rules.TopK(rules.Epsilon(0.0), 0.5))
    found = jaxlrp.lrp(lambda x: relu(x @ w), composite, target="all")(jnp.ones(1))
    np.testing.assert_allclose(found, [5.0], rtol=1e-6)


@pytest.mark.always
def test_rounding_of_one_signed_sums_gets_nothing_whatever_the_target():
    """Of each output all contributions have one sign; the other part is nobody's."""
    x = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, 96), jnp.float32)
    w = np.random.default_rng(1).uniform(0.5, 1.5, (96, 4))
    scale = np.array([0.3, 0.7, 1.1, 1.3])  # folded into the weights: it rounds
    for form, signs, b in itertools.product(
        ("sign", "clip", "zeros"), ([1, 1, 1, 1], [-1] * 4, [1, -1, 1, -1]), (0.0, -3.0)
    ):
        composite = on_dense(rules.AlphaBeta(2.0, 1.0, stabiliser=form))
        weights = jnp.asarray(w * signs, jnp.float32)
        f = lambda x, w=weights, b=b: x @ w * jnp.float32(scale) + b  # noqa: E731
        m, v = np.asarray(weights * scale, np.float64).T, np.asarray(x, np.float64)
        z = m @ v
        # A negative bias stands in the negative part.
        below = z + b * (z < 0)
        factor = np.where(z > 0, 2.0, -1.0) * (z + b) / below
        wanted = factor @ m * v
        for target in ("all", lambda out: out):
            found = jaxlrp.lrp(f, composite, target=target)(x)
            close = 1e-3 * np.abs(wanted).max()
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=close)
