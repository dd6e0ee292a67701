"""Whole normalisations, however they are written: found, and what passes them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

IDENTITY = composites.Composite("identity").on("normaliser", rules.Pass())
HELD = composites.Composite("held").on("normaliser", rules.Detach(mean=True))
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 3, 6)) + 0.4, jnp.float32)
SCALE = jnp.asarray(RNG.uniform(0.5, 1.5, 6), jnp.float32)
SHIFT = jnp.asarray(RNG.normal(size=6), jnp.float32)
SQUARE = jnp.asarray(RNG.normal(size=(3, 3)) + 0.3, jnp.float32)
EPSILON = 1e-6

over = functools.partial(dict, axis=-1, keepdims=True)


def explain(f, composite, x=X):
    """The relevance of `x` where each output's relevance is its value."""
    return jax.jit(jaxlrp.lrp(f, composite, target="all"))(x)


def roles(f, composite=IDENTITY, x=X):
    return [row.role for row in jaxlrp.plan(f, composite)(x).rows]


def assert_close(value, wanted):
    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


# ---- layer norms ---------------------------------------------------------------------


def module(kind, **options) -> Callable[[jax.Array], jax.Array]:
    layer = kind(**options)
    params = layer.init(jax.random.key(0), X)
    if "params" in params:
        shapes = {"scale": SCALE, "bias": SHIFT}
        params = {"params": {k: shapes[k] for k in params["params"]}}
    apply: Any = functools.partial(layer.apply, params)
    return apply


def nnx_layer_norm(x):
    norm: Any = nnx.LayerNorm(6, rngs=nnx.Rngs(0))
    norm.scale[...], norm.bias[...] = SCALE, SHIFT
    return norm(x)


def by_parts(x):
    """As in Haiku and Equinox: the weights are part of the factor."""
    factor = SCALE * lax.rsqrt(jnp.var(x, **over()) + EPSILON)
    return factor * (x - x.mean(**over())) + SHIFT


def centred_first(x):
    x = x - x.mean(**over())
    return x * lax.rsqrt((x * x).mean(**over()) + EPSILON) * SCALE + SHIFT


def of_moments(x):
    mean = x.mean(**over())
    variance = lax.integer_pow(x, 2).mean(**over()) - mean**2
    return (x - mean) / jnp.sqrt(variance + EPSILON) * SCALE + SHIFT


def of_deviation(x):
    return SCALE * (x - x.mean(**over())) / (x.std(**over()) + 1e-6) + SHIFT


def upcast(x):
    wide = x.astype(jnp.float32)
    y = (wide - wide.mean(**over())) * (wide.var(**over()) + EPSILON) ** -0.5
    return SCALE * y.astype(x.dtype) + SHIFT


LAYER_NORMS = {
    "linen": module(linen.LayerNorm, epsilon=EPSILON),
    "linen, slow": module(linen.LayerNorm, epsilon=EPSILON, use_fast_variance=False),
    "nnx": nnx_layer_norm,
    "by parts": by_parts,
    "centred first": centred_first,
    "of moments": of_moments,
    "of the deviation": of_deviation,
    "upcast": upcast,
    "standardize": lambda x: jax.nn.standardize(x, epsilon=EPSILON) * SCALE + SHIFT,
    "mapped": jax.vmap(jax.vmap(by_parts)),
    "jitted": jax.jit(by_parts),
    "rematerialised": jax.checkpoint(by_parts),
}


@pytest.mark.parametrize("name", LAYER_NORMS)
def test_relevance_of_a_layer_norms_input_is_that_of_its_output(name):
    f = LAYER_NORMS[name]
    assert_close(explain(f, IDENTITY), f(X))


@pytest.mark.parametrize("name", LAYER_NORMS)
def test_relevance_of_a_layer_norms_input_with_its_statistics_held(name):
    """`x scale / std`: the mean and the shift keep the rest."""
    wanted = X * SCALE / jnp.sqrt(X.var(**over()) + EPSILON)
    assert_close(explain(LAYER_NORMS[name], HELD), wanted)


# ---- other norms ---------------------------------------------------------------------


def grouped(x):
    """A group norm whose groups are put together before its weights."""
    y = x.reshape(2, 3, 2, 3)
    axes = {"axis": (1, 3), "keepdims": True}
    y = (y - y.mean(**axes)) / jnp.sqrt(y.var(**axes) + EPSILON)
    return y.reshape(x.shape) * SCALE + SHIFT


def grouped_and_turned(x):
    y = x.reshape(2, 3, 2, 3)
    y = y * lax.rsqrt((y * y).mean((1, 3), keepdims=True) + EPSILON)
    return -y.reshape(x.shape) * SCALE


def llama(x):
    wide = x.astype(jnp.float32)
    y = wide * lax.rsqrt(jnp.square(wide).mean(**over()) + EPSILON)
    return SCALE * y.astype(x.dtype)


OTHERS = {
    "rms": module(linen.RMSNorm),
    "rms as in llama": llama,
    "group": module(linen.GroupNorm, num_groups=2),
    "group without weights": module(
        linen.GroupNorm, num_groups=2, use_scale=False, use_bias=False
    ),
    "groups put together": grouped,
    "groups, turned": grouped_and_turned,
    "instance": module(linen.InstanceNorm),
    "length": lambda x: x / jnp.linalg.norm(x, **over()),
    "bounded length": lambda x: x / jnp.maximum(jnp.linalg.norm(x, **over()), 1e-6),
    "sum": lambda x: x / jnp.abs(x).sum(**over()),
    "maximum": lambda x: x / jnp.abs(x).max(**over()),
    "query of an attention": lambda x: llama(x.reshape(6, 6)).reshape(6, 2, 3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_relevance_of_any_norms_input_is_that_of_its_output(name):
    f = OTHERS[name]
    assert_close(explain(f, IDENTITY), f(X).reshape(X.shape))
    assert set(roles(f)) <= {"normaliser", "structural"}


def test_low_precision_norm_hands_on_what_it_gets():
    f = module(linen.LayerNorm, dtype=jnp.bfloat16)
    found = jaxlrp.lrp(f, IDENTITY, target="all")(X)  # jit may round less
    np.testing.assert_array_equal(found, f(X).astype(jnp.float32))


def test_norms_of_a_loop():
    def f(x):
        return lax.scan(lambda h, _: (by_parts(h), None), x, None, length=2)[0]

    assert_close(explain(f, IDENTITY), f(X))


# ---- what moves elements on the way --------------------------------------------------


def test_relevance_follows_elements_that_change_places():
    def f(x):
        return x.T * lax.rsqrt((x * x).mean(-1) + EPSILON)

    assert_close(explain(f, IDENTITY, SQUARE), f(SQUARE).T)
    assert_close(explain(f, IDENTITY, X[0]), f(X[0]).T)


def test_relevance_follows_elements_that_change_shape_are_taken_or_repeated():
    def factor(x):
        return lax.rsqrt((x * x).mean(**over()) + EPSILON)

    x = X[0]
    shaped = explain(lambda x: x.reshape(3, 2, 3) * factor(x)[..., None], IDENTITY, x)
    assert_close(shaped, x * factor(x))
    taken = explain(lambda x: x[:, :1] * factor(x), IDENTITY, x)
    assert_close(taken, (x * factor(x)).at[:, 1:].set(0.0))
    repeated = explain(lambda x: jnp.stack([x, x]) * factor(x), IDENTITY, x)
    assert_close(repeated, 2 * x * factor(x))


# ---- what is no part of a norm -------------------------------------------------------


def test_a_layer_in_front_of_the_division_keeps_its_rule():
    """A cosine head: the norm's identity is one on the scores, not on the input."""

    def f(x):
        return (x @ SQUARE.T) / jnp.linalg.norm(x, **over())

    wanted = SQUARE * (SQUARE.T.sum(1) / jnp.linalg.norm(SQUARE, **over()))
    assert "dense" in roles(f, x=SQUARE)
    assert_close(explain(f, IDENTITY, SQUARE), wanted)


def test_identity_where_the_statistic_is_of_something_else():
    """All goes to the signal, and nothing to the statistic."""

    def f(x):
        return jnp.tanh(x) / jnp.linalg.norm(x @ SQUARE, **over())

    assert_close(explain(f, IDENTITY, SQUARE), f(SQUARE))


@pytest.mark.parametrize("sign", [1, -1])
def test_mixing_in_front_of_a_norm_is_a_sum_of_its_own(sign):
    found = roles(lambda x: by_parts(x + sign * x.mean(0, keepdims=True)))
    assert found == ["average", "sum", "normaliser"]


def test_an_embedding_behind_a_norm_keeps_its_part():
    positions = jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32)
    found = explain(lambda x: by_parts(x) + positions, IDENTITY)
    assert_close(found, by_parts(X))
    assert roles(lambda x: by_parts(x) + positions) == ["normaliser", "shift"]


def test_an_embedding_behind_a_norm_that_changes_shape_keeps_its_part():
    positions = jnp.asarray(RNG.normal(size=(6, 6)), jnp.float32)

    def f(x):
        return jax.nn.standardize(x).reshape(6, 6) + positions

    assert_close(explain(f, IDENTITY), jax.nn.standardize(X))


# ---- batch norms ---------------------------------------------------------------------


def test_an_embedding_behind_a_batch_norm_is_no_part_of_it():
    """`R_x = R_y` of the batch norm, from what the embedding leaves."""
    norm: Any = linen.BatchNorm(use_running_average=True, epsilon=EPSILON)
    stats = {"mean": SHIFT, "var": SCALE}
    variables = {"params": {"scale": SCALE, "bias": SHIFT}, "batch_stats": stats}
    positions = jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32)

    apply = functools.partial(norm.apply, variables)
    composite = composites.Composite("b").on("batch_norm", rules.Pass())
    assert roles(lambda x: apply(x) + positions, composite) == ["batch_norm", "shift"]
    assert_close(explain(lambda x: apply(x) + positions, composite), apply(X))


def test_what_is_a_batch_norm_behind_a_layer_and_what_its_own_bias():
    w = jnp.asarray(RNG.normal(size=(6, 6)), jnp.float32)
    unmerged = composites.AttnLRP().on("batch_norm", rules.Pass())
    for f, expected in {
        lambda x: x @ w * SCALE: ["dense", "batch_norm"],
        lambda x: x @ w * SCALE + SHIFT: ["dense", "batch_norm"],
        lambda x: (x @ w - SHIFT) * SCALE + SHIFT: ["dense", "batch_norm"],
        lambda x: x @ w + SHIFT: ["dense"],
        lambda x: (x @ w + SHIFT) * 2.0: ["dense"],
        lambda x: (x @ w + SHIFT) * 2.0 + 1.0: ["dense"],
    }.items():
        assert roles(f, unmerged) == expected
        assert roles(f, composites.AttnLRP()) == ["dense"]
    # A shift in front of a lone scale is the layer's own bias, and absorbs.
    found = explain(lambda x: (x @ w + SHIFT) * SCALE, unmerged)
    assert_close(found.sum(-1), (X @ w * SCALE).sum(-1))


def test_the_mean_is_held_only_if_that_is_asked_for():
    def norm(x):
        centred = x - x.mean(**over())
        return centred / jnp.sqrt((centred**2).mean(**over()) + EPSILON)

    deviation = jnp.sqrt(X.var(**over()) + EPSILON)
    for mean in (False, True):
        held = composites.Composite("held").on("normaliser", rules.Detach(mean=mean))
        back = SCALE - (0.0 if mean else SCALE.mean())
        found = explain(lambda x: norm(x) * SCALE, held)
        assert_close(found, X * back / deviation)
