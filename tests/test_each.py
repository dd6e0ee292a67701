"""Each row of the output has the relevance that it has alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites

rng = np.random.default_rng(5)
X, W = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((5, 4), (4, 3)))


def rows(x):
    """Five rows of three scores, each of all of `x`."""
    return jnp.tanh(jnp.roll(x, 1, 0) @ W + x.sum(0) @ W)


@pytest.mark.whole
@pytest.mark.always
@pytest.mark.parametrize(
    ("target", "chunk"),
    [("max", 2), ("all", 16), (1, 3), (jnp.array([0, 1, 2, 0, 1]), 2), (jnp.abs, 3)],
)
def test_rows_are_explained_as_if_they_were_alone(target, chunk):
    found = jax.jit(jaxlrp.lrp_each(rows, target=target, chunk=chunk))(X)
    assert found.shape == (5, *X.shape)

    @jax.jit
    def alone(t):
        mine = target[t] if isinstance(target, jax.Array) else target
        return jaxlrp.lrp(lambda x: rows(x)[t], target=mine)(X)

    for t, relevance in enumerate(found):
        np.testing.assert_allclose(relevance, alone(t), rtol=1e-4, atol=1e-6)


@pytest.mark.always
def test_arguments_and_outputs_may_be_trees():
    def f(params, inputs):
        h = inputs["x"] @ params
        return {"a": h, "b": h[:, :2] * 2}, h.sum()

    explain = jaxlrp.lrp_each(f, argnums=(0, 1), target="all", has_aux=True)
    (of_params, of_inputs), aux = explain(W, {"x": X})
    assert of_params.shape == (5, *W.shape)
    assert of_inputs["x"].shape == (5, *X.shape)
    np.testing.assert_allclose(aux, (X @ W).sum(), rtol=1e-6)
    total = (X @ W).sum(-1) + 2 * (X @ W)[:, :2].sum(-1)
    found = of_params.sum((1, 2)) + of_inputs["x"].sum((1, 2))
    np.testing.assert_allclose(found, total, rtol=1e-4, atol=1e-5)


def test_the_function_is_evaluated_once():
    seen = []

    def f(x):
        jax.debug.callback(lambda _: seen.append(1), x[0, 0])
        return rows(x)

    jax.block_until_ready(jax.jit(jaxlrp.lrp_each(f, chunk=2))(X))
    jax.effects_barrier()
    assert len(seen) == 1


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"chunk": 0}, ValueError, "chunk: got 0, expected at least 1"),
        ({"chunk": 1.5}, TypeError, "chunk: got 1.5, expected an int"),
        ({"target": "min"}, ValueError, "target: got 'min'"),
    ],
)
def test_bad_options_are_named(options, error, words):
    with pytest.raises(error, match=words):
        jaxlrp.lrp_each(rows, **options)


@pytest.mark.whole
@pytest.mark.parametrize("f", [lambda x: x.sum(), lambda x: (x, x[:2])])
def test_an_output_without_rows_is_refused(f):
    with pytest.raises(ValueError, match="expected arrays of as many rows"):
        jaxlrp.lrp_each(f, target="all")(X)


# ---- generated text --------------------------------------------------------------

VOCABULARY, WIDTH, HEADS, PROMPT, NEW = 11, 8, 2, 4, 5
LENGTH = PROMPT + NEW
PARAMS = {
    name: jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-2]), jnp.float32)
    for name, shape in {
        "embed": (VOCABULARY, WIDTH),
        "place": (LENGTH, WIDTH),
        **{n: (2, WIDTH, WIDTH) for n in ("q", "k", "v", "o", "up", "gate", "down")},
        "head": (WIDTH, VOCABULARY),
    }.items()
}
IDS = jnp.array([3, 7, 1, 9])


def norm(x):
    return x * lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def decode(params, x, start, cache):
    """Scores of new tokens, and the cache of keys and values with theirs."""
    x = x + lax.dynamic_slice_in_dim(params["place"], start, len(x))
    seen = jnp.arange(LENGTH) <= start + jnp.arange(len(x))[:, None]
    kept = []
    for i, (keys, values) in enumerate(cache):
        p = {name: w[i] for name, w in params.items() if w.ndim == 3}
        h = norm(x)
        q, k, v = ((h @ p[n]).reshape(len(x), HEADS, -1) for n in ("q", "k", "v"))
        keys = lax.dynamic_update_slice_in_dim(keys, k, start, 0)
        values = lax.dynamic_update_slice_in_dim(values, v, start, 0)
        scores = jnp.einsum("thd,shd->hts", q, keys) / np.sqrt(q.shape[-1])
        weights = jax.nn.softmax(jnp.where(seen, scores, -1e30))
        x = x + jnp.einsum("hts,shd->thd", weights, values).reshape(h.shape) @ p["o"]
        h = norm(x)
        x = x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
        kept.append((keys, values))
    return norm(x[-1]) @ params["head"], kept


def generate(loop, params, ids):
    """(the scores of each new token, the new tokens), greedily."""
    scores, cache = decode(params, params["embed"][ids], 0, empty_cache())

    def step(carry, t):
        scores, cache = carry
        token = scores.argmax()
        following = decode(params, params["embed"][token][None], PROMPT + t, cache)
        return following, (scores, token)

    if loop == "scan":
        return lax.scan(step, (scores, cache), jnp.arange(NEW))[1]

    def again(state):
        t, carry, out, tokens = state
        carry, (scores, token) = step(carry, t)
        return t + 1, carry, out.at[t].set(scores), tokens.at[t].set(token)

    out, tokens = jnp.zeros((NEW, VOCABULARY)), jnp.zeros(NEW, int)
    state = (0, (scores, cache), out, tokens)
    return lax.while_loop(lambda state: state[0] < NEW, again, state)[2:]


@functools.cache
def generated():
    return jax.jit(functools.partial(generate, "scan"))(PARAMS, IDS)[1]


def empty_cache():
    empty = jnp.zeros((LENGTH, HEADS, WIDTH // HEADS))
    return [(empty, empty)] * 2


def word_by_word(params, ids, said):
    """The scores behind `said`, whose words are looked up as they are generated."""
    scores, cache = decode(params, params["embed"][ids], 0, empty_cache())
    for t in range(len(said)):
        word = params["embed"][said[t]][None]
        scores, cache = decode(params, word, PROMPT + t, cache)
    return scores


def at_once(params, ids, said):
    text = jnp.concatenate([params["embed"][ids], params["embed"][said]])
    return decode(params, text, 0, empty_cache())[0]


@pytest.mark.parametrize("loop", ["scan", "while"])
@pytest.mark.parametrize(
    ("composite", "given"),
    [(composites.AttnLRP(), word_by_word), (composites.CPLRP(), at_once)],
)
def test_a_prompt_has_relevance_for_each_token_that_is_generated(
    loop, composite, given
):
    """As where the text is given. Words that are generated are constants."""
    explain = jaxlrp.lrp_each(
        functools.partial(generate, loop), composite, has_aux=True, chunk=2
    )
    found, tokens = jax.jit(explain)(PARAMS, IDS)
    assert found.shape == (NEW, PROMPT)
    assert tokens.tolist() == generated().tolist()
    for t in (0, 1, NEW - 1):
        alone = jax.jit(jaxlrp.lrp(given, composite, argnums=1))
        expected = alone(PARAMS, IDS, tokens[:t])
        np.testing.assert_allclose(found[t], expected, rtol=1e-3, atol=1e-5)


def test_each_token_of_a_text_is_explained_by_those_before_it():
    text = jnp.concatenate([IDS, generated()])

    def scores(params, ids):
        x, seen = params["embed"][ids] + params["place"], jnp.tri(LENGTH, dtype=bool)
        similar = jnp.where(seen, x @ params["q"][0] @ x.T, -1e30)
        return jax.nn.softmax(similar) @ x @ params["head"]

    following = jnp.roll(text, -1)
    found = jaxlrp.lrp_each(scores, target=following, chunk=4)(PARAMS, text)
    assert found.shape == (LENGTH, LENGTH)
    assert (np.triu(found, 1) == 0).all()
    assert (np.asarray(found)[np.tri(LENGTH, dtype=bool)] != 0).all()
