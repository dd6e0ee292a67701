"""Which assignment wins: roles, scopes, primitives, depth, activations, together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.composites import Place

W = [jnp.eye(3) * (i + 1.0) for i in range(4)]
X = jnp.array([1.0, -2.0, 3.0])


def mlp(x):
    for i, w in enumerate(W):
        with jax.named_scope(f"layer{i}"):
            x = x @ w
            x = jnp.tanh(x) if i < 3 else x
    return x


def layer_rules(f, composite):
    rows = jaxlrp.plan(f, composite)(X).rows
    return [row.rule for row in rows if row.role == "dense"]


def with_rule(rule=rules.Flat(), **conditions):  # noqa: B008
    return composites.AttnLRP().on("dense", rule, **conditions)


CASES = {
    "first": ({"first": True}, "1000"),
    "depth": ({"depth": (1, 3)}, "0110"),
    "depth from": ({"depth": (2, None)}, "0011"),
    "depth to": ({"depth": (None, 2)}, "1100"),
    "scope": ({"scope": "layer[13]"}, "0101"),
    "activated": ({"activated": True}, "1110"),
    "not activated": ({"activated": False}, "0001"),
    "primitive": ({"primitive": "dot_general"}, "1111"),
    "other primitive": ({"primitive": "conv_general_dilated"}, "0000"),
    "both": ({"depth": (1, None), "activated": True}, "0110"),
    "all": ({"depth": (0, 2), "scope": "*1", "primitive": "dot_general"}, "0100"),
}


@pytest.mark.parametrize("name", CASES)
def test_conditions(name):
    conditions, expected = CASES[name]
    found = layer_rules(mlp, with_rule(**conditions))
    assert "".join("01"[r == "Flat(epsilon=1e-06)"] for r in found) == expected


def test_the_last_line_that_matches_wins_whatever_its_conditions():
    narrow, wide = rules.Flat(), rules.Gamma(0.1)
    base = composites.AttnLRP()
    last_is_wide = base.on("dense", narrow, scope="layer0").on("layer", wide)
    last_is_narrow = base.on("layer", wide).on("dense", narrow, scope="layer0")
    assert layer_rules(mlp, last_is_wide) == [str(wide)] * 4
    assert layer_rules(mlp, last_is_narrow) == [str(narrow), *[str(wide)] * 3]


def test_a_plan_shows_which_line_won():
    composite = composites.Epsilon().on("dense", rules.Flat(), first=True, scope="l*")
    rows = jaxlrp.plan(mlp, composite)(X).rows
    assert [r.won for r in rows if r.role == "dense"] == [
        "dense [first, scope=l*]",
        *["layer"] * 3,
    ]
    assert {r.won for r in rows if r.role == "activation"} == {"default"}
    printed = str(jaxlrp.plan(mlp, composite)(X))
    assert sum("[first, scope=l*]" in line for line in printed.splitlines()) == 1


def test_depth_is_the_longest_way():
    """A projection shortcut is as deep as its own input, what follows as the branch."""

    def f(x):
        return ((x @ W[0]) @ W[1] + x @ W[2]) @ W[3]

    found = layer_rules(f, with_rule(depth=(2, None)))
    assert found == ["LRP0()", "LRP0()", "LRP0()", "Flat(epsilon=1e-06)"]


def test_layers_of_a_loop_count_once():
    def f(x):
        x = lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, jnp.stack(W))[0]
        return x @ W[0]

    assert layer_rules(f, with_rule(depth=(1, 2))) == ["LRP0()", "Flat(epsilon=1e-06)"]
    with jax.enable_x64(True):
        relevance = jaxlrp.lrp(f, with_rule(depth=(0, 1)), target="all")(X)
    assert np.isfinite(relevance).all()


def test_equal_blocks_are_read_once_where_depth_plays_no_part():
    """Depth tells equal blocks apart; only composites that ask for it pay for that."""

    @jax.jit
    def block(x):
        for w in W:
            x = jnp.tanh(x @ w + 1.0) * 2.0 - jnp.tanh(x)
        return x

    f = lambda x: block(block(x))  # noqa: E731
    explain = [
        jaxlrp.lrp(f, with_rule(rules.LRP0(), **c), target="all")(X)
        for c in ({}, {"depth": (2, None)})
    ]
    np.testing.assert_allclose(explain[0], explain[1], rtol=1e-5)
    assert layer_rules(f, with_rule(depth=(4, None)))[:5] == [
        *["LRP0()"] * 4,
        "Flat(epsilon=1e-06)",
    ]


def test_not_activated_where_something_else_reads_the_result():
    def f(x):
        h = x @ W[0]
        return jax.nn.relu(h) + h

    assert layer_rules(f, with_rule(activated=True)) == ["LRP0()"]


def test_a_group_of_all_roles():
    composite = composites.Composite("none").on("any", rules.Detach())
    for role in composites.ALLOWED:
        assert composite.rule(Place(role)) == rules.Detach()


def test_scope_that_matches_nothing_is_named_with_its_nearest():
    composite = with_rule(scope="*layr2*")
    with pytest.raises(ValueError, match=r"scope: '\*layr2\*'.*nearest: 'layer2'"):
        jaxlrp.lrp(mlp, composite)(X)
    with pytest.raises(ValueError, match="0 scopes and the 0 .* of f; no layer"):
        jaxlrp.lrp(lambda x: x @ W[0], composite)(X)
    with pytest.raises(ValueError, match=r"scope: '\*layr2\*'.*nearest: 'layer2'"):
        jaxlrp.plan(mlp, composite)(X)


@pytest.mark.whole
@pytest.mark.parametrize(
    "depth", [3, (1, 2, 3), ("a", None), (2, 2), (None, 0), (-1, 2), (True, None)]
)
def test_depth_that_is_no_pair(depth):
    with pytest.raises(ValueError, match="depth: got"):
        with_rule(depth=depth)


def test_conditions_are_printed():
    composite = with_rule(first=True, scope="a*", depth=(1, None), activated=False)
    assert "[first, scope=a*, depth=(1, None), activated=False]" in str(composite)


def test_conditions_that_cannot_be_met_are_refused():
    with pytest.raises(ValueError, match="primitive: got 'dot'.*'dot_general'"):
        with_rule(primitive="dot")
    with pytest.raises(ValueError, match="activated: got 'yes'"):
        with_rule(activated="yes")
