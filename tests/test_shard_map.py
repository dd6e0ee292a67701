"""Maps over the shards of a mesh: the numbers of one device, without more traffic."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.errors import UnexplainedPrimitiveError

rng = np.random.default_rng(0)
X, W, V = (rng.normal(size=s).astype(np.float32) for s in ((16, 8), (8, 16), (16, 4)))
B, C = (rng.normal(size=n).astype(np.float32) for n in (16, 4))
COMPOSITES = {
    "AttnLRP": composites.AttnLRP(),
    "Epsilon": composites.Epsilon(0.1),
    "Gamma": composites.Uniform(rules.Gamma(0.25)),
    "flat": composites.Uniform(rules.Flat()),
}


@functools.cache
def mesh():
    return jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))


def over_devices(f, in_specs, out_specs, *arrays, check_vma=True):
    """`f` of `x` and of arrays, each device with its part."""

    def mapped(x):
        on_mesh = jax.shard_map(
            f, mesh=mesh(), in_specs=in_specs, out_specs=out_specs, check_vma=check_vma
        )
        return on_mesh(x, *arrays)

    return mapped


def network(x, w, b, v, c):
    return jax.nn.gelu(x @ w + b) @ v + c


def norm(x, mean):
    centred = x - mean(x)
    return centred / jnp.sqrt(mean(centred**2) + 1e-3)


def mean_over_devices(x):
    return lax.pmean(x.mean(-1, keepdims=True), "d")


def softmax_over_devices(x, w):
    scores = x @ w
    scores = scores - lax.pmax(scores.max(-1, keepdims=True), "d")
    weights = jnp.exp(scores)
    return weights / lax.psum(weights.sum(-1, keepdims=True), "d")


def held_maximum(x, w):
    scores = x @ w
    greatest = lax.pmax(scores.max(-1, keepdims=True), "d")
    weights = jnp.exp(scores - lax.stop_gradient(greatest))
    return weights / lax.psum(weights.sum(-1, keepdims=True), "d")


def neighbour(x):
    return jnp.tanh(lax.ppermute(x, "d", [(i, (i + 1) % 8) for i in range(8)]) @ W)


def attend(x):
    keys = lax.all_gather(x, "d", tiled=True)
    return jax.nn.softmax(x @ keys.T / 3) @ keys


def scattered(x, w):
    y = lax.psum_scatter(x @ w, "d", scatter_dimension=0, tiled=True)
    return jnp.tanh(y + B)


def looped(x, w):
    return lax.scan(lambda h, _: (jnp.tanh(h @ w @ w.T), None), x, None, length=2)[0]


def until(x, w):
    body = lambda s: (s[0] + 1, jnp.tanh(s[1] @ w @ w.T))  # noqa: E731
    return lax.while_loop(lambda s: s[0] < 2, body, (0, x))[1]


WEIGHTS = (W, B, V, C)
PROGRAMS = {
    "batch": (
        over_devices(network, (P("d"), *[P()] * 4), P("d"), *WEIGHTS),
        lambda x: network(x, *WEIGHTS),
    ),
    "features": (
        over_devices(
            lambda x, w, b, v, c: lax.psum(jax.nn.gelu(x @ w + b) @ v, "d") + c,
            (P(), P(None, "d"), P("d"), P("d"), P()),
            P(),
            *WEIGHTS,
        ),
        lambda x: network(x, *WEIGHTS),
    ),
    "features, unchecked": (
        over_devices(
            lambda x, w, b, v, c: lax.psum(jax.nn.gelu(x @ w + b) @ v, "d") + c,
            (P(), P(None, "d"), P("d"), P("d"), P()),
            P(),
            *WEIGHTS,
            check_vma=False,
        ),
        lambda x: network(x, *WEIGHTS),
    ),
    "norm": (
        over_devices(lambda x: norm(x, mean_over_devices), P(None, "d"), P(None, "d")),
        lambda x: norm(x, lambda x: x.mean(-1, keepdims=True)),
    ),
    "softmax": (
        over_devices(softmax_over_devices, (P(), P(None, "d")), P(None, "d"), W),
        lambda x: jax.nn.softmax(x @ W),
    ),
    "maximum": (
        over_devices(lambda x: lax.pmax(jnp.tanh(x), "d"), P("d"), P()),
        lambda x: jnp.tanh(x.reshape(8, 2, 8)).max(0),
    ),
    "maximum that is held": (
        over_devices(held_maximum, (P(), P(None, "d")), P(None, "d"), W),
        lambda x: jax.nn.softmax(x @ W),
    ),
    "permuted": (
        over_devices(neighbour, P("d"), P("d")),
        lambda x: jnp.tanh(jnp.roll(x, 2, 0) @ W),
    ),
    "gathered": (
        over_devices(attend, P("d"), P("d")),
        lambda x: jax.nn.softmax(x @ x.T / 3) @ x,
    ),
    "scattered": (
        over_devices(scattered, (P(None, "d"), P("d")), P("d"), W),
        lambda x: jnp.tanh(x @ W + B),
    ),
    "scan": (over_devices(looped, (P("d"), P()), P("d"), W), lambda x: looped(x, W)),
    "while": (over_devices(until, (P("d"), P()), P("d"), W), lambda x: looped(x, W)),
}


def assert_close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(
        found, expected, rtol=0, atol=tolerance * np.abs(expected).max()
    )


@pytest.mark.parametrize("composite", ["Epsilon", "Gamma", "flat"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_relevance_is_that_of_one_device(name, composite):
    mapped, plain = PROGRAMS[name]
    found = jax.jit(jaxlrp.lrp(mapped, COMPOSITES[composite]))(X)
    assert_close(found, jax.jit(jaxlrp.lrp(plain, COMPOSITES[composite]))(X), 1e-4)


def test_without_jit_and_with_relevance_beside_the_output():
    mapped, plain = PROGRAMS["features"]
    target = lambda y: y**2  # noqa: E731
    for rule in (COMPOSITES["flat"], COMPOSITES["Epsilon"]):
        found = jaxlrp.lrp(mapped, rule, target=target)(X)
        assert_close(found, jaxlrp.lrp(plain, rule, target=target)(X), 1e-4)


def test_hyper_parameters_that_are_traced():
    mapped, plain = PROGRAMS["batch"]

    @jax.jit
    def swept(epsilons):
        return jax.vmap(lambda e: jaxlrp.lrp(mapped, composites.Epsilon(e))(X))(
            epsilons
        )

    found = swept(jnp.array([0.1, 1.0]))
    expected = [jaxlrp.lrp(plain, composites.Epsilon(e))(X) for e in (0.1, 1.0)]
    assert_close(found, np.stack(expected), 1e-4)


def test_the_audit_accounts_on_all_devices():
    mapped, plain = PROGRAMS["features"]
    found, expected = (
        jaxlrp.audit(f, COMPOSITES["Epsilon"])(X) for f in (mapped, plain)
    )
    assert abs(found.residual) < 1e-4 * abs(found.total_out)
    for name, amount in expected.absorbed.items():
        np.testing.assert_allclose(found.absorbed[name], amount, rtol=1e-3, atol=1e-3)


def test_relevance_lies_like_its_input_and_nothing_more_is_gathered():
    mapped, _ = PROGRAMS["batch"]
    x = jax.device_put(X, NamedSharding(mesh(), P("d")))
    explain = jax.jit(jaxlrp.lrp(mapped, composites.EpsilonPlusFlat()))
    assert explain(x).sharding.is_equivalent_to(x.sharding, x.ndim)
    text = explain.lower(x).compile().as_text()
    assert "all-gather" not in text and "all-to-all" not in text
    gradient = jax.jit(jax.grad(lambda x: PROGRAMS["features"][0](x).max(-1).sum()))
    mapped = jax.jit(jaxlrp.lrp(PROGRAMS["features"][0], COMPOSITES["Epsilon"]))
    counts = [
        f.lower(X).compile().as_text().count(" all-reduce(") for f in (gradient, mapped)
    ]
    assert counts[1] <= counts[0] + 1


@pytest.mark.parametrize("kind", ["argument", "constraint"])
def test_shardings_that_are_not_mapped_over(kind):
    rows = NamedSharding(mesh(), P("d"))

    def f(x):
        if kind == "constraint":
            x = lax.with_sharding_constraint(x, rows)
        return network(x, *WEIGHTS)

    explain = jax.jit(jaxlrp.lrp(f, COMPOSITES["Epsilon"]))
    x = jax.device_put(X, rows) if kind == "argument" else X
    plain = jaxlrp.lrp(lambda x: network(x, *WEIGHTS), COMPOSITES["Epsilon"])
    assert_close(explain(x), plain(X))
    assert "all-gather" not in explain.lower(x).compile().as_text()
    if kind == "argument":
        assert explain(x).sharding.is_equivalent_to(rows, 2)


def test_the_audit_accounts_where_axes_are_explicit_and_where_they_are_not():
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Explicit,))
    spread = P("d", None)

    @functools.partial(jax.sharding.auto_axes, out_sharding=spread)
    def inside(x, w):
        return jnp.tanh(x @ w) * x[:, :1]

    def f(x):
        return jnp.tanh(inside(x, W)).sum(-1)

    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, spread))
        audit = jaxlrp.audit(f, target="all")(x)
    assert audit.culprit is None
    assert abs(audit.residual) < 1e-4 * abs(audit.total_out)


def test_relevance_inside_a_sharded_map():
    explain = jaxlrp.lrp(lambda x: network(x, *WEIGHTS), COMPOSITES["Epsilon"])
    inside = jax.shard_map(explain, mesh=mesh(), in_specs=P("d"), out_specs=P("d"))
    assert_close(jax.jit(inside)(X), explain(X))


def test_parallel_map():
    f = lambda x: jnp.tanh(x @ W) + lax.pmean(x @ W, "i")  # noqa: E731
    x = X.reshape(8, 2, 8)
    mapped = jaxlrp.lrp(jax.pmap(f, axis_name="i"), COMPOSITES["Epsilon"], target=1)
    plain = jax.vmap(f, axis_name="i")
    expected = jaxlrp.lrp(plain, COMPOSITES["Epsilon"], target=1)(x)
    assert_close(jax.jit(mapped)(x), expected, 1e-4)


def test_values_on_devices_have_no_name():
    tagged = over_devices(lambda x: checkpoint_name(jnp.tanh(x), "h"), P("d"), P("d"))
    with pytest.raises(ValueError, match="capture: got 'h'.*shard_map"):
        jaxlrp.lrp(tagged, capture="h")(X)


def test_what_cannot_be_read_is_refused_on_devices_too():
    shape = jax.ShapeDtypeStruct((2, 8), np.float32)
    mapped = over_devices(
        lambda x: jax.pure_callback(lambda v: v, shape, x), P("d"), P("d")
    )
    with pytest.raises(UnexplainedPrimitiveError, match="pure_callback"):
        jaxlrp.lrp(mapped)(X)


@pytest.mark.parametrize("rule", [rules.WSquare(), rules.ZBox(-5.0, 5.0)], ids=str)
def test_first_convolutions_of_images_on_many_devices(rule):
    images = jnp.asarray(rng.normal(size=(8, 5, 5, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)

    def convolved(x, w):
        names = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=names)

    mapped = over_devices(convolved, (P("d"), P()), P("d"), kernel)
    composite = composites.Uniform(rule)
    found = jaxlrp.lrp(mapped, composite, target="all")(images)
    alone = jaxlrp.lrp(lambda x: convolved(x, kernel), composite, target="all")(images)
    np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.always
def test_a_bias_in_front_of_a_sum_over_devices_is_added_on_each():
    """Eight times in all: it is in the sum, and not the bias of the whole layer."""
    f = over_devices(
        lambda x, w, b: lax.psum(x @ w + b, "d"), (P(None, "d"), P("d"), P()), P(), V, C
    )
    x = np.tile(X, (1, 2))
    for name in ("Epsilon", "Gamma"):
        found = jaxlrp.lrp(f, COMPOSITES[name], target="all")(x)
        # On each device a layer of its own, and a sum in proportion.
        parts = [
            jaxlrp.relprop(lambda x, v=v: x @ v + C, x_, composite=COMPOSITES[name])[1](
                x_ @ v + C
            )
            for x_, v in zip(np.split(x, 8, 1), np.split(V, 8), strict=True)
        ]
        np.testing.assert_allclose(
            found, np.concatenate(parts, 1), rtol=1e-3, atol=1e-4
        )
