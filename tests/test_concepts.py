"""Channels of intermediate values: their relevance, their examples, their parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import composites, concepts, rules

EPSILON = composites.Uniform(rules.Epsilon(0.1))
RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


KERNELS = (normal(3, 2, 3, 3), normal(4, 3, 3, 3))
HEAD = normal(4, 3)
IMAGES = normal(2, 2, 6, 6)
W = (normal(4, 5), normal(5, 6), normal(6, 3))
X = normal(3, 4)


def assert_close(value, wanted):
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


def cnn(x):
    for i, kernel in enumerate(KERNELS):
        x = jax.nn.relu(jax.lax.conv(x, kernel, (1, 1), "SAME"))
        x = checkpoint_name(x, f"conv{i}")
    return x.mean((2, 3)) @ HEAD


def mlp(x):
    low = checkpoint_name(jax.nn.relu(x @ W[0]), "low")
    return checkpoint_name(jnp.tanh(low @ W[1]), "up") @ W[2]


def captured(f, x, name):
    return jaxlrp.lrp(f, EPSILON, capture=name)(x)[1][name]


# ---- names -------------------------------------------------------------------------


def test_sites_are_the_names_that_can_be_captured():
    def f(ws, x):
        hidden = checkpoint_name(jnp.ones(2), "constant").sum() * x
        with jax.named_scope("net"):
            body = lambda h, w: (checkpoint_name(jnp.tanh(h @ w), "h"), None)  # noqa: E731
            hidden = jax.lax.scan(body, hidden, ws)[0]
        return hidden.sum(-1), "aux"

    specs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3, 4, 4), (2, 4))]
    found = concepts.sites(f, has_aux=True)(*specs)
    assert {name: v.shape for name, v in found.items()} == {
        "ws[:]": (3, 2, 4),
        "net/h": (3, 2, 4),
        "net": (2, 4),
    }
    _, captured = jaxlrp.lrp(f, has_aux=True, capture="*", target="all")(
        jnp.ones((3, 4, 4)), jnp.ones((2, 4))
    )[0]
    for name, relevance in captured.items():
        assert relevance.shape == found[name].shape
        assert relevance.dtype == found[name].dtype


# ---- relevance of channels ---------------------------------------------------------


@pytest.mark.always
def test_relevance_of_a_channel_is_summed_over_its_elements():
    relevance = jax.jit(concepts.channel_relevance(cnn, EPSILON, site="conv1", axis=1))(
        IMAGES
    )
    assert_close(relevance, captured(cnn, IMAGES, "conv1").sum((2, 3)))


def test_other_reductions_axes_and_single_examples():
    whole = captured(cnn, IMAGES, "conv1")
    highest = concepts.channel_relevance(
        cnn, EPSILON, site="conv1", axis=-3, reduce="max"
    )
    assert_close(highest(IMAGES), whole.max((2, 3)))
    rows = concepts.channel_relevance(
        cnn, EPSILON, site="conv1", axis=2, examples=None, reduce="mean"
    )
    assert_close(rows(IMAGES), whole.mean((0, 1, 3)))


def test_heads_and_tokens_are_channels_of_attention_maps():
    def attend(x):  # (examples, heads, tokens, features)
        return jax.nn.softmax(x @ jnp.swapaxes(x, -1, -2)) @ x

    x = normal(2, 3, 4, 5)
    ask = functools.partial(
        concepts.channel_relevance, attend, site="attention_map", target="all"
    )
    heads, tokens = ask(axis=1)(x), ask(axis=-1)(x)
    # The map is one of two factors, which get half of the output each.
    assert_close(heads, attend(x).sum((2, 3)) / 2)
    assert tokens.shape == (2, 4)
    assert_close(tokens.sum(-1), heads.sum(-1))


def nnx_attention():
    attention = nnx.MultiHeadAttention(
        num_heads=2, in_features=8, decode=False, rngs=nnx.Rngs(0)
    )
    graph, state = nnx.split(attention)
    return lambda x: nnx.merge(graph, state)(x).sum(1)


def jax_attention(x):
    heads = x.reshape(*x.shape[:2], 2, -1)
    return jax.nn.dot_product_attention(heads, heads, heads).sum((1, 3))


@pytest.mark.parametrize("attend", [nnx_attention(), jax_attention], ids=["nnx", "jax"])
def test_an_axis_in_front_of_the_examples_is_not_taken_for_them(attend):
    x = normal(3, 4, 8)
    ask = functools.partial(
        concepts.channel_relevance, attend, site="attention_map", target="all"
    )
    for axis in (1, 2, -1):
        with pytest.raises(
            ValueError, match=r"examples: got axis 0 of 'attention_map'"
        ):
            ask(axis=axis)(x)
    with pytest.raises(ValueError, match="expected the axis of the 3 examples"):
        ask(axis=1, examples=2)(x)
    _, captured = jaxlrp.lrp(attend, target="all", capture="attention_map")(x)
    heads = ask(axis=2, examples=1)(x)
    assert_close(heads, captured["attention_map"].sum((0, 3, 4)))
    # One example is the sum of all.
    assert_close(ask(axis=2, examples=0)(x[:1])[0], heads[0])
    assert_close(ask(axis=2, examples=None)(x[:1]), heads[0])


def test_examples_that_cannot_be_told_are_refused():
    attend = nnx_attention()
    one = lambda x: attend(x[None])[0]  # noqa: E731
    x = normal(4, 8)
    ask = functools.partial(concepts.channel_relevance, one, site="attention_map")
    with pytest.raises(ValueError, match="expected the axis of one example.*None"):
        ask(axis=2)(x)
    assert ask(axis=2, examples=None)(x).shape == (2,)
    whole = lambda x: attend(x).sum()  # noqa: E731 - no axis of examples is left
    ask = functools.partial(concepts.channel_relevance, whole, site="attention_map")
    with pytest.raises(ValueError, match="examples: got axis 0"):
        ask(axis=2)(normal(3, 4, 8))
    assert ask(axis=2, examples=1)(normal(3, 4, 8)).shape == (3, 2)


def test_any_value_with_an_axis_in_front_of_the_examples_is_refused():
    def f(x):
        return checkpoint_name(x[None] * 2.0, "h")[0] @ jnp.ones((4, 2))

    x = normal(3, 4)
    with pytest.raises(ValueError, match="examples: got axis 0 of 'h'"):
        concepts.channel_relevance(f, site="h")(x)
    assert concepts.channel_relevance(f, site="h", examples=1)(x).shape == (3, 4)
    alone = lambda x: f(x[None])[0]  # noqa: E731 - an example and its axis
    found = concepts.channel_relevance(alone, site="h", examples=0)(x[0])
    assert found.shape == (1, 4)
    graph = concepts.attribution_graph(f, upper="h", lower="h")
    with pytest.raises(ValueError, match="examples: got axis 0 of 'h'"):
        graph(x)


def test_iterations_of_a_loop_are_channels():
    ws = jnp.stack([W[1][:, :5], W[1][:, 1:]])

    def loop(x):
        def body(h, w):
            return checkpoint_name(jnp.tanh(h @ w), "h"), None

        return jax.lax.scan(body, x @ W[0], ws)[0] @ W[2][:5]

    def unrolled(x):
        low = checkpoint_name(jnp.tanh(x @ W[0] @ ws[0]), "low")
        return checkpoint_name(jnp.tanh(low @ ws[1]), "up") @ W[2][:5]

    steps = concepts.channel_relevance(loop, EPSILON, site="h", axis=0, examples=1)(X)
    both = [captured(unrolled, X, name).sum(-1) for name in ("low", "up")]
    assert_close(steps, jnp.stack(both, axis=-1))


# ---- conditional explanations ------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_heatmaps_of_channels_add_up_to_the_explanation(chunk):
    parts = jax.jit(concepts.heatmaps(cnn, EPSILON, site="conv1", axis=1, chunk=chunk))(
        IMAGES
    )
    assert parts.shape == (4, *IMAGES.shape)
    assert_close(parts.sum(0), jaxlrp.lrp(cnn, EPSILON)(IMAGES))
    mask = jnp.zeros((4, 1, 1)).at[2].set(1.0)
    third = jaxlrp.lrp(cnn, EPSILON, conditions={"conv1": mask})(IMAGES)
    assert_close(parts[2], third)


def test_heatmaps_of_some_channels():
    parts = concepts.heatmaps(mlp, EPSILON, site="up")(X)
    some = concepts.heatmaps(mlp, EPSILON, site="up", channels=[4, -1])(X)
    assert_close(some, parts[jnp.array([4, 5])])


# ---- the graph ---------------------------------------------------------------------


@pytest.mark.always
def test_rows_of_the_graph_add_up_to_the_lower_channels_relevance():
    graph = jax.jit(
        concepts.attribution_graph(mlp, EPSILON, upper="up", lower="low", chunk=4)
    )(X)
    assert graph.shape == (3, 6, 5)
    low = concepts.channel_relevance(mlp, EPSILON, site="low")(X)
    assert_close(graph.sum(1), low)


def test_an_entry_of_the_graph_is_the_message_between_two_channels():
    composite = composites.Uniform(rules.LRP0())
    graph = concepts.attribution_graph(
        mlp, composite, upper="up", lower="low", target="all"
    )(X)
    low = np.maximum(np.asarray(X @ W[0]), 0)
    pre = low @ np.asarray(W[1])
    up = np.tanh(pre) * np.asarray(W[2]).sum(-1)
    wanted = up[:, :, None] * low[:, None] * np.asarray(W[1]).T / pre[:, :, None]
    np.testing.assert_allclose(graph, wanted, rtol=1e-3, atol=1e-4)


def test_the_graph_between_convolutions_and_of_some_channels():
    ask = functools.partial(
        concepts.attribution_graph,
        cnn,
        EPSILON,
        upper="conv1",
        lower="conv0",
        upper_axis=1,
        lower_axis=1,
    )
    graph = ask()(IMAGES)
    assert graph.shape == (2, 4, 3)
    low = captured(cnn, IMAGES, "conv0").sum((2, 3))
    assert_close(graph.sum(1), low)
    some = ask(upper_channels=jnp.array([2]), examples=None)(IMAGES)
    assert_close(some, graph[:, 2:3].sum(0))


# ---- the highest examples ----------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 9])
def test_maximise_finds_the_examples_of_highest_score(size):
    data = normal(9, 4)
    scores = jax.jit(concepts.channel_relevance(mlp, EPSILON, site="up"))
    batches = [data[i : i + size] for i in range(0, 9, size)]
    best = concepts.maximise(scores, iter(batches), top=3)
    whole = np.asarray(scores(data))
    order = np.argsort(-whole, axis=0, kind="stable")[:3].T
    np.testing.assert_array_equal(best.indices, order)
    assert_close(best.scores, np.take_along_axis(whole.T, order, axis=1))


def test_maximise_takes_the_first_of_equal_scores():
    batches = [jnp.array([[-0.0], [0.0], [1.0]]), jnp.array([[1.0], [0.0]])]
    best = concepts.maximise(lambda batch: batch, batches, top=4)
    np.testing.assert_array_equal(best.indices, [[2, 3, 0, 1]])


def test_maximise_says_where_there_are_too_few():
    best = concepts.maximise(lambda batch: batch, [jnp.ones((2, 1))], top=3)
    np.testing.assert_array_equal(best.indices, [[0, 1, -1]])
    np.testing.assert_array_equal(best.scores, [[1.0, 1.0, -np.inf]])


# ---- bad input ---------------------------------------------------------------------

GRAPH = functools.partial(concepts.attribution_graph, upper="up", lower="low")


@pytest.mark.whole
@pytest.mark.parametrize(
    "ask, message",
    [
        (lambda: concepts.channel_relevance(mlp, site="upper"), "site: got 'upper'"),
        (lambda: concepts.channel_relevance(mlp, site="*"), "names 2 values.*expected"),
        (
            lambda: concepts.channel_relevance(mlp, site="up", axis=2),
            r"axis: got 2, expected an axis of 'up', of shape \(3, 6\)",
        ),
        (
            lambda: concepts.channel_relevance(mlp, site="up", examples=1),
            "examples: got 1, which is the axis of the channels",
        ),
        (
            lambda: concepts.channel_relevance(mlp, site="up", reduce="top"),
            "reduce: got 'top', expected one of sum, max, mean",
        ),
        (lambda: concepts.heatmaps(mlp, site="up", chunk=0), "chunk: got 0"),
        (
            lambda: concepts.heatmaps(mlp, site="up", channels=[6]),
            r"channels: got \[6\], expected ints in \[-6, 6\)",
        ),
        (
            lambda: concepts.heatmaps(mlp, site="up", channels=jnp.ones(1)),
            "channels: got .*, expected a sequence of ints",
        ),
        (lambda: GRAPH(mlp, upper_axis=5), "upper_axis: got 5"),
        (lambda: GRAPH(mlp, lower_axis=5), "lower_axis: got 5"),
        (lambda: GRAPH(mlp, upper_channels=[9]), r"upper_channels: got \[9\]"),
    ],
)
def test_bad_questions_are_refused(ask, message):
    with pytest.raises(ValueError, match=message):
        ask()(X)


@pytest.mark.whole
@pytest.mark.parametrize(
    "batches, top, message",
    [
        ([], 2, "batches: got none"),
        ([jnp.ones((2, 3))], 0, "top: got 0"),
        ([jnp.ones(2)], 2, r"scores\(batch\): got shape \(2,\)"),
        ([jnp.ones((2, 3)), jnp.ones((2, 4))], 2, r"expected \(examples, 3\)"),
        ([jnp.ones((2, 3)), jnp.ones((2, 2))], 2, r"expected \(examples, 3\)"),
    ],
)
def test_bad_scores_are_refused(batches, top, message):
    with pytest.raises(ValueError, match=message):
        concepts.maximise(lambda batch: batch, batches, top=top)
