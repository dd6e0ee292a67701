"""Composites are data: lines, of which the last that matches wins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)
K = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 3, 3)), jnp.float32)
W = jnp.asarray(np.random.default_rng(2).normal(size=(3, 5)), jnp.float32)


def conv(x):
    return jax.lax.conv_general_dilated(
        x, K, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def net(x):
    h = jax.nn.relu(conv(x))
    with jax.named_scope("middle"):
        h = jax.nn.relu(conv(h) + h)
    with jax.named_scope("head"):
        return h.mean((1, 2)) @ W


def chosen(composite, f=net):
    """{role: names of the rules, in order} of a plan."""
    found = {}
    for row in jaxlrp.plan(f, composite)(X).rows:
        found.setdefault(row.role, []).append(row.rule.split("(")[0])
    return found


PRESETS = {
    "AttnLRP": (composites.AttnLRP(), ["LRP0", "LRP0"], "LRP0", "LRP0"),
    "Epsilon": (composites.Epsilon(), ["Epsilon", "Epsilon"], "Epsilon", "Norm"),
    "EpsilonPlus": (composites.EpsilonPlus(), ["ZPlus", "ZPlus"], "Epsilon", "Norm"),
    "EpsilonPlusFlat": (
        composites.EpsilonPlusFlat(),
        ["Flat", "ZPlus"],
        "Epsilon",
        "Norm",
    ),
    "EpsilonGammaBox": (
        composites.EpsilonGammaBox(-1, 1),
        ["ZBox", "GeneralizedGamma"],
        "Epsilon",
        "Norm",
    ),
    "EpsilonAlpha2Beta1": (
        composites.EpsilonAlpha2Beta1(),
        ["AlphaBeta", "AlphaBeta"],
        "Epsilon",
        "Norm",
    ),
    "EpsilonAlpha2Beta1Flat": (
        composites.EpsilonAlpha2Beta1Flat(),
        ["Flat", "AlphaBeta"],
        "Epsilon",
        "Norm",
    ),
    "Uniform": (composites.Uniform(rules.Gamma()), ["Gamma", "Gamma"], "Gamma", "LRP0"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_gives_each_role_its_rule(name):
    composite, convolutions, dense, sums = PRESETS[name]
    found = chosen(composite)
    assert found["convolution"] == convolutions
    assert found["dense"] == [dense]
    assert found["sum"] == [sums]
    assert found["average"] == [sums]


def test_no_composite_is_the_default_one():
    assert chosen(None) == chosen(composites.Default())
    np.testing.assert_array_equal(
        jaxlrp.lrp(net)(X), jaxlrp.lrp(net, composites.Default())(X)
    )


def test_last_line_that_matches_wins():
    composite = composites.Epsilon().on("layer", rules.LRP0())
    assert chosen(composite)["convolution"] == ["LRP0", "LRP0"]
    composite = composite.on("convolution", rules.Flat()).on("dense", rules.Gamma())
    found = chosen(composite)
    assert (found["convolution"], found["dense"]) == (["Flat", "Flat"], ["Gamma"])


@pytest.mark.parametrize(
    ("conditions", "convolutions", "dense"),
    [
        ({"scope": "middle"}, ["LRP0", "Gamma"], ["LRP0"]),
        ({"scope": "*d*"}, ["LRP0", "Gamma"], ["Gamma"]),
        ({"scope": "nowhere"}, ["LRP0", "LRP0"], ["LRP0"]),
        ({"first": True}, ["Gamma", "LRP0"], ["LRP0"]),
        ({"first": True, "scope": "middle"}, ["LRP0", "LRP0"], ["LRP0"]),
        ({"primitive": "dot_general"}, ["LRP0", "LRP0"], ["Gamma"]),
        ({"primitive": "conv_general_dilated"}, ["Gamma", "Gamma"], ["LRP0"]),
    ],
)
def test_conditions_of_a_line(conditions, convolutions, dense):
    def f(x):
        h = jax.nn.relu(conv(x))
        with jax.named_scope("middle"):
            h = conv(h)
        with jax.named_scope("head"):
            return h.mean((1, 2)) @ W

    composite = composites.AttnLRP().on("layer", rules.Gamma(), **conditions)
    found = chosen(composite, f)
    assert (found["convolution"], found["dense"]) == (convolutions, dense)


def test_composite_is_not_changed_by_adding_to_it():
    composite = composites.Epsilon()
    before = str(composite)
    composite.on("layer", rules.LRP0())
    composite.named("other")
    assert str(composite) == before


def test_composite_is_printed_line_by_line():
    composite = composites.AttnLRP().on(
        "dense", rules.Gamma(0.1), first=True, scope="a*", primitive="dot_general"
    )
    lines = str(composite.named("mine")).splitlines()
    assert lines[0] == "mine"
    assert lines[1].split() == ["layer", "LRP0()"]
    assert lines[2].endswith("[first, scope=a*, primitive=dot_general]")
    assert "Gamma(gamma=0.1" in lines[2]


def test_composite_is_a_pytree_of_numbers():
    composite = composites.EpsilonGammaBox(-1.0, 1.0, epsilon=1e-3, gamma=0.5)
    leaves, tree = jax.tree.flatten(composite)
    assert {-1.0, 1.0, 1e-3, 0.5} <= set(leaves)
    assert jax.tree.unflatten(tree, leaves) == composite


def test_composite_can_be_an_argument_of_a_compiled_function():
    traces = []

    @jax.jit
    def explain(composite, x):
        traces.append(composite)
        return jaxlrp.lrp(net, composite)(x)

    for gamma in (0.1, 1.0):
        composite = composites.Uniform(rules.GeneralizedGamma(gamma))
        expected = jaxlrp.lrp(net, composite)(X)
        np.testing.assert_allclose(
            explain(composite, X), expected, rtol=1e-4, atol=1e-5
        )
    assert len(traces) == 1


@pytest.mark.parametrize("role", sorted(composites.ALLOWED))
def test_default_of_a_role_is_allowed_for_it(role):
    assert isinstance(composites.DEFAULTS[role], composites.ALLOWED[role])
    assert set(composites.DEFAULTS) == set(composites.ALLOWED)


ROLES = {
    "convolution": net,
    "dense": net,
    "average": net,
    "sum": net,
    "activation": lambda x: jnp.tanh(x @ W),
    "normaliser": lambda x: x / jnp.sqrt((x * x).mean(-1, keepdims=True)),
    "quotient": lambda x: (x @ W) / (1 + (x @ W[:, ::-1]) ** 2),
    "softmax": jax.nn.softmax,
    "bilinear": lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, x[..., ::-1]),
    "product": lambda x: (x @ W) * jax.nn.sigmoid(x @ W[:, ::-1]),
    "scale": lambda x: x * jnp.arange(1.0, 5.0)[:, None, None],
    "shift": lambda x: x + jnp.arange(1.0, 5.0)[:, None, None],
    "selection": lambda x: x.max(-1),
}


# Every role with every rule that it takes.
CHOICES = [
    (role, rules.Epsilon if rule is rules.LayerRule else rule)
    for role, allowed in composites.ALLOWED.items()
    for rule in allowed
]
HOLDING = ("normaliser", "quotient")


@pytest.mark.parametrize(("role", "rule"), CHOICES)
def test_every_allowed_rule_runs(role, rule):
    composite = composites.AttnLRP().on(role, rule())
    # Relevance reaches the input past the role as well.
    f = lambda x: (ROLES[role](x).ravel()[:9], x.ravel()[:9])  # noqa: E731
    assert role in chosen(composite, f) or rule is rules.Detach
    for target in ("all", lambda out: out):
        found = jaxlrp.lrp(f, composite, target=target)(X)
        assert np.isfinite(found).all() and np.abs(found).max() > 0


@pytest.mark.parametrize(
    ("role", "rule"),
    [(a, b) for a, b in CHOICES if b is not rules.Detach or a in HOLDING],
)
def test_relevance_that_is_the_output_is_the_target_all(role, rule):
    """Seeds as a multiple of the output and as plain relevance are one rule."""
    weights = np.cos(np.arange(50.0)).astype("float32")

    def f(x):
        y = ROLES[role](x)
        return y.ravel()[:50] * weights[: y.size]

    composite = composites.AttnLRP().on(role, rule())
    plain, multiple = (
        jaxlrp.lrp(f, composite, target=t)(X) for t in (lambda out: out, "all")
    )
    scale = np.abs(multiple).max()
    np.testing.assert_allclose(plain / scale, multiple / scale, rtol=1e-4, atol=1e-5)
