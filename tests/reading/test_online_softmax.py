"""Softmax with a maximum that is joined to others: where it cancels, and where not.

That each form has the equations' relevance is tested in `test_attention_forms.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites
from jaxlrp._program.program import flatten
from jaxlrp._reading.context import Context, Options
from jaxlrp._reading.homogeneous import has_exponentials
from jaxlrp._reading.read import read

TOKENS, WIDTH, CHUNK = 4, 3, 2
rng = np.random.default_rng(0)
W = rng.normal(size=(WIDTH, WIDTH))
X = rng.normal(size=(TOKENS, WIDTH))


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def softmax(q, k, v):
    return jax.nn.softmax(q @ k.T) @ v


def advanced(q, carry, chunk):
    mix, top, total = carry
    k, v = chunk
    s = q @ k.T
    new = jnp.maximum(top, s.max(-1))
    e, old = jnp.exp(s - new[:, None]), jnp.exp(top - new)
    return mix * old[:, None] + e @ v, new, total * old + e.sum(-1)


def started(q):
    return jnp.zeros(q.shape), jnp.full(len(q), -1e30), jnp.zeros(len(q))


def chunks(x):
    return x.reshape(-1, CHUNK, WIDTH)


def online(q, k, v):
    def step(carry, chunk):
        return advanced(q, carry, chunk), None

    mix, _, total = lax.scan(step, started(q), (chunks(k), chunks(v)))[0]
    return mix / total[:, None]


def in_three_passes(q, k, v):
    """The maximum, the sum, the mix."""

    def first(top, k):
        return jnp.maximum(top, (q @ k.T).max(-1)), None

    top = lax.scan(first, started(q)[1], chunks(k))[0]

    def weights(k):
        return jnp.exp(q @ k.T - top[:, None])

    def second(total, k):
        return total + weights(k).sum(-1), None

    def third(mix, chunk):
        return mix + weights(chunk[0]) @ chunk[1], None

    total = lax.scan(second, jnp.zeros(len(q)), chunks(k))[0]
    mix = lax.scan(third, jnp.zeros(q.shape), (chunks(k), chunks(v)))[0]
    return mix / total[:, None]


def query_by_query(q, k, v):
    """Loops in a loop, each evaluated again."""
    return lax.map(jax.checkpoint(lambda q: online(q[None], k, v)[0]), q)


def with_chunks_left_out(q, k, v):
    """A branch: what is left out leaves the carry as it is."""

    def step(carry, now):
        used, chunk = now
        new = lax.cond(used, lambda c: advanced(q, c, chunk), lambda c: c, carry)
        return new, None

    twice = [jnp.concatenate([chunks(x), chunks(x)]) for x in (k, v)]
    used = jnp.arange(len(twice[0])) < len(chunks(k))
    mix, _, total = lax.scan(step, started(q), (used, twice))[0]
    return mix / total[:, None]


def safe(q, k, v):
    """Maxima and sums that may have seen nothing yet are replaced."""

    def step(carry, chunk):
        mix, top, total = carry
        k, v = chunk
        s = q @ k.T
        new = jnp.maximum(top, s.max(-1))
        shift = jnp.where(jnp.isfinite(new), new, 0.0)
        e = jnp.where(s > -jnp.inf, jnp.exp(s - shift[:, None]), 0.0)
        old = jnp.where(jnp.isfinite(top), jnp.exp(top - shift), 0.0)
        return (mix * old[:, None] + e @ v, new, total * old + e.sum(-1)), None

    mix, top, total = started(q)
    start = mix, jnp.full_like(top, -jnp.inf), total
    mix, _, total = lax.scan(step, start, (chunks(k), chunks(v)))[0]
    return mix / jnp.where(total == 0, 1.0, total)[:, None]


def explained(form, composite, x=X):
    def f(w, x):
        return form(x @ w, x, jnp.tanh(x @ w.T))

    explain = jaxlrp.lrp(f, composite, target="all")
    return np.asarray(jax.jit(explain)(W, x))


COMPOSITES = (
    composites.Default(),
    composites.AttnLRP(),
    composites.CPLRP(),
    composites.Epsilon(),
    composites.MambaLRP(),
)


@pytest.mark.always
@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda c: c.name)
@pytest.mark.parametrize("form", [online, safe], ids=lambda f: f.__name__)
def test_attention_by_chunks_is_softmax_under_any_composite(form, composite):
    expected = explained(softmax, composite)
    found = explained(form, composite)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * abs(expected).max())


@pytest.mark.parametrize(
    "form",
    [query_by_query, with_chunks_left_out, in_three_passes],
    ids=lambda f: f.__name__,
)
def test_loops_and_branches_around_the_loop(form):
    expected = explained(softmax, composites.AttnLRP())
    found = explained(form, composites.AttnLRP())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_examples_by_vmap():
    xs = np.stack([X, -X, 2 * X])
    composite = composites.AttnLRP()
    found = explained(jax.vmap(online), composite, xs)
    alone = [explained(softmax, composite, x) for x in xs]
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-9 * np.abs(alone).max())


@pytest.mark.always
def test_all_relevance_is_accounted_for():
    def f(w, x):
        return online(x @ w, x, x)

    audit = jaxlrp.audit(f, composites.AttnLRP(), target="all")(W, X)
    assert abs(audit.residual) < 1e-9 * abs(audit.total_out)


def escapes(s):
    """The maximum is a result."""
    top = jnp.maximum(s.max(-1, keepdims=True), 0.3)
    e = jnp.exp(s - top)
    return e / e.sum(-1, keepdims=True) + top


def one_of_two_escapes(s):
    """The larger one is made of it, too."""
    first, last = (part.max(-1, keepdims=True) for part in (s[:, :2], s[:, 2:]))
    e = jnp.exp(s - jnp.maximum(first, last))
    return e / e.sum(-1, keepdims=True) + first


def undivided(s):
    return jnp.exp(s - jnp.maximum(s.max(-1, keepdims=True), 0.3))


def beside_a_constant(s):
    """`1 + sum` is no sum of weights."""
    e = jnp.exp(s - jnp.maximum(s.max(-1, keepdims=True), 0.3))
    return e / (1 + e.sum(-1, keepdims=True))


def of_another_axis(s):
    """Weights that are summed have maxima of their own."""
    e = jnp.exp(s - jnp.maximum(s.max(0), 0.3))
    return e / e.sum(-1, keepdims=True)


def of_another_axis_in_a_loop(s):
    top = jnp.maximum(s.max(-1), 0.3)
    e = jnp.exp(s - top[:, None])
    total = lax.scan(lambda c, e: (c + e, None), jnp.zeros(s.shape[1]), e)[0]
    return e[0] / total


def cancels(s):
    e = jnp.exp(s - jnp.maximum(s.max(-1, keepdims=True), 0.3))
    return e / e.sum(-1, keepdims=True)


def divided_by_a_score(s):
    e = jnp.exp(s - jnp.maximum(s.max(-1, keepdims=True), 0.3))
    return e / jnp.maximum(e.sum(-1, keepdims=True), s[:, :1])


def not_only_weights(s):
    e = jnp.exp(s - jnp.maximum(s.max(-1, keepdims=True), 0.3))
    return jnp.maximum(e, s) / e.sum(-1, keepdims=True)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (cancels, True),
        (divided_by_a_score, False),
        (not_only_weights, False),
        (escapes, False),
        (one_of_two_escapes, False),
        (undivided, False),
        (beside_a_constant, False),
        (of_another_axis, False),
        (of_another_axis_in_a_loop, False),
    ],
    ids=lambda v: getattr(v, "__name__", None),
)
def test_a_maximum_is_a_constant_only_where_it_cancels(f, expected):
    reading = read(jax.make_jaxpr(f)(X), [True], composites.AttnLRP())
    assert any(step.constant for step in reading.steps) == expected


def test_a_program_without_exponentials_is_not_looked_into():
    def has(f):
        return has_exponentials(flatten(jax.make_jaxpr(f)(X)), Context(Options()))

    assert not has(lambda x: jnp.tanh(x / x.sum()))
    assert has(jax.nn.softmax)
    assert has(lambda x: lax.map(jnp.exp, x))
