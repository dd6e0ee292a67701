"""Raw attention, rollouts and transformer attribution, against written-out maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import _targets, attribution, composites, lrp
from jaxlrp._reading.sites import Site
from jaxlrp.attribution import _attention
from jaxlrp.compat import chefer
from tests.models.networks import golden

RNG = np.random.default_rng(10)
LAYERS, HEADS, TOKENS, DIM = 3, 2, 4, 6
WEIGHTS = jnp.asarray(RNG.normal(size=(LAYERS, 4, DIM, DIM)) / 2, jnp.float32)
HEAD = jnp.asarray(RNG.normal(size=(DIM, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(2, TOKENS, DIM)), jnp.float32)


def heads(x):
    return jnp.moveaxis(x.reshape(*x.shape[:-1], HEADS, -1), -2, -3)


def block(x, weights, change=None):
    """One layer of attention; returns the map beside the result."""
    q, k, v = (heads(x @ w) for w in weights[:3])
    a = jax.nn.softmax(q @ k.swapaxes(-1, -2) / 3**0.5)
    a = a if change is None else a + change
    y = jnp.moveaxis(a @ v, -3, -2).reshape(x.shape)
    return x + jnp.tanh(y @ weights[3]), a


def f(x):
    for weights in WEIGHTS:
        x, _ = block(x, weights)
    return x[..., 0, :] @ HEAD


def scanned(x):
    x, _ = jax.lax.scan(lambda x, w: (block(x, w)[0], None), x, WEIGHTS)
    return x[..., 0, :] @ HEAD


def with_changes(changes, x):
    """The logits, and the maps, as functions of what is added to the maps."""
    maps = []
    for weights, change in zip(WEIGHTS, changes, strict=True):
        x, a = block(x, weights, change)
        maps.append(a)
    return x[..., 0, :] @ HEAD, maps


def maps_and_gradients(target=None):
    """By JAX alone: each map, and the gradient of the explained logits there."""
    shape = (2, HEADS, TOKENS, TOKENS)
    zeros = [jnp.zeros(shape) for _ in range(LAYERS)]
    logits, maps = with_changes(zeros, X)
    classes = logits.argmax(-1) if target is None else np.full(2, target)

    def score(changes):
        out, _ = with_changes(changes, X)
        return jnp.take_along_axis(out, classes[:, None], 1).sum()

    gradients = jax.grad(score)(zeros)
    return [np.asarray(m) for m in maps], [np.asarray(g) for g in gradients]


MAPS, GRADIENTS = maps_and_gradients()


def product(layers):
    """For each example, the last layer on the left."""
    result = np.stack([np.eye(TOKENS)] * 2)
    for layer in layers:
        result = np.stack([a @ r for a, r in zip(layer, result, strict=True)])
    return result


def assert_close(value, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol)


either = pytest.mark.parametrize("f", [f, scanned], ids=["written_out", "scanned"])
METHODS = {
    "raw_attention": attribution.raw_attention,
    "attention_rollout": attribution.attention_rollout,
    "gradient_attention_rollout": attribution.gradient_attention_rollout,
    "transformer_attribution": attribution.transformer_attribution,
    "attention_relevancy": attribution.attention_relevancy,
}
each = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


# ---- each method -------------------------------------------------------------------


@either
@pytest.mark.parametrize("layer", [0, 1, -1])
def test_raw_attention_is_the_mean_of_a_layers_heads(f, layer):
    explain = attribution.raw_attention(f, layer=layer)
    assert_close(explain(X), MAPS[layer].mean(1))


@pytest.mark.always
@either
def test_rollout_multiplies_half_attention_half_identity(f):
    wanted = product([0.5 * a.mean(1) + 0.5 * np.eye(TOKENS) for a in MAPS])
    rollout = attribution.attention_rollout(f)(X)
    assert_close(rollout, wanted)
    assert_close(rollout.sum(-1), np.ones((2, TOKENS)))


@pytest.mark.always
def test_the_residuals_share_and_the_first_layer_can_be_chosen():
    rollout = attribution.attention_rollout(f, residual=0.2, start=1, token=-1)(X)
    wanted = product([0.8 * a.mean(1) + 0.2 * np.eye(TOKENS) for a in MAPS[1:]])
    assert_close(rollout, wanted[:, -1])


@either
@pytest.mark.parametrize("normalise", [True, False])
def test_gradient_rollout_weights_maps_with_gradients(f, normalise):
    layers = [
        np.maximum(a * g, 0).mean(1) + np.eye(TOKENS)
        for a, g in zip(MAPS, GRADIENTS, strict=True)
    ]
    if normalise:
        layers = [a / a.sum(-1, keepdims=True) for a in layers]
    rollout = attribution.gradient_attention_rollout(f, normalise=normalise)(X)
    assert_close(rollout, product(layers))


def test_gradient_rollout_explains_the_target():
    maps, gradients = maps_and_gradients(target=2)
    layers = [
        np.maximum(a * g, 0).mean(1) + np.eye(TOKENS)
        for a, g in zip(maps, gradients, strict=True)
    ]
    explain = attribution.gradient_attention_rollout(f, normalise=False, target=2)
    assert_close(explain(X), product(layers))


@pytest.mark.always
@either
@pytest.mark.parametrize(
    "composite", [composites.AttnLRP(), composites.Epsilon()], ids=lambda c: c.name
)
def test_transformer_attribution_weights_relevance_with_gradients(f, composite):
    def one(out):
        return _targets.multiplier("max", out)

    _, captured = lrp(f, composite, target=one, capture="attention_map")(X)
    relevances = np.concatenate(
        [np.asarray(r).reshape(-1, *MAPS[0].shape) for r in captured.values()]
    )
    layers = [
        np.maximum(r * g, 0).mean(1) + np.eye(TOKENS)
        for r, g in zip(relevances, GRADIENTS, strict=True)
    ]
    explain = attribution.transformer_attribution(f, composite, token=0)
    assert_close(explain(X), product(layers)[:, 0])


def test_transformer_attribution_uses_attnlrp_by_default():
    assert_close(
        attribution.transformer_attribution(f)(X),
        attribution.transformer_attribution(f, composites.AttnLRP())(X),
    )


def test_relevance_of_maps_starts_with_one_whatever_the_logit():
    def one_layer(x):
        return block(x, WEIGHTS[0])[0][..., 0, :] @ HEAD

    identity = np.eye(TOKENS)
    wanted = 3 * (attribution.transformer_attribution(one_layer)(X) - identity)
    explain = attribution.transformer_attribution(lambda x: 3 * one_layer(x))
    assert_close(explain(X) - identity, wanted)


def chefer_attribution(name, token, **options):
    """With the rules of Chefer's code, in float64."""
    with jax.enable_x64(True):
        f, params, x = getattr(golden, name)()
        explain = attribution.transformer_attribution(
            f, chefer.RelProp(), token=token, **options
        )
        return np.asarray(jax.jit(explain)(params, x))


def test_transformer_attribution_of_a_vision_transformer_is_that_of_chefer():
    wanted = golden.arrays("vit")["R.chefer.transformer_attribution"]
    result = chefer_attribution("vit", token=0)[:, 1:]
    assert_close(result, wanted, rtol=0, atol=1e-7 * wanted.max())


@pytest.mark.always
def test_relevance_rollout_is_that_of_chefer():
    wanted = golden.arrays("vit")["R.chefer.rollout"]
    result = chefer_attribution("vit", token=0, weighted=False)[:, 1:]
    assert_close(result, wanted, rtol=0, atol=1e-7 * wanted.max())


def test_transformer_attribution_of_a_text_encoder_is_that_of_chefer():
    # The code sets the token's own entry to the smallest of the row.
    wanted = golden.arrays("bert")["R.chefer.transformer_attribution"][:, 1:]
    result = chefer_attribution("bert", token=0, normalise=True)[:, 1:]
    assert_close(result, wanted, rtol=0, atol=1e-7 * wanted.max())


# ---- what they have in common ------------------------------------------------------


@each
def test_batches_are_examples_and_jit_changes_nothing(method):
    explain = method(f)
    whole = explain(X)
    assert whole.shape == (2, TOKENS, TOKENS)
    assert_close(jax.jit(explain)(X), whole)
    assert_close(jax.jit(jax.vmap(explain))(X), whole)
    assert_close(explain(X[0]), whole[0])


@each
def test_the_row_of_a_token(method):
    whole = method(f)(X)
    for token in (0, 2, -1):
        assert_close(method(f, token=token)(X), whole[:, token])


@each
def test_auxiliary_data_comes_back_beside_the_maps(method):
    explain = method(lambda x: (f(x), {"name": "aux", "mean": x.mean()}), has_aux=True)
    result, aux = explain(X)
    assert aux["name"] == "aux"
    assert_close(aux["mean"], X.mean())
    assert_close(result, method(f)(X))


@each
def test_heads_may_lie_on_any_axes_or_on_none(method):
    def grouped(x):  # heads as two axes, (1, HEADS)
        for weights in WEIGHTS:
            q, k, v = (heads(x @ w)[..., None, :, :, :] for w in weights[:3])
            a = jax.nn.softmax(q @ k.swapaxes(-1, -2) / 3**0.5)
            y = jnp.moveaxis((a @ v)[..., 0, :, :, :], -3, -2).reshape(x.shape)
            x = x + jnp.tanh(y @ weights[3])
        return x[..., 0, :] @ HEAD

    assert_close(method(grouped, head_axis=(-4, -3))(X), method(f)(X))

    def single(x):
        a = jax.nn.softmax(x @ x.swapaxes(-1, -2))
        return (a @ x)[..., 0, :] @ HEAD

    def one_head(x):
        a = jax.nn.softmax((x @ x.swapaxes(-1, -2))[..., None, :, :])
        return (a[..., 0, :, :] @ x)[..., 0, :] @ HEAD

    assert_close(method(single, head_axis=None)(X), method(one_head)(X))


@pytest.mark.parametrize("groups", [1, 2])
def test_heads_of_jaxs_own_attention_lie_on_two_axes(groups):
    keys = 4 // groups

    def built_in(x):
        q = x[..., :4].reshape(2, TOKENS, 4, 1)
        k = q[:, :, :keys]
        y = jax.nn.dot_product_attention(q, k, k)
        return y.reshape(2, TOKENS, 4)[:, 0] @ HEAD[:4]

    def written_out(x):
        q = jnp.moveaxis(x[..., :4].reshape(2, TOKENS, 4, 1), 2, 1)
        k = jnp.repeat(q[:, :keys], groups, axis=1)
        y = jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ k
        return jnp.moveaxis(y, 1, 2).reshape(2, TOKENS, 4)[:, 0] @ HEAD[:4]

    explain = attribution.gradient_attention_rollout(built_in, head_axis=(-5, -3))
    assert_close(explain(X), attribution.gradient_attention_rollout(written_out)(X))


@each
def test_maps_can_be_chosen_by_name(method):
    def named(x):
        for i, weights in enumerate(WEIGHTS):
            with jax.named_scope(f"layer{i}"):
                x, _ = block(x, weights)
        return x[..., 0, :] @ HEAD

    assert_close(method(named, maps="*/attention_map")(X), method(f)(X))
    options = {} if method is attribution.raw_attention else {"maps": "layer[12]/*map"}
    starting = {"start": 1} if "rollout" in method.__name__ else {}
    if starting:
        assert_close(method(named, **options)(X), method(f, **starting)(X))
    with pytest.raises(ValueError, match="maps: got 'layer7/.*which names no value"):
        method(named, maps="layer7/attention_map")(X)


@each
def test_functions_of_token_numbers_are_explained_through_their_parameters(method):
    table = jnp.concatenate([X[0], X[1]])
    tokens = jnp.arange(2 * TOKENS).reshape(2, TOKENS)

    def with_table(table, tokens):
        return f(table[tokens])

    assert_close(method(with_table, argnums=0)(table, tokens), method(f)(X))


@each
def test_bad_arguments_are_refused(method):
    with pytest.raises(ValueError, match="head_axis: got -2, expected ints <= -3"):
        method(f, head_axis=-2)
    with pytest.raises(ValueError, match="head_axis: got -5, but 'attention_map#"):
        method(f, head_axis=-5)(X)
    with pytest.raises(ValueError, match=r"token: got 4, expected one in \[-4, 4\)"):
        method(f, token=4)(X)
    with pytest.raises(TypeError, match="maps: got 3, expected a pattern"):
        method(f, maps=3)(X)
    with pytest.raises(ValueError, match="maps: got 'attention_map', which names no"):
        method(lambda x: x[:, 0] @ HEAD)(X)
    with pytest.raises(TypeError, match="f: got 1, expected a function"):
        method(1)


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"layer: got 3, expected one in \[-3, 3\)"):
        attribution.raw_attention(f, layer=3)(X)
    with pytest.raises(ValueError, match=r"start: got 3, expected one in \[-3, 3\)"):
        attribution.attention_rollout(f, start=3)(X)


def test_maps_between_two_sets_of_tokens_are_refused():
    def cross(x):
        a = jax.nn.softmax(heads(x[:, :2]) @ heads(x).swapaxes(-1, -2))
        return (a @ heads(x)).sum((1, 2)) @ HEAD[:3]

    with pytest.raises(ValueError, match=r"maps: expected maps of one set of tokens"):
        attribution.attention_rollout(cross)(X)
    with pytest.raises(ValueError, match=r"maps: expected maps of one set of tokens"):
        attribution.attention_relevancy(cross)(X)


def test_layers_follow_the_order_in_which_a_loop_runs():
    def backwards(x):
        x, _ = jax.lax.scan(
            lambda x, w: (block(x, w)[0], None), x, WEIGHTS[::-1], reverse=True
        )
        return x[..., 0, :] @ HEAD

    def nested(x):  # the first layer alone, then two loops of one
        x, _ = block(x, WEIGHTS[0])

        def outer(x, ws):
            return jax.lax.scan(lambda x, w: (block(x, w)[0], None), x, ws)

        x, _ = jax.lax.scan(outer, x, WEIGHTS[1:, None])
        return x[..., 0, :] @ HEAD

    def pairs(x):  # two maps in each iteration
        def step(x, ws):
            return block(block(x, ws[0])[0], ws[1])[0], None

        four = jnp.concatenate([WEIGHTS, WEIGHTS[:1]]).reshape(2, 2, 4, DIM, DIM)
        x, _ = jax.lax.scan(step, x, four)
        return x[..., 0, :] @ HEAD

    def four(x):
        for weights in [*WEIGHTS, WEIGHTS[0]]:
            x, _ = block(x, weights)
        return x[..., 0, :] @ HEAD

    wanted = attribution.attention_rollout(f)(X)
    assert_close(attribution.attention_rollout(backwards)(X), wanted)
    assert_close(attribution.attention_rollout(nested)(X), wanted)
    assert_close(
        attribution.attention_rollout(pairs)(X), attribution.attention_rollout(four)(X)
    )


@each
def test_layers_in_checkpoints_and_branches_are_found(method):
    def inside(x):
        x = jax.checkpoint(lambda x, w: block(x, w)[0])(x, WEIGHTS[0])
        x = jax.lax.cond(
            x.sum() < jnp.inf,
            lambda x: block(x, WEIGHTS[1])[0],
            lambda x: jnp.sin(x),
            x,
        )
        x, _ = block(x, WEIGHTS[2])
        return x[..., 0, :] @ HEAD

    assert_close(method(inside)(X), method(f)(X))


def test_rows_of_layers_that_are_rolled_out_add_up_to_one():
    maps = np.random.default_rng(3).uniform(size=(2, 4, 4))
    layers = [(Site("map", (), (), None), jnp.asarray(a, jnp.float32)) for a in maps]
    first, second = (a + 0.5 * np.eye(4) for a in maps)
    first, second = (a / a.sum(-1, keepdims=True) for a in (first, second))
    np.testing.assert_allclose(
        _attention.rolled(layers, 1.0, 0.5, True, 0), second @ first, rtol=1e-5
    )
