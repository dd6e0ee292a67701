"""Loops, branches and calls equal the same program written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

X = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
W = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)), jnp.float32)
B = jnp.asarray(np.random.default_rng(2).normal(size=4), jnp.float32)


def step(h):
    return jnp.tanh(h @ W + B)


def written_out(x):
    return functools.reduce(lambda h, _: step(h), range(3), x)


def scanned(x, **options):
    return lax.scan(lambda h, _: (step(h), None), x, None, length=3, **options)[0]


PROGRAMS = {
    "scan": scanned,
    "unrolled scan": functools.partial(scanned, unroll=2),
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda _, h: step(h), x),
    "remat": lambda x: jax.checkpoint(written_out)(x),
    "remat inside scan": lambda x: lax.scan(
        lambda h, _: (jax.checkpoint(step)(h), None), x, None, length=3
    )[0],
    "cond inside scan": lambda x: lax.scan(
        lambda h, i: (lax.cond(i < 9, step, jnp.sin, h), None), x, jnp.arange(3)
    )[0],
    "jit": lambda x: jax.jit(step)(jax.jit(step)(jax.jit(step)(x))),
    "mapped rows": jax.vmap(written_out),
    "branches": lambda x: lax.switch(1, [jnp.sin, written_out, lambda x: x], x),
    "custom vjp": lambda x: with_vjp(x),
    "weights scanned": lambda x: lax.scan(
        lambda h, p: (jnp.tanh(h @ p[0] + p[1]), None),
        x,
        (jnp.stack([W] * 3), jnp.stack([B] * 3)),
    )[0],
}


@jax.custom_vjp
def with_vjp(x):
    return written_out(x)


with_vjp.defvjp(lambda x: (written_out(x), None), lambda _, g: (0 * g,))

COMPOSITES = {
    "AttnLRP": composites.AttnLRP(),
    "Epsilon": composites.Epsilon(0.1),
    "flat": composites.Uniform(rules.Flat()),
    "flat first": composites.EpsilonPlusFlat(),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("composite", ["AttnLRP", "Epsilon", "flat"])
def test_program_equals_the_same_written_out(name, composite):
    found, expected = (
        jaxlrp.lrp(f, COMPOSITES[composite])(X) for f in (PROGRAMS[name], written_out)
    )
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("composite", COMPOSITES)
def test_recurrent_network_equals_the_same_written_out(composite):
    xs = jnp.asarray(np.random.default_rng(3).normal(size=(5, 2, 4)), jnp.float32)

    def cell(h, x):
        h = jnp.tanh(x @ W + h @ W.T + B)
        return h, h.sum(-1)

    def loop(xs):
        h, ys = lax.scan(cell, jnp.zeros((2, 4)), xs, reverse=True)
        return h + ys.sum(0)[:, None]

    def unrolled(xs):
        h, ys = jnp.zeros((2, 4)), []
        for x in xs[::-1]:
            h, y = cell(h, x)
            ys.append(y)
        return h + jnp.stack(ys).sum(0)[:, None]

    found, expected = (
        jaxlrp.lrp(f, COMPOSITES[composite])(xs) for f in (loop, unrolled)
    )
    if composite == "flat first":  # the carry keeps a layer from being a first one
        assert np.isfinite(found).all()
        return
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.always
@pytest.mark.parametrize("taken", [True, False])
def test_branch_that_is_taken_gets_the_relevance(taken):
    f = lambda p, x: lax.cond(p, lambda x: x @ W, jnp.sin, x)  # noqa: E731
    plain = (lambda x: x @ W) if taken else jnp.sin
    expected = jaxlrp.lrp(plain, target="all")(X)
    for g in (f, jax.jit(f)):
        found = jaxlrp.lrp(g, target="all")(taken, X)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    mapped = jax.vmap(f, (0, 0))
    found = jaxlrp.lrp(mapped, target="all")(jnp.array([taken] * 3), X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_loop_of_no_steps_hands_relevance_through():
    f = lambda x: lax.scan(lambda h, _: (step(h), None), x, None, length=0)[0]  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(X), X)


def test_carry_that_only_moves():
    f = lambda x: lax.scan(lambda c, _: ((c[1], c[0]), c[0]), (x, -x), None, length=3)  # noqa: E731
    found = jaxlrp.lrp(lambda x: f(x)[1].sum(), target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X)[1].sum(), rtol=1e-5)


def test_remat_keeps_its_policy():
    def kept_by_name(primitive, *_, **__):
        return primitive.name == "tanh"

    @functools.partial(jax.checkpoint, policy=kept_by_name)
    def f(x):
        return jnp.sin(jnp.tanh(x @ W) @ W)

    program = jax.make_jaxpr(jaxlrp.lrp(f, composites.Epsilon(0.1), target="all"))(X)
    assert "kept_by_name" in str(program) and "policy=None" not in str(program)


DETACHING = {
    "attention's weights": (
        lambda x: jnp.tanh(jax.nn.softmax(x @ W)) + x,
        composites.CPLRP(),
    ),
    "dynamicLRP": (
        lambda x: jnp.tanh(jax.nn.softmax(x @ W)) + x,
        composites.DynamicLRP(),
    ),
    "a norm and its mean": (
        lambda x: jnp.tanh((x - x.mean(-1, keepdims=True)) / (x.std() + 1)) @ W + x,
        composites.AttnLRP().on("normaliser", rules.Detach(mean=True)),
    ),
    "activations": (
        lambda x: jax.nn.gelu(jnp.tanh(x @ W) @ W) + x,
        composites.Epsilon().on("activation", rules.Detach()),
    ),
    "a scope": (
        lambda x: jnp.tanh(jax.named_call(step, name="held")(x) * W[:3]) + x,
        composites.AttnLRP().hold("held"),
    ),
}


@pytest.mark.parametrize("name", DETACHING)
@pytest.mark.parametrize(
    "again",
    [
        jax.checkpoint,
        functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable),
        lambda f: (
            lambda x: lax.scan(
                lambda h, _: (jax.checkpoint(f)(h), None), x, None, length=1
            )[0]
        ),
        lambda f: f,
    ],
    ids=["checkpoint", "policy", "scan", "remat"],
)
def test_what_is_detached_may_be_recomputed(name, again):
    """Relevance and its gradient, called and compiled."""
    f, composite = DETACHING[name]
    plain = jaxlrp.lrp(f, composite, target="all")
    remat = again(f) is f
    explain = jaxlrp.lrp(again(f), composite, target="all", remat=remat)
    for of in (lambda e: e, lambda e: jax.grad(lambda x: (e(x) ** 2).sum())):
        expected = of(plain)(X)
        for found in (of(explain)(X), jax.jit(of(explain))(X)):
            np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)
