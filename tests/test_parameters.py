"""The relevance of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, errors, rules

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMS = {
    "first": {"w": normal(4, 6), "b": normal(6)},
    "second": {"w": normal(6, 5), "b": normal(5)},
    "head": {"w": normal(5, 3)},
}
X = jnp.abs(normal(2, 4))

LAYER_RULES = {
    "LRP-0": rules.LRP0(),
    "epsilon": rules.Epsilon(0.1),
    "gamma": rules.Gamma(0.3),
    "alpha-beta": rules.AlphaBeta(2.0, 1.0),
    "z-plus": rules.ZPlus(),
}


def dense(p, x):
    return x @ p["w"] + p.get("b", 0.0)


def network(params, x):
    with jax.named_scope("first"):
        x = jax.nn.relu(dense(params["first"], x))
    with jax.named_scope("second"):
        x = jax.nn.relu(dense(params["second"], x))
    with jax.named_scope("head"):
        return dense(params["head"], x)


def assert_close(value, wanted):
    np.testing.assert_allclose(value, wanted, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("rule", LAYER_RULES.values(), ids=LAYER_RULES)
def test_a_kernel_adds_up_to_what_its_layer_passes_on(rule):
    composite = composites.Uniform(rule)
    given = jax.jit(jaxlrp.parameter_relevance(network, composite))(PARAMS, X)
    audit = jaxlrp.audit(network, composite)(PARAMS, X)
    layers = {s.scope: s for s in audit.steps if s.role == "dense"}
    assert set(layers) == set(PARAMS)
    for name, layer in layers.items():
        assert_close(given[name]["w"].sum(), layer.passed)


@pytest.mark.parametrize("name", LAYER_RULES)
def test_a_bias_has_what_it_absorbs(name):
    composite = composites.Uniform(LAYER_RULES[name])
    given = jaxlrp.parameter_relevance(network, composite)(PARAMS, X)
    audit = jaxlrp.audit(network, composite)(PARAMS, X)
    for step in audit.steps:
        if step.role == "dense" and step.scope != "head":
            assert_close(given[step.scope]["b"].sum(), step.absorbed["bias"])


def test_relevance_of_weights_is_that_of_their_contributions():
    w, b, x = normal(4, 3), normal(3), normal(4)
    epsilon = 0.1
    composite = composites.Uniform(rules.Epsilon(epsilon))
    given = jaxlrp.parameter_relevance(dense, composite, target="all")(
        {"w": w, "b": b}, x
    )
    y = np.asarray(x @ w + b)
    ratio = y / (y + epsilon * np.where(y >= 0, 1, -1))
    assert_close(given["w"], np.asarray(x)[:, None] * np.asarray(w) * ratio)
    assert_close(given["b"], np.asarray(b) * ratio)


def test_relevance_of_weights_under_gamma_is_that_of_their_contributions():
    w, x, gamma = normal(4, 3), jnp.abs(normal(4)), 0.5
    composite = composites.Uniform(rules.Gamma(gamma, epsilon=0.0))
    given = jaxlrp.parameter_relevance(dense, composite, target=1)({"w": w}, x)
    raised = np.asarray(w) + gamma * np.maximum(w, 0)
    contributions = np.asarray(x)[:, None] * raised
    y = np.asarray(x @ w)
    wanted = contributions / contributions.sum(0) * y
    assert_close(given["w"][:, 1], wanted[:, 1])
    assert_close(given["w"][:, [0, 2]], 0)


def test_the_kernel_of_a_convolution_adds_up_to_what_it_passes_on():
    def f(w, x):
        y = jax.lax.conv(x, w, (1, 1), "SAME")
        return jax.nn.relu(y).sum((2, 3))

    w, x = normal(3, 2, 3, 3), normal(2, 2, 5, 5)
    for rule in (rules.Epsilon(0.1), rules.ZPlus()):
        composite = composites.Uniform(rule)
        given = jaxlrp.parameter_relevance(f, composite)(w, x)
        assert given.shape == w.shape
        assert_close(given.sum(), jaxlrp.lrp(f, composite)(w, x).sum())


def test_weights_of_a_loop_have_theirs_by_iteration():
    ws = normal(3, 4, 4)

    def loop(ws, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, ws)[0]

    def unrolled(ws, x):
        for w in ws:
            x = jnp.tanh(x @ w)
        return x

    composite = composites.Uniform(rules.Epsilon(0.1))
    given = jaxlrp.parameter_relevance(loop, composite)(ws, X)
    wanted = jaxlrp.parameter_relevance(unrolled, composite)(list(ws), X)
    assert_close(given, jnp.stack(wanted))


def test_leaves_that_relevance_does_not_meet_are_zero_and_keep_their_form():
    params = {
        "w": normal(4, 3).astype(jnp.bfloat16),
        "steps": jnp.arange(3),
        "unused": normal(2),
        "rate": 0.5,
        "name": "net",
    }

    def f(params, x):
        return x @ params["w"] * params["rate"]

    given = jaxlrp.parameter_relevance(f)(params, X)
    assert given["w"].dtype == jnp.bfloat16 and bool(jnp.any(given["w"] != 0))
    np.testing.assert_array_equal(given["steps"], [0, 0, 0])
    np.testing.assert_array_equal(given["unused"], [0, 0])
    assert given["rate"] == 0.0 and given["name"] == "net"


def test_any_argument_can_hold_the_parameters():
    def f(x, params):
        return network(params, x), "aux"

    options = {"params": -1, "argnums": 0, "has_aux": True}
    given, aux = jaxlrp.parameter_relevance(f, **options)(X, PARAMS)
    wanted = jaxlrp.parameter_relevance(network)(PARAMS, X)
    assert aux == "aux"
    jax.tree.map(assert_close, given, wanted)


@pytest.mark.parametrize("target", ["max", 1, lambda y: y + 1.0])
def test_targets_are_those_of_lrp(target):
    composite = composites.Uniform(rules.Epsilon(0.1))
    given = jaxlrp.parameter_relevance(network, composite, target=target)(PARAMS, X)
    explained = jaxlrp.lrp(network, composite, target=target)(PARAMS, X)
    assert_close(given["first"]["w"].sum(), explained.sum())


def test_examples_of_a_batch_add_up():
    relevance = jaxlrp.parameter_relevance(network)
    each = jax.vmap(relevance, in_axes=(None, 0))(PARAMS, X)
    whole = relevance(PARAMS, X)
    jax.tree.map(lambda a, b: assert_close(a.sum(0), b), each, whole)


@pytest.mark.whole
@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"params": "w"}, TypeError, "params: got 'w', expected an int"),
        ({"params": [0]}, TypeError, r"params: got \[0\], expected an int"),
        ({"params": 2}, ValueError, "params: got 2, but f was called with 2"),
        ({"params": 1}, ValueError, "params: got 1, which argnums=-1 attributes"),
        ({"target": "best"}, ValueError, "target: got 'best'"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        jaxlrp.parameter_relevance(network, **options)(PARAMS, X)


def test_arguments_given_by_name_are_no_parameters():
    def f(params, x, scale=1.0):
        return dense(params, x) * scale

    params = PARAMS["head"]
    x, scale = X[:, :1] + jnp.ones(5), jnp.array([1.0, 2.0, 3.0])
    with pytest.warns(errors.ArgumentWarning, match="'scale'"):
        given = jaxlrp.parameter_relevance(f)(params, x, scale=scale)
    wanted = jaxlrp.parameter_relevance(lambda p, x: f(p, x, scale))(params, x)
    assert_close(given["w"], wanted["w"])
