"""One attention, in all the ways in which it is written: the equations' relevance.

Grouped heads, a bias on the scores (ALiBi's) and a mask that joins a causal one, a
sliding window and padding. What a query does not see gets exactly nothing.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx
from flax.linen import attention as linen_attention
from flax.nnx.nn import attention as nnx_attention
from jax.experimental import pallas as pl

import jaxlrp
from jaxlrp import composites
from tests.models.architectures import equations
from tests.models.architectures.equations import Method, Node
from tests.models.architectures.transformers import Stack, slopes

BATCH, STEPS, WIDTH, HEADS, GROUPS, DIM, WINDOW = 2, 6, 8, 4, 2, 4, 3
STACK = Stack(WIDTH, 1, HEADS, 0, groups=GROUPS, dim=DIM)
METHODS = (
    (composites.AttnLRP(), Method()),
    (composites.CPLRP(), Method(attention=False)),
)
# `jax.nn.dot_product_attention` takes softmax in float32 whatever the dtype, and what
# calls it: weights are rounded at 6e-8, and relevance is a product of few numbers.
EXACT, ROUNDED = 1e-9, 1e-6
RANDOM = np.random.default_rng(0)


def dense(inputs, outputs):
    kernel = RANDOM.standard_normal((inputs, outputs)) / math.sqrt(inputs)
    return {"kernel": kernel, "bias": 0.1 * RANDOM.standard_normal(outputs)}


def weights_of(groups):
    return {
        "query": dense(WIDTH, HEADS * DIM),
        "key": dense(WIDTH, groups * DIM),
        "value": dense(WIDTH, groups * DIM),
        "out": dense(HEADS * DIM, WIDTH),
    }


PARAMS, FULL = weights_of(GROUPS), weights_of(HEADS)
X = RANDOM.standard_normal((BATCH, STEPS, WIDTH))
MEMORY = RANDOM.standard_normal((BATCH, STEPS + 1, WIDTH))
AGE = np.arange(STEPS)[:, None] - np.arange(STEPS)
PADDED = 2  # in the second example
REAL = np.ones((BATCH, 1, STEPS), bool)
REAL[1, 0, PADDED] = False
SEEN = (AGE >= 0) & (AGE < WINDOW) & REAL
ADDED = -slopes(HEADS)[:, None, None] * AGE
ASKED = (3, 4)  # the queries whose results are explained


# ---- the forms: (query, key, value, seen, added) as 'batch token head dim' ---------


def repeated(x):
    return jnp.repeat(x, HEADS // GROUPS, axis=2)


def scores(q, k, added):
    return jnp.einsum("bthd,bshd->bhts", q, repeated(k)) / math.sqrt(DIM) + added


def mixed(p, v):
    return jnp.einsum("bhts,bshd->bthd", p, repeated(v))


def lowest(q, k, v, seen, added):
    s = scores(q, k, added)
    s = jnp.where(seen[:, None], s, jnp.finfo(s.dtype).min)
    return mixed(jax.nn.softmax(s), v)


def infinite(q, k, v, seen, added):
    s = jnp.where(seen[:, None], scores(q, k, added), -jnp.inf)
    return mixed(jax.nn.softmax(s), v)


def added_mask(q, k, v, seen, added):
    s = scores(q, k, added) + jnp.where(seen[:, None], 0.0, -1e9)
    return mixed(jax.nn.softmax(s), v)


def added_infinity(q, k, v, seen, added):
    s = scores(q, k, added) + jnp.where(seen[:, None], 0.0, -jnp.inf)
    return mixed(jax.nn.softmax(s), v)


def factor(q, k, v, seen, added):
    m = jnp.asarray(seen[:, None], q.dtype)
    return mixed(jax.nn.softmax(scores(q, k, added) * m - 1e9 * (1 - m)), v)


def where_of_softmax(q, k, v, seen, added):
    s = scores(q, k, added)
    return mixed(jax.nn.softmax(s, where=jnp.asarray(seen[:, None])), v)


def exponentials(q, k, v, seen, added):
    e = jnp.where(seen[:, None], jnp.exp(scores(q, k, added)), 0.0)
    return mixed(e / e.sum(-1, keepdims=True), v)


def masked_exponentials(q, k, v, seen, added):
    e = jnp.exp(scores(q, k, added)) * seen[:, None]
    return mixed(e * (1 / e.sum(-1, keepdims=True)), v)


def shifted_exponentials(q, k, v, seen, added):
    s = jnp.where(seen[:, None], scores(q, k, added), -1e30)
    e = jnp.exp(s - s.max(-1, keepdims=True))
    return mixed(e / (e.sum(-1, keepdims=True) + 1e-30), v)


def held_maximum(q, k, v, seen, added):
    s = jnp.where(seen[:, None], scores(q, k, added), -1e30)
    e = jnp.exp(s - jax.lax.stop_gradient(s.max(-1, keepdims=True)))
    return mixed(e / e.sum(-1, keepdims=True), v)


def logarithm(q, k, v, seen, added):
    s = jnp.where(seen[:, None], scores(q, k, added), -jnp.inf)
    return mixed(jnp.exp(s - jax.nn.logsumexp(s, -1, keepdims=True)), v)


def log_softmax(q, k, v, seen, added):
    s = jnp.where(seen[:, None], scores(q, k, added), -1e30)
    return mixed(jnp.exp(jax.nn.log_softmax(s)), v)


def divided_last(q, k, v, seen, added):
    """Values are mixed by exponentials, and what comes of it divided by their sum."""
    s = jnp.where(seen[:, None], scores(q, k, added), -1e30)
    e = jnp.exp(s - s.max(-1, keepdims=True))
    return mixed(e, v) / jnp.swapaxes(e.sum(-1), 1, 2)[..., None]


def reciprocal_last(q, k, v, seen, added):
    s = jnp.where(seen[:, None], scores(q, k, added), -jnp.inf)
    e = jnp.exp(s - jax.lax.stop_gradient(s.max(-1, keepdims=True)))
    return mixed(e, v) * jnp.swapaxes(1 / e.sum(-1), 1, 2)[..., None]


def of_one_head(q, k, v, seen, added):
    s = jnp.where(seen, q @ k.T / math.sqrt(DIM) + added, -jnp.inf)
    return jax.nn.softmax(s) @ v


def mapped(q, k, v, seen, added):
    """`vmap` over heads of a group, groups, and examples."""
    f = jax.vmap(of_one_head, (1, None, None, None, 0), 1)
    f = jax.vmap(jax.vmap(f, (1, 1, 1, None, 0), 1), (0, 0, 0, 0, None))
    q = q.reshape(BATCH, STEPS, GROUPS, -1, DIM)
    added = added.reshape(GROUPS, -1, STEPS, STEPS)
    return f(q, k, v, jnp.asarray(seen), added).reshape(BATCH, STEPS, HEADS, DIM)


def grouped(q, k, v, seen, added):
    q = q.reshape(BATCH, STEPS, GROUPS, -1, DIM) * DIM**-0.5
    s = jnp.einsum("btgrd,bsgd->bgrts", q, k)
    s = s + added.reshape(GROUPS, -1, STEPS, STEPS)
    p = jax.nn.softmax(jnp.where(seen[:, None, None], s, -1e30))
    h = jnp.einsum("bgrts,bsgd->btgrd", p, v)
    return h.reshape(BATCH, STEPS, HEADS, DIM)


def heads_first(q, k, v, seen, added):
    """Matrix products of 'batch head token dim', as in PyTorch."""
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, repeated(k), repeated(v)))
    s = q @ jnp.swapaxes(k, -1, -2) * DIM**-0.5 + added
    p = jax.nn.softmax(jnp.where(seen[:, None], s, -1e30))
    return jnp.swapaxes(p @ v, 1, 2)


def keys_first(q, k, v, seen, added):
    s = jnp.einsum("bshd,bthd->bhst", repeated(k), q) * DIM**-0.5
    s = s + jnp.swapaxes(added, 1, 2)
    s = jnp.where(jnp.swapaxes(seen[:, None], 2, 3), s, -1e30)
    return jnp.einsum("bhst,bshd->bthd", jax.nn.softmax(s, axis=2), repeated(v))


def taken(q, k, v, seen, added):
    head = np.arange(HEADS) // (HEADS // GROUPS)
    k, v = jnp.take(k, head, 2), jnp.take(v, head, 2)
    s = jnp.einsum("bthd,bshd->bhts", q, k) * DIM**-0.5 + added
    p = jax.nn.softmax(jnp.where(seen[:, None], s, -1e30))
    return jnp.einsum("bhts,bshd->bthd", p, v)


def products(q, k, v, seen, added):
    """Without a contraction."""
    s = (q[:, :, None] * repeated(k)[:, None]).sum(-1) * DIM**-0.5
    s = jnp.where(seen[..., None], s + jnp.moveaxis(added, 0, 2), -1e30)
    return (jax.nn.softmax(s, axis=2)[..., None] * repeated(v)[:, None]).sum(2)


def query_by_query(q, k, v, seen, added):
    """A loop over queries, each evaluated again."""
    k, v = repeated(k), repeated(v)

    @jax.checkpoint
    def one(x):
        q, seen, added = x
        s = jnp.einsum("bhd,bshd->bhs", q, k) * DIM**-0.5 + added
        p = jax.nn.softmax(jnp.where(seen[:, None], s, -1e30))
        return jnp.einsum("bhs,bshd->bhd", p, v)

    xs = [jnp.moveaxis(x, axis, 0) for x, axis in ((q, 1), (seen, 1), (added, 1))]
    return jnp.moveaxis(jax.lax.map(one, tuple(xs)), 0, 1)


def evaluated_again(q, k, v, seen, added):
    f = functools.partial(infinite, seen=seen, added=added)
    return jax.checkpoint(f, policy=jax.checkpoint_policies.dots_saveable)(q, k, v)


def linen(q, k, v, seen, added):
    mask = seen[:, None]
    return nn.dot_product_attention(q, repeated(k), repeated(v), added[None], mask)


def linen_weights(q, k, v, seen, added):
    f = linen_attention.dot_product_attention_weights
    return mixed(f(q, repeated(k), added[None], seen[:, None]), v)


def nnx_weights(q, k, v, seen, added):
    f = nnx_attention.dot_product_attention_weights
    return mixed(f(q, repeated(k), jnp.asarray(added[None]), seen[:, None]), v)


def upcast(q, k, v, seen, added):
    s = scores(q, k, added).astype(jnp.float32)
    p = jax.nn.softmax(jnp.where(seen[:, None], s, -1e30))
    return mixed(p.astype(v.dtype), v)


def nnx_function(q, k, v, seen, added):
    return nnx.dot_product_attention(q, k, v, jnp.asarray(added[None]), seen[:, None])


def jax_nn(q, k, v, seen, added):
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        jnp.asarray(added[None]),
        jnp.asarray(seen[:, None]),
        implementation="xla",
    )


def jax_nn_arguments(q, k, v, seen, added):
    return jax.nn.dot_product_attention(
        q,
        k,
        v,
        jnp.asarray(added[None]),
        jnp.asarray(REAL[:, None]),
        is_causal=True,
        local_window_size=(WINDOW - 1, 0),
        implementation="xla",
    )


def cached(q, k, v, seen, added):
    """Token by token, keys and values in a cache."""
    empty = jnp.zeros((BATCH, STEPS, GROUPS, DIM), q.dtype)
    now = [jnp.moveaxis(x, 1, 0)[:, :, None] for x in (q, k, v, seen, added)]

    def step(cache, now):
        t, (q, k, v, seen, added) = now
        cache = [
            jax.lax.dynamic_update_slice_in_dim(old, x, t, axis=1)
            for old, x in zip(cache, (k, v), strict=True)
        ]
        return cache, infinite(q, cache[0], cache[1], seen, added)

    _, h = jax.lax.scan(step, [empty, empty], (jnp.arange(STEPS), now))
    return jnp.moveaxis(h[:, :, 0], 0, 1)


def rolling(q, k, v, seen, added):
    """A cache as long as the window; a new token takes the oldest one's place."""
    empty = jnp.zeros((BATCH, WINDOW, GROUPS, DIM), q.dtype)
    now = [jnp.moveaxis(x, 1, 0)[:, :, None] for x in (q, k, v, seen, added)]

    def step(cache, now):
        t, (q, k, v, seen, added) = now
        cache = [
            jax.lax.dynamic_update_slice_in_dim(old, x, t % WINDOW, axis=1)
            for old, x in zip(cache, (k, v), strict=True)
        ]
        place = t - (t - jnp.arange(WINDOW)) % WINDOW  # of what is in each slot
        seen, added = seen[..., place] & (place >= 0), added[..., place]
        return cache, lowest(q, cache[0], cache[1], seen, added)

    _, h = jax.lax.scan(step, [empty, empty], (jnp.arange(STEPS), now))
    return jnp.moveaxis(h[:, :, 0], 0, 1)


@jax.custom_vjp
def flash_attention(q, k, v, seen, added):
    """A kernel; what is known of it is its derivative."""

    def kernel(q, k, v, seen, added, out):
        out[...] = lowest(q[...], k[...], v[...], seen[...] > 0, added[...])

    out = jax.ShapeDtypeStruct(q.shape, q.dtype)
    return pl.pallas_call(kernel, out, interpret=True)(q, k, v, seen, added)


def _saved(*operands):
    return flash_attention(*operands), operands


def _derivative(operands, g):
    q, k, v, seen, added = operands
    f = functools.partial(lowest, seen=seen > 0, added=added)
    return *jax.vjp(f, q, k, v)[1](g), None, None


flash_attention.defvjp(_saved, _derivative)


def fused(q, k, v, seen, added):
    return flash_attention(q, k, v, jnp.asarray(seen, q.dtype), added)


@jax.custom_vjp
def chunked_attention(q, k, v, seen, added):
    """Chunk by chunk of the keys with a running maximum, as kernels do it."""

    def step(carry, chunk):
        mixed, top, total = carry
        k, v, seen, added = chunk
        s = jnp.einsum("bthd,bshd->bhts", q, repeated(k)) / math.sqrt(DIM) + added
        s = jnp.where(seen[:, None] > 0, s, -1e30)
        new = jnp.maximum(top, s.max(-1))
        e, old = jnp.exp(s - new[..., None]), jnp.exp(top - new)
        more = jnp.einsum("bhts,bshd->bhtd", e, repeated(v))
        return (mixed * old[..., None] + more, new, total * old + e.sum(-1)), None

    def chunks(x, axis):
        shape = (*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        return jnp.moveaxis(jnp.reshape(x, shape), axis, 0)

    like = jnp.zeros((BATCH, HEADS, STEPS, DIM), q.dtype)
    start = like, like[..., 0] - 1e30, like[..., 0]
    xs = chunks(k, 1), chunks(v, 1), chunks(seen, 2), chunks(added, 2)
    (mixed, _, total), _ = jax.lax.scan(step, start, xs)
    return jnp.swapaxes(mixed / total[..., None], 1, 2)


def chunks(x, axis):
    shape = (*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    return jnp.moveaxis(jnp.reshape(x, shape), axis, 0)


def of_chunk(q, carry, chunk, joined=jnp.maximum):
    """One step of attention with a running maximum, a sum and a mix of values."""
    mix, top, total = carry
    k, v, seen, added = chunk
    s = jnp.einsum("bthd,bshd->bhts", q, repeated(k)) / math.sqrt(DIM) + added
    s = jnp.where(seen[:, None], s, -1e30)
    new = joined(top, s.max(-1))
    e, old = jnp.exp(s - new[..., None]), jnp.exp(top - new)
    more = jnp.einsum("bhts,bshd->bhtd", e, repeated(v))
    return mix * old[..., None] + more, new, total * old + e.sum(-1)


def in_chunks(q, k, v, seen, added):
    like = jnp.zeros((BATCH, HEADS, STEPS, DIM), q.dtype)
    start = like, like[..., 0] - 1e30, like[..., 0]
    seen, added = jnp.asarray(seen), jnp.asarray(added)
    return start, (chunks(k, 1), chunks(v, 1), chunks(seen, 2), chunks(added, 2))


def online(q, k, v, seen, added):
    """The same without a derivative of its own."""
    start, xs = in_chunks(q, k, v, seen, added)
    step = functools.partial(of_chunk, q)
    (mix, _, total), _ = jax.lax.scan(lambda c, x: (step(c, x), None), start, xs)
    return jnp.swapaxes(mix / total[..., None], 1, 2)


def online_again(q, k, v, seen, added):
    """The maximum passes no gradient, steps are evaluated again, and a reciprocal."""

    @jax.checkpoint
    def step(carry, chunk):
        joined = lambda a, b: jax.lax.stop_gradient(jnp.maximum(a, b))  # noqa: E731
        return of_chunk(q, carry, chunk, joined), None

    start, xs = in_chunks(q, k, v, seen, added)
    (mix, _, total), _ = jax.lax.scan(step, start, xs)
    return jnp.swapaxes(mix * (1 / jnp.maximum(total, 1e-30))[..., None], 1, 2)


def online_by_loop(q, k, v, seen, added):
    start, xs = in_chunks(q, k, v, seen, added)

    def step(i, carry):
        return of_chunk(q, carry, [x[i] for x in xs])

    mix, _, total = jax.lax.fori_loop(0, STEPS // 2, step, start)
    return jnp.swapaxes(mix / total[..., None], 1, 2)


def online_by_hand(q, k, v, seen, added):
    """Unrolled, and divided in the function of the last step."""
    carry, xs = in_chunks(q, k, v, seen, added)
    for i in range(STEPS // 2):
        carry = of_chunk(q, carry, [x[i] for x in xs])
    return jnp.einsum("bhtd,bht->bthd", carry[0], 1 / carry[2])


def online_divided(q, k, v, seen, added):
    """The mix is divided in each step, by the sum so far."""
    start, xs = in_chunks(q, k, v, seen, added)

    def step(carry, chunk):
        mix, top, total = carry
        k, v, seen, added = chunk
        s = jnp.where(seen[:, None], scores(q, k, added), -1e30)
        new = jnp.maximum(top, s.max(-1))
        e, kept = jnp.exp(s - new[..., None]), total * jnp.exp(top - new)
        total = kept + e.sum(-1)
        more = jnp.einsum("bhts,bshd->bhtd", e, repeated(v)) / total[..., None]
        return (mix * (kept / total)[..., None] + more, new, total), None

    (mix, _, _), _ = jax.lax.scan(step, start, xs)
    return jnp.swapaxes(mix, 1, 2)


def online_multiplied(q, k, v, seen, added):
    """In each step the mix is multiplied by the last sum and divided by the new one."""
    start, xs = in_chunks(q, k, v, seen, added)

    def step(carry, chunk):
        mix, *others = carry
        mix, *others = of_chunk(q, (mix * others[1][..., None], *others), chunk)
        return (mix / others[1][..., None], *others), None

    (mix, _, _), _ = jax.lax.scan(step, start, xs)
    return jnp.swapaxes(mix, 1, 2)


def in_two_passes(q, k, v, seen, added):
    """Maximum and sum first, and then the weights."""
    start, xs = in_chunks(q, k, v, seen, added)

    def scores_of(chunk):
        k, _, seen, added = chunk
        s = jnp.einsum("bthd,bshd->bhts", q, repeated(k)) / math.sqrt(DIM) + added
        return jnp.where(seen[:, None], s, -1e30)

    def first(carry, chunk):
        top, total = carry
        s = scores_of(chunk)
        new = jnp.maximum(top, s.max(-1))
        e = jnp.exp(s - new[..., None]).sum(-1)
        return (new, total * jnp.exp(top - new) + e), None

    (top, total), _ = jax.lax.scan(first, start[1:], xs)

    def second(mix, chunk):
        p = jnp.exp(scores_of(chunk) - top[..., None]) / total[..., None]
        return mix + jnp.einsum("bhts,bshd->bthd", p, repeated(chunk[1])), None

    mix = jnp.zeros((BATCH, STEPS, HEADS, DIM), q.dtype)
    return jax.lax.scan(second, mix, xs)[0]


chunked_attention.defvjp(
    lambda *operands: (chunked_attention(*operands), operands), _derivative
)


def chunked(q, k, v, seen, added):
    return chunked_attention(q, k, v, jnp.asarray(seen, q.dtype), jnp.asarray(added))


FORMS = (
    lowest,
    infinite,
    added_mask,
    added_infinity,
    factor,
    where_of_softmax,
    exponentials,
    masked_exponentials,
    shifted_exponentials,
    held_maximum,
    logarithm,
    log_softmax,
    divided_last,
    reciprocal_last,
    mapped,
    grouped,
    heads_first,
    keys_first,
    taken,
    products,
    query_by_query,
    evaluated_again,
    cached,
    rolling,
    fused,
    chunked,
    online,
    online_again,
    online_by_loop,
    online_by_hand,
    online_divided,
    online_multiplied,
    in_two_passes,
    linen,
    linen_weights,
    nnx_weights,
    upcast,
    nnx_function,
    jax_nn,
    jax_nn_arguments,
)
IN_FLOAT32 = (upcast, nnx_function, jax_nn, jax_nn_arguments)


def through(form):
    """The form between its projections."""

    def project(p, x, heads):
        return (x @ p["kernel"] + p["bias"]).reshape(BATCH, -1, heads, DIM)

    def f(p, x):
        q = project(p["query"], x, HEADS)
        k, v = (project(p[name], x, GROUPS) for name in ("key", "value"))
        h = form(q, k, v, SEEN, ADDED).reshape(BATCH, STEPS, -1)
        return (h @ p["out"]["kernel"] + p["out"]["bias"])[:, ASKED]

    return f


def derived(params, groups, x, memory=None, seen=SEEN, added: Any = ADDED, asked=ASKED):
    """For each method: the values, and the relevance of queries and memory."""
    stack = Stack(WIDTH, 1, HEADS, 0, groups=groups, dim=DIM)
    found = []
    for _, method in METHODS:
        nodes = Node(x), None if memory is None else Node(memory)
        mask = None if seen is None else seen[:, None, None]
        out = equations.attention(stack, method, params, *nodes, 0.0, mask, added)
        seed = np.zeros_like(out.value)
        seed[:, asked] = out.value[:, asked]
        equations.relevances(out, seed)
        inputs = [n for n in nodes if n is not None]
        found.append((out.value[:, asked], [n.relevance for n in inputs]))
    return found


def explained(f, params, inputs):
    """For each method: the values, and the relevances of the inputs, in one program."""

    def both(params, inputs):
        explain = functools.partial(jaxlrp.value_and_lrp, f, target="all")
        return [explain(composite)(params, inputs) for composite, _ in METHODS]

    return jax.jit(both)(params, inputs)


def assert_same(found, expected, tolerance):
    for (value, relevance), (right_value, right) in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, right_value, rtol=0, atol=10 * tolerance)
        size = max(np.abs(x).max() for x in right)
        for r, e in zip(jax.tree.leaves(relevance), right, strict=True):
            np.testing.assert_allclose(r, e, rtol=0, atol=tolerance * size)


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def expected_of_forms():
    return derived(PARAMS, GROUPS, X)


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.__name__)
def test_relevance_does_not_depend_on_how_attention_is_written(form):
    found = explained(through(form), PARAMS, X)
    assert_same(found, expected_of_forms(), ROUNDED if form in IN_FLOAT32 else EXACT)
    for _, relevance in found:
        assert (relevance[:, 0] == 0).all()  # behind the window
        assert (relevance[:, 5] == 0).all()  # in the future
        assert (relevance[1, PADDED] == 0).all()
        assert (relevance[:, [1, 3, 4]] != 0).all()


# ---- modules, other shapes, other inputs -------------------------------------------


def split_heads(p):
    """The weights as Flax keeps them: heads on an axis of their own."""
    inner = {
        name: {
            "kernel": p[name]["kernel"].reshape(WIDTH, HEADS, DIM),
            "bias": p[name]["bias"].reshape(HEADS, DIM),
        }
        for name in ("query", "key", "value")
    }
    out = {**p["out"], "kernel": p["out"]["kernel"].reshape(HEADS, DIM, WIDTH)}
    return {**inner, "out": out}


def nnx_module(params, **options):
    module = nnx.MultiHeadAttention(
        HEADS,
        WIDTH,
        HEADS * DIM,
        WIDTH,
        decode=False,
        rngs=nnx.Rngs(0),
        **options,
    )
    for name, arrays in split_heads(params).items():
        for kind, array in arrays.items():
            setattr(getattr(module, name), kind, nnx.Param(jnp.asarray(array)))
    return module


LINEN: Any = {"num_heads": HEADS, "qkv_features": HEADS * DIM, "out_features": WIDTH}


def linen_cross(params, inputs):
    module = nn.MultiHeadDotProductAttention(**LINEN)
    mask = CROSS_SEEN[:, None]
    return module.apply({"params": split_heads(params)}, *inputs, mask=mask)


def nnx_cross(params, inputs):
    return nnx_module(params)(*inputs, mask=jnp.asarray(CROSS_SEEN[:, None]))


CROSS_SEEN = np.ones((BATCH, STEPS, STEPS + 1), bool)
CROSS_SEEN[1, :, -2:] = False
EVERY = tuple(range(STEPS))


@functools.cache
def expected_of_modules(cross):
    if cross:
        return derived(FULL, HEADS, X, MEMORY, CROSS_SEEN, None, EVERY)
    return derived(FULL, HEADS, X, None, (AGE >= 0)[None], None, EVERY)


@pytest.mark.parametrize("f", [linen_cross, nnx_cross], ids=lambda f: f.__name__)
def test_modules_attend_to_a_padded_memory(f):
    found = explained(f, FULL, (X, MEMORY))
    tolerance = EXACT if f is linen_cross else ROUNDED
    assert_same(found, expected_of_modules(True), tolerance)
    for _, (_, relevance) in found:
        assert (relevance[1, -2:] == 0).all()
        assert (relevance[1, :-2] != 0).all()


def linen_decoder(params, x):
    module = nn.MultiHeadDotProductAttention(**LINEN, decode=True)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)["cache"]
    empty = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)

    def step(cache, x):
        variables = {"params": split_heads(params), "cache": cache}
        y, new = module.apply(variables, x[:, None], mutable="cache")
        return new["cache"], y[:, 0]

    return jnp.moveaxis(jax.lax.scan(step, empty, jnp.moveaxis(x, 1, 0))[1], 0, 1)


def nnx_decoder(params, x):
    module = nnx_module(params)
    module.init_cache(x.shape, x.dtype)
    graph, weights, cache = nnx.split(module, nnx.Param, ...)

    def step(cache, x):
        module = nnx.merge(graph, weights, cache)
        y = module(x[:, None], decode=True)
        return nnx.split(module, nnx.Param, ...)[2], y[:, 0]

    return jnp.moveaxis(jax.lax.scan(step, cache, jnp.moveaxis(x, 1, 0))[1], 0, 1)


@pytest.mark.parametrize("f", [linen_decoder, nnx_decoder], ids=lambda f: f.__name__)
def test_relevance_goes_through_the_caches_of_modules(f):
    found = explained(f, FULL, X)
    tolerance = EXACT if f is linen_decoder else ROUNDED
    assert_same(found, expected_of_modules(False), tolerance)


@pytest.mark.parametrize("written", [lowest, jax_nn], ids=lambda f: f.__name__)
def test_relevance_of_caches_that_are_given(written):
    """One new token; the cache is longer than what is in it."""
    old = 3
    past = [RANDOM.standard_normal((BATCH, STEPS, GROUPS, DIM)) for _ in range(2)]
    x = X[:, :1]
    seen = np.broadcast_to(np.arange(STEPS) <= old, (BATCH, 1, STEPS))

    def f(p, inputs):
        x, *cache = inputs
        q = x @ p["query"]["kernel"] + p["query"]["bias"]
        for i, name in enumerate(("key", "value")):
            new = x @ p[name]["kernel"] + p[name]["bias"]
            new = new.reshape(BATCH, 1, GROUPS, DIM)
            cache[i] = jax.lax.dynamic_update_slice(cache[i], new, (0, old, 0, 0))
        q, added = q.reshape(BATCH, 1, HEADS, DIM), np.zeros((HEADS, 1, STEPS))
        h = written(q, *cache, seen, added).reshape(BATCH, 1, -1)
        return h @ p["out"]["kernel"] + p["out"]["bias"]

    expected = []
    for _, method in METHODS:
        nodes = [Node(x), *map(Node, past)]
        q = equations.linear(nodes[0], PARAMS["query"])
        q = equations.reshaped(q, BATCH, 1, GROUPS, HEADS // GROUPS, DIM)
        k, v = (
            equations.written(
                cache,
                equations.reshaped(
                    equations.linear(nodes[0], PARAMS[name]), BATCH, 1, GROUPS, DIM
                ),
                old,
            )
            for cache, name in zip(nodes[1:], ("key", "value"), strict=True)
        )
        h = equations.mixed(q, k, v, DIM**-0.5, 0.0, None, seen[:, None, None], method)
        h = equations.reshaped(h, BATCH, 1, HEADS * DIM)
        out = equations.linear(h, PARAMS["out"])
        equations.relevances(out, out.value)
        expected.append((out.value, [n.relevance for n in nodes]))
    found = explained(f, PARAMS, (x, *past))
    assert_same(found, expected, EXACT if written is lowest else ROUNDED)
    for _, (_, keys, values) in found:
        assert (keys[:, old:] == 0).all()  # written over, and not yet written
        assert (values[:, old:] == 0).all()
        assert (values[:, :old] != 0).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_with_softmax_in_float32(dtype):
    """Each of about ten operations in a row rounds to the dtype."""
    params, x = jax.tree.map(lambda a: jnp.asarray(a, dtype), (PARAMS, X))

    def written(q, k, v, seen, added):
        s = scores(q, k, jnp.asarray(added, dtype)).astype(jnp.float32)
        p = jax.nn.softmax(jnp.where(seen[:, None], s, -1e30))
        return mixed(p.astype(dtype), v)

    exact = jax.tree.map(lambda a: np.asarray(a, np.float64), (params, x))
    found = explained(through(written), params, x)
    assert_same(found, derived(exact[0], GROUPS, exact[1]), 10 * jnp.finfo(dtype).eps)
    for _, relevance in found:
        assert (relevance[:, [0, 5]] == 0).all()
        assert (relevance[1, PADDED] == 0).all()


def test_padding_in_front_gets_nothing_though_its_queries_see_nothing():
    real = np.ones((BATCH, 1, STEPS), bool)
    real[1, 0, :2] = False
    seen = (AGE >= 0) & real

    def padded_in_front(q, k, v, seen, added, real=seen):
        return lowest(q, k, v, real, added)

    found = explained(through(padded_in_front), PARAMS, X)
    assert_same(found, derived(PARAMS, GROUPS, X, seen=seen | (AGE == 0)), EXACT)
    for _, relevance in found:
        assert (relevance[1, :2] == 0).all()
        assert (relevance[:, 5] == 0).all()
        assert (relevance[1, 2:5] != 0).all()


SINK = 0.3  # a score that no token has


def sink_among_scores(s, v):
    s = jnp.concatenate([s, jnp.full((len(s), 1), SINK, s.dtype)], -1)
    return jax.nn.softmax(s)[:, :-1] @ v


def sink_with_a_value_of_zero(s, v):
    s = jnp.concatenate([s, jnp.full((len(s), 1), SINK, s.dtype)], -1)
    return jax.nn.softmax(s) @ jnp.concatenate([v, jnp.zeros_like(v[:1])])


def sink_in_the_sum(s, v):
    e = jnp.exp(s)
    return e / (e.sum(-1, keepdims=True) + math.exp(SINK)) @ v


def sink_in_the_maximum(s, v):
    top = jnp.maximum(s.max(-1, keepdims=True), SINK)
    e = jnp.exp(s - top)
    return e / (e.sum(-1, keepdims=True) + jnp.exp(SINK - top)) @ v


def sink_divided_last(s, v):
    top = jax.lax.stop_gradient(jnp.maximum(s.max(-1, keepdims=True), SINK))
    e = jnp.exp(s - top)
    return e @ v / (e.sum(-1, keepdims=True) + jnp.exp(SINK - top))


SINKS = (
    sink_among_scores,
    sink_with_a_value_of_zero,
    sink_in_the_sum,
    sink_in_the_maximum,
    sink_divided_last,
)


@pytest.mark.parametrize("form", SINKS, ids=lambda f: f.__name__)
def test_relevance_where_a_sink_takes_attention(form):
    x, w = X[0], PARAMS["query"]["kernel"][:, :WIDTH]
    v, s = x @ w, x @ w @ x.T
    e = np.exp(s)
    p = e / (e.sum(-1, keepdims=True) + math.exp(SINK))
    weights = p * v.sum(-1)  # the relevance of values taken as one: R = p v
    scores = (weights - p * weights.sum(-1, keepdims=True)) / 2
    held = x * (p.sum(0)[:, None] * w.sum(-1))
    through_scores = x * (scores @ x @ w.T + scores.T @ x @ w) / 2
    expected = [(p @ v, [held / 2 + through_scores]), (p @ v, [held])]
    found = explained(lambda w, x: form(x @ w @ x.T, x @ w), w, x)
    assert_same(found, expected, EXACT)
