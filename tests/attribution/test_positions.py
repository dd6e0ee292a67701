"""What positions contribute: found in the program, and what is missing adds up."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import attribution, composites
from jaxlrp.errors import PositionsWarning

LAYERS, TOKENS, WIDTH, HEADS, WORDS = 2, 5, 8, 2, 7
SIZE = WIDTH // HEADS
IDS = jnp.array([3, 1, 4, 1, 5])


def weights(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-2]), jnp.float32)

    return {
        "embed": 2 * draw(WORDS, WIDTH),
        "place": draw(2 * TOKENS, WIDTH),
        "out": draw(WIDTH, WORDS),
        "layers": {n: draw(LAYERS, WIDTH, WIDTH) for n in ("q", "k", "v", "o", "up")}
        | {"near": draw(LAYERS, 2 * TOKENS, HEADS)},
    }


PARAMS = weights()


def norm(x):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)


def mixed(scores):
    """Attention without a softmax, which to first order does not keep relevance."""
    return jnp.where(np.tri(scores.shape[-1], dtype=bool), scores, 0) / 3


def softmax(scores):
    causal = np.tri(scores.shape[-1], dtype=bool)
    return jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))


def attention(x, w, turn=lambda q: q, bias=None, attend=mixed):
    q, k, v = ((norm(x) @ w[n]).reshape(len(x), HEADS, SIZE) for n in "qkv")
    scores = jnp.einsum("qhd,khd->hqk", turn(q), turn(k)) / 2
    if bias is not None:
        scores = scores + bias(w, len(x))
    z = jnp.einsum("hqk,khd->qhd", attend(scores), v)
    return x + z.reshape(x.shape) @ w["o"]


def layer(x, w, **how):
    x = attention(x, w, **how)
    return x + jax.nn.relu(norm(x) @ w["up"])


def network(params, ids, start=lambda params, x: x, loop=False, **how):
    x = start(params, params["embed"][ids])
    if loop:
        x, _ = lax.scan(lambda x, w: (layer(x, w, **how), None), x, params["layers"])
    else:
        for i in range(LAYERS):
            w = jax.tree.map(lambda a, i=i: a[i], params["layers"])
            x = layer(x, w, **how)
    return norm(x[-1]) @ params["out"]


def learned(params, x):
    return x + params["place"][: len(x)]


def looked_up(params, x):
    return x + jnp.take(params["place"], jnp.arange(len(x)), axis=0)


def waves(count, width=WIDTH):
    angles = jnp.arange(count)[:, None] / 10 ** (2 * jnp.arange(width // 2) / width)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def sinusoids(params, x):
    return x + waves(len(x))


TABLE = np.asarray(waves(TOKENS))


def closed_over(params, x):
    return x + TABLE


def rotary(x):
    """Halves, as Llama has it; cosines and sines are made in each layer."""
    angles = jnp.arange(len(x))[:, None] / 10 ** (2 * jnp.arange(SIZE // 2) / SIZE)
    cos, sin = (
        jnp.concatenate([g(angles)] * 2, -1)[:, None] for g in (jnp.cos, jnp.sin)
    )
    one, two = jnp.split(x, 2, -1)
    return x * cos + jnp.concatenate([-two, one], -1) * sin


def alibi(w, count):
    far = jnp.arange(count)[:, None] - jnp.arange(count)[None]
    slopes = 2.0 ** -jnp.arange(1, HEADS + 1)
    return -slopes[:, None, None] * far


def relative(w, count):
    """A learned bias for each distance, as in T5."""
    far = jnp.arange(count)[:, None] - jnp.arange(count)[None] + count
    return jnp.moveaxis(w["near"][far], -1, 0)


WAYS = {
    "learned": ({"start": learned}, {"place"}),
    "looked up": ({"start": looked_up}, {"place"}),
    "sinusoids": ({"start": sinusoids}, {"sin"}),
    "closed over": ({"start": closed_over}, {"positions"}),
    "rotary": ({"turn": rotary}, {"cos", "sin"}),
    "alibi": ({"bias": alibi}, {"positions"}),
    "relative": ({"bias": relative}, {"layers.near[0]", "layers.near[1]"}),
}


def names(positions):
    return {name.partition("#")[0] for name in positions}


@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_positions_add_up_to_the_logit(way):
    """No network here has a bias, so nothing else keeps relevance."""
    how, expected = WAYS[way]
    f = functools.partial(network, **how)
    explain = jax.jit(attribution.positional(f))
    tokens, positions = explain(PARAMS, IDS)
    assert names(positions) == expected
    assert all(r.shape == (TOKENS,) for r in positions.values())
    score = float(f(PARAMS, IDS).max())
    total = float(tokens.sum() + sum(r.sum() for r in positions.values()))
    np.testing.assert_allclose(total, score, rtol=1e-4)
    # What the positions keep is missing without them.
    plain = jax.jit(jaxlrp.lrp(f))(PARAMS, IDS)
    assert abs(float(plain.sum()) - score) > 1e-3 * abs(score)
