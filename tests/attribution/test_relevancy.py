"""Relevancy maps of encoder-decoders and co-attention, against the paper's updates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import attribution

RNG = np.random.default_rng(11)
DIM, SOURCE, TARGET = 4, 3, 2
HEAD = jnp.asarray(RNG.normal(size=(DIM, 3)), jnp.float32)
PARAMS = {
    name: jnp.asarray(RNG.normal(size=(3, DIM, DIM)), jnp.float32)
    for name in ("enc0", "enc1", "self0", "cross0", "self1", "cross1")
}
X = jnp.asarray(RNG.normal(size=(SOURCE, DIM)), jnp.float32)
Y = jnp.asarray(RNG.normal(size=(TARGET, DIM)), jnp.float32)
STREAMS = {
    "enc*": ("in", "in"),
    "self*": ("out", "out"),
    "cross*": ("out", "in"),
}


def attend(name, x, y, changes, maps):
    """Tokens `x` attend to tokens `y`, with two heads."""
    q, k, v = (
        jnp.moveaxis(z @ w, -1, 0).reshape(2, -1, len(z)).swapaxes(1, 2)
        for z, w in zip((x, y, y), PARAMS[name], strict=True)
    )
    with jax.named_scope(name):
        a = jax.nn.softmax(q @ k.swapaxes(1, 2))
    a = a + changes[name] if name in changes else a
    maps[name] = a
    return x + jnp.concatenate([*(a @ v)], -1)


def translate(args, changes=None, maps=None):
    """Logits at the last token of a small encoder-decoder."""
    changes, maps = changes or {}, {} if maps is None else maps
    x, y = args
    for name in ("enc0", "enc1"):
        x = attend(name, x, x, changes, maps)
    for i in range(2):
        y = attend(f"self{i}", y, y, changes, maps)
        y = attend(f"cross{i}", y, x, changes, maps)
    return y[-1] @ HEAD


def weighted_maps(network, args):
    """By JAX alone: `mean_h max(0, A dS/dA)` of each map."""
    maps = {}
    target = int(network(args, {}, maps).argmax())
    zeros = {name: jnp.zeros(a.shape) for name, a in maps.items()}
    slopes = jax.grad(lambda changes: network(args, changes)[target])(zeros)
    return {
        name: np.maximum(np.asarray(maps[name] * slopes[name]), 0).mean(0)
        for name in maps
    }


def normalised(r):
    rest = r - np.eye(len(r))
    sums = rest.sum(-1, keepdims=True)
    return np.eye(len(r)) + np.divide(rest, sums, out=np.zeros_like(r), where=sums != 0)


def assert_close(value, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize("normalise", [True, False])
def test_encoder_decoder_by_the_papers_updates(normalise):
    c = weighted_maps(translate, (X, Y))
    n = normalised if normalise else lambda r: r
    encoder = np.eye(SOURCE)
    for name in ("enc0", "enc1"):
        encoder = encoder + c[name] @ encoder
    own, cross = np.eye(TARGET), np.zeros((TARGET, SOURCE))
    for i in range(2):
        own, cross = own + c[f"self{i}"] @ own, cross + c[f"self{i}"] @ cross
        cross = cross + n(own).T @ c[f"cross{i}"] @ n(encoder)
    result = attribution.attention_relevancy(
        translate, streams=STREAMS, normalise=normalise
    )((X, Y))
    assert set(result) == {(s, t) for s in ("in", "out") for t in ("in", "out")}
    assert_close(result["in", "in"], encoder)
    assert_close(result["out", "out"], own)
    assert_close(result["out", "in"], cross)
    assert_close(result["in", "out"], np.zeros((SOURCE, TARGET)))


def test_batches_tokens_and_jit():
    explain = attribution.attention_relevancy(translate, streams=STREAMS)
    whole = explain((X, Y))
    row = attribution.attention_relevancy(translate, streams=STREAMS, token=-1)
    batch = (jnp.stack([X, X[::-1]]), jnp.stack([Y, Y]))
    mapped = jax.jit(jax.vmap(explain))(batch)
    for pair, r in whole.items():
        assert_close(mapped[pair][0], r)
        assert_close(row((X, Y))[pair], r[-1])


def co_attention(args, changes=None, maps=None):
    changes, maps = changes or {}, {} if maps is None else maps
    x, y = args
    x = attend("enc0", x, x, changes, maps)
    y = attend("self0", y, y, changes, maps)
    for i in range(2):
        x, y = (
            attend("enc1" if i else "cross0", x, y, changes, maps),
            attend("self1" if i else "cross1", y, x, changes, maps),
        )
    return (x.sum(0) + y[-1]) @ HEAD


def test_opposite_cross_attentions_read_the_same_state():
    c = weighted_maps(co_attention, (X, Y))
    r = {
        "xx": np.eye(SOURCE) + c["enc0"],
        "yy": np.eye(TARGET) + c["self0"],
        "xy": np.zeros((SOURCE, TARGET)),
        "yx": np.zeros((TARGET, SOURCE)),
    }
    for to_x, to_y in (("cross0", "cross1"), ("enc1", "self1")):
        nx, ny = normalised(r["xx"]), normalised(r["yy"])
        r = {
            "xy": r["xy"] + nx.T @ c[to_x] @ ny,
            "yx": r["yx"] + ny.T @ c[to_y] @ nx,
            "xx": r["xx"] + c[to_x] @ r["yx"],
            "yy": r["yy"] + c[to_y] @ r["xy"],
        }
    streams = {
        "enc0*": ("x", "x"),
        "self0*": ("y", "y"),
        "cross0*": ("x", "y"),
        "enc1*": ("x", "y"),
        "*": ("y", "x"),
    }
    result = attribution.attention_relevancy(co_attention, streams=streams)((X, Y))
    for pair, wanted in r.items():
        assert_close(result[tuple(pair)], wanted)


@pytest.mark.always
def test_one_stream_is_a_product_of_layers():
    def encoder(args, changes=None, maps=None):
        changes, maps = changes or {}, {} if maps is None else maps
        x = args
        for name in ("enc0", "enc1"):
            x = attend(name, x, x, changes, maps)
        return x[0] @ HEAD

    c = weighted_maps(encoder, X)
    wanted = (np.eye(SOURCE) + c["enc1"]) @ (np.eye(SOURCE) + c["enc0"])
    assert_close(attribution.attention_relevancy(encoder)(X), wanted)
    named = attribution.attention_relevancy(encoder, streams={"*": ("x", "x")})(X)
    assert_close(named["x", "x"], wanted)
    rollout = attribution.gradient_attention_rollout(encoder, normalise=False)(X)
    assert_close(rollout, wanted)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("streams", "message"),
    [
        (
            {"enc*": ("in", "in")},
            "streams: no pattern of .* fits 'self0/attention_map'",
        ),
        ({"*": ("in", "in")}, "streams: 'in' has 3 tokens, but 2 in 'self0/"),
        ({"*": "in"}, "streams: got .*, expected a mapping from patterns to pairs"),
        ({}, "streams: got {}, expected a mapping"),
        (["in"], "streams: got .*, expected a mapping"),
    ],
)
def test_bad_streams_are_refused(streams, message):
    with pytest.raises((ValueError, TypeError), match=message):
        attribution.attention_relevancy(translate, streams=streams)((X, Y))


@pytest.mark.always
def test_a_stream_that_attends_to_nothing_of_its_own_is_its_tokens():
    """No relevance beside the identity: the rows of zeros stay, and are not 0 / 0."""

    def crossed(args, changes=None, maps=None):
        changes, maps = changes or {}, {} if maps is None else maps
        x, y = args
        return attend("cross0", y, x, changes, maps)[-1] @ HEAD

    c = weighted_maps(crossed, (X, Y))["cross0"]
    found = attribution.attention_relevancy(crossed, streams=STREAMS)((X, Y))
    assert_close(found["out", "in"], c)
    assert_close(found["out", "out"], np.eye(TARGET))
    assert np.abs(c).max() > 0
